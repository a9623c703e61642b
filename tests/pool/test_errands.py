"""Calls that a caller gives to a worker itself: whoever stops or dies in between, one outcome.

``PROCESSION_ERRANDS`` says for how many seconds each of the long ones goes on; ``PROCESSION_SEED``
repeats the same decisions.
"""

from __future__ import annotations

import contextlib
import os
import random
import signal
import struct
import sys
import threading
import time
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, NoReturn

import pytest

from procession._ground.waiting import wait_readable
from procession._pools import errand
from procession._pools.crew import Crew
from procession._pools.staff import Staff
from procession.errors import (
    BrokenPoolError,
    MaybeEncodingError,
    TaskCancelledError,
    WorkerDiedError,
)
from procession.testing import pooled
from procession.testing.garbage import none_collected

SECONDS = float(os.environ.get("PROCESSION_ERRANDS", "0.7"))
SEED = int(os.environ.get("PROCESSION_SEED", "0")) or random.randrange(1, 1 << 30)
SIGKILL = 9
pytestmark = [
    pytest.mark.once,
    pytest.mark.one_pair_per("transport"),
    pytest.mark.beyond("multiprocessing's callers always wait for two threads"),
    pytest.mark.timeout(60 + 10 * SECONDS),
]


class Alarm(Exception):
    """Raised by a signal handler."""


def _await(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.002)


def _await_offers(pool: Any) -> None:
    """Wait until every worker is ready and has nothing to do."""
    crew = pool._crew
    _await(lambda: len(crew._errands._offers) == len(crew.members) == pool._size)


def _call_for_ever(pool: Any) -> NoReturn:
    while True:
        pool.apply(pooled.same, (1,))


@pytest.fixture
def alarms() -> Iterator[list[bool]]:
    """Have SIGALRM raise at random points, but only while the list says so."""
    if sys.platform == "win32":
        pytest.skip("no SIGALRM")
    armed = [False]

    def ring(*_: object) -> None:
        if armed[0]:
            armed[0] = False
            raise Alarm

    before = signal.signal(signal.SIGALRM, ring)
    try:
        with none_collected():
            yield armed
    finally:
        armed[0] = False
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def test_no_other_thread_runs(make: Callable[..., Any]) -> None:
    """A caller needs nobody but the worker."""
    pool = make(1)
    _await_offers(pool)
    pool._crew.pause()
    try:
        for number in range(100):
            assert (number, 1) == pool.apply(pooled.keyword, (number,), {"more": 1})
    finally:
        pool._crew.resume()


def _slow_to_begin(monkeypatch: pytest.MonkeyPatch, ready: Callable[[Any], int]) -> None:
    """Let a pool that is made find that of all workers *ready* can be read: who is quicker."""

    def wait(staff: Staff, milliseconds: float | None) -> Any:
        for member in staff.members:
            assert wait_readable(ready(member), 30)
        monkeypatch.undo()
        return staff.wait(milliseconds)

    monkeypatch.setattr(Staff, "wait", wait)


def test_first_call_of_a_pool(make: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """Workers that are ready when their pool is made can be called at once, without its thread."""
    _slow_to_begin(monkeypatch, lambda member: int(member.channel_fd))
    with monkeypatch.context() as patch:
        patch.setattr(Crew, "_start_thread", lambda crew: None)
        pool = make(2)
    try:
        assert [1, 2, 3] == [pool.apply(pooled.same, (number,)) for number in (1, 2, 3)]
    finally:
        pool._crew._start_thread()


def test_pool_that_fails_while_it_is_made(
    make: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Workers that have all ended by then leave no thread, and whoever calls hears of it."""
    _slow_to_begin(monkeypatch, lambda member: int(member.sentinel))
    pool = make(2, pooled.fail_to_initialize)

    with pytest.raises(BrokenPoolError):
        pool.apply(pooled.same, (1,))
    assert pool._crew._thread is None
    assert pool._crew.ended.is_set()


def test_answers_of_all_kinds(make: Callable[..., Any]) -> None:
    """What is long, has failed, or cannot travel comes the usual way."""
    pool = make(1)
    for _ in range(3):
        _await_offers(pool)
        assert 100_000 == len(pool.apply(pooled.long_bytes, (100_000,)))
        assert 2000 == len(pool.apply(pooled.long_bytes, (2000,)))
        assert 100_000 == pool.apply(pooled.length, (bytes(100_000),))
        with pytest.raises(ValueError, match="bad"):
            pool.apply(pooled.fail, (1,))
        _await_offers(pool)
        with pytest.raises(MaybeEncodingError, match="not here") as caught:
            pool.apply(pooled.bomb)
        assert isinstance(caught.value.__cause__, LookupError)
        with pytest.raises(MaybeEncodingError):
            pool.apply(pooled.unpicklable)
        with pytest.raises(RuntimeError, match="not this one"):
            pool.apply(pooled.same, (pooled.Unsendable("secret"),))


def test_dead_worker(make: Callable[..., Any]) -> None:
    """A worker that dies with a call is one that dies with a task."""
    pool = make(1)
    for how in ("kill", "exit", "os"):
        _await_offers(pool)
        with pytest.raises(WorkerDiedError, match=r"in the middle of die\(\)"):
            pool.apply(pooled.die, (how,))
    assert 1 == pool.apply(pooled.same, (1,))


def test_dead_before_it_is_taken(make: Callable[..., Any]) -> None:
    """A worker that was killed while it was on offer costs no call."""
    pool = make(2)
    for number in range(10):
        _await_offers(pool)
        for member in list(pool._crew.members):
            os.kill(member.pid, SIGKILL)
        assert number == pool.apply(pooled.same, (number,))


@pytest.mark.parametrize("when", ["before", "after"])
def test_caller_that_stops_while_it_sends(
    make: Callable[..., Any], tmp_path: Any, monkeypatch: pytest.MonkeyPatch, when: str
) -> None:
    """A handler that raises where sending takes several steps costs a worker; no call is doubled.

    That is so over a channel of somebody else's.
    """
    journal = tmp_path / "journal"
    journal.touch()
    pool = make(1)
    _await_offers(pool)
    (member,) = pool._crew.members
    channel = member.channel

    def sender(channel: Any, body: bytes) -> Callable[[], object]:
        def stop() -> None:
            if when == "after":
                channel.send(body)
            raise KeyboardInterrupt

        return stop

    with monkeypatch.context() as patched:
        patched.setattr(type(channel), "sender", sender)
        with pytest.raises(KeyboardInterrupt):
            pool.apply(pooled.record, (str(journal), 7))
    assert 8 == pool.apply(pooled.record, (str(journal), 8))
    assert member not in pool._crew.members
    pool.close()
    pool.join()
    found = [number for (number,) in struct.iter_unpack("<Q", journal.read_bytes())]
    assert found in ([7, 8], [8, 7], [8])


@pytest.mark.parametrize("when", ["before", "after"])
def test_caller_that_stops_in_between(
    make: Callable[..., Any], tmp_path: Any, monkeypatch: pytest.MonkeyPatch, when: str
) -> None:
    """A handler that raises before the sending has nothing sent; after it, the worker does it."""
    journal = tmp_path / "journal"
    journal.touch()
    pool = make(1)
    _await_offers(pool)
    (member,) = pool._crew.members
    send = errand.Offer.send
    caller = threading.get_ident()

    def stop(offer: errand.Offer) -> None:
        if threading.get_ident() != caller:
            return send(offer)
        if when == "after":
            send(offer)
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(errand.Offer, "send", stop)
        with pytest.raises(KeyboardInterrupt):
            pool.apply(pooled.record, (str(journal), 7))
        assert 8 == pool.apply_async(pooled.record, (str(journal), 8)).get(30)
    assert [member] == pool._crew.members
    pool.close()
    pool.join()
    found = [number for (number,) in struct.iter_unpack("<Q", journal.read_bytes())]
    assert ([8] if when == "before" else [7, 8]) == found


def test_caller_that_stops_while_it_waits(
    make: Callable[..., Any], tmp_path: Any, alarms: list[bool]
) -> None:
    """The worker goes on, is nobody's afterwards, and the pool ends."""
    if sys.platform == "win32":
        pytest.skip("no SIGALRM")
    pool = make(1)
    _await_offers(pool)
    pid = pool.apply(pooled.pid)
    flag = str(tmp_path / "flag")
    alarms[0] = True
    signal.setitimer(signal.ITIMER_REAL, 0.2)
    with pytest.raises(Alarm):
        pool.apply(pooled.wait_for, (flag,))
    later = pool.apply_async(pooled.pid)
    pooled.touch(flag)
    assert pid == later.get(30)
    pool.close()
    pool.join()


def test_handlers_that_raise(make: Callable[..., Any], alarms: list[bool]) -> None:
    """Wherever a handler raises: that is what the caller gets, and the next call is right."""
    if sys.platform == "win32":
        pytest.skip("no SIGALRM")
    chance = random.Random(SEED)
    pool = make(2)
    end = time.monotonic() + SECONDS
    number = raised = 0
    while time.monotonic() < end:
        signal.setitimer(signal.ITIMER_REAL, chance.uniform(0.0001, 0.003))
        for _ in range(50):
            number += 1
            try:
                alarms[0] = True
                assert number == pool.apply(pooled.same, (number,)), f"seed {SEED}"
                alarms[0] = False
            except Alarm:
                raised += 1
            alarms[0] = False
    assert raised
    pool.close()
    pool.join()


def test_handler_that_uses_the_pool(make: Callable[..., Any]) -> None:
    """A handler may make a call of its own in the middle of one."""
    if sys.platform == "win32":
        pytest.skip("no SIGALRM")
    pool = make(1)
    found: list[int] = []

    def call(*_: object) -> None:
        found.append(pool.apply(pooled.same, (len(found),)))

    before = signal.signal(signal.SIGALRM, call)
    try:
        end = time.monotonic() + SECONDS
        number = 0
        while time.monotonic() < end or not found:
            if number == 50 * len(found):
                signal.setitimer(signal.ITIMER_REAL, 0.0003)
            number += 1
            assert number == pool.apply(pooled.same, (number,))
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    assert list(range(len(found))) == found


def test_many_functions(make: Callable[..., Any]) -> None:
    """A worker forgets functions when there are many: the pool knows which, whoever gave them."""
    pool = make(1)
    functions = [partial(pooled.keyword, more=number) for number in range(70)]
    for _ in range(2):
        for number, function in enumerate(functions):
            if number % 9 == 0:
                assert (1, number) == pool.apply_async(function, (1,)).get(30)
                _await_offers(pool)
            assert (0, number) == pool.apply(function, (0,))


def test_handler_that_ends_the_pool(ctx: Any) -> None:
    """A handler may terminate the pool in the middle of a call, which ends then."""
    if sys.platform == "win32":
        pytest.skip("no SIGALRM")
    chance = random.Random(SEED)
    pools: list[Any] = []
    before = signal.signal(signal.SIGALRM, lambda *_: pools[-1].terminate())
    try:
        for _ in range(5):
            pools.append(ctx.Pool(1))
            _await_offers(pools[-1])
            signal.setitimer(signal.ITIMER_REAL, chance.uniform(0.001, 0.02))
            with pytest.raises((ValueError, TaskCancelledError), match=r"not running|terminated"):
                _call_for_ever(pools[-1])
            pools[-1].join()
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def test_many_callers_and_kills(make: Callable[..., Any], tmp_path: Any) -> None:
    """Each call has its own answer, or its worker has died; none is made twice."""
    chance = random.Random(SEED)
    journal = tmp_path / "journal"
    journal.touch()
    pool = make(2)
    over = threading.Event()
    wrong: list[Any] = []
    died: list[int] = []
    numbers = iter(range(1 << 40))
    answered: list[int] = []

    def call() -> None:
        while not over.is_set():
            number = next(numbers)
            try:
                if number != pool.apply(pooled.record, (str(journal), number)):
                    wrong.append(number)
                answered.append(number)
                if number % 5 == 0:
                    wrong.extend({number} - set(pool.map(pooled.same, [number] * 3)))
            except WorkerDiedError:
                died.append(number)
            except BaseException as error:
                wrong.append(error)

    threads = [threading.Thread(target=call) for _ in range(3)]
    for thread in threads:
        thread.start()
    end = time.monotonic() + SECONDS
    kills = 0
    while time.monotonic() < end:
        over.wait(chance.uniform(0.0, 0.1))
        ready = [each for each in list(pool._crew.members) if each.ready]
        if ready:
            with contextlib.suppress(ProcessLookupError):
                os.kill(chance.choice(ready).pid, SIGKILL)
                kills += 1
    over.set()
    for thread in threads:
        thread.join()
    recorded = [number for (number,) in struct.iter_unpack("<Q", journal.read_bytes())]

    assert [] == wrong, f"seed {SEED}"
    assert len(died) <= kills, f"seed {SEED}"
    assert len(recorded) == len(set(recorded)), f"seed {SEED}"
    assert set(answered) <= set(recorded), f"seed {SEED}"


def test_caller_of_a_pool_that_fails(
    make: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever waits for a call learns at once that the pool has failed."""
    monkeypatch.setattr(errand, "_LONGEST_WAIT", 60.0)  # nobody looks by itself
    pool = make(1)
    crew = pool._crew
    _await_offers(pool)
    raised: list[BaseException] = []

    def call() -> None:
        try:
            pool.apply(pooled.hang)
        except BrokenPoolError as error:
            raised.append(error)

    def fail() -> NoReturn:
        raise MemoryError

    caller = threading.Thread(target=call)
    caller.start()
    _await(lambda: not crew._errands._offers)
    monkeypatch.setattr(crew, "_look_at_the_clock", fail)
    crew._word.ring()
    caller.join(30)

    assert not caller.is_alive()
    (error,) = raised
    assert isinstance(error.__cause__, MemoryError)
