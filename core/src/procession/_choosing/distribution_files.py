"""The metadata of installed distributions, read from where installers write it.

`importlib.metadata` does the same for every way of installing there is, and takes 25 ms
to be imported (it brings email, zipfile and csv), which is as long as everything else
that a program's first queue needs. Nearly always all distributions are plain folders on
`sys.path`; then their files are read here. Whatever is out of the ordinary is left to the
library, and a test compares the two.
"""

from __future__ import annotations

import os
import sys
from _frozen_importlib_external import PathFinder

from procession._ground.value import Value

_ENDINGS = (".dist-info", ".egg-info")


class PlainDistribution(Value):
    """What a distribution says about its entry points."""

    name: str
    version: str
    #: The text of ``entry_points.txt``.
    entry_points: str

    def parse(self) -> list[tuple[str, str, str]]:
        """Return ``(group, name, value)`` of each entry point.

        Raises `ValueError` for a line that is none of the format's.
        """
        return parse(self.entry_points)


def read_plain(mark: str) -> list[PlainDistribution] | None:
    """Return the distributions whose entry points contain *mark*, first come first.

    Of several with one name only the first on `sys.path` counts, as for an import. None
    when something on the path has to be left to `importlib.metadata`: an archive, an
    importer that finds distributions of its own, a folder without a proper name.
    """
    for finder in sys.meta_path:
        if finder is not PathFinder and hasattr(finder, "find_distributions"):
            return None
    seen: set[str] = set()
    found = []
    for folder in dict.fromkeys(sys.path):
        try:
            names = os.listdir(folder or os.curdir)
        except NotADirectoryError:
            return None
        except OSError:
            continue  # it does not exist, or may not be read: nothing can be imported from it
        for name in names:
            if not name.endswith(_ENDINGS):
                continue
            title = name.rpartition(".")[0]
            key = title.partition("-")[0].lower().replace(".", "_")
            if key in seen:
                continue
            seen.add(key)
            place = os.path.join(folder, name)
            text = _read(place, "entry_points.txt")
            if mark in text:
                distribution = _identify(place, text)
                if distribution is None:
                    return None
                found.append(distribution)
    return found


def parse(text: str) -> list[tuple[str, str, str]]:
    """Return ``(group, name, value)`` of each entry point in *text*.

    Raises `ValueError` for a line that is none of the format's.
    """
    group = ""
    entry_points = []
    for line in map(str.strip, text.splitlines()):
        if not line or line[0] in "#;":
            continue
        if line[0] == "[" and line[-1] == "]":
            group = line[1:-1].strip()
            continue
        name, equals, value = line.partition("=")
        if not (group and equals):
            raise ValueError(f"{line!r} is neither a [group] nor name = value")
        entry_points.append((group, name.strip(), value.strip()))
    return entry_points


def _identify(place: str, entry_points: str) -> PlainDistribution | None:
    """Read name and version as the author writes them."""
    fields: dict[str, str] = {}
    for line in (_read(place, "METADATA") or _read(place, "PKG-INFO")).splitlines():
        if not line:
            break  # the description follows
        key, _, value = line.partition(":")
        fields.setdefault(key.lower(), value.strip())
    if not fields.get("name"):
        return None
    return PlainDistribution(
        name=fields["name"], version=fields.get("version", ""), entry_points=entry_points
    )


def _read(place: str, name: str) -> str:
    try:
        with open(os.path.join(place, name), encoding="utf-8", errors="replace") as file:
            return file.read()
    except OSError:
        return ""
