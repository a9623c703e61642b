"""Distributions made for a test: real metadata on `sys.path`, nothing patched."""

from __future__ import annotations

import importlib
import os
import sys
import textwrap
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

# Tests take the directories of installed plugins off the path, and with them these two.
import attrs  # noqa: F401
import pluggy  # noqa: F401
import pytest

import procession
from procession._choosing import installed as _installed  # noqa: F401
from procession._choosing import negotiation  # noqa: F401
from procession._choosing import selection as _selection
from procession._choosing.selector import Selector
from procession._contracts import hookspecs  # noqa: F401
from procession._starting import launch as _launch

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

START_METHOD = """
from procession._contracts.features import StartFeatures
from procession.plugin import hookimpl
from procession._contracts.start_method import StartMethod

class Fake(StartMethod):
    name = {name!r}
    features = StartFeatures({features})

    @classmethod
    def unavailable(cls):
        return {reason!r}

    def launch(self, plan, /):
        raise NotImplementedError

@hookimpl
def procession_start_method():
    return Fake
"""

TRANSPORT = """
from procession._contracts.features import TransportFeatures
from procession.plugin import hookimpl
from procession._contracts.transport import Transport

class Fake(Transport):
    name = {name!r}
    features = TransportFeatures({features})

    @classmethod
    def unavailable(cls):
        return {reason!r}

    def pair(self, *, duplex=True):
        raise NotImplementedError

@hookimpl
def procession_transport():
    return Fake
"""


class FakeSite:
    """A directory on `sys.path` into which a test installs what it needs."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory

    def install(
        self,
        distribution: str,
        entry_points: Mapping[str, Mapping[str, str]] | str,
        modules: Mapping[str, str] | None = None,
        *,
        version: str = "1.0",
        into: Path | None = None,
    ) -> None:
        """Write a distribution: groups of entry points (or their file), and modules."""
        directory = self.directory if into is None else into
        stem = distribution.replace("-", "_")
        info = directory / f"{stem}-{version}.dist-info"
        info.mkdir(parents=True)
        (info / "METADATA").write_text(
            f"Metadata-Version: 2.1\nName: {distribution}\nVersion: {version}\n"
        )
        if not isinstance(entry_points, str):
            entry_points = "\n".join(
                f"[{group}]\n" + "\n".join(f"{name} = {value}" for name, value in each.items())
                for group, each in entry_points.items()
            )
        (info / "entry_points.txt").write_text(entry_points)
        for name, source in (modules or {}).items():
            (directory / f"{name}.py").write_text(textwrap.dedent(source))

    def start_method(
        self, name: str, *, features: str = "", reason: str | None = None, source: str | None = None
    ) -> None:
        """Install ``procession-<name>`` with a start method, by default one that is fine."""
        if source is None:
            source = START_METHOD.format(name=name, features=features, reason=reason)
        module = f"fake_start_method_{name}"
        self.install(
            f"procession-{name}", {"procession.start_methods": {name: module}}, {module: source}
        )

    def transport(
        self, name: str, *, features: str = "", reason: str | None = None, source: str | None = None
    ) -> None:
        """Install ``procession-<name>`` with a transport, by default one that is fine."""
        if source is None:
            source = TRANSPORT.format(name=name, features=features, reason=reason)
        module = f"fake_transport_{name}"
        self.install(
            f"procession-{name}", {"procession.transports": {name: module}}, {module: source}
        )


def _offers_plugins(directory: str) -> bool:
    return any(
        "[procession." in (distribution.read_text("entry_points.txt") or "")
        for distribution in metadata.distributions(path=[directory])
    )


@pytest.fixture(scope="session")
def path_without_plugins() -> list[str]:
    """`sys.path` without the directories where real plugins are installed."""
    return [directory for directory in sys.path if not _offers_plugins(directory or os.curdir)]


@pytest.fixture
def site(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, path_without_plugins: list[str]
) -> Iterator[FakeSite]:
    """An empty site directory, the only one on the path that offers plugins."""
    directory = tmp_path / "site"
    directory.mkdir()
    monkeypatch.setattr(sys, "path", [str(directory), *path_without_plugins])
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    before = set(sys.modules)
    yield FakeSite(directory)
    for name in set(sys.modules) - before:
        if name.startswith("fake_"):
            del sys.modules[name]


@pytest.fixture
def reference(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """A start method that shows what it is given, known to a selection of the test's own."""
    monkeypatch.syspath_prepend(str(Path(__file__).parent / "reference"))
    plugins = importlib.import_module("reference_plugins")
    selector = Selector()
    selector.registry.adopt(
        {
            ("start_method", "reference"): "reference_plugins:Reference",
            ("transport", "memory"): "procession.testing.faults:Memory",
        }
    )
    monkeypatch.setattr(_selection, "_selector", selector)
    monkeypatch.setattr(_launch, "methods", _launch.Methods())
    plugins.Reference.plans.clear()
    monkeypatch.setattr(plugins.Reference, "refusal", None)
    yield plugins
    _launch.methods.close()


@pytest.fixture
def ctx(reference: Any) -> Any:
    """A context of it, with the transport in memory."""
    return procession.get_context("reference", transport="memory")
