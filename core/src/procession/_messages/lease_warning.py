"""The warning that leases keep all the memory there is to lend."""

from __future__ import annotations

import sys
import warnings

from procession.errors import LeaseWarning

TYPE_CHECKING = False  # importing typing would bring `re` and more into every child
if TYPE_CHECKING:
    from procession._mailboxes.shelves import AllLent

# The modules between who puts or sends and the one that has no memory.
_OURS = "procession._", "procession.connection", "procession.queues"


def warn_of_leases(lent: AllLent, what: str, getting: str, filling: str) -> None:
    """Warn whoever has put or sent what *lent* is about, at the line that does so.

    *what* has no memory, and *getting* and *filling* are the calls that lend it.
    """
    who = ", ".join(f"{each.process!r} (pid {each.pid})" for each in lent.holders)
    warnings.warn(
        f"{what} has no memory to lend for an object of {lent.wanted >> 10} KiB: leases keep "
        f"{lent.size >> 10} of {lent.most >> 10} KiB. They are held by "
        f"{who or 'unknown processes'}, or processes forked from there. Until some of them end "
        f"(del what {getting} has returned and {filling} has given), large objects are "
        f"copied, which is slower",
        LeaseWarning,
        stacklevel=_level_of_user(),
    )


def _level_of_user() -> int:
    """Return how many callers above our own one is the first that is not in our modules."""
    level = 1
    frame = sys._getframe(1)
    while frame.f_back is not None and frame.f_globals.get("__name__", "").startswith(_OURS):
        frame = frame.f_back
        level += 1
    return level
