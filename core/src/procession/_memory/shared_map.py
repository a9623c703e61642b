"""Memory without a name that processes share: gone with the last of them, however they end.

The memory lies in a file without a name. All its pages are reserved when it is made, so
that a machine without memory is an error there and never a SIGBUS later, and the file is
sealed: nobody who is handed its descriptor can cut pages off under the others.
"""

from __future__ import annotations

import mmap
import os
import sys
from _weakref import ref  # `weakref` would bring more

from procession._ground.anonymous_file import above_standard
from procession._ground.handoff import Exportable
from procession._memory.memory_errors import explain, refuse_more_than_there_is

TYPE_CHECKING = False  # importing typing would bring `re` and more into every child
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Self

    from procession._ground.handoff import Handoff, Recipe, Takeover

_IDENTITY_BYTES = 16
#: How much is reserved at once, in bytes: some milliseconds.
_PIECE = 4 << 20
#: From this size on, in bytes, looking for free memory costs nothing beside reserving it.
_WORTH_A_LOOK = 4 << 20

# The ones of this process by identity: what comes a second time is the one we have.
_known: dict[bytes, ref[SharedMap]] = {}


class SharedMap(Exportable):
    """Reserved memory, mapped into this process.

    It is mapped once in each process: attaching it again gives the same object. There is
    no ``close``: the descriptor is closed when the object is collected, the mapping
    lives as long as any view of it, and the memory as long as any process has one of the
    two. A forked child has it, too.

    Threads: any.
    """

    __slots__ = ("__weakref__", "_fd", "identity", "memory", "size")

    #: The mapping; views of it keep it alive.
    memory: mmap.mmap
    #: In bytes, as asked for; the system reserves whole pages.
    size: int
    #: The same in all processes that share it, and in no two at once.
    identity: bytes
    _fd: int

    def __init__(self, size: int, label: str = "procession-memory") -> None:
        """Reserve *size* bytes (at least one), all zero; *label* shows in ``/proc/PID/fd``.

        Raises `procession.errors.ResourceError` (an `OSError`) when memory or descriptors
        have run out, which names the resource and its limit.
        """
        try:
            fd = reserved_file(label, size)
            self._adopt(fd, size, os.urandom(_IDENTITY_BYTES))
        except OSError as error:
            raise explain(error, f"cannot have {size} bytes of shared memory") from error

    def _adopt(self, fd: int, size: int, identity: bytes) -> None:
        """Map *fd*, which is taken over."""
        self._fd = fd
        self.size = size
        self.identity = identity
        self.memory = map_file(fd, size)
        _known[identity] = ref(self)

    def __del__(
        self,
        close: Callable[[int], None] = os.close,
        known: dict[bytes, ref[SharedMap]] = _known,
    ) -> None:
        """Close the descriptor; the mapping goes with its last view."""
        try:
            identity = getattr(self, "identity", b"")
            found = known.get(identity)
            if found is not None and found() in (self, None):  # it is not attached anew by now
                known.pop(identity, None)
        finally:
            fd, self._fd = getattr(self, "_fd", -1), -1
            if fd >= 0:
                close(fd)

    def export(self, handoff: Handoff, /) -> Recipe:
        """See `Exportable.export`."""
        return handoff.lend(self._fd, self), self.size, self.identity

    @classmethod
    def attach(cls, recipe: Recipe, takeover: Takeover, /) -> Self:
        """See `Exportable.attach`. What this process has already is not mapped again."""
        token, size, identity = recipe
        known = _known.get(identity)
        found = None if known is None else known()
        if isinstance(found, cls):
            return found
        self = cls.__new__(cls)
        try:
            self._adopt(takeover.take(token), size, identity)
        except OSError as error:
            raise explain(error, f"cannot map {size} bytes of shared memory") from error
        return self


def reserved_file(label: str, size: int) -> int:
    """Return a descriptor of a file of *size* zero bytes without a name, in memory.

    Every page is reserved, and it can not be made shorter or longer any more where the
    platform has seals. Not inheritable; the caller owns it. Raises `OSError`.
    """
    if sys.platform != "linux":
        import tempfile

        with tempfile.TemporaryFile(prefix=label) as file:
            fd = os.dup(file.fileno())
    else:
        fd = os.memfd_create(label, os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    fd = above_standard(fd)
    try:
        reserve(fd, size)
        if sys.platform == "linux":
            import fcntl

            seals = fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SEAL
            fcntl.fcntl(fd, fcntl.F_ADD_SEALS, seals)
    except BaseException:
        os.close(fd)
        raise
    return fd


def reserve(fd: int, size: int, offset: int = 0) -> None:
    """Put memory behind every page of *size* bytes of the file *fd*, which grows if need be.

    They begin at *offset*, for which other platforms than Linux have no use. Raises `OSError`
    when there is not so much; some of it may be reserved then.
    """
    if size >= _WORTH_A_LOOK:
        refuse_more_than_there_is(size)
    if sys.platform != "linux":
        # No way to reserve pages: the best that such a platform has.
        os.ftruncate(fd, size)
        return
    # Piece by piece: a signal interrupts a reservation, which undoes it and begins again,
    # and under a steady rain of signals a long one would never end.
    for start in range(0, size, _PIECE):
        os.posix_fallocate(fd, offset + start, min(_PIECE, size - start))


def map_file(fd: int, size: int) -> mmap.mmap:
    """Return a mapping of the file; *fd* stays the caller's."""
    if sys.version_info >= (3, 13) and sys.platform != "win32":
        # Without a second descriptor, which the mapping would keep for itself.
        return mmap.mmap(fd, size, trackfd=False)
    return mmap.mmap(fd, size)
