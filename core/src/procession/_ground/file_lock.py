"""Locks between processes that the kernel releases when their holder dies."""

from __future__ import annotations

import fcntl
import os
import struct
import sys
import time
from _thread import RLock
from _weakref import ref  # `weakref` would bring more

from procession._ground.after_fork import in_forked_children

TYPE_CHECKING = False  # importing typing would bring `re` and more into every child
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any, ParamSpec, TypeAlias, TypeVar

    Arguments: TypeAlias = tuple[Any, ...]
    Calls: TypeAlias = tuple[Callable[..., Any], Arguments, Arguments, Arguments]
    P = ParamSpec("P")
    T = TypeVar("T")

# Linux's F_WRLCK and F_UNLCK; other platforms have other numbers, and no use for them here.
_WRITE_LOCK, _UNLOCK = 1, 2

# How often a lock that is wanted within a time limit is tried again; the kernel has no
# timed wait for it.
_RETRY = 0.001

# Those that this process has used, to be put in order in a forked child. They are the one piece
# of module state here: os.register_at_fork can not be undone. Not a WeakSet: to go through one
# would cost each forked child 40 pages.
_used: set[ref[LockFile]] = set()
_watches_forks = False


class InterruptedLockError(RuntimeError):
    """A signal handler wants the lock that the code which it interrupted holds."""


class LockFile:
    """One file and this process's own, private way to it, through which it is locked.

    POSIX record locks (`lockf`) belong to the process, and *any* close of *any*
    descriptor of the file drops them, also of a duplicate that some other thread hands
    to a child at that moment. So we lock through an open file description of our own,
    made by opening the file again under /proc, and never given to anybody: what others
    do with duplicates of the file's first descriptor does not touch it, and two
    `LockFile` of one file in one process exclude each other like two processes.

    The price is that a forked child inherits this description and with it, as far as
    the kernel knows, a lock that its parent holds. The child closes its copy before
    anything else can run in it, and opens its own when it first needs one.

    Where a file can not be opened again (no /proc, macOS), POSIX locks on the first
    descriptor are used; one process must then not close a duplicate of it while
    another of its threads holds a lock.

    The file's first descriptor is borrowed: whoever made it closes it, after `close`.
    """

    __slots__ = ("__weakref__", "_fd", "_locks", "_private", "_reopens")

    def __init__(self, fd: int) -> None:
        global _watches_forks
        if not _watches_forks:
            in_forked_children(_start_afresh)
            _watches_forks = True
        self._fd = fd
        self._private = -1
        self._reopens = sys.platform == "linux" and os.path.exists(_path(fd))
        self._locks: list[FileLock] = []

    def lock(self, number: int = 0) -> FileLock:
        """Return lock *number* of this file; the same number is the same lock everywhere.

        Number 0 is the fastest. Call this while no other thread uses the file.
        """
        lock = _UnusedFileLock(self, number)
        self._locks.append(lock)
        return lock

    def _note_use(self) -> None:
        """Have this file put in order in children that are forked from now on."""
        _used.add(ref(self, _used.discard))

    @property
    def private(self) -> bool:
        """Whether locks are bound to a description of our own, not to the process."""
        return self._reopens

    def descriptor(self) -> int:
        """Return the descriptor to lock through, opening it if need be.

        It is called with a thread lock of this file held, but not always the same one.
        """
        if sys.platform != "linux" or not self._reopens:
            return self._fd
        fd = self._private
        if fd < 0:
            fd = os.open(_path(self._fd), os.O_RDWR | os.O_CLOEXEC)
            if self._private >= 0:  # another thread was faster
                os.close(fd)
                return self._private
            self._private = fd
        return fd

    def forget(self) -> None:
        """Drop, in a forked child, what belongs to the parent."""
        fd, self._private = self._private, -1
        if fd >= 0:
            os.close(fd)
        for lock in self._locks:
            lock.forget()

    def close(self) -> None:
        """Close the private descriptor, once no thread of this process holds a lock."""
        for lock in self._locks:
            lock.retire()
        _used.discard(ref(self))
        fd, self._private = self._private, -1
        if fd >= 0:
            os.close(fd)


class FileLock:
    """A lock between threads and processes, released when its holder is killed.

    For short critical sections: whoever waits for it cannot be woken by a timeout
    (`run`) or looks again every millisecond (`run_within`). What it guards must be
    sound at every instruction, since a killed holder leaves it as it is. Made by
    `LockFile.lock`.

    Not re-entrant: a signal handler that wants the lock which the code it interrupted
    holds gets a `RuntimeError`, where it would otherwise wait for ever.
    """

    __slots__ = ("_busy", "_call", "_file", "_give", "_lock", "_retired", "_take", "_try")

    def __init__(self, file: LockFile, number: int) -> None:
        self._file = file
        # What the kernel is called with behind the descriptor, worked out once: it is called
        # twice whenever anything is done under the lock.
        self._call, self._take, self._try, self._give = _calls(file, number)
        # Its release tells us, by an error, when this thread does not hold it.
        self._lock = RLock()
        self._busy = False
        self._retired = False

    def run(self, critical: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Call *critical* with the lock held and return its result.

        A function and not a context manager, because a signal handler that raises
        must find no gap between taking the lock and promising to release it: a
        `with` of the interpreter's own lock has none, and releasing a file lock that
        we do not hold is harmless.
        """
        with self._lock:
            fd = self._descriptor()
            try:
                self._busy = True
                self._call(fd, *self._take)
                return critical(*args, **kwargs)
            finally:
                self._busy = False
                self._call(fd, *self._give)  # no error when it was not locked

    def run_within(
        self, deadline: float | None, critical: Callable[P, T], *args: P.args, **kwargs: P.kwargs
    ) -> T:
        """As `run`, but raise `BlockingIOError` when the lock is not free by *deadline*.

        *deadline* is a time of `time.monotonic`; None waits for ever.
        """
        if deadline is None:
            return self.run(critical, *args, **kwargs)
        try:
            if not self._lock.acquire(timeout=max(0.0, deadline - time.monotonic())):
                raise BlockingIOError("the lock is held by another thread")
            fd = self._descriptor()
            try:
                self._busy = True
                while not self._is_taken(fd):
                    left = deadline - time.monotonic()
                    if left <= 0:
                        raise BlockingIOError("the lock is held by another process")
                    time.sleep(min(left, _RETRY))
                return critical(*args, **kwargs)
            finally:
                self._busy = False
                self._call(fd, *self._give)
        finally:
            try:
                self._lock.release()
            except RuntimeError:
                pass  # not acquired; a signal handler that raises leaves us no other way to know

    def forget(self) -> None:
        """Drop the thread lock, which a thread of the parent may have held at the fork."""
        self._lock = RLock()
        self._busy = False

    def retire(self) -> None:
        """Refuse every further use, after the thread that holds the lock has left it."""
        with self._lock:
            self._retired = True

    def _descriptor(self) -> int:
        if self._retired:
            raise OSError("the lock is closed")
        if self._busy:
            raise InterruptedLockError("a signal handler wants the lock that it interrupted")
        return self._file.descriptor()

    def _is_taken(self, fd: int) -> bool:
        """Lock if it is free; return whether it was."""
        try:
            self._call(fd, *self._try)
        except (BlockingIOError, PermissionError):  # POSIX allows EAGAIN and EACCES
            return False
        return True


class _UnusedFileLock(FileLock):
    """One that this process has not used yet: nothing is to be dropped in a forked child.

    Whoever uses it first makes it one that is used, before the thread lock is taken.
    """

    __slots__ = ()

    def run(self, critical: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """See `FileLock.run`."""
        self._begin()
        return FileLock.run(self, critical, *args, **kwargs)

    def run_within(
        self, deadline: float | None, critical: Callable[P, T], *args: P.args, **kwargs: P.kwargs
    ) -> T:
        """See `FileLock.run_within`."""
        self._begin()
        return FileLock.run_within(self, deadline, critical, *args, **kwargs)

    def forget(self) -> None:
        """See `FileLock.forget`."""

    def retire(self) -> None:
        """See `FileLock.retire`."""
        self._begin()
        FileLock.retire(self)

    def _begin(self) -> None:
        self._file._note_use()
        self.__class__ = FileLock  # type: ignore[assignment]  # they have the same slots


def _calls(
    file: LockFile, number: int
) -> tuple[Callable[..., Any], Arguments, Arguments, Arguments]:
    """Return the function that locks a descriptor, and its arguments to wait, try and unlock."""
    if sys.platform == "win32":
        raise OSError("file locks need a POSIX system")
    wait, attempt = fcntl.LOCK_EX, fcntl.LOCK_EX | fcntl.LOCK_NB
    if not file.private:
        return fcntl.lockf, (wait, 1, number), (attempt, 1, number), (fcntl.LOCK_UN, 1, number)
    if number == 0:
        # flock() knows only whole files and costs two thirds of a record lock.
        return fcntl.flock, (wait,), (attempt,), (fcntl.LOCK_UN,)
    if sys.platform != "linux":
        raise OSError("this platform has no locks of descriptors")
    lock, unlock = _record(_WRITE_LOCK, number), _record(_UNLOCK, number)
    take, give = (fcntl.F_OFD_SETLKW, lock), (fcntl.F_OFD_SETLKW, unlock)
    return fcntl.fcntl, take, (fcntl.F_OFD_SETLK, lock), give


def _record(kind: int, number: int) -> bytes:
    """Return a ``struct flock`` for the one byte at offset *number*."""
    return struct.pack("hhqqi0q", kind, os.SEEK_SET, number, 1, 0)


def _path(fd: int) -> str:
    return f"/proc/self/fd/{fd}"


def _start_afresh() -> None:
    for reference in list(_used):
        file = reference()
        if file is not None:
            file.forget()
