"""What processes do when they are killed: the scenarios of `procession.testing.killing`.

Most take a spec (library, start method, transport) and make their context from it.
"""

from __future__ import annotations

import os
from collections import Counter
from queue import Empty
from typing import TYPE_CHECKING, Any

from procession import errors
from procession.process import active_children, process_class
from procession.queues import JoinableQueue, Queue
from procession.testing import leaks, lending, payloads
from procession.testing.forked import DEADLINE, until
from procession.testing.killing import Participant, Scenario

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from procession._contracts.mailbox import Mailbox
    from procession.testing.killing import Work

_PUT, _GOT, _DONE = range(3)
_NUMBER_BITS = 32
_KEPT = 8
_KILLED = -9
_SIZES = (0, 10, 600, 5000, 70 << 10)


class QueueUse(Scenario):
    """Producers and consumers of one queue; with *joinable*, consumers report what is done."""

    def __init__(
        self, make_mailbox: Callable[..., Mailbox], *, maxsize: int = 0, joinable: bool = False
    ) -> None:
        self._joinable = joinable
        mailbox = make_mailbox(maxsize=maxsize, joinable=joinable)
        kind: Any = JoinableQueue if joinable else Queue
        self._queue = kind(maxsize, mailbox=mailbox)

    def roles(self) -> Mapping[str, tuple[int, Work]]:
        """See `Scenario.roles`."""
        return {"producer": (2, self._produce), "consumer": (2, self._consume)}

    def _produce(self, me: Participant) -> None:
        number, last = 0, False
        while not last:
            last = me.told_to_stop()  # who was never killed has put something
            item = me.number << _NUMBER_BITS | number
            self._queue.put((item, bytes(_SIZES[item % len(_SIZES)])), timeout=DEADLINE)
            me.journal.add(_PUT, item)
            number += 1

    def _consume(self, me: Participant) -> None:
        while not me.told_to_stop() or not self._queue.empty():
            try:
                item, filling = self._queue.get(timeout=0.01)
            except Empty:
                continue
            assert len(filling) == _SIZES[item % len(_SIZES)]
            me.journal.add(_GOT, item)
            if self._joinable:
                self._queue.task_done()
                me.journal.add(_DONE, item)

    def check(self, participants: list[Participant]) -> None:
        """Each item was delivered once, and at most one is lost with each dead consumer."""
        notes = Counter(note for each in participants for note in each.journal.pairs())
        put = {item for kind, item in notes if kind == _PUT}
        got = {item for kind, item in notes if kind == _GOT}
        assert [] == [note for note, times in notes.items() if times > 1]
        dead = sum(each.killed and each.role == "consumer" for each in participants)
        assert len(put - got) <= dead, sorted(put - got)
        for item in got - put:
            # Its producer was killed in put: the item may be there, but only that one.
            producer = participants[item >> _NUMBER_BITS]
            assert producer.killed
            assert item & ((1 << _NUMBER_BITS) - 1) == len(producer.journal)
        assert got
        assert self._queue.empty()
        if self._joinable:
            self._check_join(dead)

    def _check_join(self, dead: int) -> None:
        """What dead consumers have not done ends a join, and never keeps it for ever."""
        try:
            self._queue.join()
        except errors.PeerDiedError:
            undone = 0
            while _is_counted(self._queue.task_done):
                undone += 1
            assert 0 < undone <= dead
            self._queue.join()

    def close(self) -> None:
        """See `Scenario.close`."""
        self._queue.close()


class ConnectionUse(Scenario):
    """Each talker talks to a child of its own, and has to be told when that has died."""

    strikes_descendants = True
    longest_pause = 0.02
    _echo: Any = staticmethod(payloads.echo)

    def __init__(self, spec: tuple[str, str, str]) -> None:
        self._ctx = payloads.context(spec)

    def roles(self) -> Mapping[str, tuple[int, Work]]:
        """See `Scenario.roles`."""
        return {"talker": (2, self._talk)}

    def _talk(self, me: Participant) -> None:
        descriptors = len(leaks.descriptors())
        while not me.told_to_stop():
            self._talk_to_one(me)
        _await_no_zombie()
        _start_undisturbed(self._ctx.Process)
        self._talk_to_one(me)
        _check_descriptors(descriptors)

    def _talk_to_one(self, me: Participant) -> None:
        here, there = self._make_pipe()
        try:
            child = self._ctx.Process(target=self._echo, args=(there,), daemon=True)
            if not _start(child):
                return
            there.close()
            self._converse(me, here, child)
        finally:
            here.close()
            there.close()

    def _make_pipe(self) -> Any:
        return self._ctx.Pipe()

    def _exchange(self, connection: Any, number: int) -> None:
        message = bytes([number]) * _SIZES[number % len(_SIZES)]
        connection.send(message)
        assert connection.recv() == message

    def _converse(self, me: Participant, connection: Any, child: Any) -> None:
        try:
            for number in range(20):
                self._exchange(connection, number)
                me.journal.add(_GOT, number)
            connection.send(None)
        except errors.PeerDiedError:
            # Nothing else may come of it: whoever was talked to was a child of this process.
            child.join(DEADLINE)
            assert child.exitcode in (_KILLED, 255), child.exitcode
        child.join(DEADLINE)
        assert child.exitcode in (0, _KILLED, 255), child.exitcode
        child.close()

    def check(self, participants: list[Participant]) -> None:
        """Somebody has talked."""
        assert any(len(each.journal) for each in participants)


class LeaseUse(ConnectionUse):
    """The same, of large messages that both look at where they lie, and keep for a while."""

    _echo = staticmethod(lending.echo)

    def __init__(self, spec: tuple[str, str, str]) -> None:
        super().__init__(spec)
        self._kept: list[lending.Block] = []

    def _make_pipe(self) -> Any:
        return self._ctx.Pipe(leases=True)

    def _converse(self, me: Participant, connection: Any, child: Any) -> None:
        try:
            super()._converse(me, connection, child)
        finally:
            self._kept.clear()  # before descriptors are counted

    def _exchange(self, connection: Any, number: int) -> None:
        size = _SIZES[number % len(_SIZES)] << number % 3
        connection.send(lending.Block(number, size))
        block = connection.recv(lease=number % 7 != 0)
        assert (block.number, block.size) == (number, size)
        self._kept.append(block)
        for each in self._kept:
            each.check()
        del self._kept[:-3]


class Starts(Scenario):
    """Starters start children, which, as the starters and their helpers, are killed meanwhile."""

    strikes_descendants = True
    longest_pause = 0.03

    def __init__(self, method: str) -> None:
        self._kind = process_class(method, "Process")

    def roles(self) -> Mapping[str, tuple[int, Work]]:
        """See `Scenario.roles`."""
        return {"starter": (2, self._start_children)}

    def _start_children(self, me: Participant) -> None:
        descriptors = len(leaks.descriptors())
        while not me.told_to_stop():
            children = [self._kind(target=payloads.nothing, daemon=True) for _ in range(2)]
            started = [child for child in children if _start(child)]
            for child in started:
                child.join(DEADLINE)
                # Its own end, a kill, or unknown because the fork server was killed.
                assert child.exitcode in (0, 1, _KILLED, 255), child.exitcode
                me.journal.add(_DONE, child.exitcode & 0xFF)
                child.close()
        _await_no_zombie()
        _start_undisturbed(self._kind)
        me.journal.add(_DONE, 0)
        _check_descriptors(descriptors)

    def check(self, participants: list[Participant]) -> None:
        """Children have ended by themselves, too."""
        codes = {code for each in participants for _, code in each.journal.pairs()}
        assert 0 in codes, codes


class HandingOver(Scenario):
    """Givers send connections through a queue, and takers fetch their descriptors and use them."""

    longest_pause = 0.02

    def __init__(self, spec: tuple[str, str, str]) -> None:
        self._ctx = payloads.context(spec)
        self._queue = self._ctx.Queue(4)

    def roles(self) -> Mapping[str, tuple[int, Work]]:
        """See `Scenario.roles`."""
        return {"giver": (2, self._give), "taker": (2, self._take)}

    def _give(self, me: Participant) -> None:
        number, last = 0, False
        while not last:
            last = me.told_to_stop()
            receiver, sender = self._ctx.Pipe(duplex=False)
            with receiver, sender:
                item = me.number << _NUMBER_BITS | number
                self._queue.put((item, sender), timeout=DEADLINE)
                number += 1
                # Its taker may be killed at any point: then nothing comes.
                if receiver.poll(DEADLINE if last else 0.2):
                    assert receiver.recv() == item
                    me.journal.add(_GOT, item)

    def _take(self, me: Participant) -> None:
        while not me.told_to_stop() or not self._queue.empty():
            try:
                item, sender = self._queue.get(timeout=0.01)
            except (Empty, errors.DescriptorLostError):
                continue  # its giver was killed
            with sender:
                try:
                    sender.send(item)
                except BrokenPipeError:
                    continue  # likewise, or it has given up waiting

    def check(self, participants: list[Participant]) -> None:
        """What was received was sent for it, once."""
        notes = Counter(note for each in participants for note in each.journal.pairs())
        assert notes
        assert max(notes.values()) == 1

    def close(self) -> None:
        """See `Scenario.close`."""
        self._queue.close()


def _is_counted(task_done: Any) -> bool:
    try:
        task_done()
    except ValueError:  # more than there were
        return False
    return True


def _start(child: Any) -> bool:
    """Start a child; false when its helper process was killed too often on the way."""
    try:
        child.start()
    except errors.ResourceError:
        raise
    except errors.ProcessError:
        return False
    return True


def _start_undisturbed(kind: Any) -> None:
    """Start a process when nobody is killed any more."""
    child = kind(target=payloads.nothing)
    child.start()
    child.join(DEADLINE)
    assert child.exitcode == 0, child.exitcode
    child.close()


def _await_no_zombie() -> None:
    """Look after the children until no process is left to collect, helpers included.

    One that was killed only now has yet to end.
    """

    def is_clean() -> bool:
        active_children()
        return not _zombies()

    until(is_clean)


def _check_descriptors(before: int) -> None:
    """This process, which has closed all it had, has few more descriptors."""
    now = leaks.descriptors()
    # The fork server's sockets and the lifeline are kept; what leaks does so every time.
    assert len(now) <= before + _KEPT, now


def _zombies() -> list[int]:
    found = []
    for name in os.listdir("/proc"):
        if not name.isdecimal():
            continue
        try:
            with open(f"/proc/{name}/stat", encoding="utf-8", errors="replace") as file:
                state, parent = file.read().rpartition(")")[2].split()[:2]
        except OSError:
            continue
        if state == "Z" and int(parent) == os.getpid():
            found.append(int(name))
    return found
