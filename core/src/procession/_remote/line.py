"""A connected socket before it is a channel: the handshake, with bounds and without waiting.

Until the other side has proved that it knows the key, nothing of what it sends is believed:
a message longer than a handshake's own is an error as soon as its length was read, memory is
taken for what has arrived and not for what was announced, and no operation blocks.
"""

from __future__ import annotations

import select
import socket
import sys
from time import monotonic

from procession._channels.stream_channel import StreamChannel, pack_length
from procession._ground.waiting import LONGEST_SLEEP
from procession._remote.address import is_of_hosts
from procession._remote.handshake import LONGEST
from procession._remote.host_channel import HostChannel
from procession.errors import AuthenticationError, EndOfConnectionError, HandshakeTimeoutError

TYPE_CHECKING = False  # importing typing would bring `re` and more into every child
if TYPE_CHECKING:
    from procession._contracts.channel import Channel
    from procession._remote.handshake import Steps

#: How long the other side may take for the whole handshake, in seconds.
HANDSHAKE_SECONDS = 10.0

#: What to poll for, as `select.POLLIN` and `POLLOUT`, which Windows does not have.
if sys.platform == "win32":
    IN, OUT = 1, 4
else:
    IN, OUT = select.POLLIN, select.POLLOUT


def missing(received: bytes | bytearray, limit: int = LONGEST) -> int:
    """Return how many more bytes complete the message of which *received* has come.

    While the length itself is incomplete, that is what is missing of it. Raises
    `AuthenticationError` when more than *limit* bytes are announced.
    """
    if len(received) < 4:
        return 4 - len(received)
    length = int.from_bytes(received[:4], "big", signed=True)
    if not 0 <= length <= limit:
        raise AuthenticationError(
            f"bad message length: {length} bytes are announced, and a handshake has at most {limit}"
        )
    return 4 + length - len(received)


class Line:
    """A connected stream socket, taken over, which carries messages and never blocks.

    One that is encrypted is another class with the same methods: the handshake does not
    look below them. Threads: one at a time. Close it, or make it a channel.
    """

    def __init__(self, peer: socket.socket, silence: float) -> None:
        """*silence* is the channel's, in seconds, if the other side may be on another host."""
        self._socket = peer
        self._silence = silence
        self._received = bytearray()
        self._unsent = b""
        #: What to poll for when there was nothing, or no room.
        self.wants = OUT
        #: Whether the other side has done anything.
        self.heard = False
        peer.setblocking(False)

    def fileno(self) -> int:
        """Return the descriptor to poll."""
        return self._socket.fileno()

    def send(self, message: bytes) -> None:
        """Take *message* to be sent by `flush`."""
        self._unsent += pack_length(len(message)) + message

    def flush(self) -> bool:
        """Send what can be sent now; return whether that was all. Raises `OSError`."""
        while self._unsent:
            try:
                sent = self._socket.send(self._unsent)
            except BlockingIOError:
                self.wants = OUT
                return False
            self._unsent = self._unsent[sent:]
        return True

    def receive(self) -> bytes | None:
        """Return the next message, or None when it is not there as a whole yet.

        Takes nothing of what comes after it. Raises `EndOfConnectionError` when the other
        side has hung up, and `AuthenticationError` for a message that is too long.
        """
        while want := missing(self._received):
            try:
                more = self._socket.recv(want)
            except BlockingIOError:
                self.wants = IN
                return None
            except ConnectionResetError:
                continue  # said once, before what the other side has sent to us, or the end
            if not more:
                raise EndOfConnectionError(
                    "the other side has hung up in the middle of the handshake"
                )
            self._received += more
        return self._take()

    def _take(self) -> bytes:
        """Return the message that has come, and begin with the next one."""
        message = bytes(self._received[4:])
        self._received.clear()
        self.heard = True
        return message

    def channel(self) -> Channel:
        """Return the channel that this line becomes; it owns the socket from now on."""
        self._socket.setblocking(True)
        silence = self._silence if is_of_hosts(self._socket) else None
        fd = self._socket.detach()
        if silence is None:
            return StreamChannel((fd,), (fd,))
        return HostChannel((fd,), (fd,), silence)

    def close(self) -> None:
        """Hang up. Idempotent."""
        self._socket.close()


class Handshake:
    """The handshake over one line, as far as it has come.

    *deadline* is when it has to be through, by `time.monotonic`; None while the other side
    need not have begun. Closing it closes the line.
    """

    def __init__(self, line: Line, steps: Steps, deadline: float | None) -> None:
        self.line = line
        self.deadline = deadline
        self._steps = steps
        self._listens = False
        self._is_through = False

    def advance(self) -> bool:
        """Go as far as is possible without waiting; return whether it is through.

        Raises `AuthenticationError` or `EndOfConnectionError` when it has failed; the
        other side has been told then, as far as it listens. The line is closed then.
        """
        try:
            while not self._is_through:
                received = None
                if self._listens:
                    received = self._receive()
                    if received is None:
                        return False
                try:
                    message = self._steps.send(received)
                except StopIteration:
                    self._is_through = True
                    break
                self._listens = message is None
                if message is not None:
                    self.line.send(message)
            return self.line.flush()
        except AuthenticationError:
            self._send_rest()
            self.close()
            raise
        except (BrokenPipeError, ConnectionResetError) as error:
            self.close()
            raise EndOfConnectionError(
                "the other side has hung up in the middle of the handshake"
            ) from error
        except BaseException:
            self.close()
            raise

    def _receive(self) -> bytes | None:
        """Return the next message, or None; then everything was sent that can be sent now.

        If it has come already, what is to be sent goes together with the answer.
        """
        received = self.line.receive()
        if received is None and self.line.flush():
            received = self.line.receive()
        return received

    def _send_rest(self) -> None:
        """Send, if there is room, what the other side needs to know why it is refused."""
        try:
            self.line.flush()
        except (OSError, AuthenticationError):
            pass  # it has gone, and will not ask

    @property
    def wants(self) -> int:
        """What to poll the line for before `advance` is of use again."""
        return self.line.wants

    def check(self, now: float) -> None:
        """Raise `HandshakeTimeoutError` when the deadline is over at time *now*."""
        if self.deadline is not None and now >= self.deadline:
            self.close()
            silent = "has not finished" if self.line.heard else "has sent nothing for"
            raise HandshakeTimeoutError(
                f"the other side {silent} the handshake in time; nothing it has sent was used"
            )

    def finish(self, seconds: float = HANDSHAKE_SECONDS) -> Channel:
        """Wait until it is through, and return the channel.

        Once the other side has begun it has *seconds* left, or until the deadline if that is
        sooner. Raises like `advance` and `check`.
        """
        if sys.platform == "win32":
            raise OSError("waiting for a handshake needs poll(), which Windows does not have")
        while not self.advance():
            if self.line.heard and self.deadline is None:
                self.deadline = monotonic() + seconds
            poller = select.poll()
            poller.register(self.line, self.wants)
            if self.deadline is None:
                poller.poll(LONGEST_SLEEP * 1000)
            else:
                left = min(self.deadline - monotonic(), LONGEST_SLEEP)
                if not poller.poll(max(0.0, left) * 1000):
                    self.check(monotonic())
        return self.line.channel()

    def close(self) -> None:
        """Give up: hang up. Idempotent."""
        self._steps.close()
        self.line.close()
