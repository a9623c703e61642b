"""What the tests of serializers send, and what their children do; imported in children too."""

from __future__ import annotations

import sys
from typing import Any

from procession.process import Process


def adder(amount: int) -> Any:
    """Return a function that nobody can import."""

    def add(number: int) -> int:
        return number + amount

    return add


class Holder:
    """Has something as an attribute."""

    def __init__(self, callback: Any) -> None:
        self.callback = callback

    def get(self) -> Any:
        """Return it."""
        return self.callback


class Slotted:
    """Has something in a slot."""

    __slots__ = ("inner",)

    def __init__(self, inner: Any) -> None:
        self.inner = inner


class Wild:
    """Raises when it is pickled, and says how often it was tried."""

    tried = 0

    def __reduce__(self) -> Any:
        """Refuse."""
        type(self).tried += 1
        raise ValueError("wild things cannot be pickled")


class Callback(Process):
    """Calls what it was made with."""

    def __init__(self, callback: Any, answers: Any) -> None:
        super().__init__()
        self.callback = callback
        self.answers = answers

    def run(self) -> None:
        """Send what the call returns."""
        self.answers.send(self.callback(1))


def answer(queue: Any, sender: Any) -> None:
    """Put a function that cannot be imported; say whether that had to load the serializer."""
    before = "procession_cloudpickle" in sys.modules
    queue.put(adder(3))
    sender.send((before, "procession_cloudpickle" in sys.modules))


def tell_selection(sender: Any) -> None:
    """Send the serializer that is selected here, and whether it is loaded."""
    import procession

    choice = procession.selection().serializer
    sender.send((choice.name, choice.source, "procession_cloudpickle" in sys.modules))
