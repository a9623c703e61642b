"""Making the two ends of a pipe, which know of each other."""

from __future__ import annotations

from procession._channels.twin import watch_each_other
from procession.connection import Connection
from procession.errors import IncompatiblePluginsError, NothingToLendError

TYPE_CHECKING = False  # every module of the parent makes a fork dearer
if TYPE_CHECKING:
    from typing import Any

    from procession._contracts.channel import Channel
    from procession._contracts.transport import Transport
    from procession._ground.encoder import Encoder


def pipe(
    transport: Transport,
    duplex: bool = True,
    encoder: Encoder | None = None,
    lease_budget: int | None = None,
    **options: Any,
) -> tuple[Connection, Connection]:
    """Return two connected ends over *transport*; with *duplex* both send and receive.

    Without, the first end only receives and the second only sends. *encoder* as for
    `Connection.over`; with a *lease_budget* they lend memory, so many bytes in each direction
    (0: as many as usual); *options* are the transport's. Raises `IncompatiblePluginsError`
    when the transport declares that it has no duplex pairs, and `NothingToLendError` where
    there can be no leases.
    """
    if duplex and not transport.features.duplex:
        raise IncompatiblePluginsError(
            f"transport {transport.name!r} has no duplex pairs, as it declares: ask for "
            f"Pipe(duplex=False), or choose another transport"
        )
    if lease_budget is None:
        ends = transport.pair(duplex=duplex, **options)
        if ends[0].takes_companion:
            _accompany(*ends)
    else:
        ends = _lending_pair(transport, duplex, lease_budget, options)
    first, second = (Connection.over(end, encoder) for end in ends)
    watch_each_other(first, second)
    return first, second


def _accompany(first: Channel, second: Channel) -> None:
    """Give two new ends a way for descriptors; they are closed when there are none."""
    from procession._ground.companion import companions

    try:
        sockets = companions()
    except OSError:
        first.close()
        second.close()
        raise
    for end, companion in zip((first, second), sockets, strict=True):
        end.accompany(companion)


def _lending_pair(
    transport: Transport, duplex: bool, budget: int, options: dict[str, Any]
) -> tuple[Channel, Channel]:
    """Return the channels of two ends that lend."""
    from procession._channels.lending_channel import LendingChannel, obstacle

    reason = obstacle()
    if reason is None and transport.features.shares_memory:
        reason = f"processes at both ends, and those of transport {transport.name!r} are threads"
    if reason is not None:
        raise NothingToLendError(f"a pipe with leases needs {reason}; leave leases=True out")
    return LendingChannel.pair(*transport.pair(duplex=duplex, **options), budget)
