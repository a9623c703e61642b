"""The transport `ring`."""

from __future__ import annotations

import os
import sys

from procession.plugin import Transport, TransportFeatures

from ._channel import RingChannel
from ._implementation import NATIVE, implementation, obstacle
from ._lane import RingLane
from ._layout import HEADER_SIZE
from ._memory import new_bell, new_stream_memory

TYPE_CHECKING = False  # every module of the parent makes a fork dearer
if TYPE_CHECKING:
    from typing import ClassVar

    from procession.plugin import Channel, Mailbox

#: The environment variable that says how many bytes each ring has.
VARIABLE = "PROCESSION_RING_SIZE"
#: And the key of ``[tool.procession]`` that says it where the variable does not.
KEY = "ring-size"
#: The throughput of small messages is the same from here on (measured), and what it costs to
#: make one, 0.5 ms for each 256 KiB, is not. Where arrays are sent, 1 MiB pays: a connection
#: becomes so large when the second message comes that is longer than it, or a very long one.
DEFAULT_SIZE = 256 << 10
DEFAULT_FULL_SIZE = 1 << 20
SMALLEST_SIZE = 16 << 10
LARGEST_SIZE = 1 << 30


class Ring(Transport):
    """Messages travel through shared memory, without the kernel as long as both are awake.

    *size*: the bytes of each ring, rounded up to a power of two; without it, what the
    environment variable ``PROCESSION_RING_SIZE`` says, or ``ring-size`` in the configuration
    file, or 256 KiB, and for connections 1 MiB from the second longer message on. Longer
    messages are streamed through, so that it limits nothing; it is how far a sender can be ahead.
    """

    name: ClassVar[str] = "ring"
    #: Messages up to a quarter of the ring are committed by one store.
    features: ClassVar[TransportFeatures] = TransportFeatures(
        atomic_up_to=SMALLEST_SIZE // 4, sizes=True
    )

    def __init__(self, *, size: int | None = None) -> None:
        """Raises `ValueError` for a size that no ring can have."""
        size = _configured_size() if size is None else _checked_size(size, "size")
        self._size = DEFAULT_SIZE if size is None else size
        self._full = DEFAULT_FULL_SIZE if size is None else size

    @classmethod
    def unavailable(cls) -> str | None:
        """See `Transport.unavailable`."""
        if sys.platform != "linux":
            return "anonymous shared memory that can be sealed (memfd), which only Linux has"
        return obstacle()

    @classmethod
    def details(cls) -> str:
        """See `Transport.details`: which implementation is in use."""
        if implementation() == NATIVE:
            return "compiled extension"
        return "pure Python (the compiled extension is not there, or not wanted)"

    def pair(self, *, duplex: bool = True, size: int | None = None) -> tuple[Channel, Channel]:
        """See `Transport.pair`."""
        full = self._full if size is None else _checked_size(size, "size")
        size = self._size if size is None else full
        if sys.platform == "win32":
            raise OSError("this platform has no Unix sockets")
        import _socket  # `socket` would bring much more

        opened: list[int] = []
        made: list[Channel] = []
        there = HEADER_SIZE + full if duplex else -1
        try:
            memory = _kept(opened, new_stream_memory(size, full, 1 + duplex))
            bell = _kept(opened, new_bell())
            back_bell = _kept(opened, new_bell()) if duplex else -1
            other_memory = _kept(opened, os.dup(memory))
            other_bell = _kept(opened, os.dup(bell))
            other_back_bell = _kept(opened, os.dup(back_bell)) if duplex else -1
            ends = _socket.socketpair(_socket.AF_UNIX, _socket.SOCK_STREAM)
            peer, other_peer = (_kept(opened, end.detach()) for end in ends)
            one = (memory, bell, back_bell, peer)
            other = (other_memory, other_back_bell, other_bell, other_peer)
            for descriptors, offsets in ((one, (0, there)), (other, (there, 0))):
                made.append(RingChannel(descriptors, offsets, new=not made))
                opened = [fd for fd in opened if fd not in descriptors]
        except BaseException:
            for channel in made:
                channel.close()
            for fd in opened:
                os.close(fd)
            raise
        return made[0], made[1]

    def mailbox(
        self, *, maxsize: int = 0, joinable: bool = False, size: int | None = None
    ) -> Mailbox:
        """See `Transport.mailbox`."""
        size = self._size if size is None else _checked_size(size, "size")
        # Not at the top: whoever makes no queue loads this transport, too.
        from procession.plugin import PacketMailbox

        return PacketMailbox(RingLane.create(size), maxsize=maxsize, joinable=joinable)


def _kept(opened: list[int], fd: int) -> int:
    """Return *fd*, which is closed with the rest of *opened* if making the pair fails."""
    opened.append(fd)
    return fd


def _configured_size() -> int | None:
    """Return the size that was chosen for this program, if any."""
    text = os.environ.get(VARIABLE)
    if not text:
        from procession.plugin import configured_number

        found = configured_number(KEY)
        return None if found is None else _checked_size(int(found[0]), found[1])
    try:
        size = int(text)
    except ValueError:
        raise ValueError(f"{VARIABLE} is {text!r}; a number of bytes is needed") from None
    return _checked_size(size, VARIABLE)


def _checked_size(size: int, name: str) -> int:
    """Return *size* rounded up to a power of two."""
    if not SMALLEST_SIZE <= size <= LARGEST_SIZE:
        raise ValueError(
            f"{name} is {size}; a ring has between {SMALLEST_SIZE} and {LARGEST_SIZE} bytes"
        )
    return 1 << (size - 1).bit_length()
