"""What a process is given is what it finds, on every start method."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from procession import ProcessOptions
from procession.errors import ProcessOptionError, UnsupportedOptionError
from procession.testing import payloads

pytestmark = [
    pytest.mark.one_pair_per("method"),
    pytest.mark.skipif(sys.platform != "linux", reason="the payload looks at all options at once"),
]
VARIABLE = "PROCESSION_TESTS_OPTION"
Ask = Callable[..., Any]


@pytest.fixture
def found(ask: Ask) -> Ask:
    """Return what a child with options finds."""
    return lambda **options: ask(payloads.applied_options, VARIABLE, **options)


def test_env_sets_a_variable_in_the_child_only(found: Ask) -> None:
    """A variable for one child must not be one of its parent or of the next child."""
    assert "mine" == found(env={VARIABLE: "mine"})["variable"]
    assert None is found()["variable"]
    assert VARIABLE not in os.environ


def test_env_adds_to_what_the_parent_has_at_the_start(
    found: Ask, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Naming one variable must not cost the child its PATH; a value of None removes one."""
    monkeypatch.setenv("PROCESSION_TESTS_LATE", "set late")
    monkeypatch.setenv("PROCESSION_TESTS_GONE", "not wanted")
    variables = found(env={VARIABLE: "mine", "PROCESSION_TESTS_GONE": None})["variables"]

    assert {VARIABLE, "PATH", "PROCESSION_TESTS_LATE"} <= set(variables)
    assert "PROCESSION_TESTS_GONE" not in variables


def test_clear_env_leaves_nothing_but_env(found: Ask) -> None:
    """What is not named is not there, not even what the interpreter put there itself."""
    assert [VARIABLE] == found(env={VARIABLE: "mine"}, clear_env=True)["variables"]


def test_interpreter_env_is_there_before_the_interpreter(pair: Any, ask: Ask) -> None:
    """Only an interpreter of the child's own can hash with a seed given to it alone."""
    options = {"interpreter_env": {"PYTHONHASHSEED": "0"}}
    if pair.method != "spawn":
        with pytest.raises(UnsupportedOptionError, match=f"'{pair.method}' cannot do interp"):
            ask(payloads.hash_of, "text", **options)
        return
    first, second = (ask(payloads.hash_of, "text", **options) for _ in range(2))

    assert first == second


def test_cwd(found: Ask, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The directory is the child's alone; a relative one begins at the parent's."""
    (tmp_path / "below").mkdir()
    monkeypatch.chdir(tmp_path)

    assert str(tmp_path / "below") == found(cwd="below")["cwd"]
    assert str(tmp_path / "below") == found(cwd=tmp_path / "below")["cwd"]
    assert str(tmp_path) == os.getcwd()


def test_a_directory_that_is_not_there(finish: Ask, tmp_path: Path) -> None:
    """The child ends like one whose target failed, and says which option it was."""
    log = tmp_path / "log"
    process = finish(payloads.nothing, cwd=tmp_path / "missing", stderr=log)
    errors = log.read_text()

    assert 1 == process.exitcode
    assert f"Process {process.name}:\n" in errors
    assert f"ProcessOptionError: cwd='{tmp_path}/missing' cannot be had" in errors


def test_umask_nice_and_title(found: Ask) -> None:
    """Each of them is the child's alone."""
    answer = found(umask=0o027, nice=2, title="a title of its own")
    after = found()

    assert 0o027 == answer["umask"]
    assert min(after["nice"] + 2, 19) == answer["nice"]
    assert answer["command"].startswith("a title of its ")
    assert 0o027 != after["umask"]


def test_title_true_is_the_name(found: Ask) -> None:
    """The label that the program has given is the one that ps shows."""
    assert "reader-7" == found(name="reader-7", title=True)["command"]


def test_affinity(found: Ask) -> None:
    """The child runs on the CPUs that it was given, and the parent where it ran before."""
    if sys.platform == "linux":
        allowed = os.sched_getaffinity(0)
        cpu = max(allowed)

        assert [cpu] == found(affinity={cpu})["affinity"]
        assert allowed == os.sched_getaffinity(0)


def test_a_cpu_that_is_not_there(finish: Ask, tmp_path: Path) -> None:
    """The kernel leaves such a CPU out without a word; the child does not."""
    log = tmp_path / "log"
    process = finish(payloads.nothing, affinity={0, 1000}, stderr=log)
    errors = log.read_text()

    assert 1 == process.exitcode
    assert "ProcessOptionError: affinity=[0, 1000] cannot be had" in errors
    assert "allowed are [" in errors


def test_limits(found: Ask) -> None:
    """Limits by name; those of CPU time leave room for the signal that says why."""
    answer = found(limits={"open_files": 60, "cpu_seconds": 20, "core": 0})

    assert (60, 60) == answer["open_files"]
    assert (20, 21) == answer["cpu_seconds"]
    assert (0, 0) == answer["core"]


def test_faulthandler(found: Ask) -> None:
    """Enabled where asked for; a fork inherits it from a parent that has it."""
    assert found(faulthandler=True)["faulthandler"]


def test_faulthandler_prints_the_stack(finish: Ask, tmp_path: Path) -> None:
    """It prints to the child's own stderr, wherever that goes."""
    log = tmp_path / "log"
    process = finish(payloads.die_by, 6, faulthandler=True, stderr=log)

    assert -6 == process.exitcode
    assert "Fatal Python error: Aborted" in log.read_text()
    assert "in die_by" in log.read_text()


def test_no_options_import_nothing(pair: Any, found: Ask) -> None:
    """A child without options must not pay for them, and one with them only for what it uses."""
    if pair.method == "fork":
        pytest.skip("a forked child has what its parent has")

    if pair.method == "spawn":  # a fork server has it from an earlier child
        assert "procession._starting.apply_options" not in found()["modules"]
    assert "procession._starting.process_options" not in found(umask=0)["modules"]
    assert "attrs" not in found(umask=0)["modules"]


# -- streams ---------------------------------------------------------------------------


def test_output_to_a_file_is_appended(finish: Ask, tmp_path: Path) -> None:
    """Print and the descriptor go to the same place; the next process goes on there."""
    log = tmp_path / "log"
    for text in ("one", "two"):
        finish(payloads.write_both, text, stdout=log, stderr="null")

    assert "printed one\nwritten\nprinted two\nwritten\n" == log.read_text()


def test_both_streams_to_one_place(finish: Ask, tmp_path: Path) -> None:
    """ "stdout" for stderr keeps the order in which things were said."""
    log = tmp_path / "log"
    finish(payloads.write_both, "one", stdout=log, stderr="stdout")

    assert "printed one\nwritten\ncomplained one\n" == log.read_text()


def test_output_to_a_descriptor_and_a_file_object(finish: Ask, tmp_path: Path) -> None:
    """Both stay the caller's, open, and usable for the next process."""
    with open(tmp_path / "out", "w+") as out, open(tmp_path / "err", "w+") as err:
        finish(payloads.write_both, "one", stdout=out, stderr=err.fileno())
        finish(payloads.write_both, "two", stdout=out, stderr=err.fileno())

        out.seek(0)
        err.seek(0)
        assert "printed one\nwritten\nprinted two\nwritten\n" == out.read()
        assert "complained one\ncomplained two\n" == err.read()


def test_streams_that_change_places(finish: Ask, capfd: pytest.CaptureFixture[str]) -> None:
    """A stream may be the other's present place: all are taken before the first is put."""
    finish(payloads.write_both, "one", stdout=2, stderr=1)
    output, errors = capfd.readouterr()

    assert "complained one\n" == output
    assert "printed one\nwritten\n" == errors


def test_input_from_a_file(ask: Ask, tmp_path: Path) -> None:
    """`input` in the child reads the file, not what the parent reads."""
    (tmp_path / "in").write_text("a line\n")

    assert "a line" == ask(payloads.read_line, stdin=tmp_path / "in")


def test_input_from_the_parent(ask: Ask) -> None:
    """A debugger in a child reads the terminal of the program."""
    reader, writer = os.pipe()
    mine = os.dup(0)
    try:
        os.dup2(reader, 0)
        os.write(writer, b"continue\n")

        assert "continue" == ask(payloads.read_line, stdin="parent")
    finally:
        os.dup2(mine, 0)
        for fd in (reader, writer, mine):
            os.close(fd)


def test_a_file_that_cannot_be_opened(start: Ask, tmp_path: Path) -> None:
    """The parent opens it, so that `start` itself raises and no process is there."""
    with pytest.raises(FileNotFoundError, match="missing"):
        start(payloads.nothing, stdin=tmp_path / "missing")


# -- where options come from -----------------------------------------------------------


def test_options_of_a_context(ctx: Any, cleanup: Any, tmp_path: Path) -> None:
    """A context's options hold for its processes; mappings of both are merged."""
    with_cwd = ctx.with_options(cwd=tmp_path, env={"A": "1", "B": "1"})
    process = with_cwd.Process(env={"B": "2"}, umask=0)

    assert ProcessOptions(cwd=tmp_path, env={"A": "1", "B": "2"}, umask=0) == (
        process.process_options
    )
    assert None is ctx.Process().process_options
    assert with_cwd.get_start_method() == ctx.get_start_method()


def test_a_context_with_options_starts_processes(ctx: Any, cleanup: Any) -> None:
    """Its class is made again in the child by name, without the options."""
    receiver, sender = ctx.Pipe(False)
    cleanup.callback(receiver.close)
    cleanup.callback(sender.close)
    process = ctx.with_options(env={VARIABLE: "context"}).Process(
        target=payloads.call, args=(sender, payloads.applied_options, VARIABLE)
    )
    process.start()
    process.join()
    process.close()

    assert "context" == receiver.recv()["variable"]


def test_a_subclass_that_says_nothing_of_options(pair: Any, ctx: Any, cleanup: Any) -> None:
    """Its processes take them by attribute, and are pickled with the rest of their state."""
    receiver, sender = ctx.Pipe(False)
    cleanup.callback(receiver.close)
    cleanup.callback(sender.close)
    kind = payloads.option_reader(pair.spec)
    process = kind(sender)
    process.process_options = ProcessOptions(env={VARIABLE: "by attribute"})
    process.start()
    process.join()

    assert ("by attribute", None) == receiver.recv()
    assert ProcessOptions(env={VARIABLE: "by attribute"}) == process.process_options
    process.close()


def test_a_context_with_options_survives_pickling(ctx: Any) -> None:
    """A context is sent to children, which start processes with it."""
    import pickle

    copy = pickle.loads(pickle.dumps(ctx.with_options(umask=0o77)))

    assert ProcessOptions(umask=0o77) == copy.Process().process_options
    assert ctx.get_start_method() == copy.get_start_method()


def test_options_cannot_be_changed_after_the_start(finish: Ask) -> None:
    """They would do nothing any more."""
    process = finish(payloads.nothing)

    with pytest.raises(AssertionError, match="already started"):
        process.process_options = ProcessOptions()


def test_a_limit_that_the_child_may_not_have(finish: Ask, tmp_path: Path) -> None:
    """A limit above the hard one would not be what was asked for."""
    log = tmp_path / "log"
    process = finish(payloads.nothing, limits={"open_files": 1 << 40}, stderr=log)

    assert 1 == process.exitcode
    assert f"{ProcessOptionError.__name__}: limits=" in log.read_text()
