"""The warning that leases keep all the memory there is to lend."""

from __future__ import annotations

import warnings

from procession.errors import LeaseWarning

TYPE_CHECKING = False  # importing typing would bring `re` and more into every child
if TYPE_CHECKING:
    from procession._shelves import AllLent


def warn_of_leases(lent: AllLent, *, stacklevel: int) -> None:
    """Warn whoever puts into a queue, *stacklevel* callers above, what *lent* says."""
    who = ", ".join(f"{each.process!r} (pid {each.pid})" for each in lent.holders)
    warnings.warn(
        f"a queue has no memory to lend for an object of {lent.wanted >> 10} KiB: leases keep "
        f"{lent.size >> 10} of {lent.most >> 10} KiB. They are held by "
        f"{who or 'unknown processes'}, or processes forked from there. Until some of them end "
        f"(del what get(lease=True) has returned and put_empty has given), large objects are "
        f"copied, which is slower",
        LeaseWarning,
        stacklevel=stacklevel + 1,
    )
