"""One side of an encrypted stream, in memory: functions on bytes, without input or output."""

from __future__ import annotations

import ssl
from _thread import RLock

from procession._remote import tls_errors

TYPE_CHECKING = False  # importing typing would bring `re` and more into every child
if TYPE_CHECKING:
    from procession._contracts.channel import Buffer

#: What a record begins with: its kind, a version, and the length of what follows.
_HEADER = 5
#: What is received at once of a handshake: more than most have in all.
_FLIGHT = 16 << 10


class TlsEngine:
    """Encrypts what is to be sent and decrypts what was received, and knows the handshake.

    Nothing is read ahead: `wanted` says how many bytes may be received, so that after a
    message the next one is still in the socket, where select can see it. (Of a handshake all
    may be, for the other side must not go on before it was answered; `has_unread` tells
    whether it has.)

    Threads: one may encrypt while another decrypts; a short lock keeps OpenSSL's state
    together. What comes out of `encrypt` has to be sent in that order. Fork: of two copies of
    the state neither can be used once the other was; see `TlsChannel`.
    """

    def __init__(
        self, context: ssl.SSLContext, *, server: bool, name: str | None, peer: str
    ) -> None:
        """*server*: whether the other side has connected to this one.

        *name* is what the server's certificate has to say, if the context checks it; *peer* is
        what errors call the other side.
        """
        self.peer = peer
        self._incoming = ssl.MemoryBIO()
        self._outgoing = ssl.MemoryBIO()
        self._object = context.wrap_bio(
            self._incoming, self._outgoing, server_side=server, server_hostname=name
        )
        self._shaken = False
        self._lock = RLock()  # re-entrant: a signal handler may come between two steps
        # The record that is under way: its header as far as it has come; then, how long the
        # rest is, and how much of that is missing.
        self._header = b""
        self._length = 0
        self._missing = 0

    # -- receiving -----------------------------------------------------------------------

    def wanted(self, plain: int) -> int:
        """Return how many bytes may be received now, if *plain* decrypted ones are expected.

        Without any, as many as complete the record under way, or its header. A record has
        no more decrypted bytes than encrypted ones: so many may be received at once that
        nothing can be of a message after the expected one.
        """
        if not self._shaken:
            return _FLIGHT
        if self._missing:
            return self._missing + max(0, plain - self._length)
        return _HEADER - len(self._header) + plain

    def feed(self, data: bytes) -> None:
        """Take what was received; empty when the stream has ended."""
        with self._lock:
            if not data:
                self._incoming.write_eof()
                return
            self._incoming.write(data)
            self._follow(data)

    def _follow(self, data: bytes) -> None:
        """Keep track of where records begin."""
        start = 0
        while start < len(data):
            if self._missing:
                taken = min(self._missing, len(data) - start)
                self._missing -= taken
            else:
                taken = min(_HEADER - len(self._header), len(data) - start)
                self._header += data[start : start + taken]
                if len(self._header) == _HEADER:
                    self._length = self._missing = int.from_bytes(self._header[3:], "big")
                    self._header = b""
            start += taken

    def is_between_records(self) -> bool:
        """Return whether every record that has begun to come is there as a whole."""
        return not self._missing and not self._header

    def decrypt_into(self, view: memoryview) -> int:
        """Fill the beginning of *view*, which is not empty; return how many bytes that were.

        0 when more has to be received. Raises `EOFError` when the other side has said that
        it ends here, `BrokenConnectionError` when the stream ends without that or was
        tampered with, and `TlsError` when the other side has refused us.
        """
        with self._lock:
            try:
                count: int = self._object.read(len(view), view)  # type: ignore[assignment]
            except ssl.SSLWantReadError:
                return 0
            except ssl.SSLZeroReturnError:
                count = 0
            except ssl.SSLError as error:
                raise tls_errors.of_stream(error, self.peer) from error
        if not count:
            raise EOFError("the other end was closed")
        return count

    def has_unread(self) -> bool:
        """Return whether something was received that nobody has asked for yet."""
        return self._incoming.pending > 0 or self.pending()

    def pending(self) -> bool:
        """Return whether something was received and decrypted already."""
        return self._object.pending() > 0

    # -- sending -------------------------------------------------------------------------

    def encrypt(self, data: Buffer) -> bytes:
        """Return what to send for *data*, after everything that is still to be sent."""
        view = memoryview(data)
        with self._lock:
            try:
                while view:
                    view = view[self._object.write(view) :]
            except ssl.SSLError as error:
                raise tls_errors.of_stream(error, self.peer) from error
            return self._outgoing.read()

    def say_goodbye(self) -> bytes:
        """Return what tells the other side that nothing follows."""
        with self._lock:
            try:
                self._object.unwrap()
            except ssl.SSLError:
                pass  # the other side has not said so yet, and need not
            return self._outgoing.read()

    # -- the handshake -------------------------------------------------------------------

    def shake_hands(self) -> bool:
        """Go on with the handshake as far as possible; return whether it is through.

        Call `output` afterwards in any case. Raises `TlsError` when it has failed.
        """
        with self._lock:
            try:
                self._object.do_handshake()
            except ssl.SSLWantReadError:
                return False
            except ssl.SSLError as error:
                raise tls_errors.of_handshake(error, self.peer) from error
            self._shaken = True
            return True

    def output(self) -> bytes:
        """Return what there is to be sent now."""
        with self._lock:
            return self._outgoing.read()
