"""Messages on their way, of which some take longer than others."""

from __future__ import annotations

import math
import time
from collections import deque
from typing import TYPE_CHECKING

from procession.testing.faults._life import Life, changed, is_over

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from procession.plugin import Buffer, Message
    from procession.testing.faults._script import Cut, Delay

#: Who waits looks so often whether somebody is left who could end the wait, in seconds.
LOOK_SECONDS = 1.0


class Item:
    """One message. `left` is for how many seconds it must still be waited for.

    `is_whole` is false when only a part of it was written, `is_taken` when nobody has got it.
    """

    __slots__ = ("body", "buffers", "is_taken", "is_whole", "left", "sender")

    def __init__(self, sender: Life, body: Buffer, buffers: Sequence[Buffer], left: float) -> None:
        self.sender = sender
        self.body = bytes(body)
        self.buffers = [bytearray(buffer) for buffer in buffers]
        self.left = left
        self.is_whole = True
        self.is_taken = False

    def __len__(self) -> int:
        """Return the length of the whole message, in bytes."""
        return len(self.body) + sum(map(len, self.buffers))

    def message(self, into: memoryview | None = None) -> Message:
        """Return it as `Channel.receive` does."""
        if into is None or self.buffers or len(self.body) > len(into):
            return self.body, self.buffers
        into[: len(self.body)] = self.body
        return into[: len(self.body)], self.buffers


class Flow:
    """Messages on their way to one end, or, if it *mixes* senders, to whoever gets them.

    Everything is called with `changed` held.
    """

    def __init__(self, *, mixes: bool) -> None:
        self.items: deque[Item] = deque()
        self._mixes = mixes
        self._count = 0
        self.cuts: list[Cut] = []
        self.delays: list[Delay] = []
        #: Whose messages come next, if that was said.
        self.order: deque[str] = deque()

    def number(self, sender: Life) -> tuple[Cut | None, float]:
        """Count one message; return where it is cut off, if it is, and how long it takes."""
        self._count += 1
        sender.sent += 1
        cuts = [rule for rule in self.cuts if rule.message == self._count]
        cuts += [rule for rule in sender.cuts if rule.message == sender.sent]
        delays = [rule.seconds for rule in self.delays if rule.message == self._count]
        delays += [rule.seconds for rule in sender.delays if rule.message == sender.sent]
        return (cuts[0] if cuts else None), sum(delays)

    def head(self) -> Item | None:
        """Return the message that comes next, whether it has arrived or not; None without one."""
        while self.order:
            pattern = self.order[0]
            for item in self.items:
                if item.sender.matches(pattern):
                    return item
            if not is_over(pattern):
                return None  # it is still to come
            self.order.popleft()
        if not self._mixes:
            return self.items[0] if self.items else None
        # The first of each sender, of which the one that arrives first.
        firsts: dict[Life, Item] = {}
        for item in self.items:
            firsts.setdefault(item.sender, item)
        return min(firsts.values(), key=lambda item: item.left, default=None)

    def has_arrived(self) -> bool:
        """Return whether a message can be taken without waiting."""
        item = self.head()
        return item is not None and item.left <= 0

    def take(self) -> Item:
        """Take the next message, which has arrived."""
        item = self.head()
        assert item is not None
        self.items.remove(item)
        item.is_taken = True
        if self.order:
            self.order.popleft()
        changed.notify_all()
        return item

    def release(self) -> bool:
        """Have every delayed message arrive; return whether there was one."""
        delayed = [item for item in self.items if item.left > 0]
        for item in delayed:
            item.left = 0
        return bool(delayed)

    def wait(
        self,
        timeout: float | None,
        life: Life,
        is_at_end: Callable[[], bool],
        is_stuck: Callable[[], bool] = bool,
    ) -> bool | None:
        """Return whether a message, or the end, is there within *timeout* seconds.

        If a message is on its way, the seconds pass at once. None when *is_stuck* says that
        nobody can end this wait. Raises what `Life.check_alive` does.
        """
        seconds = math.inf if timeout is None else max(0.0, timeout)
        deadline = time.monotonic() + seconds
        while True:
            life.check_alive()
            item = self.head()
            if item is not None and item.left < math.inf:
                passed = min(item.left, seconds)
                self._pass(passed)
                return item.left <= 0
            if is_at_end():
                return True
            if is_stuck():
                return None
            left = deadline - time.monotonic()
            if left <= 0:
                return False
            changed.wait(min(left, LOOK_SECONDS))

    def _pass(self, seconds: float) -> None:
        """Let so many seconds pass for all that is on its way."""
        for item in self.items:
            item.left = max(0.0, item.left - seconds)
