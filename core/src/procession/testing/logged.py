"""Children that log. As `payloads`, importable and cheap: `logging` is loaded when it is used."""

from __future__ import annotations

import sys

TYPE_CHECKING = False  # importing typing would bring `re` and more into every child
if TYPE_CHECKING:
    from typing import Any


class Unpicklable:
    """An argument that could not cross."""

    def __reduce__(self) -> Any:
        raise TypeError("this does not cross")

    def __str__(self) -> str:
        return "text of its own"

    def __repr__(self) -> str:
        return "<its repr>"


def log(text: str, count: int = 1, level: int = 30) -> None:
    """Log some records, numbered, at *level*."""
    import logging

    logger = logging.getLogger("child.log")
    for number in range(count):
        logger.log(level, "%s %d", text, number)


def log_and_raise(text: str) -> None:
    """Log, then fail."""
    log(text)
    raise ArithmeticError(text)


def log_and_exit(text: str) -> None:
    """Log, then end by sys.exit."""
    log(text)
    sys.exit(3)


def log_and_die(text: str, count: int) -> None:
    """Log, then be killed."""
    import os

    log(text, count)
    os.kill(os.getpid(), 9)


def log_at_exit(text: str) -> None:
    """Log in the very last moment."""
    import atexit

    atexit.register(log, text)


def log_everything(text: str) -> None:
    """Log a record with all there is to one."""
    import logging

    try:
        raise ArithmeticError("the cause")
    except ArithmeticError:
        logging.getLogger("some.name").exception(
            "%s: %s", text, Unpicklable(), extra={"plain": [1, "x"], "odd": Unpicklable()}
        )


def log_length(length: int) -> None:
    """Log one record of many characters."""
    log("x" * length)


def log_deeper(text: str, method: str, configure: bool = False) -> None:
    """Log in a child of this process, which may have a handler of its own."""
    import logging

    import procession

    if configure:
        handler = logging.StreamHandler(sys.stdout)
        handler.setFormatter(logging.Formatter("own %(processName)s %(message)s"))
        logging.getLogger().addHandler(handler)
    process = procession.get_context(method).Process(
        target=log, args=(text,), name=f"grandchild {text}"
    )
    process.start()
    process.join(check=True)


def levels(connection: Any) -> None:
    """Send the levels of some loggers, and whether a record would be made."""
    import logging

    root = logging.getLogger()
    connection.send(
        (
            root.level,
            logging.getLogger("some.name").level,
            logging.getLogger("other").isEnabledFor(logging.DEBUG),
            [type(handler).__name__ for handler in root.handlers],
        )
    )


def log_impatiently(connection: Any, patience: float, count: int) -> None:
    """Log more than a relay takes that does not read; send how long it took, then log on."""
    import time

    vars(sys.modules["procession_logging._child"])["PATIENCE"] = patience
    start = time.monotonic()
    log("early", count)
    connection.send(time.monotonic() - start)
    connection.recv()
    log("late")


def log_when_alone(path: str) -> None:
    """Log when the parent has gone, and leave word in a file."""
    import procession

    parent = procession.parent_process()
    assert parent is not None
    log("here")
    parent.join()
    log("orphan", 1000)
    with open(path, "w") as file:
        file.write("went on")
