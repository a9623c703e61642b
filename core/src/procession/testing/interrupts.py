"""Ctrl-C at the moments at which an interpreter loses it; what children do for tests of that."""

from __future__ import annotations

import gc
import importlib
import os
import select
import signal
import sys
from _operator import call
from _thread import interrupt_main
from collections import deque
from collections.abc import Callable
from functools import partial
from typing import Any
from weakref import ref

from procession._ground import waiting as _polls
from procession._pools import waiters as _waiters
from procession._processes import sigint
from procession.testing.payloads import Spec, context, hold_for_ever

assert sys.platform == "linux"


#: What is patched, as the type checker does not want it.
_waiting: Any = _polls
_pool_waiters: Any = _waiters


def in_one_step(*calls: Callable[[], object]) -> None:
    """Call functions of C one after the other: the interpreter looks for no signal in between."""
    deque(map(call, calls), maxlen=0)


def press() -> None:
    """Get SIGINT."""
    os.kill(os.getpid(), signal.SIGINT)


# -- in a callback out of which nothing can be raised


class _Thing:
    """Something that a weak reference can refer to."""


class _Pressing:
    def __del__(self) -> None:
        press()


def press_in_weakref() -> None:
    """Get SIGINT in the callback of a weak reference."""
    thing = _Thing()
    reference = ref(thing, lambda _: press())
    del thing
    del reference


def press_in_del() -> None:
    """Get SIGINT in a ``__del__``."""
    pressing = _Pressing()
    del pressing


def press_in_gc() -> None:
    """Get SIGINT in a callback of the garbage collector."""

    def once(*_: object) -> None:
        gc.callbacks.remove(once)
        press()

    gc.callbacks.append(once)
    gc.collect()


_bootstrap: Any = importlib._bootstrap


class _Imp:
    """The module `_imp`, with SIGINT when the lock of a module that was imported is forgotten."""

    def __init__(self, real: Any) -> None:
        self._real = real

    def __getattr__(self, name: str) -> Any:
        return getattr(self._real, name)

    def acquire_lock(self) -> None:
        if sys._getframe(1).f_code.co_name == "cb":
            _bootstrap._imp = self._real
            press()
        self._real.acquire_lock()


def press_in_import() -> None:
    """Get SIGINT in the weak reference's callback at the end of an import."""
    _bootstrap._imp = _Imp(_bootstrap._imp)
    sys.modules.pop("colorsys", None)
    import colorsys  # noqa: F401


CALLBACKS: dict[str, Callable[[], None]] = {
    "weakref": press_in_weakref,
    "del": press_in_del,
    "gc": press_in_gc,
    "import": press_in_import,
}


def press_and_hold(where: str) -> None:
    """Get SIGINT in the callback *where*, and go on for ever if it is lost."""
    CALLBACKS[where]()
    hold_for_ever()


def press_and_catch(where: str, connection: Any) -> None:
    """Catch what SIGINT in the callback *where* raises, and say so."""
    try:
        CALLBACKS[where]()
        for _ in range(10):
            pass
        connection.send("lost")
    except KeyboardInterrupt:
        connection.send("caught")


def press_with_handler(where: str, connection: Any) -> None:
    """Have a handler of one's own, which raises KeyboardInterrupt; say how often it was called."""
    calls: list[int] = []

    def handle(number: int, frame: object) -> None:
        calls.append(number)
        raise KeyboardInterrupt

    signal.signal(signal.SIGINT, handle)
    CALLBACKS[where]()
    for _ in range(10):
        pass
    connection.send(calls)


# -- between the interpreter's last look and a system call


class _DeafPoll:
    """A poll() before which SIGINT comes, when the interpreter has looked for the last time."""

    def __init__(self) -> None:
        self._real = _poll()
        self.register = self._real.register

    def poll(self, timeout: float | None = None) -> list[tuple[int, int]]:
        found: list[list[tuple[int, int]]] = []
        _waiting.select = select
        in_one_step(interrupt_main, partial(found.extend, map(self._real.poll, (timeout,))))
        return found[0]


class _Select:
    """The module `select`, for one poll."""

    poll = _DeafPoll


class _DeafLock:
    """A lock before the waiting for which SIGINT comes in the same way."""

    def __init__(self) -> None:
        self._real = _lock()
        self.release = self._real.release

    def acquire(self, *args: Any, **kwargs: Any) -> bool:
        if not kwargs:
            return bool(self._real.acquire(*args))
        _pool_waiters.allocate_lock = _lock
        in_one_step(interrupt_main, partial(self._real.acquire, **kwargs))
        return False


_poll = select.poll
_lock = _pool_waiters.allocate_lock


def look_often() -> None:
    """Have waits of this process look again ten times a second, where it would be once."""
    often = 0.1
    _waiting.LONGEST_SLEEP = _pool_waiters.LONGEST_SLEEP = often
    sigint._NUDGE_SECONDS = often


def be_deaf_at_next_poll() -> None:
    """Have SIGINT come just before the next poll() of procession's."""
    look_often()
    _waiting.select = _Select


def poll_deaf(connection: Any) -> None:
    """Wait for a message that never comes; see `be_deaf_at_next_poll`."""
    be_deaf_at_next_poll()
    connection.poll(None)


def wait_for_pool_deaf(spec: Spec) -> None:
    """Wait for a pool in the same way."""
    with context(spec).Pool(1) as pool:
        result = pool.apply_async(hold_for_ever)
        look_often()
        _pool_waiters.allocate_lock = _DeafLock
        result.get()


def receive_deaf(connection: Any) -> None:
    """Wait in the C code of a ring in the same way."""
    in_one_step(interrupt_main, connection.channel.receive)


def acquire_deaf(lock: Any) -> None:
    """Wait for a lock, which is held, in the same way, if it is one in C."""
    in_one_step(interrupt_main, lock.acquire)


def read_deaf(connection: Any) -> None:
    """Wait in the same way in a system call that is not procession's; first say who we are."""
    reader, _ = os.pipe()
    connection.send(os.getpid())
    in_one_step(interrupt_main, partial(os.read, reader, 1))
