"""The tables of the documentation say what the code says."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

import pytest

import procession.plugin

ROOT = Path(__file__).parents[1]
REFERENCE = ROOT / "docs" / "reference"
CELL_ENDS = re.compile(r"(?<!\\)\|")


def rows(page: Path, first: str) -> list[dict[str, str]]:
    """Return the rows, by heading, of every table on *page* whose first heading is *first*."""
    found: list[dict[str, str]] = []
    headings: list[str] = []
    for line in page.read_text(encoding="utf-8").splitlines():
        if not line.startswith("|"):
            headings = []
            continue
        cells = [cell.replace("`", "").strip() for cell in CELL_ENDS.split(line)[1:-1]]
        if not headings:
            headings = cells
        elif headings[0] == first and not set(cells[0]) <= {"-"}:
            found.append(dict(zip(headings, cells, strict=True)))
    return found


def _as_shown(value: object) -> str:
    return ", ".join(sorted(value)) or "none" if isinstance(value, frozenset) else str(value)


def test_every_feature_has_a_row_with_its_default() -> None:
    """Who writes a plugin declares by this page."""
    plugin = procession.plugin
    expected = [
        (name, _as_shown(value))
        for kind in (plugin.StartFeatures, plugin.TransportFeatures, plugin.SerializerFeatures)
        for name, value in kind().as_dict().items()
    ]
    shown = rows(REFERENCE / "features.md", "feature")
    assert [(row["feature"], row["default"]) for row in shown] == expected


@pytest.mark.parametrize("kind", ["start_method", "transport", "serializer"])
def test_what_our_plugins_declare(kind: str) -> None:
    """Who chooses a plugin reads it here; the plugin's own word is in its source."""
    offered = {entry.name: entry for entry in entry_points(group=f"procession.{kind}s")}
    heading = kind.replace("_", " ")
    table = rows(REFERENCE / "features.md", heading)
    folder = ROOT / {"start_method": "backends"}.get(kind, f"{kind}s")
    ours = sorted(path.parent.name for path in folder.glob("*/pyproject.toml"))
    assert [row[heading] for row in table] == ours
    for row in table:
        name = row.pop(heading)
        if name not in offered:
            pytest.skip(f"{name} is not installed")
        hook: Any = getattr(offered[name].load(), f"procession_{kind}")
        declared = hook().features.as_dict()
        assert row == {feature: _as_shown(value) for feature, value in declared.items()}


def test_the_migration_page_has_the_table_of_the_command(tmp_path: Path) -> None:
    """`procession port` and the page say the same of every name."""
    (tmp_path / "reference").mkdir()
    script = shutil.copy(ROOT / "docs" / "write_migration.py", tmp_path)
    subprocess.run([sys.executable, script], check=True)

    written = (tmp_path / "reference" / "migration.md").read_text(encoding="utf-8")
    assert (REFERENCE / "migration.md").read_text(encoding="utf-8") == written


def test_every_public_module_is_in_the_reference() -> None:
    """What has docstrings for users or plugin authors is to be found there."""
    folder = ROOT / "core" / "src" / "procession"
    public = {f"procession.{path.stem}" for path in folder.glob("[!_]*.py")}
    text = "".join(
        (REFERENCE / name).read_text(encoding="utf-8") for name in ("api.md", "plugin-api.md")
    )
    # The command line has a page of its own, where options are described rather than functions.
    assert public - set(re.findall(r"automodule:: (\S+)", text)) == {"procession.cli"}


def test_each_way_is_shown_once() -> None:
    """A reader of the front page who has an aim finds one row for it."""
    aims = re.findall(r"^\| ([^|]+) \|", (ROOT / "docs" / "index.md").read_text("utf-8"), re.M)

    assert len(aims) > 10
    assert sorted(set(aims)) == sorted(aims)
