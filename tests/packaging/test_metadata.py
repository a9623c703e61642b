"""The distributions are alike: one version, one shape of metadata, names that agree."""

from __future__ import annotations

import ast
import tomllib
from pathlib import Path
from typing import Any

import pytest

import procession

ROOT = Path(__file__).parents[2]
START_METHODS = {"fork": "Fork", "spawn": "Spawn", "forkserver": "ForkServer"}
TRANSPORTS = {"pipe": "Pipe", "socketpair": "SocketPair", "ring": "Ring", "tcp": "Tcp"}
HOOKS = ("seeds", "logging", "coverage")
SERIALIZERS = ("cloudpickle",)
PLUGINS = {
    **{name: ROOT / "backends" / name for name in START_METHODS},
    **{name: ROOT / "transports" / name for name in TRANSPORTS},
    **{name: ROOT / "plugins" / name for name in HOOKS},
    **{name: ROOT / "serializers" / name for name in SERIALIZERS},
}
DISTRIBUTIONS = [ROOT / "core", *PLUGINS.values()]

each_distribution = pytest.mark.parametrize("folder", DISTRIBUTIONS, ids=lambda path: path.name)
each_plugin = pytest.mark.parametrize("name", PLUGINS)


def _metadata(folder: Path) -> dict[str, Any]:
    return tomllib.loads((folder / "pyproject.toml").read_text(encoding="utf-8"))


def _package(folder: Path) -> Path:
    name: str = _metadata(folder)["project"]["name"]
    return folder / "src" / name.replace("-", "_")


def _version(folder: Path) -> str:
    """Read `__version__` as flit does, without importing the package."""
    tree = ast.parse((_package(folder) / "__init__.py").read_text(encoding="utf-8"))
    for node in tree.body:
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__version__":
            return str(ast.literal_eval(node.value))
    raise AssertionError(f"{folder.name} has no __version__")


@each_distribution
def test_versions_agree(folder: Path) -> None:
    """A release is one version of everything; a plugin left behind would not install."""
    assert _version(folder) == procession.__version__


@each_distribution
def test_metadata_has_one_shape(folder: Path) -> None:
    """Whoever knows one distribution knows them all, and none forgets its licence or README."""
    expected = _metadata(ROOT / "core")
    actual = _metadata(folder)
    if not (folder / "csrc").is_dir():  # flit compiles nothing
        assert actual["build-system"] == expected["build-system"]
    for key in ("authors", "classifiers", "dynamic", "license", "license-files", "requires-python"):
        assert actual["project"][key] == expected["project"][key], key
    assert actual["project"]["description"]
    assert (folder / "README.md").is_file()
    assert (_package(folder) / "py.typed").is_file()


@each_distribution
def test_licence_is_the_repository_s(folder: Path) -> None:
    """The copies exist since each distribution is built alone; they must not drift apart."""
    assert (folder / "LICENSE").read_text() == (ROOT / "LICENSE").read_text()


@each_plugin
def test_a_plugin_has_one_name_all_the_way_down(name: str) -> None:
    """Distribution, package, entry point and folder are found from one word."""
    project = _metadata(PLUGINS[name])["project"]
    folder = PLUGINS[name].parent.name
    group = "procession." + {"backends": "start_methods"}.get(folder, folder)
    assert project["name"] == f"procession-{name}"
    groups = [group, *(["procession.primitives"] if name == "ring" else [])]
    assert project["entry-points"] == {each: {name: f"procession_{name}.hooks"} for each in groups}
    assert "procession-plugin" in project["keywords"]


@each_plugin
def test_a_plugin_s_readme_says_when_not_to_use_it(name: str) -> None:
    """A choice needs both sides."""
    text = (PLUGINS[name] / "README.md").read_text(encoding="utf-8")
    assert "## When to use it" in text
    assert "## When not to use it" in text


def test_siblings_depend_on_this_series() -> None:
    """Core's extras and the plugins' dependencies name the release series that is built here."""
    series = ".".join(procession.__version__.split(".")[:2]) + ".0"
    extras = _metadata(ROOT / "core")["project"]["optional-dependencies"]
    for name, folder in PLUGINS.items():
        assert extras[name] == [f"procession-{name}~={series}"]
        assert f"procession~={series}" in _metadata(folder)["project"]["dependencies"]
    assert extras["all"] == [requirement for name in PLUGINS for requirement in extras[name]]


def test_runtime_dependencies_of_core() -> None:
    """Each further dependency would be installed by everybody."""
    names = [text.split(">")[0] for text in _metadata(ROOT / "core")["project"]["dependencies"]]
    assert names == ["attrs", "pluggy"]


def test_the_one_install_command_installs_everything_editable() -> None:
    """A distribution that is missing there is not tested; one without -e is tested stale."""
    lines = (ROOT / "requirements-dev.txt").read_text().splitlines()
    editable = {line.removeprefix("-e ./").split("[")[0] for line in lines if line.startswith("-e")}
    assert editable == {str(folder.relative_to(ROOT)) for folder in DISTRIBUTIONS}
