"""``procession port``: what a program that uses multiprocessing has to know."""

from __future__ import annotations

import importlib
import json
import re
import sys
from pathlib import Path
from typing import Any

import pytest

from procession._commands.port.names import NAMES, WHOLE_MODULE, Verdict
from procession._commands.port.program import examine

THEIR_MODULES = [
    "multiprocessing",
    *(
        f"multiprocessing.{name}"
        for name in [
            *["connection", "context", "dummy", "forkserver", "heap", "managers", "pool"],
            *["process", "queues", "reduction", "resource_sharer", "resource_tracker"],
            *["shared_memory", "sharedctypes", "spawn", "synchronize", "util"],
        ]
    ),
]


def resolve(dotted: str) -> Any:
    """Return the object that *dotted* names, from whatever module it is in."""
    parts = dotted.split(".")
    for length in range(len(parts), 0, -1):
        try:
            found = importlib.import_module(".".join(parts[:length]))
        except ModuleNotFoundError:
            continue
        for part in parts[length:]:
            found = getattr(found, part)
        return found
    raise AttributeError(dotted)


def found(source: str) -> dict[str, list[int]]:
    """Return the names in *source* that are not the same in procession, with their lines."""
    return {
        finding.name.theirs.removeprefix("multiprocessing."): finding.lines
        for finding in examine(source.encode(), "program.py")
        if finding.name.verdict is not Verdict.SAME
    }


# -- the table -------------------------------------------------------------------------


def can_be_had(dotted: str) -> bool:
    """Return whether there is such a name."""
    try:
        resolve(dotted)
    except AttributeError:
        return False
    return True


def test_what_is_said_to_be_there_is_there() -> None:
    """A program is changed by this table; a name that does not exist would break it."""
    assert [name for name in NAMES.values() if name.ours and not can_be_had(name.ours)] == []


def test_what_is_said_to_be_missing_is_missing() -> None:
    """Whoever builds it is reminded to say so here and on the page."""
    missing = [path.removesuffix(WHOLE_MODULE) for path, name in NAMES.items() if not name.ours]
    assert [path for path in missing if can_be_had(f"procession.{path}")] == []


def test_every_entry_is_a_name_of_multiprocessing() -> None:
    """A slip of the pen would never be found in any program."""
    # The modules of the other platform cannot be imported.
    elsewhere = ("popen_fork", "popen_spawn_p") if sys.platform == "win32" else "popen_spawn_w"
    paths = [path.removesuffix(WHOLE_MODULE) for path in NAMES if not path.startswith(elsewhere)]
    assert [path for path in paths if not can_be_had(f"multiprocessing.{path}")] == []


@pytest.mark.parametrize("module", THEIR_MODULES)
def test_every_name_of_multiprocessing_has_an_entry(module: str) -> None:
    """A program may use any of them, and wants to know before it is changed."""
    theirs = importlib.import_module(module)
    public = getattr(theirs, "__all__", None) or [
        name
        for name, value in vars(theirs).items()
        if not name.startswith("_") and getattr(value, "__module__", None) == module
    ]
    prefix = module.removeprefix("multiprocessing").removeprefix(".")
    if prefix + WHOLE_MODULE not in NAMES:
        names = [f"{prefix}.{name}".removeprefix(".") for name in public]
        assert names
        assert [name for name in names if name not in NAMES] == []


# -- reading programs ------------------------------------------------------------------


@pytest.mark.parametrize(
    "source",
    [
        "import multiprocessing\nx = multiprocessing.util.Finalize",
        "import multiprocessing as mp\nx = mp.util.Finalize",
        "import multiprocessing.util\nx = multiprocessing.util.Finalize",
        "import multiprocessing.util as u\nx = u.Finalize",
        "from multiprocessing import util\nx = util.Finalize",
        "from multiprocessing import util as u\nx = u.Finalize",
        "x = 1\nfrom multiprocessing.util import Finalize",
    ],
)
def test_a_name_is_found_however_it_is_imported(source: str) -> None:
    """There are many ways, and programs use them all."""
    assert found(source) == {"util.Finalize": [2]}


@pytest.mark.parametrize(
    "source",
    [
        "import multiprocessing as mp\nq = mp.Queue(); q.join_thread()",
        "import multiprocessing as mp\nq = mp.get_context('spawn').Queue(); q.join_thread()",
        "import multiprocessing as mp\nself.ctx = mp.get_context()\nself.q = self.ctx.Queue()\n"
        "self.q.join_thread()",
        "from multiprocessing import Queue\ndef work(q: Queue): q.join_thread()",
        "from multiprocessing.queues import Queue\nq: Queue = made(); q.join_thread()",
        "import multiprocessing as mp\nif (q := mp.Queue()): q.join_thread()",
        "def late(): q.join_thread()\nq = p()\nimport multiprocessing as mp\np = mp.Queue",
    ],
)
def test_methods_are_found_by_what_variables_hold(source: str) -> None:
    """What differs is most often a method, whose object has come a long way."""
    assert "queues.Queue.join_thread" in found(source)


def test_a_variable_means_what_its_own_scope_says() -> None:
    """The same short names are used for everything, in one function and the next."""
    source = (
        "import multiprocessing as mp\n"
        "def one():\n    q = mp.Queue()\n    q.join_thread()\n"
        "def two(q):\n    q.join_thread()\n"
        "def three():\n    q = open('file')\n    q.join_thread()\n"
        "def four():\n    def inner(): q.join_thread()\n    q = mp.Queue()\n"
        "def five():\n    global g\n    g = mp.Queue()\n"
        "g = None\ng.join_thread()\n"
    )
    assert found(source)["queues.Queue.join_thread"] == [4, 11, 17]


def test_both_ends_of_a_pipe_are_known() -> None:
    """What a function returns two of is unpacked."""
    source = "import multiprocessing as mp\na, b = mp.Pipe()\na._handle\nb._handle\n"
    assert found(source)["connection.Connection._handle"] == [3, 4]


def test_other_modules_are_left_alone() -> None:
    """A program's own names, and modules that are called alike, are nobody's business."""
    assert found("from . import multiprocessing\nmultiprocessing.Pool()") == {}
    assert found("from .multiprocessing import Pool\nPool()") == {}
    assert found("import multiprocess\nmultiprocess.Pool()") == {}
    assert found("Pool()\nclass Queue: pass\nQueue().join_thread()") == {}


def test_names_that_nobody_knows_are_missing() -> None:
    """Private names, inventions, and imports that hide what they bring."""
    assert found("import multiprocessing as mp\nmp.magic\nmp.Queue._feed\n").keys() == {
        "magic",
        "Queue",
        "Queue._feed",
    }
    assert found("from multiprocessing import *") == {"*": [1]}
    proxy = "from multiprocessing import Manager\ndef work(m: Manager):\n    m._process._popen\n"
    assert found(proxy).keys() == {"Manager", "managers.SyncManager._process"}
    assert found(proxy.replace("_process._popen", "_getvalue()")).keys() == {"Manager"}


def test_a_module_s_entry_is_for_all_its_names() -> None:
    """`dummy` is a module of threads, whatever is used of it; what its objects do is theirs."""
    assert found("from multiprocessing.dummy import Pool\n") == {"dummy.Pool": [1]}
    assert found("from multiprocessing import dummy\ndummy.Pool().map()") == {"dummy.Pool": [2]}
    assert found("from multiprocessing.dummy.connection import Pipe") == {
        "dummy.connection.Pipe": [1]
    }


GUARDED = "import multiprocessing as mp\nif __name__ == '__main__':\n    mp.Process().start()\n"


def test_processes_made_on_import() -> None:
    """Every start method but fork imports the program again, in each child."""
    assert "__main__" not in found(GUARDED)
    assert "__main__" not in found(GUARDED.replace("if __name__ == '__main__'", "def main()"))
    assert found(GUARDED.replace("__name__", "ready"))["__main__"] == [3]
    forked = GUARDED.replace("__name__", "mp.set_start_method('fork') or 1")
    assert "__main__" not in found(forked)


def test_a_lambda_for_a_target() -> None:
    """It worked, since the default start method was fork."""
    source = GUARDED.replace("Process()", "Process(target=lambda: 1)")
    assert found(source)["lambda"] == [3]


# -- the command -----------------------------------------------------------------------

PROGRAM = """\
from multiprocessing import allow_connection_pickling, Process, cpu_count
from multiprocessing.connection import Pipe

if __name__ == "__main__":
    Process(target=print, args=(cpu_count(),)).start()
"""


@pytest.fixture
def program(tmp_path: Path) -> Path:
    """A program of which one name is missing, one differs, one has moved, and one is the same."""
    path = tmp_path / "program.py"
    path.write_text(PROGRAM)
    return path


def test_the_findings_come_with_their_lines(run: Any, program: Path) -> None:
    """One line for each name, which an editor can follow."""
    result = run("port", program)

    assert (result.stderr, result.returncode) == ("", 1)
    *lines, last = result.stdout.splitlines()
    heads = [line.rpartition(".py:")[2].split(": ")[:3] for line in lines]
    assert heads == [
        ["1", "multiprocessing.allow_connection_pickling", "missing"],
        ["1, 5", "multiprocessing.Process", "differs"],
        ["2", "multiprocessing.connection.Pipe", "moved"],
    ]
    assert lines[2].endswith(": `procession.Pipe`")
    assert last == "4 names: same 1, moved 1, differs 1, missing 1"


def test_json(run: Any, program: Path) -> None:
    """For programs: every name, those that are the same as well."""
    result = run("port", "--json", program)

    report = json.loads(result.stdout)
    assert (result.stderr, result.returncode) == ("", 1)
    assert report["file"] == str(program)
    assert {each["name"]: (each["verdict"], each["ours"]) for each in report["findings"]} == {
        "multiprocessing.allow_connection_pickling": ("missing", None),
        "multiprocessing.Process": ("differs", "procession.Process"),
        "multiprocessing.cpu_count": ("same", "procession.cpu_count"),
        "multiprocessing.connection.Pipe": ("moved", "procession.Pipe"),
    }
    assert all(each["lines"] for each in report["findings"])


def test_nothing_missing_is_status_0(run: Any, program: Path) -> None:
    """A difference is worth reading, and stops nobody."""
    program.write_text(PROGRAM.replace("allow_connection_pickling, ", ""))
    result = run("port", program)

    assert (result.stderr, result.returncode) == ("", 0)
    assert "differs" in result.stdout


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (None, "does not exist"),
        (b"x = (\n", r"is not Python 3\.\d+: line 1: "),
        (b"\xff\xfe", r"is not Python 3\.\d+: "),
        (b"x = '\0'\n", r"(is not|cannot be parsed by) Python 3\.\d+: .*null bytes"),
        (b"-" * 100_000 + b"1", r"(is not|cannot be parsed by) Python 3\.\d+: "),
    ],
    ids=["absent", "syntax", "encoding", "null", "deep"],
)
def test_what_cannot_be_read_is_one_line(
    run: Any, program: Path, content: bytes | None, says: str
) -> None:
    """Whatever the file is, there is no traceback."""
    if content is None:
        program.unlink()
    else:
        program.write_bytes(content)
    result = run("port", program)

    assert (result.stdout, result.returncode) == ("", 2)
    (line,) = result.stderr.splitlines()
    assert line.startswith("procession: ")
    assert "program.py" in line
    assert re.search(says, line)


def test_a_directory_is_no_program(run: Any, tmp_path: Path) -> None:
    """The most likely slip of all."""
    result = run("port", tmp_path)

    assert result.returncode == 2
    assert result.stderr.endswith("is a directory.\n")
