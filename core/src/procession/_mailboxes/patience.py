"""How long a sender that finds no room lets the receivers catch up, and the like."""

from __future__ import annotations

#: One nap, in seconds. Long enough for receivers to take tens of messages without
#: being woken for each, short against what a person or a deadline notices.
NAP = 0.0001
# What may be spent on naps that turn out to be in vain before we stop trying.
_SAVINGS = 0.02
#: What a message that was taken during a nap earns, in seconds: naps go on as long as receivers
#: take 20 000 messages a second or more.
REWARD = 0.00005
#: Writing so many bytes to memory that was never touched takes as much longer as a message that
#: is taken during a nap is worth (measured).
BYTES_OF_WORTH = 128 << 10
# The share of its time that a sender goes on trying with when its savings are spent.
_ALLOWANCE = 0.01
# What is spent beyond them is made up for first, up to here: who was stopped meanwhile has not
# spent that.
_MOST_DEBT = 0.005


class Patience:
    """The time that the senders of one process may spend waiting for slow receivers.

    Naps pay when receivers are about to make room, as taking turns in bulk is several
    times faster than keeping every message in memory; they are a waste when nobody
    receives. Which it is, a nap itself finds out. No thread needs a lock for this: an
    update that two threads make at once may count once.

    The same goes for receivers that wait for the next message, see `_mailboxes.turns`.
    """

    __slots__ = ("_most", "_savings", "_since")

    def __init__(self, savings: float = _SAVINGS) -> None:
        """*savings*: what may be spent in vain, in seconds."""
        self._savings = self._most = savings
        self._since = 0.0

    def allows(self, now: float) -> bool:
        """Return whether to take a nap at time *now*."""
        if self._savings > 0:
            return True
        if now - self._since < max(NAP, -self._savings) / _ALLOWANCE:
            return False
        self._savings = NAP
        return True

    def record(self, now: float, slept: float, taken: float) -> None:
        """Count a nap of *slept* seconds, ended *now*, in which *taken* messages left."""
        self._since = now
        savings = self._savings - slept + taken * REWARD
        self._savings = max(-_MOST_DEBT, min(self._most, savings))
