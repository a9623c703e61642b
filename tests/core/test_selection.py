"""Selection: who wins, why, and that asking decides nothing."""

from __future__ import annotations

import asyncio
import os
import pickle
import subprocess
import sys
import threading
from typing import TYPE_CHECKING

import pytest

import procession
from procession._choosing import selection as _selection
from procession._choosing.selector import Selector
from procession.errors import (
    ConfigurationError,
    IncompatiblePluginsError,
    NoPluginError,
    PluginUnavailableError,
    SelectionError,
    UnknownPluginError,
)

if TYPE_CHECKING:
    from pathlib import Path

    from tests.core.conftest import FakeSite


@pytest.fixture(autouse=True)
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A current directory whose configuration file says nothing."""
    directory = tmp_path / "project"
    directory.mkdir()
    (directory / "pyproject.toml").write_text("")
    monkeypatch.chdir(directory)
    return directory


@pytest.fixture
def environ() -> dict[str, str]:
    """The environment of the selector under test."""
    return {}


@pytest.fixture
def selector(site: FakeSite, environ: dict[str, str]) -> Selector:
    """A selector with three start methods and two transports to choose from."""
    for name in ("fork", "spawn", "forkserver"):
        site.start_method(name, features="carries_descriptors=True")
    for name in ("pipe", "socketpair"):
        site.transport(name)
    return Selector(environ=environ)


def configure(project: Path, text: str) -> None:
    """Write the project's table."""
    (project / "pyproject.toml").write_text(f"[tool.procession]\n{text}\n")


class TestPrecedence:
    """Argument, scope, set, inherited, environment, configuration, default."""

    def test_each_source_outranks_the_next(
        self, selector: Selector, environ: dict[str, str], project: Path, site: FakeSite
    ) -> None:
        """From the bottom up, each source that is added wins over those before it."""
        for name in ("a", "b", "c", "d", "e"):
            site.start_method(name)

        def answer(argument: str | None = None) -> tuple[str, str]:
            return selector.resolve("start_method", argument)[:2]

        assert ("forkserver", "default") == answer()
        configure(project, "start-method = 'a'")
        assert ("a", "configuration") == answer()
        environ["PROCESSION_START_METHOD"] = "b"
        assert ("b", "environment") == answer()
        selector.inherit({"names": {"start_method": "c"}, "roster": {}, "plugins": ()})
        assert ("c", "inherited") == answer()
        selector.set("start_method", "d")
        assert ("d", "set") == answer()
        with selector.use({"start_method": "e"}):
            assert ("e", "scope") == answer()
            assert ("fork", "argument") == answer("fork")
        assert ("d", "set") == answer()

    def test_kinds_are_chosen_apart(self, selector: Selector, environ: dict[str, str]) -> None:
        """A choice of one kind leaves the other as it was."""
        environ["PROCESSION_TRANSPORT"] = "socketpair"
        selector.set("start_method", "fork")

        selection = selector.selection()

        assert ("fork", "set") == (selection.start_method.name, selection.start_method.source)
        assert ("socketpair", "environment") == (
            selection.transport.name,
            selection.transport.source,
        )

    def test_empty_variable_is_not_set(self, selector: Selector, environ: dict[str, str]) -> None:
        """An empty variable is how many deployments write that it is not set."""
        environ.update(PROCESSION_START_METHOD="", PROCESSION_TRANSPORT="", PROCESSION_CONFIG="")

        assert "forkserver" == selector.resolve("start_method")[0]
        assert selector.chosen("transport") is None

    def test_named_configuration(
        self, selector: Selector, environ: dict[str, str], project: Path
    ) -> None:
        """PROCESSION_CONFIG replaces the project's file."""
        configure(project, "start-method = 'fork'")
        (project / "deployment.toml").write_text("start-method = 'spawn'")
        environ["PROCESSION_CONFIG"] = "deployment.toml"

        assert "spawn" == selector.resolve("start_method")[0]


class TestReasons:
    """Every choice knows why."""

    def test_set_and_scope_name_the_line(self, selector: Selector) -> None:
        """Who has chosen is a place in the program."""
        selector.set("start_method", "fork")
        with selector.use({"transport": "pipe"}):
            selection = selector.selection()

        here = os.path.basename(__file__)
        assert "set_start_method() at " in selection.start_method.detail
        assert f"{here}:" in selection.start_method.detail
        assert f"{here}:" in selection.transport.detail
        assert str(selection).startswith("start method fork (set: set_start_method() at ")

    def test_environment_and_configuration_name_theirs(
        self, selector: Selector, environ: dict[str, str], project: Path
    ) -> None:
        """The operator sees which variable and which file had an effect."""
        environ["PROCESSION_START_METHOD"] = "spawn"
        configure(project, "transport = 'pipe'")

        selection = selector.selection()

        assert "spawn (environment: PROCESSION_START_METHOD)" == str(selection.start_method)
        assert f"transport in {project / 'pyproject.toml'}" == selection.transport.detail

    def test_default_tells_what_was_passed_over(self, site: FakeSite) -> None:
        """A default that had to be skipped is not skipped silently."""
        site.start_method("forkserver", source="import does_not_exist")
        site.start_method("fork")

        name, source, detail = Selector(environ={}).resolve("start_method")

        assert ("fork", "default") == (name, source)
        assert "first available of forkserver, spawn, fork" in detail
        assert "No module named 'does_not_exist'" in detail
        assert "spawn is not installed" in detail


class TestSetting:
    """`set_start_method` and `set_transport`, as multiprocessing has them and better."""

    def test_second_time_needs_force(self, selector: Selector) -> None:
        """As in multiprocessing, and the message says who was first."""
        selector.set("start_method", "fork")

        with pytest.raises(RuntimeError, match=r"context has already been set: .*'fork', by set_"):
            selector.set("start_method", "spawn")
        selector.set("start_method", "spawn", force=True)

        assert "spawn" == selector.resolve("start_method")[0]

    def test_none_takes_it_back(self, selector: Selector) -> None:
        """None with force resets; without force it is a second choice like any other."""
        selector.set("start_method", None)
        selector.set("start_method", "fork")

        with pytest.raises(SelectionError):
            selector.set("start_method", None)
        assert selector.chosen("start_method") is not None
        selector.set("start_method", None, force=True)

        assert selector.chosen("start_method") is None

    def test_bad_names_are_refused_at_once(self, selector: Selector, site: FakeSite) -> None:
        """The error comes where the mistake is, and the choice before it stands."""
        site.start_method("off", reason="switched off")
        selector.set("start_method", "fork")

        with pytest.raises(ValueError, match="did you mean 'spawn'"):
            selector.set("start_method", "spawm", force=True)
        with pytest.raises(PluginUnavailableError, match="switched off"):
            selector.set("start_method", "off", force=True)

        assert "fork" == selector.resolve("start_method")[0]

    def test_only_one_of_many_threads_succeeds(self, selector: Selector) -> None:
        """Two threads cannot both believe that they have chosen."""
        selector.registry.load("start_method", "fork")
        ready = threading.Barrier(8)
        refused: list[SelectionError] = []

        def choose() -> None:
            ready.wait(10)
            try:
                selector.set("start_method", "fork")
            except SelectionError as error:
                refused.append(error)

        threads = [threading.Thread(target=choose) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

        assert 7 == len(refused)


class TestReading:
    """Reading never decides."""

    def test_asking_fixes_nothing(self, selector: Selector, environ: dict[str, str]) -> None:
        """After every getter the first choice is still free: not so in multiprocessing."""
        selector.selection()
        selector.resolve("start_method")
        selector.available("start_method")
        selector.load_pair()

        assert selector.chosen("start_method") is None
        environ["PROCESSION_START_METHOD"] = "spawn"
        assert "spawn" == selector.resolve("start_method")[0]
        selector.set("start_method", "fork")
        assert "fork" == selector.resolve("start_method")[0]

    def test_nobody_has_chosen(self, selector: Selector, project: Path) -> None:
        """A default is no choice; a configured name is one."""
        assert selector.chosen("start_method") is None

        configure(project, "start-method = 'fork'")

        assert "fork" == (selector.chosen("start_method") or ("",))[0]


class TestScopes:
    """`use`, for libraries and tests."""

    def test_nest(self, selector: Selector) -> None:
        """An inner scope that leaves a kind open leaves the outer choice in force."""

        def names() -> tuple[str, str]:
            selection = selector.selection()
            return selection.start_method.name, selection.transport.name

        with selector.use({"start_method": "spawn"}):
            with selector.use({"transport": "socketpair"}):
                assert ("spawn", "socketpair") == names()
                with selector.use({"start_method": "fork"}):
                    assert ("fork", "socketpair") == names()
            assert ("spawn", "pipe") == names()
        assert ("forkserver", "pipe") == names()

    def test_end_with_an_exception(self, selector: Selector) -> None:
        """A failing block leaves nothing behind."""
        with pytest.raises(ZeroDivisionError), selector.use({"start_method": "spawn"}):
            raise ZeroDivisionError

        assert selector.chosen("start_method") is None

    def test_bad_names_are_refused_at_once(self, selector: Selector) -> None:
        """The call fails, not the block, and nothing is in force."""
        with pytest.raises(UnknownPluginError):
            selector.use({"start_method": "spawn", "transport": "nothing"})

        assert selector.chosen("start_method") is None

    def test_one_object_one_block(self, selector: Selector) -> None:
        """An object in use cannot be entered again, but can be used again later."""
        scope = selector.use({"start_method": "spawn"})

        with scope, pytest.raises(SelectionError, match="in use already"), scope:
            pass
        with scope:
            assert "spawn" == selector.resolve("start_method")[0]

        assert selector.chosen("start_method") is None

    def test_stay_in_their_thread(self, selector: Selector) -> None:
        """What one thread does for itself does not happen to another."""
        seen: list[object] = []

        with selector.use({"start_method": "spawn"}):
            thread = threading.Thread(target=lambda: seen.append(selector.chosen("start_method")))
            thread.start()
            thread.join()

        assert [None] == seen

    def test_stay_in_their_task(self, selector: Selector) -> None:
        """Two asyncio tasks that take turns keep their own choices."""

        async def work(name: str, mine: asyncio.Event, others: asyncio.Event) -> str:
            with selector.use({"start_method": name}):
                mine.set()
                await others.wait()
                return selector.resolve("start_method")[0]

        async def both() -> tuple[str, str]:
            one, two = asyncio.Event(), asyncio.Event()
            fork, spawn = await asyncio.gather(work("fork", one, two), work("spawn", two, one))
            return fork, spawn

        assert ("fork", "spawn") == asyncio.run(both())


class TestDefaults:
    """What is taken when nobody has chosen."""

    def test_order(self, selector: Selector, site: FakeSite) -> None:
        """The documented order first, others by name after it, whatever is selected."""
        site.start_method("aardvark")
        site.start_method("off", reason="switched off")
        site.start_method("bad", source="import does_not_exist")
        selector.set("start_method", "fork")

        available = selector.available("start_method")

        assert ["forkserver", "spawn", "fork", "aardvark"] == available
        assert ["pipe", "socketpair"] == selector.available("transport")

    def test_only_stranger_is_taken(self, site: FakeSite) -> None:
        """A deployment that installs one plugin means that one."""
        site.transport("ring")

        name, _, detail = Selector(environ={}).resolve("transport")

        assert "ring" == name
        assert detail.startswith("the only transport available; pipe is not installed")

    def test_several_strangers_are_not_ordered(self, site: FakeSite) -> None:
        """Installing another plugin must not silently replace the one in use."""
        site.transport("ring")
        site.transport("tcp")

        with pytest.raises(SelectionError, match=r"ring, tcp with set_transport\(\) or PROCESS"):
            Selector(environ={}).resolve("transport")

    def test_nothing_is_installed(self, site: FakeSite) -> None:
        """A core without plugins says which command is missing."""
        selector = Selector(environ={})

        with pytest.raises(NoPluginError, match="pip install procession-forkserver"):
            selector.resolve("start_method")
        with pytest.raises(ValueError, match="pip install procession-pipe"):
            selector.resolve("transport")
        assert [] == selector.available("transport")

    def test_nothing_can_be_used(self, site: FakeSite) -> None:
        """If all plugins fail, each one's reason is in the message."""
        site.start_method("fork", reason="no fork on this system")
        site.start_method("other", source="import does_not_exist")

        with pytest.raises(NoPluginError) as caught:
            Selector(environ={}).resolve("start_method")

        assert "no fork on this system" in str(caught.value)
        assert "does_not_exist" in str(caught.value)

    def test_availability_is_asked_once(self, site: FakeSite) -> None:
        """A queue asks for the default each time; a failing plugin is not tried each time."""
        site.start_method("forkserver", source="import sys; sys.fake_tries += 1; raise OSError")
        site.start_method("spawn")
        selector = Selector(environ={})
        sys.fake_tries = 0  # type: ignore[attr-defined]

        for _ in range(3):
            assert "spawn" == selector.resolve("start_method")[0]

        assert 1 == sys.fake_tries  # type: ignore[attr-defined]
        del sys.fake_tries  # type: ignore[attr-defined]


class TestMistakes:
    """What is wrong is named with the place where it is wrong."""

    def test_variable(self, selector: Selector, environ: dict[str, str]) -> None:
        """A typing error in a variable."""
        environ["PROCESSION_START_METHOD"] = "spwan"

        with pytest.raises(UnknownPluginError, match=r"chosen by PROCESSION_START_METHOD.*'spawn'"):
            selector.resolve("start_method")

    def test_variable_with_what_is_unavailable(
        self, selector: Selector, environ: dict[str, str], site: FakeSite
    ) -> None:
        """A name that exists, but cannot be used."""
        site.start_method("off", reason="switched off")
        environ["PROCESSION_START_METHOD"] = "off"

        with pytest.raises(PluginUnavailableError, match="chosen by PROCESSION_START_METHOD"):
            selector.load("start_method")

    def test_file(self, selector: Selector, project: Path) -> None:
        """A typing error in a file."""
        configure(project, "transport = 'pip'")

        with pytest.raises(UnknownPluginError, match=r"chosen by transport in .*pyproject\.toml"):
            selector.load_pair()

    def test_broken_file_does_not_matter_to_who_chooses(
        self, selector: Selector, project: Path
    ) -> None:
        """A source is only consulted when those before it are silent."""
        configure(project, "nonsense = 1")

        assert "fork" == selector.resolve("start_method", "fork")[0]
        with pytest.raises(ConfigurationError):
            selector.resolve("start_method")

    def test_pair(self, selector: Selector, site: FakeSite) -> None:
        """A pair that cannot work is refused when it is put together."""
        site.start_method("bare")

        with pytest.raises(IncompatiblePluginsError, match="what would work: fork with pipe"):
            selector.load_pair("bare", "pipe")


class TestInheriting:
    """A child begins with its parent's selection."""

    def test_gets_names_and_roster(self, selector: Selector) -> None:
        """The parent's resolved choice, scopes included, in plain values."""
        with selector.use({"start_method": "spawn"}):
            bequest = pickle.loads(pickle.dumps(selector.bequest()))

        child = Selector(environ={"PROCESSION_START_METHOD": "fork"})
        child.inherit(bequest)

        assert ("spawn", "inherited") == child.resolve("start_method")[:2]
        assert ("pipe", "inherited") == child.resolve("transport")[:2]
        assert selector.registry.load("start_method", "spawn") is child.load("start_method")

    def test_child_may_set_its_own(self, selector: Selector) -> None:
        """A forked child, which has copied the parent's choice, is as free as any other."""
        selector.set("start_method", "fork")

        selector.inherit(selector.bequest())
        selector.set("start_method", "spawn")

        assert "spawn" == selector.resolve("start_method")[0]

    def test_a_copy_finds_the_default_itself(self, selector: Selector, site: FakeSite) -> None:
        """No plugin is imported for a forked child that never asks; one that asks has the same.

        What the child does to its environment before that does not count.
        """
        bequest = selector.bequest(to_copy=True)
        assert {"start_method": None, "transport": None, "serializer": "pickle"} == bequest["names"]
        assert {} == bequest["roster"]

        environ = {"PROCESSION_TRANSPORT": "socketpair"}
        child = Selector(selector.registry, environ=environ)
        child.inherit(bequest)
        assert bequest["names"] == child.bequest(to_copy=True)["names"]
        assert ("pipe", "inherited") == child.resolve("transport")[:2]
        assert ("pipe", "inherited", "from the parent process") == child.chosen("transport")
        child.set("start_method", "fork")
        assert "fork" == child.bequest(to_copy=True)["names"]["start_method"]
        assert {"start_method": "fork", "transport": "pipe", "serializer": "pickle"} == (
            child.bequest()["names"]
        )

    def test_a_copy_gets_what_was_chosen_by_name(
        self, selector: Selector, environ: dict[str, str]
    ) -> None:
        """Only the default may be found later: choices and their sources can change."""
        environ["PROCESSION_TRANSPORT"] = "socketpair"
        with selector.use({"start_method": "spawn"}):
            bequest = selector.bequest(to_copy=True)

        assert {"start_method": "spawn", "transport": "socketpair", "serializer": "pickle"} == (
            bequest["names"]
        )

    def test_a_copy_without_a_default_inherits_nothing(self, site: FakeSite) -> None:
        """Where none can be used the child asks its own sources, and fails with the reasons."""
        child = Selector(environ={})
        child.inherit(child.bequest(to_copy=True))

        assert child.chosen("transport") is None
        with pytest.raises(NoPluginError):
            child.resolve("transport")

    def test_what_fails_in_the_parent_is_left_to_the_child(
        self, selector: Selector, environ: dict[str, str]
    ) -> None:
        """A mistake about transports does not keep a process from being started."""
        environ["PROCESSION_TRANSPORT"] = "nonsense"

        names = {"start_method": "forkserver", "serializer": "pickle"}
        assert names == selector.bequest()["names"]


class TestModule:
    """The functions that users call."""

    def test_answer_for_this_process(
        self, selector: Selector, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Each of them reaches the one selector of the process."""
        monkeypatch.setattr(_selection, "_selector", selector)

        assert _selection.get_start_method(allow_none=True) is None
        assert "forkserver" == _selection.get_start_method()
        assert "pipe" == _selection.get_transport()
        _selection.set_start_method("fork")
        _selection.set_start_method("spawn", True)
        _selection.set_transport("socketpair")
        with _selection.use(transport="pipe"):
            assert "pipe" == _selection.get_transport(allow_none=True)
        assert "socketpair" == _selection.get_transport()
        assert "spawn" == _selection.selection().start_method.name
        assert ["forkserver", "spawn", "fork"] == _selection.get_all_start_methods()
        assert ["pipe", "socketpair"] == _selection.get_all_transports()
        start_method, transport = _selection.load_pair()
        assert (_selection.load_start_method(), _selection.load_transport()) == (
            start_method,
            transport,
        )
        _selection.negotiate(start_method, transport)
        assert _selection.registry() is selector.registry
        _selection.inherit(_selection.bequest())
        assert "inherited" == _selection.selection().transport.source

    def test_stays_slim_in_a_child(self) -> None:
        """A child that inherits its selection imports neither attrs nor pluggy nor `re`."""
        code = (
            "from procession._choosing import selection as s; import sys; "
            "s.inherit({'names': {'start_method': 'x', 'transport': 'y', 'serializer': 'z'}, "
            "'roster': {}, 'plugins': ()}); "
            "assert s.get_start_method() == 'x'; s.bequest(); "
            "print(*sorted(sys.modules))"
        )
        source = os.path.dirname(os.path.dirname(procession.__file__))
        result = subprocess.run(
            [sys.executable, "-I", "-S", "-c", f"import sys; sys.path.append({source!r}); {code}"],
            capture_output=True,
            text=True,
            check=True,
        )

        heavy = {"attr", "attrs", "pluggy", "importlib.metadata", "re", "typing", "tomllib"}
        assert set() == heavy.intersection(result.stdout.split())
