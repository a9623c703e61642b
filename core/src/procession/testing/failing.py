"""Children that fail, each in its own way. As `payloads`, importable and cheap."""

from __future__ import annotations

import os
import sys

TYPE_CHECKING = False  # importing typing would bring `re` and more into every child
if TYPE_CHECKING:
    from typing import Any

    from procession.testing.payloads import Spec


def fail_with_cause() -> None:
    """Raise an error with a note, from another."""
    try:
        raise KeyError("inner")
    except KeyError as error:
        outer = ArithmeticError("outer")
        outer.add_note("a note")
        raise outer from error


#: The text of an exception whose report takes a while to write.
LONG_TEXT = "0123456789" * 2000


def fail_at_leisure(connection: Any) -> None:
    """Say that it begins, and raise a long error from another, which is from another."""
    connection.send("begins")
    try:
        try:
            raise KeyError(LONG_TEXT)
        except KeyError as error:
            raise ValueError(LONG_TEXT) from error
    except ValueError as error:
        raise ArithmeticError(LONG_TEXT) from error


class HoldsALock(Exception):
    """An exception that cannot be pickled."""

    def __init__(self) -> None:
        super().__init__("it holds a lock")
        import threading

        self.lock = threading.Lock()


class WantsTwo(Exception):
    """An exception that is pickled without complaint and cannot be unpickled."""

    def __init__(self, first: str, second: str) -> None:
        super().__init__(f"{first} and {second}")


class Ends(Exception):
    """An exception whose unpickling ends the program."""

    def __reduce__(self) -> tuple[Any, ...]:
        return sys.exit, (5,)


class Unreadable(Exception):
    """An exception without a text."""

    def __str__(self) -> str:
        raise ValueError("no text")


def fail_with(kind: type[Exception], *args: object) -> None:
    """Raise an exception that is made here."""
    raise kind(*args)


def fail_with_connection(spec: Spec) -> None:
    """Raise an error that holds a connection."""
    from procession.testing.payloads import context

    raise ArithmeticError(*context(spec).Pipe())


def fail_at_length(size: int) -> None:
    """Raise an error of so many bytes."""
    raise ArithmeticError("x" * size)


def fail_in_a_circle() -> None:
    """Raise an error that is the cause of its own cause."""
    first, second = ArithmeticError("first"), KeyError("second")
    first.__cause__, second.__cause__ = second, first
    raise first


class Unloadable:
    """An argument that cannot be imported in the child."""

    def __reduce__(self) -> tuple[Any, ...]:
        return fail_to_import, ()


def fail_to_import() -> None:
    """Fail as an import does."""
    raise ImportError("no such module")


def crash_by(number: int) -> None:
    """End by a signal, with this function on the stack."""
    os.kill(os.getpid(), number)


def exhaust_memory() -> None:
    """Ask for more memory than there is."""
    held = [bytearray(1 << 30) for _ in range(1 << 10)]
    del held


def use_up_descriptors() -> None:
    """Open files until that fails, and keep all of them."""
    held = []
    while True:
        held.append(os.open(os.devnull, os.O_RDONLY))


def lose_descriptors(path: str) -> None:
    """Close every descriptor, open files in their places, and fail."""
    os.closerange(3, 100)
    for _ in range(30):
        os.open(path, os.O_WRONLY)
    raise ArithmeticError("lost")


def fork_a_failure() -> None:
    """Fork in the plain way, let the copy fail as this process would, and succeed."""
    if sys.platform == "win32":
        raise OSError("no fork on Windows")
    pid = os.fork()
    if pid == 0:
        raise ArithmeticError("of the copy")
    _, status = os.waitpid(pid, 0)
    sys.exit(40 + os.waitstatus_to_exitcode(status))


def tell_failure(connection: Any, spec: Spec, target: Any, *args: object) -> None:
    """Send how a child of this child has failed."""
    from procession.testing.payloads import context

    process = context(spec).Process(target=target, args=args)
    process.start()
    process.join()
    connection.send(process.failure)


def loaded_modules() -> list[str]:
    """The names of all modules of this process."""
    return sorted(sys.modules)


def hang_up(*ends: object) -> None:
    """End without having answered."""
    sys.exit(3)
