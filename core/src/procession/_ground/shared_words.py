"""Memory for the state of many small things between processes, and the locks that guard them."""

from __future__ import annotations

import mmap
import os
import sys
from _thread import RLock
from weakref import WeakValueDictionary

from procession._ground.after_fork import in_forked_children
from procession._ground.anonymous_file import anonymous_file
from procession._ground.file_lock import LockFile
from procession._ground.handoff import Exportable

TYPE_CHECKING = False  # importing typing would bring `re` and more into every child
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Self, TypeVar

    from procession._ground.file_lock import FileLock
    from procession._ground.handoff import Handoff, Recipe, Takeover

    Words = TypeVar("Words", bound="SharedWords")

# Bytes of one file. Only pages that were written to cost memory.
_SIZE = 1 << 20
_WORD = 8
# In words: what two processors write at the same time should not share a cache line.
_ALIGNMENT = 8


class SharedWords(Exportable):
    """An anonymous file, seen as words of eight bytes, each of them zero at first.

    One word is written in one step: a process killed at any instruction has written all of
    it or nothing. What needs more than one is done under `guard`, and committed by one word.

    A process that gets the same memory twice has one object for it (`attach` finds it),
    since the file locks in it exclude each other only then. Parts of it are handed out by
    `reserve`, once each: what is not used any more is free with the whole file. Owns its
    descriptor, which is closed with the last object in it.
    """

    __slots__ = ("__weakref__", "_fd", "_file", "_guards", "_map", "owners", "words")

    #: For a position that is owned by one thread of this process, that thread; 0 or nothing
    #: for all others. Whoever uses the position keeps it right; a forked child owns nothing.
    owners: dict[int, int]

    def __init__(self, fd: int) -> None:
        self._fd = fd
        try:
            if sys.version_info >= (3, 13):
                self._map = mmap.mmap(fd, _SIZE, trackfd=False)
            else:
                self._map = mmap.mmap(fd, _SIZE)  # keeps a duplicate of the descriptor
        except BaseException:
            self._fd = -1
            os.close(fd)
            raise
        self.words = memoryview(self._map).cast("Q")
        self._file = LockFile(fd)
        self._guards: dict[int, FileLock] = {}
        self.owners = {}

    @classmethod
    def make(cls) -> Self:
        """Return new memory; raises `OSError` when there is none or no descriptor."""
        fd = anonymous_file("procession-words")
        try:
            os.truncate(fd, _SIZE)
        except BaseException:
            os.close(fd)
            raise
        return cls(fd)

    def guard(self, number: int) -> FileLock:
        """Return the one lock of this *number*, in all processes; fastest for number 0."""
        return self._guards.get(number) or self._guards.setdefault(number, self._file.lock(number))

    def export(self, handoff: Handoff, /) -> Recipe:
        """See `Exportable.export`."""
        return (handoff.give(self._fd),)

    @classmethod
    def attach(cls, recipe: Recipe, takeover: Takeover, /) -> Self:
        """See `Exportable.attach`."""
        return _grounds.adopt(cls, takeover.take(recipe[0]))

    def __del__(self, is_finalizing: Callable[[], bool] = sys.is_finalizing) -> None:
        if is_finalizing():
            return  # the modules are half gone, and the kernel closes everything anyway
        fd = getattr(self, "_fd", -1)
        if fd >= 0:
            self._fd = -1
            self._file.close()
            os.close(fd)

    def fileno(self) -> int:
        """Return the file's descriptor, which stays this object's."""
        return self._fd


class _Grounds:
    """The shared words of this process: the file that is being filled, and all by identity.

    Threads: any. Fork: the child begins a file of its own, as its parent goes on filling
    this one.
    """

    def __init__(self) -> None:
        self._lock = RLock()
        self._known: WeakValueDictionary[tuple[int, int], SharedWords] = WeakValueDictionary()
        self._current: SharedWords | None = None
        self._used = 0
        self._watches_forks = False

    def reserve(self, count: int) -> tuple[SharedWords, int]:
        """See `reserve`."""
        with self._lock:
            self._watch_forks()
            if self._current is None or self._used + count > _SIZE // _WORD:
                self._current, self._used = SharedWords.make(), 0
                self._known[_identity(self._current.fileno())] = self._current
            position = self._used
            if sys.platform == "linux":
                # Memory now, or an error now: no write to it may end in SIGBUS.
                os.posix_fallocate(self._current.fileno(), position * _WORD, count * _WORD)
            self._used += -(-count // _ALIGNMENT) * _ALIGNMENT
            return self._current, position

    def adopt(self, kind: type[Words], fd: int) -> Words:
        """Return the object for the file of *fd*, which is taken over."""
        with self._lock:
            self._watch_forks()
            known = self._known.get(_identity(fd))
            if isinstance(known, kind):
                os.close(fd)
                return known
            made = kind(fd)
            self._known[_identity(fd)] = made
            return made

    def _watch_forks(self) -> None:
        if not self._watches_forks:
            in_forked_children(self._forget)
            self._watches_forks = True

    def _forget(self) -> None:
        self._lock = RLock()
        self._current, self._used = None, 0
        for words in list(self._known.values()):
            words.owners.clear()


_grounds = _Grounds()


def reserve(count: int) -> tuple[SharedWords, int]:
    """Return memory and the position in it of *count* words that are nobody else's, and zero.

    Raises `OSError` when memory or descriptors have run out.
    """
    if count > _SIZE // _WORD:
        raise OSError(f"{count} words are more than there are in one file")
    return _grounds.reserve(count)


def _identity(fd: int) -> tuple[int, int]:
    found = os.fstat(fd)
    return found.st_dev, found.st_ino
