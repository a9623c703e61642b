"""A connected socket before it is an encrypted channel: the TLS handshake comes first."""

from __future__ import annotations

from procession._remote.line import IN, OUT, Line, missing
from procession._remote.tls_channel import TlsChannel
from procession.errors import (
    AuthenticationError,
    BrokenConnectionError,
    EndOfConnectionError,
    TlsError,
)

TYPE_CHECKING = False  # importing typing would bring `re` and more into every child
if TYPE_CHECKING:
    import socket

    from procession._contracts.channel import Channel
    from procession._remote.tls_engine import TlsEngine


class TlsLine(Line):
    """A line whose messages are encrypted; nothing is sent before the TLS handshake is through.

    Memory is taken for what has come: a record has at most 64 KiB, and OpenSSL limits what
    a handshake may say.
    """

    def __init__(self, peer: socket.socket, engine: TlsEngine, silence: float) -> None:
        """*engine* has not been used yet. *silence* is the channel's, in seconds."""
        super().__init__(peer, silence)
        self._engine = engine
        self._shaken = False
        self._output = b""

    def flush(self) -> bool:
        """See `Line.flush`. Raises `TlsError` when the TLS handshake fails, too."""
        while not self._shaken:
            try:
                self._shaken = self._engine.shake_hands()
            except TlsError:
                self._tell_why()
                raise
            self._output += self._engine.output()
            if not self._send_output():
                return False
            if not self._shaken and not self._feed():
                return False
        if self._unsent:
            self._output += self._engine.encrypt(self._unsent)
            self._unsent = b""
        return self._send_output()

    def _send_output(self) -> bool:
        while self._output:
            try:
                sent = self._socket.send(self._output)
            except BlockingIOError:
                self.wants = OUT
                return False
            self._output = self._output[sent:]
        return True

    def _feed(self) -> bool:
        """Receive what there is of a record; return whether that is as much as there will be."""
        while True:
            try:
                data = self._socket.recv(self._engine.wanted(0))
            except BlockingIOError:
                self.wants = IN
                return False
            except ConnectionResetError:
                continue  # said once, before what the other side has sent to us, or the end
            if not data and not self._shaken:
                raise EndOfConnectionError(
                    "the other side has hung up in the middle of the handshake"
                )
            self.heard = True
            self._engine.feed(data)
            # What comes first may be no record at all, as OpenSSL sees before there is one.
            if not data or not self._shaken or self._engine.is_between_records():
                return True

    def _tell_why(self) -> None:
        """Send what the other side needs to know why it is refused, if there is room."""
        try:
            self._output += self._engine.output()
            self._send_output()
        except OSError:
            pass  # it has gone, and will not ask

    def receive(self) -> bytes | None:
        """See `Line.receive`. Raises `TlsError` when the other side has refused us."""
        if not self._shaken:
            return None
        while want := missing(self._received):
            # To ask for what is not there costs as much as to decrypt it.
            if not self._engine.has_unread() and not self._feed():
                return None
            part = memoryview(bytearray(want))
            try:
                count = self._engine.decrypt_into(part)
            except (EOFError, BrokenConnectionError) as error:
                raise EndOfConnectionError(
                    "the other side has hung up in the middle of the handshake"
                ) from error
            self._received += part[:count]
            if not count and not self._feed():
                return None
        return self._take()

    def channel(self) -> Channel:
        """See `Line.channel`. Raises `AuthenticationError` when too much has come, and closes."""
        if self._engine.has_unread():
            self.close()
            raise AuthenticationError(
                f"{self._engine.peer} has gone on before the handshake was through"
            )
        return TlsChannel(self._socket.detach(), self._engine, self._silence)
