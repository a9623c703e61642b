"""Plugins for hooks: what happens around a process, in the parent and in the child."""

from __future__ import annotations

import itertools
import logging
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import procession
from procession.errors import (
    ConfigurationError,
    PluginContractError,
    PluginHookError,
    PluginLoadError,
    UnknownPluginError,
)
from procession.testing import failing, payloads

pytestmark = pytest.mark.one_pair_per("method")
Finish = Callable[..., Any]
Install = Callable[..., str]

PARENT = """
from procession.plugin import hookimpl
import {child} as child

procession_child_starting = hookimpl(child.starting)
procession_child_ending = hookimpl(child.ending)

def write(line):
    with open({log!r}, "a") as file:
        file.write(line + "\\n")

@hookimpl
def procession_launching(process):
    write(f"launching {{process.name}}")
    return {log!r}, {baggage}

@hookimpl
def procession_started(process):
    write(f"started {{process.name}}")

@hookimpl
def procession_ended(process, exitcode, failure):
    write(f"ended {{process.name}} {{exitcode}} {{failure is not None}}")
"""
CHILD = """
import os, sys

def write(path, line):
    with open(path, "a") as file:
        file.write(line + "\\n")

def starting(baggage):
    import atexit
    write(baggage[0], f"starting {baggage[1]}")
    atexit.register(write, baggage[0], "exit handler")

def ending(baggage):
    write(baggage[0], f"ending {baggage[1]}")
"""
_numbers = itertools.count()


@pytest.fixture
def log(tmp_path: Path) -> Path:
    """The file that the hooks of the plugin write to."""
    return tmp_path / "log"


@pytest.fixture
def install(tmp_path: Path, log: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Install]:
    """Install a plugin under a new name, which is returned; *text* is the module of its hooks."""
    site = tmp_path / "site"
    site.mkdir()
    monkeypatch.syspath_prepend(site)

    def install(text: str = PARENT, child: str = CHILD, baggage: object = 1) -> str:
        name = f"hooked{next(_numbers)}"
        info = site / f"{name}-1.0.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
        (info / "entry_points.txt").write_text(f"[procession.plugins]\n{name} = {name}_hooks\n")
        values = {"child": f"{name}_child", "log": str(log), "baggage": baggage}
        (site / f"{name}_hooks.py").write_text(text.format(**values))
        (site / f"{name}_child.py").write_text(child)
        return name

    yield install
    procession.set_plugins(None)


def test_the_order(install: Install, finish: Finish, log: Path) -> None:
    """Each hook once, in its place; the child's own before its exit handlers."""
    procession.set_plugins([install(baggage=7)])
    name = finish(payloads.nothing).name
    lines = log.read_text().splitlines()

    assert f"launching {name}" == lines[0]
    # When the child runs, relative to the parent's note of the start, is open.
    assert ["starting 7", "ending 7", "exit handler"] == [
        line for line in lines[1:-1] if not line.startswith("started")
    ]
    assert f"started {name}" in lines
    assert f"ended {name} 0 False" == lines[-1]


@pytest.mark.parametrize(
    ("target", "argument", "code"),
    [(payloads.raise_error, "text", 1), (payloads.exit_with, 3, 3)],
)
def test_a_target_that_fails(
    install: Install, finish: Finish, log: Path, target: Any, argument: object, code: int
) -> None:
    """The ending hook runs, and the parent's is told how it ended."""
    procession.set_plugins([install()])
    name = finish(target, argument).name

    assert "ending 1" in log.read_text()
    assert f"ended {name} {code} True" in log.read_text()


def test_a_child_that_cannot_be_begun(
    install: Install, finish: Finish, log: Path, pair: Any
) -> None:
    """What was begun is ended."""
    if pair.method == "fork":
        pytest.skip("nothing is imported in a forked child")
    procession.set_plugins([install()])
    finish(payloads.nothing_with, failing.Unloadable())

    assert 1 == log.read_text().count("ending 1")


def test_the_end_is_noticed_once(install: Install, start: Finish, log: Path) -> None:
    """Whoever asks first, and however often."""
    procession.set_plugins([install()])
    process = start(payloads.nothing)
    process.join()
    process.join()
    assert not process.is_alive()
    procession.active_children()
    process.close()

    assert 1 == log.read_text().count("ended")


def test_killed(install: Install, start: Finish, log: Path) -> None:
    """A signal ends a child without its hooks, but not without its parent's."""
    procession.set_plugins([install()])
    process = start(payloads.hold_for_ever)
    process.kill()
    process.join()

    assert "ending" not in log.read_text()
    assert f"ended {process.name} -9 True" in log.read_text()


def test_grandchildren(install: Install, finish: Finish, log: Path, pair: Any) -> None:
    """A plugin that is switched on is so for the whole family."""
    procession.set_plugins([install()])
    receiver, sender = pair.ctx.Pipe()
    finish(failing.tell_failure, sender, pair.spec, payloads.nothing)
    assert None is receiver.recv()
    receiver.close()
    sender.close()
    text = log.read_text()

    assert [2, 2, 2, 2] == [
        text.count(word) for word in ("launching", "starting", "ending 1", "ended")
    ]


def test_several(install: Install, finish: Finish, log: Path) -> None:
    """In the order in which they are named, and back."""
    procession.set_plugins([install(baggage=1), install(baggage=2)])
    finish(payloads.nothing)
    lines = [line for line in log.read_text().splitlines() if "ing " in line]

    assert ["starting 1", "starting 2", "ending 2", "ending 1"] == lines[2:]


def test_none_is_on_by_itself(install: Install, finish: Finish, log: Path) -> None:
    """Installing something does not change what programs do."""
    install()
    assert () == procession.get_plugins()
    finish(payloads.nothing)

    assert not log.exists()


def test_switched_on_by_the_environment(
    install: Install, finish: Finish, log: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An operator's choice, which the program's own outranks."""
    name = install()
    monkeypatch.setenv("PROCESSION_PLUGINS", f" {name} ")
    assert (name,) == procession.get_plugins()
    finish(payloads.nothing)
    assert "ending 1" in log.read_text()
    procession.set_plugins([])

    assert () == procession.get_plugins()


def test_switched_on_by_the_configuration(
    install: Install, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A project's choice; what is no list is refused."""
    name = install()
    file = tmp_path / "pyproject.toml"
    file.write_text(f'[tool.procession]\nplugins = ["{name}"]\n')
    monkeypatch.chdir(tmp_path)
    assert (name,) == procession.get_plugins()
    file.write_text(f'[tool.procession]\nplugins = "{name}" # longer\n')

    with pytest.raises(ConfigurationError, match="list of names"):
        procession.get_plugins()


def test_a_plugin_that_is_not_there(
    install: Install, ctx: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A wrong name is refused where it is given, and by the start that would miss it."""
    name = install()
    with pytest.raises(UnknownPluginError, match=f"did you mean '{name}'"):
        procession.set_plugins([f"{name}x"])
    with pytest.raises(TypeError, match="list of names"):
        procession.set_plugins(name)
    monkeypatch.setenv("PROCESSION_PLUGINS", "hokked")

    with pytest.raises(UnknownPluginError, match="PROCESSION_PLUGINS"):
        ctx.Process(target=payloads.nothing).start()


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("1 / 0", PluginLoadError),
        ("x = 1", PluginContractError),
        (
            "from procession.plugin import hookimpl\n"
            "@hookimpl\n"
            "def procession_launching(proces):\n    pass",
            PluginContractError,
        ),
    ],
)
def test_a_broken_plugin(install: Install, text: str, error: type[Exception]) -> None:
    """It is refused by name when it is switched on."""
    name = install(text)
    with pytest.raises(error, match=name):
        procession.set_plugins([name])


FAILING = """
from procession.plugin import hookimpl
@hookimpl
def procession_{hook}():
    raise ArithmeticError("broken hook")
"""


def _failing(hook: str) -> str:
    return FAILING.replace("{hook}", hook)


def test_launching_fails(install: Install, ctx: Any) -> None:
    """Nothing is started, and the plugin is named."""
    name = install(_failing("launching"))
    procession.set_plugins([name])
    process = ctx.Process(target=payloads.nothing)

    with pytest.raises(PluginHookError, match=name) as caught:
        process.start()
    assert isinstance(caught.value.__cause__, ArithmeticError)
    assert None is process.pid
    procession.set_plugins([])
    process.start()
    process.join(check=True)
    process.close()


@pytest.mark.parametrize("hook", ["started", "ended"])
def test_a_note_fails(
    install: Install, finish: Finish, caplog: pytest.LogCaptureFixture, hook: str
) -> None:
    """The process is not harmed."""
    procession.set_plugins([install(_failing(hook))])
    logger = procession.get_logger()
    logger.addHandler(caplog.handler)
    try:
        with caplog.at_level(logging.ERROR, logger="procession"):
            assert 0 == finish(payloads.nothing).exitcode
    finally:
        logger.removeHandler(caplog.handler)

    assert "broken hook" in caplog.text
    assert f"procession_{hook}" in caplog.text


def test_a_starting_hook_fails(install: Install, finish: Finish) -> None:
    """The child ends, and its parent knows which plugin is to blame."""
    child = CHILD.replace("import atexit", "raise ArithmeticError('broken hook')")
    name = install(child=child)
    procession.set_plugins([name])
    failure = finish(payloads.nothing).failure

    assert "procession.errors.PluginHookError" == failure.error.type_name
    assert name in failure.error.message
    assert isinstance(failure.exception.__cause__, ArithmeticError)


def test_an_ending_hook_fails(install: Install, finish: Finish, tmp_path: Path) -> None:
    """It is printed, and changes nothing."""
    child = CHILD + "    raise ArithmeticError('broken hook')\n"
    name = install(child=child)
    procession.set_plugins([name])
    errors = tmp_path / "errors"

    assert 0 == finish(payloads.nothing, stderr=errors).exitcode
    assert "broken hook" in errors.read_text()
    assert name in errors.read_text()


def test_baggage_with_a_connection(
    install: Install, finish: Finish, ctx: Any, tmp_path: Path
) -> None:
    """It travels as arguments do."""
    child = (
        "def starting(baggage):\n    baggage[1].send('hello')\n\ndef ending(baggage):\n    pass\n"
    )
    receiver, sender = ctx.Pipe()
    name = install(PARENT, child, baggage="connections.pop()")
    (tmp_path / "site" / f"{name}_hooks.py").write_text(
        "connections = []\n" + (tmp_path / "site" / f"{name}_hooks.py").read_text()
    )
    procession.set_plugins([name])
    sys.modules[f"{name}_hooks"].connections.append(sender)
    finish(payloads.nothing)

    assert "hello" == receiver.recv()
    receiver.close()
    sender.close()


def test_children_load_only_what_is_named(
    install: Install, finish: Finish, ctx: Any, pair: Any
) -> None:
    """Neither pluggy nor the module with the parent's hooks is imported in a child."""
    if pair.method == "fork":
        pytest.skip("a forked child has all of its parent's modules")
    name = install()
    procession.set_plugins([name])
    receiver, sender = ctx.Pipe()
    finish(payloads.call, sender, failing.loaded_modules)
    modules = receiver.recv()
    receiver.close()
    sender.close()

    assert f"{name}_child" in modules
    assert {"pluggy", "attr", "importlib.metadata", f"{name}_hooks"}.isdisjoint(modules)
