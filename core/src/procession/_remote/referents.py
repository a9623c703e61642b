"""The objects in a manager's server, and who refers to them.

A referent lives as long as somebody counts on it: the *session* of a process that has
proxies, whose references go when its connection does, however the process has ended; a
*ticket*, which stands for a proxy on its way (in a message, or in a process that is just
starting), is exchanged for a reference on arrival and lapses after a while; or, for clients
of the standard library, a bare count.
"""

from __future__ import annotations

import itertools
import os
from _thread import RLock
from collections import Counter
from time import monotonic

from procession.errors import ReferentLostError

TYPE_CHECKING = False  # importing typing would bring `re` and more into every child
if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from typing import Any

#: How long a ticket is good for, in seconds.
TICKET_SECONDS = 60.0


class Referent:
    """An object, the methods that may be called, and the types that their results get."""

    __slots__ = ("count", "exposed", "method_to_typeid", "obj", "typeid")

    def __init__(
        self,
        typeid: str,
        obj: Any,
        exposed: frozenset[str],
        method_to_typeid: Mapping[str, str],
    ) -> None:
        self.typeid = typeid
        self.obj = obj
        self.exposed = exposed
        self.method_to_typeid = method_to_typeid
        self.count = 0


class Referents:
    """All of one server. Threads: any; a finalizer may let go of one at any point."""

    def __init__(self) -> None:
        self._lock = RLock()
        self._by_ident: dict[str, Referent] = {}
        self._tickets: dict[str, tuple[float, tuple[str, ...]]] = {}
        # Never used twice, unlike an address in memory: a stale proxy must not reach another.
        self._numbers = itertools.count(1)

    def add(self, referent: Referent) -> tuple[str, str]:
        """Keep *referent*; return its ident and a ticket for its first reference."""
        with self._lock:
            ident = f"{next(self._numbers):x}"
            self._by_ident[ident] = referent
            return ident, self.issue((ident,))

    def find(self, ident: str) -> Referent:
        """Return the referent. Raises `ReferentLostError` when there is none."""
        found = self._by_ident.get(ident)
        if found is None:
            raise ReferentLostError(
                f"there is no object {ident!r} in this manager: nobody refers to it any more, or "
                f"the proxy was on its way for more than {TICKET_SECONDS:g} seconds"
            )
        return found

    def take(self, ident: str, holder: Counter[str] | None = None) -> None:
        """Count one reference more, on *holder*'s account. Raises like `find`."""
        with self._lock:
            self.find(ident).count += 1
            if holder is not None:
                holder[ident] += 1

    def drop(self, ident: str, holder: Counter[str] | None = None, times: int = 1) -> None:
        """Count *times* references less; the last one takes the referent along."""
        with self._lock:
            if holder is not None:
                holder[ident] -= times
                if holder[ident] <= 0:
                    del holder[ident]
            found = self.find(ident)
            found.count -= times
            gone = self._by_ident.pop(ident) if found.count <= 0 else None
        del found
        # What the object's own finalizer does, it does without the lock.
        del gone

    def drop_all(self, holder: Counter[str]) -> None:
        """Give back all references of *holder*, who has gone."""
        for ident, times in list(holder.items()):
            self.drop(ident, holder, times)

    def issue(self, idents: Iterable[str]) -> str:
        """Return a ticket, which holds one reference to each of *idents*. Raises like `find`."""
        self.lapse()
        idents = tuple(idents)
        with self._lock:
            for ident in idents:
                self.find(ident)
            for ident in idents:
                self.take(ident)
            ticket = os.urandom(8).hex()
            self._tickets[ticket] = monotonic() + TICKET_SECONDS, idents
            return ticket

    def redeem(self, ident: str, ticket: str | None, holder: Counter[str] | None = None) -> None:
        """Take a reference for *holder*, and let go of the ticket's. Raises like `find`.

        The second who comes with a ticket gets a reference as well, as long as there is one.
        """
        with self._lock:
            self.take(ident, holder)
            if ticket is not None and ticket in self._tickets:
                self._void(ticket)

    def lapse(self) -> None:
        """Void the tickets that nobody came with in time."""
        with self._lock:
            now = monotonic()
            for ticket, (end, _) in list(self._tickets.items()):
                if end > now:
                    return  # they are in the order of their ends
                self._void(ticket)

    def _void(self, ticket: str) -> None:
        for ident in self._tickets.pop(ticket)[1]:
            self.drop(ident)

    def __len__(self) -> int:
        """Return how many referents there are."""
        self.lapse()
        return len(self._by_ident)

    def describe(self) -> str:
        """Return a line for each referent: ident, count and the beginning of its text."""
        with self._lock:
            found = sorted(self._by_ident.items())
        return "\n".join(
            f"  {ident}:       refcount={each.count}\n    {str(each.obj)[:75]}"
            for ident, each in found
        )
