"""What is built is what is meant: contents, metadata, and each distribution installed alone.

`tox -e wheels` builds everything and names the folder in PROCESSION_WHEELHOUSE.
"""

from __future__ import annotations

import email
import os
import re
import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
WHEELHOUSE = os.environ.get("PROCESSION_WHEELHOUSE")
FOLDERS = [
    ROOT / "core",
    *sorted(ROOT.glob("backends/*")),
    *sorted(ROOT.glob("transports/*")),
    *sorted(ROOT.glob("plugins/*")),
    *sorted(ROOT.glob("serializers/*")),
]

pytestmark = [
    pytest.mark.skipif(WHEELHOUSE is None, reason="nothing is built: run `tox -e wheels`"),
    pytest.mark.timeout(180),  # installs from the package index
]
each = pytest.mark.parametrize("folder", FOLDERS, ids=lambda path: path.name)


def _package(folder: Path) -> Path:
    (package,) = (path.parent for path in folder.glob("src/*/__init__.py"))
    return package


def _built(folder: Path, pattern: str) -> Path:
    (path,) = Path(WHEELHOUSE or "").glob(f"{_package(folder).name}-{pattern}")
    return path


@each
def test_the_wheel_holds_the_package_and_nothing_else(folder: Path) -> None:
    """Tests, caches and deleted modules have all been seen in other people's wheels."""
    package = _package(folder)
    expected = {
        str(path.relative_to(package.parent))
        for path in package.rglob("*")
        if path.is_file() and "__pycache__" not in path.parts and path.suffix != ".so"
    }
    names = zipfile.ZipFile(_built(folder, "*.whl")).namelist()
    found = {name for name in names if ".dist-info/" not in name}
    compiled = {name for name in found if name.endswith(".so")}
    assert found - compiled == expected
    assert bool(compiled) == (folder / "csrc").is_dir()
    assert f"{package.name}/py.typed" in expected
    assert any(name.endswith("/licenses/LICENSE") for name in names)


@each
def test_the_wheel_s_metadata(folder: Path) -> None:
    """What the index shows, and what pip decides by."""
    with zipfile.ZipFile(_built(folder, "*.whl")) as wheel:
        (name,) = (name for name in wheel.namelist() if name.endswith(".dist-info/METADATA"))
        metadata = email.message_from_bytes(wheel.read(name))
    assert metadata["Requires-Python"] == ">=3.11"
    assert metadata["License-Expression"] == "MIT"
    assert "# procession" in str(metadata.get_payload())


@each
def test_its_readme_is_what_the_index_shows(folder: Path) -> None:
    """It is rendered as there, with its tables, and its links lead somewhere from there."""
    from readme_renderer import markdown

    with zipfile.ZipFile(_built(folder, "*.whl")) as wheel:
        (name,) = (name for name in wheel.namelist() if name.endswith(".dist-info/METADATA"))
        metadata = email.message_from_bytes(wheel.read(name))
    assert metadata["Description-Content-Type"].startswith("text/markdown")
    text = str(metadata.get_payload())
    assert (folder / "README.md").read_text(encoding="utf-8").strip() == text.strip()
    page = markdown.render(text)
    assert page is not None
    assert "<h1>procession" in page
    assert text.count("\n| ---") == page.count("<table")
    links = re.findall(r"<a href=\"([^\"]*)\"", page)
    assert [] == [link for link in links if not link.startswith(("https://", "#"))]


@each
def test_the_source_distribution_can_be_built_and_read(folder: Path) -> None:
    """Packagers start here: they need the licence, the README, the sources and the settings."""
    with tarfile.open(_built(folder, "*.tar.gz")) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    package = _package(folder)
    assert {"LICENSE", "README.md", "pyproject.toml", f"src/{package.name}/__init__.py"} <= names


def test_the_index_would_accept_everything() -> None:
    """Twine renders the READMEs and checks the metadata as the index does."""
    files = [str(path) for path in Path(WHEELHOUSE or "").iterdir()]
    assert len(files) == 2 * len(FOLDERS)
    subprocess.run(
        [sys.executable, "-m", "twine", "--no-color", "check", "--strict", *files], check=True
    )


@each
def test_installed_alone_it_can_be_imported(folder: Path, tmp_path: Path) -> None:
    """Each distribution names all that it needs; core knows no plugin by its file."""
    subprocess.run([sys.executable, "-m", "venv", tmp_path / "venv"], check=True)
    python = tmp_path / "venv" / "bin" / "python"
    wheels = {_built(FOLDERS[0], "*.whl"), _built(folder, "*.whl")}
    subprocess.run([python, "-m", "pip", "install", "--quiet", *wheels], check=True)
    name = _package(folder).name
    code = f"import procession.plugin, {name}; print({name}.__version__)"
    if folder.name != "core":
        code += f"; import {name}.hooks"
    subprocess.run([python, "-W", "error", "-c", code], check=True, cwd=tmp_path)


@pytest.mark.parametrize(("required", "succeeds"), [("", True), ("1", False)])
def test_the_ring_is_built_without_a_compiler_but_not_for_a_release(
    tmp_path: Path, required: str, succeeds: bool
) -> None:
    """Installing never fails for want of a compiler; a release is never made without one."""
    folder = tmp_path / "ring"
    shutil.copytree(
        ROOT / "transports" / "ring", folder, ignore=shutil.ignore_patterns("build", "*.so")
    )
    built = subprocess.run(
        [sys.executable, "-m", "build", "--no-isolation", "--wheel", "--outdir", tmp_path, folder],
        env={**os.environ, "CC": "false", "PROCESSION_RING_REQUIRE_EXTENSION": required},
        capture_output=True,
        check=False,
    )
    assert succeeds == (built.returncode == 0), built.stderr
    for path in tmp_path.glob("*.whl"):
        assert not any(name.endswith(".so") for name in zipfile.ZipFile(path).namelist())
