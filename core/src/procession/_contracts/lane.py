"""The contract of a lane: what a transport with atomic packets gives to a mailbox."""

from __future__ import annotations

from abc import abstractmethod

from procession._ground.handoff import Exportable

TYPE_CHECKING = False  # importing typing would bring `re` and more into every child
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from procession._contracts.channel import Buffer


class Lane(Exportable):
    """A kernel object that carries packets from many processes to many processes.

    A packet is sent and received whole or not at all, in one system call, without a
    lock, so nothing that happens to a process, SIGKILL included, harms the lane: what
    was sent stays until somebody receives it. Packets are received in the order in
    which they were sent. Nothing here ever waits.

    Any number of threads and processes may use a lane at once. A lane owns its
    descriptors; every process closes its own copy.
    """

    __slots__ = ()

    #: The longest packet, in bytes.
    limit: int
    #: Copies its second argument, of the same length, into its first one, and lets other
    #: threads run meanwhile; None where Python's own copying has to do.
    copy: Callable[[Buffer, Buffer], object] | None = None

    @abstractmethod
    def send(self, packet: bytes, kind: int = 0, /) -> bool:
        """Send *packet*, at most `limit` bytes, and return whether there was room.

        *kind*, 0 or 1, is handed to the receiver with it. Raises `OSError` when
        memory has run out; the packet was not sent then.
        """

    @abstractmethod
    def receive(self) -> tuple[bytes, int] | None:
        """Take the next packet and its kind; None when there is none.

        Raises `OSError` or `MemoryError` when memory has run out; the packet is still there then.
        """

    def receive_padded(self) -> bytes | None:
        """Like `receive`, with anything behind the packet, to save cutting it off.

        The last byte is below 128 for kind 0, and 128 or more for kind 1.
        """
        packet = self.receive()
        return None if packet is None else packet[0] + (b"\x80" if packet[1] else b"\0")

    def send_many(self, packets: Sequence[bytes], /) -> int:
        """Send *packets*, of kind 0, one after the other; return for how many there was room.

        No other sender's packet need come between. Killed meanwhile, this process has sent the
        first of them, or none. Raises like `send` for the first one only: what keeps the next
        one from being sent is told by the next call.
        """
        sent = 0
        try:
            while sent < len(packets) and self.send(packets[sent]):
                sent += 1
        except (OSError, MemoryError):
            if not sent:
                raise
        return sent

    def receive_many(self, most: int, /) -> list[bytes]:
        """Take up to *most* packets that are there, each as `receive_padded` returns it.

        Killed meanwhile, this process takes at most these along. What keeps it from taking any
        but the first one is told by the next call.
        """
        packets: list[bytes] = []
        try:
            while len(packets) < most and (packet := self.receive_padded()) is not None:
                packets.append(packet)
        except (OSError, MemoryError):
            if not packets:
                raise
        return packets

    @abstractmethod
    def pending(self) -> int:
        """Return how many packets were sent and not yet received, as the kernel knows it."""

    def counters(self) -> tuple[int, int, int] | None:
        """Return where in a file those who look from outside find how many packets there are.

        That is a descriptor of the file, which stays the lane's, and two places in it, in
        bytes: of the number of packets that were ever sent, and of that of those received,
        each of four bytes that wrap around. None where FIONREAD of `fileno` tells it.
        """
        return None

    @abstractmethod
    def fileno(self) -> int:
        """Return a descriptor that is readable while a packet is there."""

    @abstractmethod
    def close(self) -> None:
        """Give this process's descriptors back. Idempotent; others are not affected."""
