"""``procession check``: what it says of good plugins, of broken ones, and of wrong questions."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from xml.etree import ElementTree

import pytest

if sys.platform != "linux":
    pytest.skip("the conformance kit looks into /proc", allow_module_level=True)

import procession
from procession import cli
from procession._commands import cli_check
from procession.testing import checking, reporting

pytestmark = pytest.mark.once

Run = Callable[..., subprocess.CompletedProcess[str]]

TRANSPORT = """
import os, signal, threading
from procession.plugin import PacketSocketChannel, Transport, TransportFeatures, hookimpl

class LossyChannel(PacketSocketChannel):
    def send(self, body, buffers=(), /):
        {fault}
        super().send(bytes(body)[:-1], buffers)

class Lossy(Transport):
    name = "lossy"
    features = TransportFeatures()

    def pair(self, *, duplex=True):
        return LossyChannel.pair(duplex=duplex)

@hookimpl
def procession_transport():
    return Lossy
"""


@pytest.fixture
def lossy(tmp_path: Path) -> Callable[[str], str]:
    """Install a transport that loses bytes; return what to put on the path for it."""

    def install(fault: str = "pass") -> str:
        site = tmp_path / "site"
        info = site / "procession_lossy-1.0.dist-info"
        info.mkdir(parents=True)
        (info / "METADATA").write_text(
            "Metadata-Version: 2.1\nName: procession-lossy\nVersion: 1.0\n"
        )
        (info / "entry_points.txt").write_text("[procession.transports]\nlossy = lossy\n")
        (site / "lossy.py").write_text(TRANSPORT.format(fault=fault))
        return os.pathsep.join([str(site), *filter(None, [os.environ.get("PYTHONPATH")])])

    return install


def some_transport() -> str:
    """The name of a transport that is installed."""
    names = procession.get_all_transports()
    if not names:
        pytest.skip("needs a transport")
    return names[0]


def test_a_good_plugin(run: Run, tmp_path: Path) -> None:
    """Promises are counted, by whom they are of, and all were kept."""
    name = some_transport()
    done = run(
        "check", name, "--only", "duplex_is or end_comes_after", "--report", tmp_path / "r.md"
    )

    assert 0 == done.returncode, done.stdout + done.stderr
    assert re.search(rf"^transport.* '{name}' \(procession-{name} ", done.stdout)
    assert "\ntransport: 2 passed\n" in done.stdout
    assert ", 0 not kept" in done.stdout
    report = (tmp_path / "r.md").read_text()
    assert f"# Conformance of `{name}`" in report
    assert "### transport: the_end_comes_after_every_message" in report
    assert '`Channel.receive`: "Raises `EOFError` when the peer has closed' in report


def test_subjects_come_one_after_the_other(run: Run) -> None:
    """Each has one line, with the outcomes of all its tests."""
    if not {"fork", "spawn"} <= set(procession.get_all_start_methods()):
        pytest.skip("needs fork and spawn")
    name = some_transport()
    words = "duplex_connection_through or killed_child"
    done = run("check", name, "--with", "fork", "--with", "spawn", "--only", words)

    assert 0 == done.returncode, done.stdout + done.stderr
    assert ["2 passed"] * 2 == re.findall(rf" with {name}: (.*)", done.stdout)


def test_what_is_declared_absent(run: Run, tmp_path: Path) -> None:
    """A refusal is told from what works, with the feature; in the XML as well."""
    if "spawn" not in procession.get_all_start_methods():
        pytest.skip("needs spawn")
    done = run("check", "spawn", "--only", "memory_is_inherited", "--report", tmp_path / "r.xml")

    assert 0 == done.returncode, done.stdout + done.stderr
    assert "start method: 1 refused as declared" in done.stdout
    assert "refused, as is declared: inherits_memory" in done.stdout
    (case,) = ElementTree.parse(tmp_path / "r.xml").iter("testcase")
    properties = {each.attrib["name"]: each.attrib["value"] for each in case.iter("property")}
    assert "inherits_memory" == properties["refused as declared"]
    assert "`StartFeatures.inherits_memory`:" in properties["promise"]


def test_a_broken_plugin(run: Run, lossy: Callable[[str], str]) -> None:
    """What was not kept is there in the contract's words, with what was compared."""
    done = run("check", "lossy", "--only", "end_comes_after or it_holds", PYTHONPATH=lossy("pass"))

    assert 1 == done.returncode, done.stdout + done.stderr
    assert "failed: transport: the_end_comes_after_every_message\n" in done.stdout
    assert '`Channel.receive`: "Raises `EOFError` when the peer has closed' in done.stdout
    assert "[3, 0, 5000] == [2, 0, 4999]" in done.stdout
    assert "transport: 1 passed, 1 failed" in done.stdout
    assert "lossy: 1 promises kept, 1 not kept" in done.stdout


ENDS = "end_comes_after or it_holds"


@pytest.mark.parametrize(
    ("line", "status", "words"),
    [
        ("os._exit(0)", 1, "ended with exit status 0, before the first test"),
        ("raise OSError('no luck')", 2, "no luck"),
        ("Transport.missing", 2, "missing"),
    ],
)
def test_a_plugin_that_cannot_be_imported(
    run: Run, lossy: Callable[[str], str], tmp_path: Path, line: str, status: int, words: str
) -> None:
    """It is named, with the reason; and it does not end the command as if all were well."""
    path = lossy("pass")
    with open(tmp_path / "site" / "lossy.py", "a") as module:
        module.write(f"\n{line}\n")
    done = run("check", "lossy", PYTHONPATH=path)

    assert status == done.returncode, done.stdout + done.stderr
    assert words in done.stdout + done.stderr
    assert "lossy" in done.stdout + done.stderr


@pytest.mark.parametrize(
    ("fault", "end"),
    [
        ("os.kill(os.getpid(), 9)", "by SIGKILL"),
        ("os._exit(0)", "with exit status 0"),
        ("os._exit(1)", "with exit status 1"),
    ],
)
def test_a_plugin_that_ends_the_process(
    run: Run, lossy: Callable[[str], str], tmp_path: Path, fault: str, end: str
) -> None:
    """However it does that, it is a failure of the test that it happened in; the report says so."""
    report = tmp_path / "r.xml"
    done = run("check", "lossy", "--only", ENDS, "--report", report, PYTHONPATH=lossy(fault))

    assert 1 == done.returncode, done.stdout + done.stderr
    words = f"the process that runs the tests ended {end}"
    assert "failed: transport: the_end_comes_after_every_message\n" in done.stdout
    assert (
        f"{words}, in transport: the_end_comes_after_every_message; 1 promises were" in done.stdout
    )
    suite = next(ElementTree.parse(report).iter("testsuite"))
    assert ("3", "1", "1", "1") == tuple(
        suite.attrib[each] for each in ("tests", "failures", "errors", "skipped")
    )
    (failure,) = suite.iter("failure")
    assert words == failure.attrib["message"]


def test_a_plugin_that_leaves_a_child_and_dies(
    run: Run, lossy: Callable[[str], str], tmp_path: Path
) -> None:
    """Nobody waits for who has inherited what; and it does not outlive the check."""
    note = tmp_path / "child"
    fault = (
        f"pid = os.fork(); (os.setsid(), signal.pause()) if pid == 0 else "
        f"(open({str(note)!r}, 'w').write(str(pid)), os.kill(os.getpid(), 9))"
    )
    done = run("check", "lossy", "--only", ENDS, PYTHONPATH=lossy(fault))

    assert 1 == done.returncode, done.stdout + done.stderr
    assert "ended by SIGKILL" in done.stdout
    with pytest.raises(ProcessLookupError):
        os.kill(int(note.read_text()), 0)


def test_a_plugin_whose_child_runs_wild(run: Run, lossy: Callable[[str], str]) -> None:
    """What a forked copy of the test process would tell of the tests is not heard."""
    path = lossy("if os.fork() == 0: raise SystemError('in the child')")
    done = run("check", "lossy", "--only", ENDS, PYTHONPATH=path)

    assert 1 == done.returncode, done.stdout + done.stderr
    assert "transport: 1 passed, 1 failed" in done.stdout
    assert "in the child" not in done.stdout


def test_a_plugin_that_cannot_be_interrupted(
    lossy: Callable[[str], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where a guard inside the process does not help, the one outside does, and tells where."""
    fault = "signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGALRM]); threading.Event().wait()"
    monkeypatch.setenv("PYTHONPATH", lossy(fault))
    monkeypatch.setattr(checking, "_GRACE", 1)
    examination = checking.Examination()
    order = checking.Order("lossy", ["transport"], only="end_comes_after", seconds=1)
    (result,) = checking.examine(order, examination)

    assert (checking.FAILED, [result]) == (result.outcome, examination.results)
    assert "was not heard of for 2 seconds\n" in result.detail
    assert "lossy.py" in result.detail


def test_a_report_of_anything() -> None:
    """What XML cannot say is spelled out, whatever a plugin raises; a reader gets the rest."""
    found = checking.Result("transport", "a_test", "promise", checking.FAILED, "\0 \x1b ü\n<&>")
    text = reporting.junit("x", "transport 'x'", checking.Examination([found], "trouble \ud800"))

    suite = next(ElementTree.fromstring(text).iter("testsuite"))
    assert "\\x00 \\x1b ü\n<&>" == next(suite.iter("failure")).text
    assert "trouble \\ud800" == next(suite.iter("error")).text


def test_an_unknown_name(run: Run) -> None:
    """The nearest name is offered, and what there is."""
    name = some_transport()
    done = run("check", name + "x")

    assert (2, "") == (done.returncode, done.stdout)
    assert f"'{name}x'; did you mean '{name}'?; installed: start methods " in done.stderr


def test_wrong_questions(run: Run, tmp_path: Path) -> None:
    """Nothing is run for a report that cannot be written, or a partner that is not there."""
    name = some_transport()
    for arguments, words in (
        (("--report", "r.txt"), "FILE.xml (JUnit) or FILE.md (Markdown)"),
        (("--report", "no/such/r.md"), "no such directory"),
        (("--with", "nobody"), "there is nothing 'nobody' to pair"),
        (("--only", "no_such_promise"), "no promise matches 'no_such_promise'"),
        (("--only", "a and ("), "--only 'a and (': Wrong expression passed to '-k': a and (: at"),
    ):
        done = run("check", name, *arguments)
        assert 2 == done.returncode, done.stdout
        assert words in done.stderr


@pytest.mark.parametrize("variable", ["PROCESSION_KILLS", "PROCESSION_SEED"])
@pytest.mark.parametrize("value", ["x", "-1", "1.5"])
def test_a_number_that_is_none(run: Run, variable: str, value: str) -> None:
    """The kit's variables are numbers, and that is said in a line before anything is run."""
    done = run("check", some_transport(), **{variable: value})

    assert (2, "") == (done.returncode, done.stdout)
    assert f"{variable} is '{value}' in the environment; it is " in done.stderr
    assert done.stderr.endswith("a whole number such as 8\n")


def test_without_pytest(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The error names the extra."""
    monkeypatch.setattr(cli_check, "find_spec", lambda name: None)

    assert 2 == cli.main(["check", "anything"])
    assert 'pip install "procession[testing]"' in capsys.readouterr().err
