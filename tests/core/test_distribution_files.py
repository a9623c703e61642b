"""Metadata read from files says what the library says, at a fraction of its cost."""

from __future__ import annotations

import subprocess
import sys
import zipfile
from importlib import metadata
from typing import TYPE_CHECKING, Any

import pytest

from procession._choosing import distribution_files
from procession._choosing.installed import take_inventory

if TYPE_CHECKING:
    from pathlib import Path

PLUGIN = {"procession.start_methods": {"quick": "quick_plugin:hooks"}}


def test_both_ways_of_reading_agree(monkeypatch: pytest.MonkeyPatch) -> None:
    """On this very environment, files and library give the same inventory."""
    from_files = take_inventory()
    monkeypatch.setattr(distribution_files, "read_plain", lambda mark: None)

    assert take_inventory() == from_files


def test_both_ways_agree_on_a_shadowed_distribution(
    site: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What comes first on the path hides a later copy, even when it offers nothing."""
    site.install("Quick.Plugin", "", version="2.0")
    later = tmp_path / "later"
    later.mkdir()
    site.install("quick-plugin", PLUGIN, into=later)
    monkeypatch.setattr(sys, "path", [*sys.path, str(later)])

    from_files = take_inventory().plugins
    monkeypatch.setattr(distribution_files, "read_plain", lambda mark: None)

    assert take_inventory().plugins == from_files == {}


def test_names_are_as_their_author_writes_them(site: Any) -> None:
    """A message names the distribution that `pip uninstall` knows."""
    site.install("Quick.Plugin", PLUGIN, version="2.0")

    (found,) = distribution_files.read_plain("[procession.") or []

    assert ("Quick.Plugin", "2.0") == (found.name, found.version)
    assert [("procession.start_methods", "quick", "quick_plugin:hooks")] == found.parse()


def test_an_archive_on_the_path_is_left_to_the_library(tmp_path: Path) -> None:
    """Distributions in a zip file are found too, by whoever can read it."""
    archive = tmp_path / "more.zip"
    with zipfile.ZipFile(archive, "w") as file:
        file.writestr(
            "zipped-1.0.dist-info/METADATA", "Metadata-Version: 2.1\nName: zipped\nVersion: 1.0\n"
        )
        file.writestr(
            "zipped-1.0.dist-info/entry_points.txt",
            "[procession.transports]\nzipped = zipped_plugin\n",
        )
    program = (
        f"import sys; sys.path.append({str(archive)!r})\n"
        "from procession._choosing import distribution_files, installed\n"
        "assert distribution_files.read_plain('[procession.') is None\n"
        "assert 'zipped' in installed.take_inventory().names('transport')\n"
    )

    # A program of its own: the library keeps an archive open that it has looked into.
    assert 0 == subprocess.run([sys.executable, "-c", program], timeout=30).returncode


@pytest.mark.parametrize("text", ["no group = here", "[group]\nno equals sign"])
def test_broken_metadata_is_refused(text: str) -> None:
    """A line that is no entry point is an error, and not a plugin that silently lacks."""
    with pytest.raises(ValueError, match="is neither"):
        distribution_files.parse(text)


def test_the_library_is_not_imported_for_plain_folders() -> None:
    """A program's first queue does not pay for email, zipfile and csv."""
    program = (
        "import sys, procession._choosing.installed as installed\n"
        "installed.take_inventory()\n"
        "sys.exit('importlib.metadata' in sys.modules)"
    )

    assert 0 == subprocess.run([sys.executable, "-c", program], timeout=30).returncode


def test_the_metadata_of_core_is_where_it_is_looked_for() -> None:
    """The library finds core, so that the comparison above is not one of nothing."""
    assert metadata.version("procession")
