"""Whether a start method and a transport can work together."""

from __future__ import annotations

from procession.errors import IncompatiblePluginsError

TYPE_CHECKING = False  # every module of the parent makes a fork dearer
if TYPE_CHECKING:
    from procession._choosing.registry import Registry
    from procession._contracts.start_method import StartMethod
    from procession._contracts.transport import Transport

__all__ = ["negotiate", "obstacle"]


def obstacle(start_method: type[StartMethod], transport: type[Transport], /) -> str | None:
    """Return why the two cannot work together, from what they declare, or None."""
    gives = start_method.features
    needs = transport.features
    if needs.shares_memory and not gives.shares_memory:
        return (
            f"{transport.name!r} carries messages within one process only (shares_memory), and "
            f"the children of {start_method.name!r} are others"
        )
    if gives.shares_memory and not needs.shares_memory:
        return (
            f"the children of {start_method.name!r} are threads (shares_memory), which end as "
            f"processes do only where they use a transport of their own kind, and "
            f"{transport.name!r} is none"
        )
    if needs.needs_descriptors and not (gives.carries_descriptors or gives.inherits_memory):
        return (
            f"{transport.name!r} needs_descriptors, and {start_method.name!r} neither "
            "carries_descriptors nor inherits_memory"
        )
    if needs.same_host and not gives.same_host:
        return (
            f"{transport.name!r} needs both processes on the same_host, which "
            f"{start_method.name!r} does not promise"
        )
    return None


def negotiate(
    start_method: type[StartMethod], transport: type[Transport], /, *, registry: Registry
) -> None:
    """Refuse a pair that cannot work, before anything is started with it.

    Raises `IncompatiblePluginsError`, which names both, the missing feature, and which
    pairs of what *registry* has would work. Only then are other plugins loaded, and those
    that cannot be are left out of the answer.
    """
    reason = obstacle(start_method, transport)
    if reason is None:
        return
    pairs = [
        (a_start_method, a_transport)
        for a_start_method in _usable_start_methods(registry)
        for a_transport in _usable_transports(registry)
        if obstacle(a_start_method, a_transport) is None
    ]
    # Whoever asked wants to change as little as possible.
    close = [pair for pair in pairs if pair[0] is start_method or pair[1] is transport]
    listing = ", ".join(f"{a.name} with {b.name}" for a, b in close or pairs)
    raise IncompatiblePluginsError(
        f"start method {start_method.name!r} and transport {transport.name!r} cannot work "
        f"together: {reason}; "
        + (f"what would work: {listing}" if listing else "no installed pair would work")
    )


def _usable_start_methods(registry: Registry) -> list[type[StartMethod]]:
    names = registry.names("start_method")
    return [
        registry.load("start_method", name)
        for name in names
        if registry.problem("start_method", name) is None
    ]


def _usable_transports(registry: Registry) -> list[type[Transport]]:
    names = registry.names("transport")
    return [
        registry.load("transport", name)
        for name in names
        if registry.problem("transport", name) is None
    ]
