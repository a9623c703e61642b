"""What the metadata of installed distributions says about plugins.

Everything here reads ``entry_points.txt`` files and imports no plugin.
"""

from __future__ import annotations

from importlib import metadata
from typing import TYPE_CHECKING, Final

import attrs

if TYPE_CHECKING:
    from collections.abc import Iterator

    from procession._registry import Kind

__all__ = ["Claimant", "InstalledPlugin", "Inventory", "take_inventory"]

GROUPS: Final[dict[Kind, str]] = {
    "start_method": "procession.start_methods",
    "transport": "procession.transports",
}

_MARK: Final = "[procession."
"""In every ``entry_points.txt`` that concerns us; the others need not be parsed."""


@attrs.frozen
class Claimant:
    """A distribution that offers a plugin under some name."""

    distribution: str
    version: str
    module: str
    """The entry point's value: ``module``, or ``module:attribute``."""

    def __str__(self) -> str:
        return f"{self.distribution} {self.version}"


@attrs.frozen
class InstalledPlugin:
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


@attrs.frozen
class Inventory:
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
    for distribution in _distributions():
        title = f"{distribution.name} {distribution.version}"
        try:
            offered = list(distribution.entry_points)
        except Exception as error:  # whatever a parser makes of a broken file
            unreadable.append(f"{title} ({type(error).__name__}: {error})")
            continue
        for kind, group in GROUPS.items():
            for entry_point in offered:
                if entry_point.group != group:
                    continue
                claimant = Claimant(distribution.name, distribution.version, entry_point.value)
                others = claimants.setdefault((kind, entry_point.name), [])
                if claimant not in others:
                    others.append(claimant)
    plugins = {
        (kind, name): InstalledPlugin(kind, name, tuple(who))
        for (kind, name), who in sorted(claimants.items())
    }
    return Inventory(plugins, tuple(unreadable))


def _distributions() -> Iterator[metadata.Distribution]:
    """The distributions that speak of procession in their entry points, each once."""
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
        yield metadata.distribution(name)
