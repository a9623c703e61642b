"""What runs in children and servers of the tests of managers."""

from __future__ import annotations

import os
import sys
import threading

TYPE_CHECKING = False  # importing typing would bring `re` and more into every child
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any


class Silent(Exception):
    """Refuses to be looked at."""

    def __getattribute__(self, name: str) -> Any:
        """Refuse."""
        raise RuntimeError("do not look")


class Counter:
    """A type to register."""

    def __init__(self, start: int = 0) -> None:
        self.number = start
        self._hidden = "hidden"

    def up(self, by: int = 1) -> int:
        """Count."""
        self.number += by
        return self.number

    def fail(self, text: str) -> None:
        """Raise."""
        raise ArithmeticError(text)

    def fail_oddly(self) -> None:
        """Raise what cannot be pickled."""
        error = ArithmeticError("odd")
        error.extra = threading.Lock()  # type: ignore[attr-defined]
        raise error

    def fail_without_a_word(self) -> None:
        """Raise an exception that nothing can be learned of."""
        raise Silent

    def unpicklable(self) -> Any:
        """Return what cannot be pickled."""
        return threading.Lock()

    def me(self) -> Counter:
        """Return itself; a proxy, if so registered."""
        return self

    def _private(self) -> None:
        """Not for others."""


def numbers(count: int) -> Iterator[int]:
    """A generator to register."""
    yield from range(count)


def pid() -> int:
    """Where am I?"""
    return os.getpid()


class Shortage:
    """A type to register: has its server run out of descriptors, and helps it out again."""

    def __init__(self) -> None:
        from contextlib import ExitStack

        self._stack = ExitStack()

    def begin(self, count: int) -> None:
        """Leave *count* descriptors that can still be opened."""
        self.end()
        if sys.platform == "linux":
            from procession.testing.shortage import free_descriptors

            self._stack.enter_context(free_descriptors(count))

    def end(self) -> None:
        """Have as many as ever."""
        self._stack.close()


def fail_to_begin() -> None:
    """An initializer that fails."""
    raise LookupError("not today")


def die() -> None:
    """An initializer that dies."""
    os._exit(7)


def fill(mapping: Any, key: Any, value: Any) -> None:
    """Set an item."""
    mapping[key] = value


def note_silence(mapping: Any) -> None:
    """Put into *mapping* how long its server may owe this process an answer."""
    mapping["session"] = mapping._session.silence
    (line,) = mapping._session._calls.idle
    mapping["line"] = line._channel.silence.limit


def append_many(sequence: Any, count: int, lock: Any) -> None:
    """Append, with a lock, what depends on what is there."""
    for _ in range(count):
        with lock:
            sequence.append(len(sequence))


def use_all(connection: Any, *proxies: Any) -> None:
    """Send what each proxy looks like from here."""
    connection.send([str(proxy) for proxy in proxies])


def hold_proxy(connection: Any, proxy: Any) -> None:
    """Refer to a proxy until told otherwise, or killed."""
    connection.send(str(proxy))
    connection.recv()


def make_and_hold(connection: Any, manager: Any, count: int) -> None:
    """Make objects and refer to them until killed."""
    made = [manager.list([number]) for number in range(count)]
    connection.send(len(made))
    connection.recv()


def start_manager(connection: Any, ctx_spec: Any) -> None:
    """Start a manager and hold it."""
    from procession.testing.payloads import context

    manager = context(ctx_spec).Manager()
    connection.send((manager._process.pid, manager.address))
    connection.recv()


def wait_at(barrier: Any, queue: Any) -> None:
    """Meet the others."""
    queue.put(barrier.wait(20))


def acquire_for_ever(connection: Any, lock: Any) -> None:
    """Acquire a lock twice, which blocks."""
    lock.acquire()
    connection.send("acquired")
    lock.acquire()
