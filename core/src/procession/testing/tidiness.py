"""What a test process does so that tests can be told from what is always there.

Used by the conformance kit and by our own tests. All of it can be nested.
"""

from __future__ import annotations

import atexit
import os
import shutil
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path

from procession._ground.shared_words import reserve


@contextmanager
def plain_main_module() -> Iterator[None]:
    """Keep children from importing pytest's own script again, which costs more than they do."""
    main = vars(sys.modules["__main__"])
    file = main.pop("__file__", None)
    try:
        yield
    finally:
        if file is not None:
            main["__file__"] = file


@contextmanager
def temporary_files() -> Iterator[Path]:
    """Have this process and its children keep temporary files in a directory of their own.

    Gives the directory, which is the same each time, since what is kept for good may have its
    socket there. Its name is short, for sockets.
    """
    before = os.environ.get("TMPDIR")
    path = _directory()
    _keep_files_in(str(path))
    try:
        yield path
    finally:
        _keep_files_in(before)


@cache
def _directory() -> Path:
    """Make the directory of this process; it is removed after what libraries clean up at exit."""
    path = Path(tempfile.mkdtemp(prefix="pt-"))
    creator = os.getpid()

    @atexit.register  # now, so that it runs after what is registered later
    def remove() -> None:
        if os.getpid() == creator:  # exit handlers run in forked children, too
            shutil.rmtree(path, ignore_errors=True)

    return path


def _keep_files_in(path: str | None) -> None:
    if path is None:
        os.environ.pop("TMPDIR", None)
    else:
        os.environ["TMPDIR"] = path
    tempfile.tempdir = None


def have_memory_for_locks() -> None:
    """See to it that the locks of a test need no further file, which would stay open after it."""
    space, position = reserve(1)
    size = len(space.words)
    if position > size // 2:
        reserve(size - position - 8)  # the rest, behind the cache line of the one word
        space, _ = reserve(1)
    space.guard(0).run(bool)  # only some kinds of lock need it
