"""Counting the identifiers of Python sources: what an indexing child does.

The same functions count in a child and in one process alone, which is what makes the
results comparable. Imports what tokenizing needs and nothing of procession.
"""

from __future__ import annotations

import io
import os
import signal
import sys
import tokenize
import warnings
from collections import Counter
from keyword import kwlist
from token import NAME

TYPE_CHECKING = False  # importing typing would bring more than this module needs
if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import Final

    from procession.queues import Queue

__all__ = ["BATCH", "DONE", "READY", "Tally", "peak_memory", "serve"]

# What an answer is about; each is a tuple of one of these, the child's name and a payload.
READY: Final = "ready"
BATCH: Final = "batch"
DONE: Final = "done"

_UNREADABLE: Final = (OSError, SyntaxError, tokenize.TokenError, ValueError, LookupError)
"""What reading, decoding (ValueError, LookupError) and tokenizing raise for a bad file."""


class Tally:
    """What was found in some files. Equal to another one that found the same."""

    __slots__ = ("counts", "failures", "files", "size")

    def __init__(self) -> None:
        self.files = 0
        self.size = 0
        self.counts: Counter[str] = Counter()
        self.failures: dict[str, str] = {}

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Tally):
            return NotImplemented
        return (self.files, self.size, self.counts, self.failures) == (
            other.files,
            other.size,
            other.counts,
            other.failures,
        )

    __hash__ = None  # type: ignore[assignment] # it changes

    def read(self, paths: Iterable[str]) -> None:
        """Count the identifiers of these files.

        A file that cannot be read, decoded or tokenized to its end contributes nothing to
        the counts; it is among the `failures`, with the reason, and among the `files`.
        """
        for path in paths:
            self.files += 1
            try:
                with open(path, "rb") as file:
                    source = file.read()
                self.size += len(source)
                self.counts.update(_count(source))
            except _UNREADABLE as error:
                self.failures[path] = _reason(error)

    def add(self, other: Tally) -> None:
        """Add what another one, of other files, has found."""
        self.files += other.files
        self.size += other.size
        self.counts.update(other.counts)
        self.failures.update(other.failures)


def serve(name: str, tasks: Queue, answers: Queue) -> None:
    """Count the files of each list that comes from *tasks*, until None comes.

    Answers once when it is ready, once for each list, and at the end with the most memory
    that this process has used.
    """
    # Ctrl-C goes to all processes of the terminal; the parent decides what becomes of us.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    # Old sources contain what the tokenizer warns about; that is not what we are here for.
    warnings.simplefilter("ignore")
    answers.put((READY, name, None))
    while (paths := tasks.get()) is not None:
        tally = Tally()
        tally.read(paths)
        answers.put((BATCH, name, tally))
    answers.put((DONE, name, peak_memory()))


def peak_memory() -> int | None:
    """Return the most memory this process has had resident, in bytes; None if unknown."""
    try:
        with open("/proc/self/status", "rb") as status:
            for line in status:
                if line.startswith(b"VmHWM:"):
                    return int(line.split()[1]) * 1024
    except OSError:
        pass  # not on Linux: the next best
    if sys.platform == "win32":
        return None
    import resource

    # On Linux this would not do: a process keeps its parent's peak through an exec.
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def _count(source: bytes) -> Counter[str]:
    encoding, _ = tokenize.detect_encoding(io.BytesIO(source).readline)
    lines = io.StringIO(source.decode(encoding), newline=None)
    # Iterating over the lines is faster than `readline`, and generate_tokens stops as well.
    tokens = tokenize.generate_tokens(iter(lines).__next__)
    counts = Counter([token[1] for token in tokens if token[0] == NAME])
    for word in kwlist:
        counts.pop(word, None)
    return counts


def _reason(error: Exception) -> str:
    if isinstance(error, OSError) and error.errno is not None:
        return os.strerror(error.errno)
    if isinstance(error, SyntaxError | tokenize.TokenError):
        return str(error.args[0])  # without the position, which comes in several forms
    return str(error)
