"""Glancing whether an answer has come, before a connection sleeps until it does."""

from __future__ import annotations

from procession._messages.lookout import Lookout

TYPE_CHECKING = False  # importing typing would bring `re` and more into every child
if TYPE_CHECKING:
    from collections.abc import Callable


class Glance:
    """A `Lookout` for the messages of one connection. Threads: any; one of them looks."""

    __slots__ = ("_ask", "_is_taken", "_lookout")

    def __init__(self, ask: Callable[[], object]) -> None:
        """*ask* says, at once, whether something has come; one thread at a time calls it."""
        self._ask = ask
        self._lookout = Lookout()
        self._is_taken = False

    def __call__(self) -> None:
        """Return when something has come, or when it is time to sleep."""
        if self._is_taken:
            return  # a second thread, or a signal handler that has interrupted the first one
        self._is_taken = True
        try:
            self._lookout.look(self._ask)
        finally:
            self._is_taken = False
