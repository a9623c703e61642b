"""What the workers of the tests of pools do."""

from __future__ import annotations

import os
import sys
import threading
import time
from pathlib import Path
from typing import Any, NoReturn

from procession.testing.forked import until

_SIGKILL, _SIGSTOP = 9, 19
_initial: list[Any] = []


def same(value: Any) -> Any:
    """Return *value*."""
    return value


def keyword(value: Any, *, more: Any = 0) -> Any:
    """Return both."""
    return value, more


def square(number: int) -> int:
    """Return the square of *number*."""
    return number * number


def open_no_more() -> None:
    """Have no descriptor to be had in this process from now on; an initializer."""
    if sys.platform == "win32":
        raise OSError("this platform has no such limit")
    import resource

    free = os.dup(0)
    os.close(free)
    resource.setrlimit(resource.RLIMIT_NOFILE, (free, free))


def pid(_: Any = None) -> int:
    """Return which process this is."""
    return os.getpid()


def parent_pid(_: Any = None) -> int:
    """Return which process started this one."""
    return os.getppid()


def fail(value: Any) -> NoReturn:
    """Raise with *value*."""
    raise ValueError("bad", value)


def fail_if_odd(number: int) -> int:
    """Return an even number and refuse an odd one."""
    if number % 2:
        raise ValueError("odd", number)
    return number


def die(how: str = "kill") -> NoReturn:
    """End this process in the middle of a task."""
    if how == "kill":
        os.kill(os.getpid(), _SIGKILL)
    if how == "exit":
        sys.exit(3)
    if how == "quietly":
        sys.exit(0)
    os._exit(7)


def die_if(number: int, fatal: int) -> int:
    """Die of *fatal*, return everything else."""
    if number == fatal:
        die()
    return number


def die_once(flag: str, value: Any) -> Any:
    """Die the first time, return *value* afterwards; *flag* is a file that tells."""
    path = Path(flag)
    if not path.exists():
        path.touch()
        die()
    return value


def wait_for(flag: str) -> str:
    """Wait until the file *flag* exists. Raises `TimeoutError` if it does not come to be."""
    until(Path(flag).exists)
    return flag


def touch(flag: str) -> str:
    """Make the file *flag*."""
    Path(flag).touch()
    return flag


def touch_and_wait(begun: str, flag: str) -> str:
    """Make the file *begun*, and wait for the file *flag*."""
    touch(begun)
    return wait_for(flag)


def begin_and_hang(flag: str) -> None:
    """Make the file *flag* and never return."""
    touch(flag)
    hang()


def hang(_: Any = None) -> None:
    """Never return."""
    while True:
        time.sleep(1000)


def unpicklable(_: Any = None) -> Any:
    """Return what cannot be pickled."""
    return lambda: None


class Stubborn(Exception):
    """Can be pickled, and not unpickled."""

    def __init__(self, one: int, two: int) -> None:
        super().__init__(f"{one} and {two}")


class Unsendable(Exception):
    """Cannot be pickled."""

    def __reduce__(self) -> NoReturn:
        raise RuntimeError("not this one")


class Trap:
    """Kills the process that unpickles it."""

    def __reduce__(self) -> Any:
        return die, ()


def raise_stubborn(_: Any = None) -> NoReturn:
    """Raise what cannot be unpickled."""
    raise Stubborn(1, 2)


def raise_unsendable(_: Any = None) -> NoReturn:
    """Raise what cannot be pickled."""
    raise Unsendable("secret")


def stop_iteration(*_: Any) -> NoReturn:
    """Raise what ends iterators."""
    raise StopIteration("no more")


def initialize(value: Any) -> None:
    """Remember *value* in this worker."""
    _initial.append(value)


def initial(_: Any = None) -> list[Any]:
    """Return what this worker was initialized with."""
    return list(_initial)


def fail_to_initialize(*_: Any) -> NoReturn:
    """Be an initializer that fails."""
    raise LookupError("no such thing")


def die_while_initializing(*_: Any) -> NoReturn:
    """Be an initializer that kills its process."""
    os._exit(9)


def zeros(size: int) -> Any:
    """Return an array of *size* zero bytes."""
    import numpy as np

    return np.zeros(size, np.uint8)


def total(array: Any) -> int:
    """Return the sum of an array."""
    return int(array.sum())


def long_bytes(size: int) -> bytes:
    """Return *size* bytes."""
    return b"x" * size


def length(value: Any) -> int:
    """Return how long *value* is."""
    return len(value)


def nested(spec: tuple[str, str, str], count: int) -> list[int]:
    """Use a pool in a worker of a pool."""
    from procession.testing import payloads

    with payloads.context(spec).Pool(2) as pool:
        found: list[int] = pool.map(square, range(count))
        return found


def leave_pool_open(spec: tuple[str, str, str], sender: Any) -> None:
    """Be a process that ends with a pool open and work going on."""
    from procession.testing import payloads

    pool = payloads.context(spec).Pool(2)
    pool.apply_async(hang)
    sender.send(pool.map(pid, range(4), chunksize=1))
    globals()["_kept"] = pool


def hold(lock: Any, flag: str) -> None:
    """Hold a lock until the end."""
    lock.acquire()
    begin_and_hang(flag)


_lock: Any = None


def keep_lock(lock: Any) -> None:
    """Be an initializer that keeps a lock."""
    global _lock
    _lock = lock


def die_with_lock(_: Any = None) -> None:
    """Die with the lock in the hand."""
    _lock.acquire()
    die()


def record(journal: str, number: int) -> int:
    """Append *number* to the file *journal* in one piece; return it."""
    fd = os.open(journal, os.O_WRONLY | os.O_APPEND)
    try:
        os.write(fd, number.to_bytes(8, "little"))
    finally:
        os.close(fd)
    return number


def sleep_and_record(journal: str, seconds: float, number: int) -> int:
    """Record *number* after a while."""
    time.sleep(seconds)
    return record(journal, number)


class Counter:
    """Has a state that a task takes along."""

    def __init__(self) -> None:
        self.value = 0

    def get(self) -> int:
        """Return the state."""
        return self.value


def leave_a_copy(_: Any = None) -> int:
    """Fork a child that keeps what it has inherited, and return which one."""
    if sys.platform == "win32":
        raise OSError("no fork here")
    child = os.fork()
    if child == 0:
        hang()
    return child


def die_later(seconds: float) -> NoReturn:
    """Die after a while."""
    time.sleep(seconds)
    die()


def die_while_answering(flag: str, copy: str) -> bytes:
    """Wait for *flag* and return more than anybody takes at once; die within it.

    The file *copy* tells of a child that lives on."""
    Path(copy).write_text(str(leave_a_copy()))
    wait_for(flag)
    threading.Timer(0.5, die).start()
    return b"x" * (8 << 20)


def stop_while_answering(flag: str) -> bytes:
    """Wait for *flag* and return more than anybody takes at once; be stopped within it."""
    wait_for(flag)
    threading.Timer(0.2, os.kill, (os.getpid(), _SIGSTOP)).start()
    return b"x" * (8 << 20)


class Bomb:
    """Can be pickled in a worker, and not unpickled in the parent."""

    def __init__(self) -> None:
        self.home = os.getpid()

    def __reduce__(self) -> Any:
        return explode_away_from, (self.home,)


def explode_away_from(home: int) -> str:
    """Fail in every process but one."""
    if os.getpid() != home:
        raise LookupError("not here")
    return "at home"


def bomb(_: Any = None) -> Bomb:
    """Return what cannot be unpickled."""
    return Bomb()
