"""The dock: where other hosts fetch the ends, and reach the queues, that were sent to them."""

from __future__ import annotations

import os
import socket
import sys
import threading
import time

from procession.connection import Client, Listener
from procession.errors import AuthenticationError, ConnectionClosedError, DescriptorLostError
from procession.plugin import StreamChannel, packet_socket_pair
from procession.process import current_process

from ._channel import TcpChannel
from ._mailbox import Served
from ._settings import how_to_encrypt, parse
from ._tunnel import Tunnel

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, TypeAlias

    from procession.connection import Connection

    from ._mailbox import TcpMailbox

    #: Where something is to be had: the address, the ticket, how all is encrypted, and who has
    #: sent it: name, pid and host.
    Claim: TypeAlias = "tuple[tuple[str, int], bytes, str, tuple[str, int, str]]"

#: How long the other side may take for its first words, and for all until the answer.
_DEADLINE = 20.0
#: How long to wait for a descriptor or a thread to be free, in seconds.
_BREATH = 0.05
_BACKLOG = 64
_TICKET = 16
_FOUND, _NOT_FOUND = b"+", b"-"


class Dock:
    """What this process has on offer for other hosts, and the thread that lets them in.

    An end is offered until it is fetched, once, by who has its ticket. A mailbox is served to
    all who have its ticket, until it is withdrawn. The listener is there as long as anything
    is on offer. Both sides prove that they know the family's key before a ticket is read.

    Threads: any. Fork: a child starts with nothing on offer.
    """

    def __init__(self) -> None:
        self._watches_forks = False
        self._begin()

    def _begin(self) -> None:
        self._lock = threading.RLock()
        self._ends: dict[bytes, TcpChannel] = {}
        self._mailboxes: dict[bytes, tuple[TcpMailbox, Served]] = {}
        self._listener: Listener | None = None
        self._word = ""

    # -- offering ------------------------------------------------------------------------

    def offer_end(self, channel: TcpChannel, bind: str) -> tuple[Any, ...]:
        """Return how *channel* is pickled for a process that reaches us at *bind*, once.

        Raises `OSError` when the address cannot be had, and `ConfigurationError`.
        """
        ticket = os.urandom(_TICKET)
        fd = os.dup(channel.fileno())
        offered = TcpChannel((fd,), (fd,))
        with self._lock:
            try:
                if channel.companion >= 0:
                    # A tunnel has no use for descriptors, but takes them in.
                    offered.accompany(os.dup(channel.companion))
                claim = self._claim(ticket, bind)
            except BaseException:
                offered.close()
                raise
            self._ends[ticket] = offered
        return fetch_end, (claim, channel.readable, channel.writable)

    def offer_mailbox(self, mailbox: TcpMailbox, bind: str) -> Claim:
        """Return where *mailbox* is served to other hosts, from now on."""
        with self._lock:
            for ticket, (each, _) in self._mailboxes.items():
                if each is mailbox:
                    return self._claim(ticket, bind)
            ticket = os.urandom(_TICKET)
            served = Served(mailbox)
            try:
                claim = self._claim(ticket, bind)
            except BaseException:
                served.withdraw()
                raise
            self._mailboxes[ticket] = mailbox, served
        return claim

    def withdraw(self, mailbox: TcpMailbox) -> None:
        """Serve *mailbox* no longer."""
        with self._lock:
            for ticket, (each, served) in list(self._mailboxes.items()):
                if each is mailbox:
                    del self._mailboxes[ticket]
                    served.withdraw()
            self._close_if_idle()

    def _claim(self, ticket: bytes, bind: str) -> Claim:
        """Return the claim for *ticket*, with the listener open; the lock is held."""
        if self._listener is None:
            self._open(bind)
        assert self._listener is not None
        address = self._listener.address
        me = current_process()
        giver = me.name, os.getpid(), socket.gethostname()
        return (str(address[0]), int(address[1])), ticket, self._word, giver

    # -- letting in ----------------------------------------------------------------------

    def _open(self, bind: str) -> None:
        """Listen; the lock is held."""
        if not self._watches_forks and sys.platform != "win32":
            os.register_at_fork(after_in_child=self._forget)
            self._watches_forks = True
        host, port = parse(bind)
        word, tls = how_to_encrypt(host)
        listener = Listener((host, port), backlog=_BACKLOG, authkey=_key(), tls=tls)
        thread = threading.Thread(
            target=self._let_in, args=(listener,), name="procession-tcp-dock", daemon=True
        )
        try:
            thread.start()
        except RuntimeError:  # no more threads, or the interpreter is ending
            listener.close()
            raise
        self._listener, self._word = listener, word

    def _close_if_idle(self) -> None:
        """Stop listening when nothing is on offer; the lock is held."""
        if self._listener is not None and not self._ends and not self._mailboxes:
            listener, self._listener = self._listener, None
            listener.close()

    def _let_in(self, listener: Listener) -> None:
        while True:
            try:
                connection = listener.accept()
            except ConnectionClosedError:
                return
            except (AuthenticationError, EOFError):
                continue  # a stranger, who was told; the others must be served
            except OSError:
                time.sleep(_BREATH)  # no descriptor to accept with
                continue
            thread = threading.Thread(
                target=self._receive, args=(connection,), name="procession-tcp-guest", daemon=True
            )
            try:
                thread.start()
            except RuntimeError:  # no more threads: he hears that it was hung up on him
                connection.close()

    def _receive(self, connection: Connection) -> None:
        """Give somebody who has been let in what he has a ticket for."""
        try:
            if not connection.poll(_DEADLINE):
                connection.close()
                return
            ticket = connection.recv_bytes(_TICKET)
            with self._lock:
                end = self._ends.pop(ticket, None)
                _, served = self._mailboxes.get(ticket, (None, None))
                self._close_if_idle()
        except (OSError, EOFError):
            connection.close()
            return
        try:
            connection.send_bytes(_NOT_FOUND if end is None and served is None else _FOUND)
        except OSError:
            connection.close()
            if end is not None:
                end.close()  # its other end hears that nobody has it
            return
        if end is not None:
            Tunnel(end, _stream(connection))
            return
        with connection:
            if served is not None:
                served.serve(connection)

    def _forget(self) -> None:
        """Begin anew in a forked child: what is on offer is the parent's."""
        ends, mailboxes, listener = self._ends, self._mailboxes, self._listener
        self._begin()
        for end in ends.values():
            end.close()
        for _, served in mailboxes.values():
            served.abandon()
        if listener is not None:
            listener.close()


#: The one of this process.
dock = Dock()


def dial(claim: Claim, what: str) -> Connection:
    """Return a connection to who has *claim*'s ticket on offer, which he has accepted.

    *what* it is about is said in errors. Raises `DescriptorLostError` when it is not there
    any more, `AuthenticationError` (also `TlsError`) and `ConfigurationError`.
    """
    (host, port), ticket, word, (name, pid, machine) = claim
    who = f"process {name!r} (pid {pid}) on {machine}, at {host} port {port}"
    _, tls = how_to_encrypt(host, word)
    try:
        connection = Client((host, port), authkey=_key(), tls=tls, timeout=_DEADLINE)
    except (OSError, EOFError) as error:
        raise DescriptorLostError(
            f"cannot have this {what}: {who}, which has sent it, cannot be reached, has ended, or "
            f"has nothing on offer any more ({error})"
        ) from error
    try:
        connection.send_bytes(ticket)
        answer = connection.recv_bytes(1) if connection.poll(_DEADLINE) else b""
    except (OSError, EOFError) as error:
        connection.close()
        raise DescriptorLostError(
            f"cannot have this {what}: {who}, which has sent it, has ended meanwhile"
        ) from error
    if answer != _FOUND:
        connection.close()
        raise DescriptorLostError(
            f"cannot have this {what}: somebody has fetched it already, or it was closed. It was "
            f"sent by {who}"
        )
    return connection


def fetch_end(claim: Claim, readable: bool, writable: bool) -> TcpChannel:
    """Return the end that another host has offered; see `Dock.offer_end` and `dial`."""
    connection = dial(claim, "end of a connection")
    try:
        one, other = packet_socket_pair()
    except BaseException:
        connection.close()
        raise
    near = TcpChannel((one,) if readable else (), (one,) if writable else ())
    try:
        Tunnel(TcpChannel((other,), (other,)), _stream(connection))
    except BaseException:
        near.close()
        raise
    return near


def _stream(connection: Connection) -> StreamChannel:
    channel = connection.channel
    assert isinstance(channel, StreamChannel)  # what listeners and clients make
    return channel


def _key() -> bytes:
    return bytes(current_process().authkey)
