"""The registry: plugins by name, one at a time, and errors that answer the next question."""

from __future__ import annotations

import pickle
import sys
import threading
from typing import TYPE_CHECKING

import pytest

from procession._choosing.registry import Registry
from procession._contracts.start_method import StartMethod
from procession.errors import (
    DuplicatePluginError,
    NoPluginError,
    PluginContractError,
    PluginLoadError,
    PluginUnavailableError,
    UnknownPluginError,
)

if TYPE_CHECKING:
    from pathlib import Path

    from tests.core.conftest import FakeSite


def message_of(registry: Registry, name: str) -> str:
    """What is wrong with a start method, in words."""
    return str(registry.problem("start_method", name))


class TestListing:
    """What is installed, from the metadata alone."""

    def test_names_who_offers_what(self, site: FakeSite) -> None:
        """The command line shows distribution, version and module of each plugin."""
        site.start_method("spawn")

        [plugin] = Registry().installed("start_method")

        assert ("start_method", "spawn") == (plugin.kind, plugin.name)
        assert ("procession-spawn", "1.0") == (plugin.distribution, plugin.version)
        assert "fake_start_method_spawn" == plugin.module
        assert 1 == len(plugin.claimants)

    def test_imports_nothing(self, site: FakeSite) -> None:
        """A broken or slow plugin does not matter to whoever only asks what is there."""
        site.start_method("spawn", source="raise SystemExit('imported')")
        registry = Registry()

        assert ["spawn"] == registry.names("start_method")
        registry.check_name("start_method", "spawn")
        assert "fake_start_method_spawn" not in sys.modules

    def test_kinds_are_apart(self, site: FakeSite) -> None:
        """A start method and a transport may have the same name."""
        site.start_method("fork")
        site.transport("pipe")
        registry = Registry()

        assert ["fork"] == registry.names("start_method")
        assert ["pipe"] == registry.names("transport")

    def test_survives_metadata_that_cannot_be_parsed(self, site: FakeSite) -> None:
        """One broken distribution hides no other, and is named when something is missed."""
        site.install("acme-broken", "[procession.start_methods]\nno equals sign here\n")
        site.start_method("spawn")
        registry = Registry()

        assert ["spawn"] == registry.names("start_method")
        with pytest.raises(UnknownPluginError, match=r"entry points of acme-broken 1\.0 .*cannot"):
            registry.load("start_method", "acme")

    def test_sees_what_is_installed_later(self, site: FakeSite) -> None:
        """A name that was unknown a moment ago is looked for again."""
        registry = Registry()
        assert [] == registry.names("start_method")

        site.start_method("spawn")

        assert "spawn" == registry.load("start_method", "spawn").name


class TestLoading:
    """The class behind a name."""

    def test_gives_the_class(self, site: FakeSite) -> None:
        """The ordinary case, and it is the same class each time."""
        site.start_method("spawn")
        registry = Registry()

        spawn = registry.load("start_method", "spawn")

        assert issubclass(spawn, StartMethod)
        assert spawn is registry.load("start_method", "spawn")

    def test_imports_that_plugin_only(self, site: FakeSite) -> None:
        """One broken plugin never harms another."""
        site.start_method("spawn")
        site.start_method("bad", source="import does_not_exist")

        registry = Registry()
        registry.load("start_method", "spawn")

        assert "fake_start_method_bad" not in sys.modules
        assert registry.problem("start_method", "bad") is not None
        assert registry.problem("start_method", "spawn") is None

    def test_is_the_same_for_all_threads(self, site: FakeSite) -> None:
        """Two threads inside one plugin's hook do not wait for each other, and agree."""
        source = """
            import threading
            from procession._contracts.features import StartFeatures
            from procession.plugin import hookimpl
            from procession._contracts.start_method import StartMethod

            class Fake(StartMethod):
                name = "spawn"
                features = StartFeatures()
                def launch(self, plan, /): ...

            both = threading.Barrier(2)

            @hookimpl
            def procession_start_method():
                both.wait(10)
                return Fake
        """
        site.start_method("spawn", source=source)
        registry = Registry()
        found: list[type[StartMethod]] = []

        def load() -> None:
            found.append(registry.load("start_method", "spawn"))

        threads = [threading.Thread(target=load) for _ in range(2)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

        assert 2 == len(found)
        assert found[0] is found[1]


class TestRefusing:
    """Each way in which a plugin cannot be had, in words that say what to do."""

    def test_unknown_name(self, site: FakeSite) -> None:
        """A typing error is answered with the nearest name and with what is installed."""
        site.start_method("spawn")

        with pytest.raises(UnknownPluginError, match=r"'spwan'.*did you mean 'spawn'.*'spawn'"):
            Registry().load("start_method", "spwan")

    def test_unknown_name_of_ours(self, site: FakeSite) -> None:
        """What we have but the deployment has not is one command away."""
        site.start_method("spawn")

        with pytest.raises(UnknownPluginError, match="pip install procession-fork"):
            Registry().load("start_method", "fork")

    def test_nearest_name_is_not_installed(self, site: FakeSite) -> None:
        """A typing error in the name of what is not installed gets both answers."""
        with pytest.raises(NoPluginError, match=r"'forkserver'\? \(pip install procession-forks"):
            Registry().load("start_method", "forkservr")

    def test_name_of_the_other_kind(self, site: FakeSite) -> None:
        """Confusing a transport with a start method is explained."""
        site.transport("pipe")

        with pytest.raises(ValueError, match=r"'pipe' is a transport"):
            Registry().load("start_method", "pipe")

    def test_says_who_chose_the_name(self, site: FakeSite) -> None:
        """The variable or file with the typing error in it is named."""
        with pytest.raises(UnknownPluginError, match="chosen by PROCESSION_START_METHOD"):
            Registry().load("start_method", "x", source="PROCESSION_START_METHOD")

    @pytest.mark.parametrize("name", [None, 3, b"spawn", StartMethod])
    def test_not_a_name(self, site: FakeSite, name: object) -> None:
        """Passing something else than a name is a TypeError that shows it."""
        with pytest.raises(TypeError, match="by its name, a str, not"):
            Registry().load("start_method", name)  # type: ignore[call-overload]

    def test_class_instead_of_its_name(self, site: FakeSite) -> None:
        """Whoever passes the class of a plugin is told the name to pass."""
        site.start_method("spawn")
        registry = Registry()
        spawn = registry.load("start_method", "spawn")

        with pytest.raises(TypeError, match="pass its name, 'spawn'"):
            registry.load("start_method", spawn)  # type: ignore[call-overload]

    def test_two_claimants(self, site: FakeSite) -> None:
        """Choosing silently between two distributions would be a guess."""
        site.start_method("spawn")
        site.install("acme-spawn", {"procession.start_methods": {"spawn": "acme"}}, version="2.1")

        with pytest.raises(DuplicatePluginError) as caught:
            Registry().load("start_method", "spawn")

        assert "procession-spawn 1.0" in str(caught.value)
        assert "acme-spawn 2.1" in str(caught.value)
        assert ("start_method", "spawn") == (caught.value.kind, caught.value.plugin)
        assert "spawn" in Registry().names("start_method")

    def test_one_distribution_twice_on_the_path(self, site: FakeSite, tmp_path: Path) -> None:
        """An editable install beside its leftovers is one claimant: the first on the path."""
        site.start_method("spawn")
        entry_points = {"procession.start_methods": {"spawn": "fake_start_method_spawn"}}
        site.install("procession-spawn", entry_points, into=tmp_path / "same")
        site.install("procession_spawn", entry_points, version="0.9", into=tmp_path / "old")
        sys.path.extend([str(tmp_path / "same"), str(tmp_path / "old")])

        [plugin] = Registry().installed("start_method")

        assert ["1.0"] == [claimant.version for claimant in plugin.claimants]
        assert "spawn" == Registry().load("start_method", "spawn").name

    @pytest.mark.parametrize(
        ("source", "cause"),
        [
            ("import does_not_exist", ModuleNotFoundError),
            ("raise SystemExit(3)", SystemExit),
            ("def broken(:", SyntaxError),
        ],
    )
    def test_import_fails(self, site: FakeSite, source: str, cause: type[BaseException]) -> None:
        """The error names plugin, distribution and version, and keeps the original."""
        site.start_method("spawn", source=source)

        with pytest.raises(PluginLoadError, match=r"'spawn' from procession-spawn 1\.0") as caught:
            Registry().load("start_method", "spawn")

        assert isinstance(caught.value.__cause__, cause)

    @pytest.mark.parametrize("value", ["", "two words", "os:does_not_exist"])
    def test_entry_point_is_wrong(self, site: FakeSite, value: str) -> None:
        """An entry point that leads nowhere is the plugin's error, too."""
        site.install("procession-spawn", {"procession.start_methods": {"spawn": value}})

        with pytest.raises(PluginLoadError, match="procession-spawn"):
            Registry().load("start_method", "spawn")

    def test_hook_fails(self, site: FakeSite) -> None:
        """An exception in the hook is reported like one at import."""
        source = """
            from procession.plugin import hookimpl
            @hookimpl
            def procession_start_method():
                return 1 / 0
        """
        site.start_method("spawn", source=source)

        with pytest.raises(PluginLoadError, match="ZeroDivisionError: division") as caught:
            Registry().load("start_method", "spawn")

        assert isinstance(caught.value.__cause__, ZeroDivisionError)

    @pytest.mark.parametrize(
        ("hook", "complaint"),
        [
            ("@hookimpl\ndef procession_start_metod(): ...", "procession_start_metod"),
            ("@hookimpl\ndef procession_start_method(extra): ...", "extra"),
            ("def procession_start_method(): ...", "mark the function with"),
            ("", "implements no hook 'procession_start_method'"),
            ("@hookimpl\ndef procession_start_method(): ...", "return a class, not None"),
            ("@hookimpl\ndef procession_start_method(): return Fake()", "return a class, not <"),
            ("@hookimpl\ndef procession_start_method(): return int", "no subclass of StartMethod"),
            ("@hookimpl\ndef procession_start_method(): return Lacking", "lacks launch"),
            ("@hookimpl\ndef procession_start_method(): return Misnamed", "'spawn', not 'x'"),
            ("@hookimpl\ndef procession_start_method(): return Nameless", "'spawn', not None"),
            ("@hookimpl\ndef procession_start_method(): return Plain", "must be a StartFeatures"),
            ("@hookimpl\ndef procession_start_method(): return local()", "cannot be imported"),
            ("@hookimpl\ndef procession_start_method(): return Vague", "return a reason or None"),
        ],
    )
    def test_contract_is_broken(self, site: FakeSite, hook: str, complaint: str) -> None:
        """A plugin author reads what is wrong, instead of a failure at the first start."""
        source = """
from procession._contracts.features import StartFeatures
from procession.plugin import hookimpl
from procession._contracts.start_method import StartMethod

class Fake(StartMethod):
    name = "spawn"
    features = StartFeatures()
    def launch(self, plan, /): ...

class Lacking(StartMethod):
    name = "spawn"

class Nameless(StartMethod):
    def launch(self, plan, /): ...

class Misnamed(Fake):
    name = "x"

class Plain(Nameless):
    name = "spawn"
    features = "many"

class Vague(Fake):
    @classmethod
    def unavailable(cls): return False

def local():
    class Local(Fake): ...
    return Local

"""
        site.start_method("spawn", source=source + hook)

        with pytest.raises(PluginContractError) as caught:
            Registry().load("start_method", "spawn")

        assert complaint in str(caught.value)
        assert "procession-spawn 1.0" in str(caught.value)

    def test_unavailable(self, site: FakeSite) -> None:
        """The reason is the plugin's own."""
        site.start_method("spawn", reason="no /proc in this container")

        with pytest.raises(PluginUnavailableError, match="no /proc in this container"):
            Registry().load("start_method", "spawn")

    def test_unavailable_fails(self, site: FakeSite) -> None:
        """A failing question about availability is a failing plugin, not a crash of ours."""
        site.start_method("spawn")
        path = site.directory / "fake_start_method_spawn.py"
        path.write_text(path.read_text().replace("return None", "raise OSError('no')"))

        assert "asked whether it can work here: OSError: no" in message_of(Registry(), "spawn")


class TestRoster:
    """What a child gets, so that it need not scan."""

    def test_leads_to_the_class_without_metadata(self, site: FakeSite) -> None:
        """A child imports the class itself: neither metadata nor hooks are needed."""
        site.start_method("spawn")
        parent = Registry()
        spawn = parent.load("start_method", "spawn")
        roster = pickle.loads(pickle.dumps(parent.roster()))
        assert {("start_method", "spawn"): "fake_start_method_spawn:Fake"} == roster
        for file in site.directory.glob("*.dist-info/*"):
            file.unlink()

        child = Registry()
        child.adopt(roster)

        assert spawn is child.load("start_method", "spawn")
        assert ["spawn"] == child.names("start_method")
        assert roster == child.roster()

    def test_names_what_is_missing_in_the_child(self, site: FakeSite) -> None:
        """A plugin that the parent had and the child has not is named, with the place."""
        registry = Registry()
        registry.adopt({("start_method", "spawn"): "nowhere:Spawn", ("start_method", "os"): "os:X"})

        with pytest.raises(PluginLoadError, match="parent process found at nowhere:Spawn"):
            registry.load("start_method", "spawn")
        with pytest.raises(PluginLoadError, match="is not at os:X here"):
            registry.load("start_method", "os")
