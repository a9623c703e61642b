"""The broker: descriptors for a process that gets an object in a message.

A message carries bytes only. An object made of descriptors that is sent through a
running connection or queue travels as its recipe and a *ticket*; whoever unpickles it
comes to the process that offered it, over a Unix socket, and fetches duplicates of the
descriptors for the ticket.

Both sides prove first that they know the family's key (`current_process().authkey`),
each over a random number of the other; what comes before that is of fixed length and has
a deadline. A ticket is a random number and good for one fetch.

The thread that serves runs only while something is on offer: it begins with the first
offer and ends, and its socket is closed, when the last one was fetched. It is a daemon:
a process that ends does not wait for what nobody has fetched.
"""

from __future__ import annotations

import errno
import os
import sys
from _thread import RLock
from time import monotonic, sleep

from procession._ground.after_fork import in_forked_children
from procession._ground.handoff import Handoff, LaunchTakeover
from procession.errors import AuthenticationError, DescriptorLostError

TYPE_CHECKING = False  # importing typing would bring `re` and more into every child
if TYPE_CHECKING:
    import socket
    import threading
    from typing import Any

    from procession._ground.handoff import Exportable, Recipe, Token

#: How long either side waits for the other in the middle of a fetch, in seconds.
_DEADLINE = 10.0
#: How long to wait for a descriptor to be free, in seconds.
_BREATH = 0.05
#: How often to look whether the thread has ended, in seconds.
_BLINK = 0.0002
_NONCE = 32
_TICKET = 16
_DIGEST = 32
#: The most descriptors of one object; the kernel passes at most 253 at once.
_MOST_DESCRIPTORS = 64
_FOUND = b"+"
_NOT_FOUND = b"-"


class _Collecting(Handoff):
    """Duplicates the descriptors of one object; a token is the position."""

    __slots__ = ("descriptors",)

    def __init__(self) -> None:
        self.descriptors: list[int] = []

    def give(self, fd: int, /) -> Token:
        """See `Handoff.give`."""
        self.descriptors.append(os.dup(fd))
        return len(self.descriptors) - 1


class Broker:
    """What this process has on offer, and the thread that hands it out.

    Threads: any. Fork: the child starts with nothing on offer.
    """

    def __init__(self) -> None:
        self._lock = RLock()
        self._offers: dict[bytes, list[int]] = {}
        self._listener: socket.socket | None = None
        self._thread: threading.Thread | None = None
        self._address: str | bytes = b""
        self._watches_forks = False

    def hold(self, descriptors: list[int]) -> tuple[str | bytes, bytes]:
        """Keep *descriptors*, which are taken over, until they are fetched.

        Returns where to fetch them and the ticket. When it raises, they stay the caller's.
        """
        ticket = os.urandom(_TICKET)
        with self._lock:
            if self._listener is None:
                self._start()
            self._offers[ticket] = descriptors
            return self._address, ticket

    def _start(self) -> None:
        """Begin to serve; the lock is held."""
        import threading

        if not self._watches_forks:
            in_forked_children(self.forget)
            self._watches_forks = True
        listener, address = _listen()
        thread = threading.Thread(
            target=self._serve, args=(listener, address), name="procession-broker", daemon=True
        )
        try:
            thread.start()
        except RuntimeError:  # no more threads, or the interpreter is ending
            _close(listener, address)
            raise
        self._listener, self._thread, self._address = listener, thread, address

    def rest(self) -> None:
        """Wait a moment for the thread to end, if all was fetched: it is about to.

        So that who forks right after a fetch is not warned of a thread that has nothing to do.
        """
        with self._lock:
            thread = None if self._offers else self._thread
        if thread is not None:
            # Not `join`: on 3.12 `threading` would know for ever of a thread that is not its own.
            until = monotonic() + _BREATH
            while thread.is_alive() and monotonic() < until:
                sleep(_BLINK)

    def _serve(self, listener: socket.socket, address: str | bytes) -> None:
        while True:
            try:
                peer, _ = listener.accept()
            except OSError as error:
                if listener.fileno() < 0:
                    return
                # No descriptor to accept with, or the peer has gone meanwhile. The peer
                # stays in the queue, and accept would answer the same at once.
                sleep(0.0 if error.errno == errno.ECONNABORTED else _BREATH)
                continue
            with peer:
                try:
                    self._hand_out(peer)
                except (OSError, EOFError, AuthenticationError):
                    # A stranger, or somebody who was killed on the way: the one who was
                    # refused hears of it, and the others must be served.
                    pass
            with self._lock:
                # With the lock held nobody can be offered an address that is closed here.
                if not self._offers:
                    self._listener = None
                    _close(listener, address)
                    return

    def _hand_out(self, peer: socket.socket) -> None:
        """Serve one fetch."""
        deadline = monotonic() + _DEADLINE
        _check_user(peer)
        key = _key()
        theirs = _receive_exactly(peer, _NONCE, deadline)
        mine = os.urandom(_NONCE)
        peer.sendall(mine + _sign(key, b"giver", theirs, mine))
        answer = _receive_exactly(peer, _DIGEST + _TICKET, deadline)
        ticket = answer[_DIGEST:]
        _check(answer[:_DIGEST], _sign(key, b"taker", mine, theirs + ticket))
        with self._lock:
            descriptors = self._offers.pop(ticket, None)
        if descriptors is None:
            peer.sendall(_NOT_FOUND)
            return
        try:
            _send_descriptors(peer, descriptors)
        finally:
            for fd in descriptors:
                os.close(fd)

    def forget(self) -> None:
        """Begin anew in a forked child: what is on offer is the parent's."""
        offers, listener = self._offers, self._listener
        self._lock = RLock()
        self._offers, self._listener, self._thread = {}, None, None
        for descriptors in offers.values():
            for fd in descriptors:
                os.close(fd)
        if listener is not None:
            listener.close()


def _listen() -> tuple[socket.socket, str | bytes]:
    import socket

    if sys.platform == "win32":
        raise OSError("descriptors cannot be sent between processes on this platform")
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    listener.setblocking(True)  # whatever the program's default timeout is
    address: str | bytes
    try:
        if sys.platform == "linux":
            # Without a name in the file system: nothing stays when we are killed.
            address = b"\0procession-%d-%s" % (os.getpid(), os.urandom(16).hex().encode())
        else:
            import tempfile

            address = os.path.join(tempfile.mkdtemp(prefix="procession-"), "broker")
        listener.bind(address)
        listener.listen(64)
    except BaseException:
        listener.close()
        raise
    return listener, address


def _close(listener: socket.socket, address: str | bytes) -> None:
    listener.close()
    if isinstance(address, str):
        os.unlink(address)
        os.rmdir(os.path.dirname(address))


def _check_user(peer: socket.socket) -> None:
    """Turn away other users at once, so that they cannot keep anybody waiting."""
    if sys.platform == "linux":
        import socket

        user = peer.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12)[4:8]
        if int.from_bytes(user, sys.byteorder) not in (0, os.geteuid()):
            raise AuthenticationError("a process of another user has asked for descriptors")


def _key() -> bytes:
    from procession.process import current_process

    return bytes(current_process().authkey)


def _sign(key: bytes, role: bytes, nonce: bytes, text: bytes) -> bytes:
    import hmac

    return hmac.digest(key, b"procession broker 1 " + role + nonce + text, "sha256")


def _check(digest: bytes, expected: bytes) -> None:
    import hmac

    if not hmac.compare_digest(digest, expected):
        raise AuthenticationError("digest received was wrong: the two processes differ in authkey")


def _receive_exactly(peer: socket.socket, length: int, deadline: float) -> bytes:
    data = b""
    while len(data) < length:
        # The whole exchange has one deadline: a byte now and then does not prolong it.
        peer.settimeout(max(0.001, deadline - monotonic()))
        more = peer.recv(length - len(data))
        if not more:
            raise EOFError("the other side has hung up")
        data += more
    return data


def _send_descriptors(peer: socket.socket, descriptors: list[int]) -> None:
    if sys.platform == "win32":
        raise OSError("descriptors cannot be sent between processes on this platform")
    import socket

    socket.send_fds(peer, [_FOUND], descriptors)


def _fetch(address: str | bytes, ticket: bytes, count: int) -> list[int]:
    """Return the *count* descriptors for *ticket*; the caller owns them.

    Raises `OSError`, `EOFError` or `AuthenticationError` when there are none to be had.
    """
    if sys.platform == "win32":
        raise OSError("descriptors cannot be sent between processes on this platform")
    import socket

    from procession._ground.sockets import receive_descriptors

    key = _key()
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as peer:
        peer.settimeout(_DEADLINE)
        peer.connect(address)
        deadline = monotonic() + _DEADLINE
        mine = os.urandom(_NONCE)
        peer.sendall(mine)
        answer = _receive_exactly(peer, _NONCE + _DIGEST, deadline)
        theirs = answer[:_NONCE]
        _check(answer[_NONCE:], _sign(key, b"giver", mine, theirs))
        peer.sendall(_sign(key, b"taker", theirs, mine + ticket) + ticket)
        status, descriptors = receive_descriptors(peer, 1, _MOST_DESCRIPTORS)
        if not status:
            raise EOFError("the other side has hung up")
        if status != _FOUND:
            raise LookupError("somebody has fetched it already")
        if len(descriptors) != count:
            # The kernel drops those that this process has no room for.
            for fd in descriptors:
                os.close(fd)
            raise OSError(errno.EMFILE, "this process has too many open files")
        return descriptors


#: The one of this process.
_broker = Broker()
#: See `Broker.rest`, of this process's own.
rest = _broker.rest


def offer(exportable: Exportable) -> tuple[Any, ...]:
    """Return how *exportable* is pickled for a message to a running process of this host.

    Duplicates of its descriptors are kept until somebody has fetched them, or until this
    process ends. The pickle is good for one unpickling.
    """
    from procession.process import current_process

    collecting = _Collecting()
    descriptors = collecting.descriptors
    try:
        recipe = exportable.export(collecting)
        if len(descriptors) > _MOST_DESCRIPTORS:
            raise ValueError(f"{len(descriptors)} descriptors are too many to be sent at once")
        address, ticket = _broker.hold(descriptors)
    except BaseException:
        for fd in descriptors:
            os.close(fd)
        raise
    giver = (current_process().name, os.getpid())
    return fetch, (type(exportable), recipe, (address, ticket, len(descriptors)), giver)


def fetch(
    kind: type[Exportable],
    recipe: Recipe,
    claim: tuple[str | bytes, bytes, int],
    giver: tuple[str, int],
) -> Exportable:
    """Build what another process has offered; see `offer`.

    Raises `DescriptorLostError` (an `OSError`) when the giver has ended, or has given it
    to somebody else, and `AuthenticationError` when it is of another family.
    """
    name, pid = giver
    try:
        takeover = LaunchTakeover(_fetch(*claim))
    except AuthenticationError as error:
        raise AuthenticationError(
            f"process {name!r} (pid {pid}), which has sent this {kind.__name__}, does not share "
            f"this process's authkey"
        ) from error
    except (OSError, EOFError, LookupError) as error:
        raise DescriptorLostError(
            f"cannot have this {kind.__name__}: {_reason(error, pid)}. "
            f"It was sent by process {name!r} (pid {pid}){kind.advice and '; ' + kind.advice}"
        ) from error
    try:
        return kind.attach(recipe, takeover)
    finally:
        takeover.close()


def _reason(error: Exception, pid: int) -> str:
    """Return why nothing could be fetched from process *pid*."""
    if isinstance(error, LookupError):
        return "somebody has fetched it already"
    if isinstance(error, TimeoutError):
        return f"its sender has not answered for {_DEADLINE:g} seconds"
    if isinstance(error, OSError) and error.errno == errno.EMFILE:
        return "this process has too many open files"
    if not _exists(pid):
        return "its sender has ended, or is on another host"
    if isinstance(error, ConnectionRefusedError | FileNotFoundError):
        return (
            "nobody answers where it was offered: its sender has ended, or somebody has fetched it "
            "already, or this process has another network or other files than its sender, as in a "
            "sandbox or container"
        )
    return "its sender has ended, or somebody has fetched it already"


def _exists(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
