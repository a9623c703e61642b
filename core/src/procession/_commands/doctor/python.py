"""The interpreter: how it was built and started, its threads and its signals."""

from __future__ import annotations

import os
import pickle
import platform
import signal
import sys
import sysconfig
import threading
from typing import TYPE_CHECKING

from procession._commands.doctor.finding import Finding, Level

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

__all__ = ["build", "bytecode", "child_signal", "threads"]


def build() -> Iterator[Finding]:
    """Look at what the build of this interpreter has."""
    what = f"{platform.python_implementation()} {platform.python_version()} ({sys.executable})"
    usual = True
    if sys.platform == "linux" and not hasattr(os, "pidfd_open"):
        usual = False
        yield Finding(
            Level.PROBLEM,
            "Python build",
            f"{what} was built without os.pidfd_open",
            "use a Python that was built on a system with Linux 5.3 headers or newer",
        )
    if pickle.Pickler.__module__ != "_pickle":
        usual = False
        yield Finding(
            Level.WARNING,
            "Python build",
            f"{what} has no C implementation of pickle",
            "use a Python with the module _pickle: messages are many times slower without it",
        )
    for name, there, note in (
        ("free-threaded", sysconfig.get_config_var("Py_GIL_DISABLED"), "threads may serve as well"),
        ("a debug build", hasattr(sys, "gettotalrefcount"), "measure with a release build"),
        (
            "frozen",
            getattr(sys, "frozen", False),
            "call procession.freeze_support() first in the main module",
        ),
    ):
        if there:
            usual = False
            yield Finding(Level.NOTE, "Python build", f"{what} is {name}", note)
    if usual:
        yield Finding(Level.OK, "Python build", what)


def bytecode() -> Iterator[Finding]:
    """See whether the children that start afresh have to compile what they import."""
    if sys.dont_write_bytecode:
        yield Finding(
            Level.NOTE,
            "bytecode",
            "is not written (PYTHONDONTWRITEBYTECODE or -B): each child that starts afresh "
            "compiles every module that has none yet",
            "unset PYTHONDONTWRITEBYTECODE, or compile when the image is built: "
            "python -m compileall",
        )
    else:
        yield Finding(Level.OK, "bytecode", "is cached")


def child_signal() -> Iterator[Finding]:
    """See whether SIGCHLD is ignored, which this process inherited then."""
    if sys.platform == "win32":
        return
    if signal.getsignal(signal.SIGCHLD) == signal.SIG_IGN:
        yield Finding(
            Level.WARNING,
            "SIGCHLD",
            "is ignored: the kernel throws exit codes away, and exitcode says 255",
            "find who starts Python with SIGCHLD ignored, or call "
            "signal.signal(signal.SIGCHLD, signal.SIG_DFL) first",
        )
    else:
        yield Finding(Level.OK, "SIGCHLD", "is not ignored")


def threads(tasks: Path, allowed: int = 1) -> Iterator[Finding]:
    """See whether something started threads before the program could fork.

    *tasks* is where the kernel lists the threads of this process, *allowed* how many are its
    own. They come from what every Python program here imports: ``sitecustomize``, ``.pth``
    files, ``PYTHONSTARTUP``.
    """
    try:
        count = len(os.listdir(tasks))
    except OSError:
        count = threading.active_count()
    if count <= allowed:
        yield Finding(Level.OK, "threads at start", "none but the main one")
        return
    names = [each.name for each in threading.enumerate() if each is not threading.main_thread()]
    hooks = [
        name
        for name in ("sitecustomize", "usercustomize")
        if getattr(sys.modules.get(name), "__file__", None)
    ]
    shown = ", ".join(names) or "not made by Python"
    found = f"{count - allowed} besides the main one ({shown})"
    if hooks:
        found += f"; {', '.join(f'{name} is {sys.modules[name].__file__}' for name in hooks)}"
    yield Finding(
        Level.WARNING,
        "threads at start",
        found,
        "use the start methods 'forkserver' or 'spawn': locks that these threads hold would stay "
        "locked in a forked child",
    )
