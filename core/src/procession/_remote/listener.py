"""`Listener` and `Client`: connections between processes that are not parent and child."""

from __future__ import annotations

import errno
import os
import select
import socket
import sys
from _thread import RLock
from struct import pack
from time import monotonic
from weakref import WeakSet, finalize

from procession._choosing import limits
from procession._ground.after_fork import in_forked_children
from procession._ground.fork_gate import end_moment, moments
from procession._ground.resource_errors import explain
from procession._ground.waiting import LONGEST_SLEEP
from procession._remote import address as _address
from procession._remote.handshake import accepting, accepts_md5, connecting, welcomed, welcoming
from procession._remote.line import HANDSHAKE_SECONDS, Handshake, Line
from procession.connection import Connection
from procession.errors import AuthenticationError, ConnectionClosedError, HandshakeTimeoutError

TYPE_CHECKING = False  # importing typing would bring `re` and more into every child
if TYPE_CHECKING:
    from types import TracebackType
    from typing import Self, TypeVar

    from procession._remote.address import Address
    from procession.tls import Tls

    T = TypeVar("T")

#: The most handshakes that one listener carries on at once; a further one ends the oldest.
MOST_HANDSHAKES = 128
#: Clients are let in one after the other, so that none is half-way when `accept` returns, until
#: nothing has been heard of one for so long; for some time after that, side by side.
_PATIENCE = 0.5
_SIDE_BY_SIDE_SECONDS = 30.0


class Listener:
    """A place where other processes connect to, related to this one or not.

    *address*: ``(host, port)``, a path, or an abstract Unix name, with a NUL in front; None
    for one that nobody uses yet (see `address`), to which only processes of this user can
    connect. *family*: ``"AF_INET"``, ``"AF_INET6"`` or ``"AF_UNIX"``; None for that of the
    address. *backlog*: how many may wait to be accepted, as the kernel counts. *authkey*: a
    key that both sides must know; None lets everybody in, and who is let in can make this
    process run any code, as received objects are unpickled.

    *handshake_timeout*: how long, in seconds, a client may take to prove that it knows the
    key. *accept_md5*: whether clients of the standard library before Python 3.12 may use
    HMAC-MD5; None for what ``PROCESSION_ACCEPT_MD5`` says, or else True. *tls*: how all is
    encrypted (TCP only); None for not at all. *silence*: how long, in seconds (at least 3), the
    host of a client may owe an answer, or a client the rest of a message, before the connection
    counts as broken (TCP only); None for what *tls*, ``PROCESSION_SILENCE`` or the configuration
    says, or else 60. *recv_limit*: see `Connection.recv_limit`; None for what
    ``PROCESSION_RECV_LIMIT`` or the configuration says, or else any length.

    Raises `TypeError` and `ValueError` for what makes no sense and `OSError` for an address
    that cannot be had. Threads: any. Fork: both processes accept at the address then; a
    handshake under way is the parent's. The name of a socket in the file system is removed
    by `close`, when the object is collected or when the interpreter ends.
    """

    def __init__(
        self,
        address: Address | None = None,
        family: str | None = None,
        backlog: int = 1,
        authkey: bytes | None = None,
        *,
        handshake_timeout: float = HANDSHAKE_SECONDS,
        accept_md5: bool | None = None,
        tls: Tls | None = None,
        silence: float | None = None,
        recv_limit: int | None = None,
    ) -> None:
        if authkey is not None and not isinstance(authkey, bytes):
            raise TypeError("authkey should be a byte string")
        if family is None:
            family = "AF_UNIX" if address is None else _address.family_of(address)
            if address is None and not hasattr(socket, "AF_UNIX"):
                family = "AF_INET"
        if tls is not None:
            tls.check(family, server=True, authkey=authkey)
        self._tls = tls
        self._silence = limits.silence(silence, tls)[0]
        self._recv_limit = limits.recv_limit(recv_limit)
        self._authkey = authkey
        self._md5 = accepts_md5(accept_md5)
        self._seconds = handshake_timeout
        self._last_accepted: Address | None = None
        self._handshakes: dict[int, tuple[Handshake, Address]] = {}
        self._lock = RLock()
        self._moved = self._left = 0.0
        self._stalled = -_SIDE_BY_SIDE_SECONDS
        self._socket = _address.open_socket(family)
        try:
            self._remove = self._bind(
                _address.own_address(family) if address is None else address, address is None
            )
            self._socket.listen(backlog)
            self._socket.setblocking(False)
        except BaseException:
            self._socket.close()
            raise
        self._address: Address = self._socket.getsockname()
        self._closed = False
        #: Whether the socket is one that the process listens at that has forked this one.
        self._inherited = False
        _remember(_listeners, self)

    def _bind(self, address: Address, own: bool) -> finalize[[str, bool, int], Listener] | None:
        """Take the address; return what removes its name again, if it is in a file system."""
        _address.check_length(address)
        if self._socket.family != getattr(socket, "AF_UNIX", None) and os.name == "posix":
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        path = _address.path_of(address)
        try:
            self._socket.bind(address)
        except OSError as error:
            raise explain(error, f"cannot listen at {address!r}", path) or error from None
        if path is None:
            return None
        return finalize(self, _address.remove, path, own, os.getpid())

    @property
    def address(self) -> Address:
        """The address to connect to, with the port or the name that was chosen."""
        return self._address

    @property
    def last_accepted(self) -> Address | None:
        """The address of the client accepted last; None where that is not known."""
        return self._last_accepted

    def accept(self) -> Connection:
        """Wait for a client that knows the key, and return a connection to it.

        A client that fails ends the wait, too, and nothing of what it has sent is used:
        `procession.AuthenticationError` when it does not know the key, sends nonsense, is too
        slow (`HandshakeTimeoutError`) or fails to encrypt (`TlsError`), `EOFError` when it has
        gone. The listener goes on serving: call `accept` again. When a client stalls, others are
        let in beside it, so that it keeps the others waiting for half a second at most; beyond
        `MOST_HANDSHAKES` at once, the oldest has to go.

        Raises `OSError` when the listener is closed, also by another thread meanwhile, and
        when there is no descriptor for the connection.
        """
        if sys.platform == "win32":
            raise OSError("accepting needs poll(), which Windows does not have")
        with self._lock:
            self._come_back()
            try:
                while True:
                    accepted = self._turn()
                    if accepted is not None:
                        return accepted
            finally:
                self._left = monotonic()

    def _come_back(self) -> None:
        """Leave out the time since the last `accept`: nobody could go on meanwhile."""
        away = monotonic() - self._left
        for handshake, _ in self._handshakes.values():
            if handshake.deadline is not None:
                handshake.deadline += away

    def _turn(self) -> Connection | None:
        """Wait for anything to happen and deal with it; see `accept`."""
        if sys.platform == "win32":
            return None
        if self._closed:
            raise ConnectionClosedError("listener is closed")
        poller = select.poll()
        for fd, (handshake, _) in self._handshakes.items():
            poller.register(fd, handshake.wants)
        now = monotonic()
        if self._handshakes and now - self._moved >= _PATIENCE:
            self._stalled = now
        one_by_one = now - self._stalled >= _SIDE_BY_SIDE_SECONDS
        listening = self._socket.fileno()
        if not (one_by_one and self._handshakes):
            poller.register(listening, select.POLLIN)
        ready = {fd for fd, _ in poller.poll(self._pause(now, one_by_one))}
        for fd in ready - {listening}:
            accepted = self._advance(fd)
            if accepted is not None:
                return accepted
        self._expire(monotonic())
        return self._welcome() if listening in ready else None

    def _pause(self, now: float, one_by_one: bool) -> float:
        """Return how long to wait before looking again, in milliseconds."""
        if not self._handshakes:
            return LONGEST_SLEEP * 1000
        ends = [each.deadline for each, _ in self._handshakes.values() if each.deadline is not None]
        if one_by_one:
            ends.append(self._moved + _PATIENCE)
        return max(0.0, min(LONGEST_SLEEP, min(ends, default=now + LONGEST_SLEEP) - now)) * 1000

    def _advance(self, fd: int) -> Connection | None:
        """Go on with the handshake on *fd*; see `accept`."""
        handshake, peer = self._handshakes[fd]
        self._moved = monotonic()
        through = False
        try:
            through = handshake.advance()
            if not through:
                handshake.check(self._moved)
        except BaseException:
            del self._handshakes[fd]
            raise
        if not through:
            return None
        try:
            return self.welcome(handshake.line, peer)
        finally:
            del self._handshakes[fd]

    def _expire(self, now: float) -> None:
        """Raise for one handshake whose time is over."""
        for fd, (handshake, _) in list(self._handshakes.items()):
            try:
                handshake.check(now)
            except AuthenticationError:
                del self._handshakes[fd]
                self._stalled = now
                raise

    def _welcome(self) -> Connection | None:
        """Let the next client in; return its connection if it needs no handshake."""
        try:
            peer, address = self._next()
        except (BlockingIOError, ConnectionAbortedError):
            return None  # another process was quicker, or the client has gone
        except OSError as error:
            if self._closed or error.errno in (errno.EINVAL, errno.EBADF):
                raise ConnectionClosedError("listener is closed") from error
            raise explain(error, "cannot accept a connection") or error from None
        try:
            _address.check_user(peer, self._address)
            _address.tune(peer, self._silence)
            if self._tls is None:
                line = Line(peer, self._silence)
            else:
                line = self._tls.line(
                    peer, address, self._silence, server=True, authkey=self._authkey
                )
        except BaseException:
            peer.close()
            raise
        if self._authkey is not None:
            steps = accepting(bytes(self._authkey), md5=self._md5)
        elif self._tls is not None:
            steps = welcoming()
        else:
            return self.welcome(line, address)
        handshake = Handshake(line, steps, monotonic() + self._seconds)
        fd = line.fileno()
        self._handshakes[fd] = handshake, address
        accepted = self._advance(fd)  # a quick client is through already
        if accepted is not None:
            return accepted
        if len(self._handshakes) > MOST_HANDSHAKES:
            oldest, _ = self._handshakes.pop(next(iter(self._handshakes)))
            oldest.close()
            raise AuthenticationError(
                f"a client had to give way to newer ones before it had proved that it knows the "
                f"key: {MOST_HANDSHAKES} at once are under way here"
            )
        return None

    def _next(self) -> tuple[socket.socket, Address]:
        """Return the next client's socket and its address, without waiting for one."""
        accepted: tuple[socket.socket, Address] | None = None
        for alone in moments():
            try:
                accepted = self._socket.accept()
                _remember(_young, accepted[0])
            finally:
                if alone:
                    end_moment()
        assert accepted is not None
        return accepted

    def welcome(self, line: Line, address: Address) -> Connection:
        """Return the connection that *line*, whose handshake is through, becomes."""
        self._last_accepted = address
        return Connection.over(line.channel()).limit(*self._recv_limit)

    def close(self) -> None:
        """Stop listening; connections stay open. Idempotent; wakes threads that accept.

        A forked child closes its copy only, and waits for its own threads that accept there.
        """
        self._closed = True
        if not self._inherited:
            try:
                self._socket.shutdown(socket.SHUT_RD)
            except OSError:
                pass  # closed already, or not on this platform: nobody is to be woken then
        with self._lock:
            self._socket.close()
            self._hang_up()
            if self._remove is not None:
                self._remove()

    def _hang_up(self) -> None:
        """Give up every handshake."""
        for handshake, _ in self._handshakes.values():
            handshake.close()
        self._handshakes.clear()

    def _after_fork(self) -> None:
        """Begin with a free lock, in a forked child; the handshakes are the parent's."""
        self._lock = RLock()
        self._inherited = True
        # Not the steps: another thread may have been in the middle of one.
        for handshake, _ in self._handshakes.values():
            handshake.line.close()
        self._handshakes.clear()

    def __enter__(self) -> Self:
        """Return the listener itself, to be closed at the end of the block."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Close it."""
        self.close()

    def __repr__(self) -> str:
        """Return the class, the address and whether it is closed."""
        return f"<{type(self).__name__} {self._address!r}{' closed' if self._closed else ''}>"


def Client(
    address: Address,
    family: str | None = None,
    authkey: bytes | None = None,
    *,
    timeout: float | None = None,
    accept_md5: bool | None = None,
    tls: Tls | None = None,
    silence: float | None = None,
    recv_limit: int | None = None,
) -> Connection:
    """Connect to the listener at *address* and return a connection to it.

    *family* and *authkey* as for `Listener`; so is *accept_md5*, for a listener of the
    standard library before Python 3.12. *tls*: how all is encrypted, as the listener has it.
    *silence* and *recv_limit* are as for `Listener`, about the listener's side.
    *timeout*: how long all may take, in seconds. Without one, a listener may take its time until
    it accepts, as long as it lives; once it has begun with the handshake it has ten seconds.

    Raises `OSError` (`ConnectionRefusedError`, `FileNotFoundError`, ...) when nobody listens
    there, `procession.AuthenticationError` when one of the two does not know the key
    (`HandshakeTimeoutError` when there was no time to show it, `TlsError` when one does not
    trust the other's certificate, or does not speak TLS) and `EOFError` when the
    listener has hung up.
    """
    if authkey is not None and not isinstance(authkey, bytes):
        raise TypeError("authkey should be a byte string")
    deadline = None if timeout is None else monotonic() + timeout
    md5 = accepts_md5(accept_md5)
    seconds, _ = limits.silence(silence, tls)
    longest = limits.recv_limit(recv_limit)
    family = family or _address.family_of(address)
    if tls is not None:
        tls.check(family, server=False, authkey=authkey)
    peer = _new_socket(family)
    try:
        _address.check_length(address)
        _connect(peer, address, timeout)
        _address.check_user(peer, address)
        _address.tune(peer, seconds)
        if tls is None:
            line = Line(peer, seconds)
        else:
            line = tls.line(peer, address, seconds, server=False, authkey=authkey)
        if authkey is not None:
            steps = connecting(bytes(authkey), md5=md5)
        elif tls is not None:
            steps = welcomed()
        else:
            return Connection.over(line.channel()).limit(*longest)
        return Connection.over(Handshake(line, steps, deadline).finish()).limit(*longest)
    except BaseException:
        peer.close()
        raise


def _new_socket(family: str) -> socket.socket:
    peer: socket.socket | None = None
    for alone in moments():
        try:
            peer = _address.open_socket(family)
            _remember(_young, peer)
        finally:
            if alone:
                end_moment()
    assert peer is not None
    return peer


def _connect(peer: socket.socket, address: Address, timeout: float | None) -> None:
    """Connect, waiting for at most *timeout* seconds until there is room for one more."""
    unix = peer.family == getattr(socket, "AF_UNIX", None)
    if timeout is None or not unix:
        peer.settimeout(timeout)
        peer.connect(address)
        return
    peer.setblocking(True)  # whatever the program's default timeout is
    # A Unix socket that does not block is refused at once when the backlog is full. One that
    # blocks waits for as long as the kernel is told here.
    seconds, rest = divmod(max(timeout, 0.001), 1)
    peer.setsockopt(
        socket.SOL_SOCKET, socket.SO_SNDTIMEO, pack("@ll", int(seconds), int(rest * 1e6))
    )
    try:
        peer.connect(address)
    except BlockingIOError as error:
        raise HandshakeTimeoutError(
            f"the listener at {address!r} has not let us in within {timeout:g} seconds"
        ) from error
    peer.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, pack("@ll", 0, 0))


_listeners: WeakSet[Listener] = WeakSet()
#: Sockets that are to become connections, until they are: then they are no objects any more.
_young: WeakSet[socket.socket] = WeakSet()
_watches_forks = False


def _remember(where: WeakSet[T], new: T) -> None:
    """Have *new* put in order in forked children."""
    global _watches_forks
    if not _watches_forks:
        _watches_forks = True
        in_forked_children(_renew_all)
    where.add(new)


def _renew_all() -> None:
    for listener in list(_listeners):
        listener._after_fork()
    for peer in list(_young):
        peer.close()  # the handshake is the parent's
