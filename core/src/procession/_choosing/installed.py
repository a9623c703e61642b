"""What the metadata of installed distributions says about plugins.

Everything here reads ``entry_points.txt`` files and imports no plugin.
"""

from __future__ import annotations

from procession._choosing import distribution_files
from procession._ground.value import Value

TYPE_CHECKING = False  # importing typing would cost more than all that is done here
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from importlib.metadata import Distribution
    from typing import Final

    from procession._choosing.registry import Kind

__all__ = ["Claimant", "InstalledPlugin", "Inventory", "take_inventory"]

GROUPS: Final[dict[Kind, str]] = {
    "start_method": "procession.start_methods",
    "transport": "procession.transports",
    "serializer": "procession.serializers",
    "primitive": "procession.primitives",
    "plugin": "procession.plugins",
}

_MARK: Final = "[procession."
"""In every ``entry_points.txt`` that concerns us; the others need not be parsed."""


class Claimant(Value):
    """A distribution that offers a plugin under some name."""

    distribution: str
    version: str
    module: str
    """The entry point's value: ``module``, or ``module:attribute``."""

    def __str__(self) -> str:
        return f"{self.distribution} {self.version}"


class InstalledPlugin(Value):
    """One name of one kind, and who offers it."""

    kind: Kind
    name: str
    claimants: tuple[Claimant, ...]
    """More than one if the name is disputed; it cannot be used then."""

    @property
    def distribution(self) -> str:
        """The name of the distribution, as its author writes it."""
        return self.claimants[0].distribution

    @property
    def version(self) -> str:
        """The version of the distribution."""
        return self.claimants[0].version

    @property
    def module(self) -> str:
        """Where the hooks are: ``module``, or ``module:attribute``."""
        return self.claimants[0].module


class Inventory(Value):
    """All plugins that were installed when it was taken."""

    plugins: dict[tuple[Kind, str], InstalledPlugin]
    unreadable: tuple[str, ...]
    """Distributions that mean to offer plugins in metadata that cannot be parsed."""

    def names(self, kind: Kind) -> list[str]:
        """The names of one kind, sorted."""
        return sorted(name for a_kind, name in self.plugins if a_kind == kind)


def take_inventory() -> Inventory:
    """Read which plugins the distributions on `sys.path` offer.

    One distribution that is on the path several times (an editable install beside its
    leftovers, say) counts once, as what comes first: that is what would be imported.
    Metadata that cannot be parsed is reported in the result and hides nothing else.
    """
    claimants: dict[tuple[Kind, str], list[Claimant]] = {}
    unreadable: list[str] = []
    for name, version, entry_points in _distributions():
        try:
            offered = entry_points()
        except Exception as error:  # whatever a parser makes of a broken file
            unreadable.append(f"{name} {version} ({type(error).__name__}: {error})")
            continue
        for kind, group in GROUPS.items():
            for a_group, plugin, module in offered:
                if a_group != group:
                    continue
                claimant = Claimant(distribution=name, version=version, module=module)
                others = claimants.setdefault((kind, plugin), [])
                if claimant not in others:
                    others.append(claimant)
    plugins = {
        (kind, name): InstalledPlugin(kind=kind, name=name, claimants=tuple(who))
        for (kind, name), who in sorted(claimants.items())
    }
    return Inventory(plugins=plugins, unreadable=tuple(unreadable))


def _distributions() -> Iterator[tuple[str, str, Callable[[], list[tuple[str, str, str]]]]]:
    """The distributions that speak of procession in their entry points, each once.

    Name, version, and a function that returns group, name and value of each entry point.
    """
    plain = distribution_files.read_plain(_MARK)
    if plain is None:
        yield from _distributions_of_any_kind()
        return
    for found in plain:
        yield found.name, found.version, found.parse


def _distributions_of_any_kind() -> Iterator[
    tuple[str, str, Callable[[], list[tuple[str, str, str]]]]
]:
    """As `_distributions`, from `importlib.metadata`."""
    from functools import partial
    from importlib import metadata

    seen: set[str] = set()
    for distribution in metadata.distributions():
        text = distribution.read_text("entry_points.txt")
        if text is None or _MARK not in text:
            continue
        name = distribution.name
        if not name or name in seen:
            continue
        seen.add(name)
        # A copy further up the path shadows this one, even if it offers nothing.
        first = metadata.distribution(name)
        yield first.name, first.version, partial(_entry_points, first)


def _entry_points(distribution: Distribution) -> list[tuple[str, str, str]]:
    return [(point.group, point.name, point.value) for point in distribution.entry_points]
