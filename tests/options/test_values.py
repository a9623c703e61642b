"""Values that cannot be right are refused where they are written, with what would be."""

from __future__ import annotations

import copy
import pickle
from pathlib import Path
from typing import Any, ClassVar

import attrs
import pytest

import procession
from procession import ProcessOptions
from procession._contracts.features import StartFeatures
from procession._starting import launch, surroundings
from procession.errors import (
    ProcessError,
    ProcessOptionError,
    UnknownOptionError,
    UnsupportedOptionError,
)


@pytest.mark.parametrize(
    ("option", "value", "says"),
    [
        ("env", "A=1", "a mapping"),
        ("env", {"A": 1}, r"env\['A'\].*must be a str.*not int"),
        ("env", {"A=B": "1"}, "'A=B' is no name"),
        ("env", {"": "1"}, "'' is no name"),
        ("env", {"A": "a\0b"}, "null character"),
        ("interpreter_env", {"A": 1}, r"interpreter_env\['A'\]"),
        ("clear_env", 1, "True or False"),
        ("cwd", "", "path of a directory"),
        ("cwd", 3, "path of a directory"),
        ("stdout", "nul", r"did you mean 'null'\?.*pathlib.Path\('nul'\)"),
        ("stdin", "stdout", "the words are 'parent', 'null';"),
        ("stderr", "out.txt", r"'parent', 'null', 'stdout'; .*pathlib.Path\('out.txt'\)"),
        ("stdout", -1, "not negative"),
        ("stdout", True, "a descriptor or an object"),
        ("umask", 0o1000, "0 to 0o777.*0o1000"),
        ("umask", "077", "0 to 0o777"),
        ("nice", 41, "-40 to 40"),
        ("nice", 1.5, "-40 to 40"),
        ("affinity", [], "one CPU or more"),
        ("affinity", [-1], "one CPU or more"),
        ("affinity", "0", "one CPU or more"),
        ("limits", {"openfiles": 3}, r"did you mean 'open_files'\?; there are address_space"),
        ("limits", {"core": -1}, "core must be a whole number"),
        ("limits", 5, "a mapping"),
        ("max_seconds", 0, "greater than 0"),
        ("max_seconds", float("nan"), "greater than 0"),
        ("max_seconds", "5", "greater than 0"),
        ("max_rss", 0, "256 << 20"),
        ("max_rss", 1e9, "256 << 20"),
        ("faulthandler", "yes", "True or False"),
        ("title", "", "a text"),
        ("title", 3, "a text"),
    ],
)
def test_bad_values(option: str, value: Any, says: str) -> None:
    """The constructor raises, names the option, and says what is allowed."""
    with pytest.raises(ProcessOptionError, match=says) as caught:
        procession.Process(**{option: value})

    assert option == caught.value.option
    assert isinstance(caught.value, ValueError)
    assert isinstance(caught.value, ProcessError)


def test_values_of_variables_are_not_shown() -> None:
    """They are often secrets, and errors end in logs."""
    with pytest.raises(ProcessOptionError) as caught:
        ProcessOptions(env={"PASSWORD": "hunter2", "N": 4})

    assert "hunter2" not in str(caught.value)


def test_an_unknown_option_is_a_type_error() -> None:
    """As in multiprocessing, and with the nearest name."""
    with pytest.raises(TypeError, match=r"'envs'; did you mean 'env'\?") as caught:
        procession.Process(envs={})  # type: ignore[call-arg]

    assert isinstance(caught.value, UnknownOptionError)


def test_options_that_are_none() -> None:
    """A dictionary in the place of options is a mistake that is easily made."""
    with pytest.raises(ProcessOptionError, match=r"a procession\.ProcessOptions is needed"):
        procession.Process(options={"cwd": "/"})  # type: ignore[arg-type]


def test_options_are_values() -> None:
    """Equal when what they say is equal, never changed, and copied and pickled as they are."""
    options = ProcessOptions(env={"A": "1"}, affinity=[0], limits={"core": 0}, cwd=Path("/"))

    assert options == pickle.loads(pickle.dumps(options))
    assert options == copy.deepcopy(options)
    with pytest.raises(attrs.exceptions.FrozenInstanceError):
        options.cwd = "/tmp"  # type: ignore[misc]
    with pytest.raises(TypeError):
        options.env["A"] = "2"  # type: ignore[index]


def test_given() -> None:
    """Only what was said is asked of a start method."""
    assert () == ProcessOptions().given()
    assert ("clear_env", "umask") == ProcessOptions(clear_env=True, umask=0).given()


def test_an_option_can_be_taken_back() -> None:
    """A process of a context with options may do without one of them."""
    ctx = procession.get_context(options=ProcessOptions(umask=0, cwd="/"))

    assert ProcessOptions(cwd="/") == ctx.Process(umask=None).process_options


def test_the_options_of_a_class() -> None:
    """They hold for its processes and for those of its subclasses."""

    class Worker(procession.Process):
        default_process_options: ClassVar = ProcessOptions(umask=0o77)

    class Other(Worker):
        pass

    assert ProcessOptions(umask=0o77) == Other().process_options
    assert ProcessOptions(umask=0) == Other(umask=0).process_options


# -- who can do what -------------------------------------------------------------------


class Elsewhere:
    """A start method of somebody else's that declares nothing."""

    name = "elsewhere"
    features = StartFeatures()


class Remote:
    """A start method whose children run on another machine."""

    name = "remote"
    features = StartFeatures(same_host=False, options=frozenset({"interpreter_env"}))


def test_what_the_child_does_needs_no_declaration() -> None:
    """A method that knows nothing of options has all that its children do by themselves."""
    surroundings.check(
        ProcessOptions(env={"A": "1"}, umask=0, max_seconds=1, stdout="null"),
        Elsewhere,  # type: ignore[arg-type]
    )


def test_what_needs_the_method_is_refused() -> None:
    """Silently doing without is what nobody would notice; the refusal names both."""
    with pytest.raises(UnsupportedOptionError, match="'elsewhere' cannot do interpreter_env"):
        surroundings.check(
            ProcessOptions(interpreter_env={"A": "1"}),
            Elsewhere,  # type: ignore[arg-type]
        )


def test_memory_elsewhere_cannot_be_watched() -> None:
    """The process id is another machine's."""
    with pytest.raises(UnsupportedOptionError, match="'remote' cannot do max_rss"):
        surroundings.check(ProcessOptions(max_rss=1), Remote)  # type: ignore[arg-type]


def test_methods_have_no_options_by_default() -> None:
    """A feature that is added later is one that no existing method has to deny."""
    assert frozenset() == StartFeatures().options


@pytest.fixture
def methods(monkeypatch: pytest.MonkeyPatch) -> None:
    """A set of start methods that must not be asked."""

    class Untouched:
        def get(self, kind: object) -> Any:
            raise AssertionError("nothing may be launched")

    monkeypatch.setattr(launch, "methods", Untouched())


def test_a_refused_process_can_be_started_again(method: str, methods: None) -> None:
    """Core refuses before the method is asked; the object is as before."""
    ctx = procession.get_context(method)
    process = ctx.Process(interpreter_env={"A": "1"})
    features = ctx._method_class.features  # type: ignore[attr-defined]

    if "interpreter_env" in features.options:
        with pytest.raises(AssertionError, match="nothing may be launched"):
            process.start()
    else:
        with pytest.raises(UnsupportedOptionError, match="interpreter_env"):
            process.start()
    assert None is process.pid
