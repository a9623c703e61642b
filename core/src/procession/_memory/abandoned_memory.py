"""Who removes the names of shared memory that nobody has removed.

The kernel forgets shared memory with a name only when it is unlinked, so somebody has to
do that for users who were killed, and it must not be done to users who are still there.
There is no process that keeps watch. Instead:

* Whoever uses a tracked segment holds a *lease*: a shared lock on its file, which the
  kernel releases when the last process that has the lease is gone, however that ends.
* Whoever creates a tracked segment *marks* its file, in its time of access, with the root
  of the family: the first of the processes that have started each other. (The kernel sets
  the other times on every first write to a page. The time of access is far in the future,
  and such a time no reader changes.)

A marked file without a lease whose root is dead or about to end is *abandoned*, and is
unlinked: by the root when it ends, by the last user when it ends after the root, or, when
everybody was killed, by the next process of this user that comes to use named segments.
A segment that all have closed but the root has not outlived can still be attached.

*Managed* segments are marked with the server of a `SharedMemoryManager` instead. They are
abandoned when that is dead, used or not.

What the standard library's users attach they use without a lease, and what they create has
no mark: the first may be unlinked under them, once the root is dead, the second never is.
"""

from __future__ import annotations

import atexit
import os
import stat
import sys

from procession._processes import inheritance

TYPE_CHECKING = False  # importing typing would bring `re` and more into every child
if TYPE_CHECKING:
    from collections.abc import Iterator

    from procession._processes.inheritance import Identity

#: Where the names are; the C library has the same path built in.
DIRECTORY = "/dev/shm"
#: Says that the file's time of access is a mark: the sticky bit, which means nothing for a
#: file, and these bits of the nanoseconds. The rest of them is the root's number.
_MARK = stat.S_ISVTX
_MAGIC = 90 << 22
_MAGIC_MANAGED = 91 << 22
_PID_BITS = 22
#: The seconds: far in the future, a part of the number of the namespace, the root's start.
_FUTURE = 1 << 61
_NAMESPACE_BITS = 20
_START_BITS = 40
_SECOND = 10**9

# The leases of this process, which end with it.
_leases: set[Lease] = set()
# The process that has looked for abandoned files and will do so at its end.
_began = -1


class Lease:
    """Says that this process, and those that are forked from it, use a segment."""

    __slots__ = ("_fd",)

    _fd: int

    def __init__(self, fd: int) -> None:
        """Take a lease on the file *fd*, which stays the caller's. Raises `OSError`."""
        if sys.platform != "linux":
            raise OSError("this platform has no leases")
        import fcntl

        # An open file of its own: that of *fd* lives on in the mapping, and would be locked
        # as long as anybody looks at the memory.
        self._fd = os.open(f"/proc/self/fd/{fd}", os.O_RDWR | os.O_CLOEXEC)
        _leases.add(self)
        fcntl.flock(self._fd, fcntl.LOCK_SH)  # waits for nobody but who is about to unlink it

    def end(self) -> None:
        """End it, for this process. Idempotent."""
        fd, self._fd = self._fd, -1
        if fd >= 0:
            _leases.discard(self)
            os.close(fd)


def mark(fd: int, time: int | None = None) -> None:
    """Say in the file *fd* that it is tracked, and by which family; or what *time* says."""
    if sys.platform == "win32":
        raise OSError("this platform has no marks")
    os.fchmod(fd, stat.S_IMODE(os.fstat(fd).st_mode) | _MARK)
    os.utime(fd, ns=(_encode(inheritance.family_root()) if time is None else time, 0))


def managed_mark() -> int:
    """Return what marks segments that go with this process."""
    pid = os.getpid()
    return _encode(inheritance.identify(pid) or (pid, 0), _MAGIC_MANAGED)


def _encode(root: Identity, magic: int = _MAGIC) -> int:
    """Return the time of access that says whose a segment is."""
    pid, started = root
    return (_FUTURE | _namespace() << _START_BITS | started) * _SECOND + (magic | pid)


def _decode(time: int) -> Identity | None:
    """Return the root that a time of access names; None if it is no mark of this namespace."""
    seconds, rest = divmod(time, _SECOND)
    root = rest & ((1 << _PID_BITS) - 1), seconds & ((1 << _START_BITS) - 1)
    return root if time in (_encode(root), _encode(root, _MAGIC_MANAGED)) else None


def begin() -> None:
    """Remove what killed families have left, once, and see to this process's own end."""
    global _began
    if _began != os.getpid():
        _began = os.getpid()
        remove_abandoned()
        atexit.register(_end, _began)


def end_family() -> None:
    """Leave nothing behind if this process, which ends, is the root of its family."""
    if sys.platform == "linux" and inheritance.family_root()[0] == os.getpid():
        remove_abandoned(ending=True)


def _end(creator: int) -> None:
    if os.getpid() == creator:  # exit handlers are inherited by forks
        for lease in list(_leases):
            lease.end()
        remove_abandoned(ending=True)


def remove_abandoned(*, ending: bool = False) -> list[str]:
    """Unlink the segments of this user that nobody uses and nobody will come for.

    *ending*: this process ends, so that it counts as dead if it is the root of its family.
    Returns their names.
    """
    removed: list[str] = []
    for entry, status in _segments():
        try:
            if _is_abandoned(status, ending) and _remove(entry.path, status):
                removed.append(entry.name)
        except OSError:
            continue  # it has gone meanwhile, or is in use
    return removed


def is_marked(name: str, time: int) -> bool:
    """Return whether there is a segment *name* that *time* marks. Needs no descriptor."""
    try:
        return os.stat(f"{DIRECTORY}/{name}", follow_symlinks=False).st_atime_ns == time
    except FileNotFoundError:
        return False


def remove_managed(time: int) -> None:
    """Unlink all segments that *time* marks. Who has them keeps the memory."""
    for entry, status in _segments():
        try:
            if status.st_atime_ns == time:
                _remove(entry.path, status)
        except OSError:
            continue  # it has gone meanwhile


def _segments() -> Iterator[tuple[os.DirEntry[str], os.stat_result]]:
    """Yield the files that have a mark."""
    try:
        entries = list(os.scandir(DIRECTORY))
    except OSError:
        return  # no such place here, or no descriptor to look at it with
    for entry in entries:
        try:
            status = entry.stat(follow_symlinks=False)
        except OSError:
            continue  # it has gone meanwhile
        if stat.S_ISREG(status.st_mode) and status.st_mode & _MARK:
            yield entry, status


def _is_abandoned(status: os.stat_result, ending: bool) -> bool:
    """Return whether a marked file is one of ours whose root is dead; leases aside."""
    if sys.platform == "win32" or status.st_uid != os.geteuid():
        return False
    root = _decode(status.st_atime_ns)
    if root is None:
        return False
    if root[0] == os.getpid() and root == inheritance.family_root():
        return ending
    return inheritance.identify(root[0]) != root


def _remove(path: str, status: os.stat_result) -> bool:
    """Unlink the file unless a lease keeps it; `OSError` if so."""
    if sys.platform == "win32":
        return False
    import fcntl

    fd = os.open(path, os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        if not _is_managed(status):
            # Who attaches it now waits for us, and sees then that it has no name any more.
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if not os.path.samestat(status, os.fstat(fd)) or not os.path.samestat(
            status, os.stat(path, follow_symlinks=False)
        ):
            return False  # another one has got the name meanwhile
        os.unlink(path)
    finally:
        os.close(fd)
    return True


def _is_managed(status: os.stat_result) -> bool:
    return status.st_atime_ns % _SECOND >> _PID_BITS == _MAGIC_MANAGED >> _PID_BITS


def _namespace() -> int:
    """Return a part of the number of the namespace that process numbers are of."""
    return os.stat("/proc/self/ns/pid").st_ino & ((1 << _NAMESPACE_BITS) - 1)
