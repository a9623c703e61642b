"""``procession run``: a program that was written for multiprocessing cannot tell the difference."""

from __future__ import annotations

import functools
import json
import multiprocessing
import os
import re
import signal
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

DEADLINE = 60.0
PROGRAMS = sorted((Path(__file__).parent / "programs").glob("*.py"))
STANDARD = [sys.executable, "-W", "ignore::DeprecationWarning"]
OURS = [*STANDARD, "-m", "procession", "run"]

Result = tuple[int, str, str]


def run(command: list[str], cwd: Path | None = None, **variables: str) -> Result:
    """Return the exit status, the output and the errors of a program."""
    kept = {key: value for key, value in os.environ.items() if not key.startswith("PROCESSION_")}
    process = subprocess.Popen(
        command,
        cwd=cwd,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**kept, **variables},
        start_new_session=True,
    )
    try:
        output, errors = process.communicate(timeout=DEADLINE)
    except subprocess.TimeoutExpired:
        if sys.platform != "win32":
            os.killpg(process.pid, signal.SIGKILL)
        output, errors = process.communicate()
        pytest.fail(f"{command} did not end:\n{output}\n{errors}")
    return process.returncode, output, errors


# -- programs with processes -------------------------------------------------------------


def without_frames(errors: str) -> list[str]:
    """Leave out what is indented: the frames are partly those of the library."""
    return [line for line in errors.splitlines() if not line.startswith(" ")]


@functools.cache
def reference(program: Path) -> Result:
    """What the program does on the standard library; the start method makes no difference."""
    return run([*STANDARD, str(program), multiprocessing.get_all_start_methods()[0]])


@pytest.mark.parametrize("program", PROGRAMS, ids=lambda path: path.stem)
def test_unmodified_program(program: Path, method: str, available_transports: list[str]) -> None:
    """Output, exit status and errors of a typical program are those of the standard library."""
    number = PROGRAMS.index(program) + ["fork", "forkserver", "spawn"].index(method)
    transport = available_transports[number % len(available_transports)]

    status, output, errors = run([*OURS, "--transport", transport, str(program), method])

    expected_status, expected_output, expected_errors = reference(program)
    assert (expected_status, expected_output) == (status, output)
    assert without_frames(expected_errors) == without_frames(errors)


@pytest.fixture(scope="session")
def available_transports() -> list[str]:
    """The names of the transports that can be used here."""
    import procession

    return procession.get_all_transports()


def test_options_choose_and_children_agree(tmp_path: Path, method: str, transport: str) -> None:
    """--start-method and --transport hold for a program that says nothing itself."""
    program = tmp_path / "program.py"
    program.write_text(
        "import multiprocessing, procession\n"
        "def report(queue):\n"
        "    queue.put((multiprocessing.Process is procession.Process, multiprocessing.__name__,\n"
        "               procession.get_start_method(), procession.get_transport()))\n"
        "if __name__ == '__main__':\n"
        "    queue = multiprocessing.Queue()\n"
        "    process = multiprocessing.Process(target=report, args=(queue,))\n"
        "    process.start()\n"
        "    print(*queue.get())\n"
        "    process.join()\n"
    )

    result = run([*OURS, f"--start-method={method}", "--transport", transport, str(program)])

    assert (0, f"True multiprocessing {method} {transport}\n", "") == result


# -- the program itself ------------------------------------------------------------------

SHOW_MAIN = """\
import sys
main = sys.modules["__main__"]
print(sorted(vars(main)), main.__dict__ is globals(), type(__builtins__), __name__, __package__)
print(__file__, __cached__, type(__loader__), __spec__ and (__spec__.name, __spec__.origin))
print(sys.argv, sys.path[0], __doc__, __annotations__)
"""

SCRIPTS = {
    "main": f'"""What it does."""\n{SHOW_MAIN}',
    "uncaught": "def fail():\n    raise ValueError('no')\n\nfail()\n",
    "chained": "try:\n    1 / 0\nexcept ZeroDivisionError as e:\n    raise KeyError(1) from e\n",
    "group": "raise ExceptionGroup('some', [ValueError(1), KeyError(2)])\n",
    "syntax": "print('not reached')\nx = = 1\n",
    "missing import": "import no_such_module_at_all\n",
    "status": "import sys\nsys.exit(41)\n",
    "message": "import sys\nsys.exit('said on stderr')\n",
    "no status": "print(1)\nraise SystemExit\n",
    "interrupt": "import os, signal\nos.kill(os.getpid(), signal.SIGINT)\nprint('no')\n",
    "terminated": "import os, signal\nos.kill(os.getpid(), signal.SIGTERM)\nsignal.pause()\n",
    "aborted": "import os\nos.abort()\n",
    "exit handler": "import atexit\natexit.register(print, 'last')\nraise SystemExit(3)\n",
    "broken pipe": "import os\nr, w = os.pipe()\nos.dup2(w, 1)\nos.close(r)\nprint('x')\n",
    "own hook": "import sys\nsys.excepthook = lambda *a: print(a[0], a[2].tb_lineno)\n1 / 0\n",
    "thread": "import threading\nthreading.Timer(0.05, print, ['late']).start()\nprint('early')\n",
    "own traceback": "import traceback\ntry:\n    1 / 0\nexcept:\n    traceback.print_exc()\n",
    "future": "import __future__\ndef f(x: 1): pass\nprint(f.__annotations__)\n",
}


def normalised(errors: str) -> str:
    """Leave out what is python's own about ``python -m``, and addresses."""
    frames = re.sub(r'^  File "<frozen runpy>", line .*\n', "", errors, flags=re.MULTILINE)
    return re.sub(r"0x[0-9a-f]+", "0x...", frames)


def compare(arguments: list[str], cwd: Path) -> Result:
    """Run something by python and by ``procession run``; return what both did."""
    status, output, errors = run([*STANDARD, *arguments], cwd)
    ours_status, ours_output, ours_errors = run([*OURS, *arguments], cwd)

    assert (status, output, normalised(errors)) == (ours_status, ours_output, ours_errors)
    return status, output, errors


@pytest.mark.parametrize("name", SCRIPTS)
def test_script(name: str, tmp_path: Path) -> None:
    """A script is run as python runs it: `__main__`, arguments, tracebacks, how it ends."""
    (tmp_path / "script.py").write_text(SCRIPTS[name])

    status, output, errors = compare(["script.py", "--one", "two"], tmp_path)

    assert status or output or errors


@pytest.mark.parametrize("name", ["main", "uncaught", "interrupt"])
def test_module(name: str, tmp_path: Path) -> None:
    """-m runs a module, of a package too, as python -m does."""
    package = tmp_path / "package"
    package.mkdir()
    (package / "__init__.py").write_text("import sys\nprint('package', sys.argv)\n")
    (package / "module.py").write_text(f"from . import __name__ as p\n{SCRIPTS[name]}")
    (package / "__main__.py").write_text(SCRIPTS[name])

    compare(["-m", "package.module", "-m", "x"], tmp_path)
    compare(["-m", "package"], tmp_path)


@pytest.mark.parametrize("name", ["main", "uncaught"])
def test_directory_archive_link_and_compiled_file(name: str, tmp_path: Path) -> None:
    """What else python runs by its path: a folder, an archive, a link, a compiled file."""
    folder = tmp_path / "folder"
    folder.mkdir()
    script = folder / "__main__.py"
    script.write_text(SCRIPTS[name])
    (tmp_path / "link.py").symlink_to(script)
    with zipfile.ZipFile(tmp_path / "archive", "w") as archive:
        archive.write(script, "__main__.py")

    compare(["folder"], tmp_path)
    compare(["archive", "argument"], tmp_path)
    compare(["link.py"], tmp_path)
    compare(["./folder/../link.py"], tmp_path)


def test_compiled_file(tmp_path: Path) -> None:
    """A compiled file runs without its source."""
    import py_compile

    (tmp_path / "script.py").write_text("print(__name__, __file__)\n")
    py_compile.compile(str(tmp_path / "script.py"), cfile=str(tmp_path / "compiled.pyc"))

    compare(["compiled.pyc"], tmp_path)


@pytest.mark.parametrize(
    "arguments",
    [["missing.py"], ["empty"], ["-m", "missing_module"], ["-m", "missing.module"]],
    ids=" ".join,
)
def test_nothing_to_run(arguments: list[str], tmp_path: Path) -> None:
    """What cannot be run is said in python's words, and has python's exit status."""
    (tmp_path / "empty").mkdir()

    status, _, errors = run([*STANDARD, *arguments], tmp_path)
    ours_status, output, ours_errors = run([*OURS, *arguments], tmp_path)

    assert (status, "") == (ours_status, output)
    assert errors.partition(": ")[2] == ours_errors.partition(": ")[2]
    assert ours_errors.startswith("procession: ")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([], "there is nothing to run"),
        (["--transport"], "--transport needs a name"),
        (["--speed", "x.py"], "there is no option --speed"),
        (["-m"], "-m needs the name of a module"),
        (["--start-method", "spwan", "x.py"], "did you mean 'spawn'?"),
        (
            ["--transport=nothing", "x.py"],
            "there is no transport 'nothing' (chosen by --transport)",
        ),
    ],
)
def test_wrong_arguments(arguments: list[str], words: str, tmp_path: Path) -> None:
    """Wrong arguments are one line, and nothing was run."""
    status, output, errors = run([*OURS, *arguments], tmp_path)

    assert (2, "") == (status, output)
    assert words in errors
    assert errors.count("\n") == 1


def test_help_and_list() -> None:
    """The command is in the list of commands, and says what it takes."""
    status, output, _ = run([*OURS, "--help"])
    _, listing, _ = run([sys.executable, "-m", "procession"])

    assert status == 0
    assert "--start-method" in output
    assert "Run a program that was written for multiprocessing" in listing


# -- what there is not ---------------------------------------------------------------------

MISSING = {
    "import multiprocessing.resource_tracker": "There is no tracker process",
    "from multiprocessing import resource_tracker": "There is no tracker process",
    "from multiprocessing import reduction": "Nothing of the kind is needed",
    "from multiprocessing.util import Finalize": "weakref.finalize",
    "from multiprocessing.context import SpawnContext": 'procession.get_context("spawn")',
    "from multiprocessing.synchronize import SemLock": "Use the class that is meant",
    "from multiprocessing import invented": "multiprocessing.invented",
    "import multiprocessing.invented": "multiprocessing.invented",
    "import multiprocessing.util as u; u.register_after_fork": "os.register_at_fork",
    "import multiprocessing as m; m.allow_connection_pickling()": "Leave it out",
    "import multiprocessing.queues as q; q._sentinel": "multiprocessing.queues._sentinel",
}


@pytest.mark.parametrize("statement", MISSING)
def test_missing_name(statement: str, tmp_path: Path) -> None:
    """What has no counterpart is said where it is asked for, with what to use instead."""
    (tmp_path / "program.py").write_text(f"{statement}\nprint('went on')\n")

    status, output, errors = run([*OURS, "program.py"], tmp_path)

    last = errors.splitlines()[-1]
    assert (1, "") == (status, output)
    assert last.startswith(("ImportError: ", "AttributeError: "))
    assert "procession has no counterpart of multiprocessing." in last
    assert MISSING[statement] in last


def test_a_question_is_no_error(tmp_path: Path) -> None:
    """Programs may ask whether there is something, by hasattr or by except ImportError."""
    (tmp_path / "program.py").write_text(
        "import multiprocessing, warnings, inspect, unittest\n"
        "print(hasattr(multiprocessing, 'invented'), hasattr(multiprocessing, 'Pool'))\n"
        "try:\n    from multiprocessing import resource_tracker\n"
        "except ImportError:\n    print('without')\n"
        "print('Pool' in dir(multiprocessing), multiprocessing)\n"
        "from multiprocessing import *\n"
        "print(Queue.__name__, Process.__name__)\n"
    )

    result = run([*OURS, "program.py"], tmp_path)

    listed = "True <module 'multiprocessing' (procession)>\nQueue Process\n"
    assert (0, f"False True\nwithout\n{listed}", "") == result


# -- libraries -----------------------------------------------------------------------------

LIBRARY = """\
import multiprocessing
import multiprocessing.queues
from multiprocessing import util
from multiprocessing.pool import Pool
from multiprocessing.reduction import ForkingPickler

class Own(Pool):
    pass

class Queue(multiprocessing.queues.Queue):
    pass

def ask(method, function):
    context = multiprocessing.get_context(method)
    queue = Queue(ctx=context)
    process = context.Process(target=function, args=(queue,))
    process.start()
    answer = queue.get()
    process.join()
    return type(process).__module__, util.Finalize.__module__, answer

def patch():
    multiprocessing.util.added = 1
"""

USER = """\
import library
import multiprocessing
import sys

def tell(queue):
    queue.put((multiprocessing.Process.__module__, type(queue).__module__))

if __name__ == "__main__":
    for method in ("fork", "spawn", "forkserver"):
        print(library.ask(method, tell))
    with library.Own(2) as pool:
        print(pool.map(abs, [-1, 2]))
    library.patch()
    print(hasattr(multiprocessing.util, "added"), library.multiprocessing.util is not None)
"""


def test_installed_library(tmp_path: Path) -> None:
    """An installed library has the standard package; its processes see what the program does."""
    folder = tmp_path / "site-packages"
    folder.mkdir()
    (folder / "library.py").write_text(LIBRARY)
    (tmp_path / "program.py").write_text(USER)

    status, output, errors = run([*OURS, "program.py"], tmp_path, PYTHONPATH=str(folder))

    told = "'multiprocessing.util', ('procession.process', 'library'))"
    names = ("ForkProcess", "SpawnProcess", "ForkServerProcess")
    lines = [f"('multiprocessing.context', {told}" for _ in names]
    assert ([*lines, "[1, 2]", "False True"], "", 0) == (output.splitlines(), errors, status)


def test_package_that_is_the_program(tmp_path: Path) -> None:
    """A package that is run by -m is the program, also when it is installed like a library."""
    folder = tmp_path / "site-packages"
    (folder / "tool").mkdir(parents=True)
    (folder / "tool" / "__init__.py").touch()
    (folder / "tool" / "part.py").write_text("from multiprocessing import Queue, Process\n")
    (folder / "tool" / "__main__.py").write_text(
        "from tool.part import Queue, Process\n"
        "if __name__ == '__main__':\n"
        "    queue = Queue()\n"
        "    process = Process(target=queue.put, args=(Process.__module__,))\n"
        "    process.start()\n    print(queue.get())\n    process.join()\n"
    )

    result = run([*OURS, "-m", "tool"], tmp_path, PYTHONPATH=str(folder))

    assert (0, "procession.process\n", "") == result


def test_standard_package_that_was_imported_before(tmp_path: Path) -> None:
    """What was imported before the program began, at the interpreter's start say, stays in use."""
    early = tmp_path / "early"
    early.mkdir()
    (early / "sitecustomize.py").write_text(
        "import multiprocessing.connection\nkept = multiprocessing.connection.wait\n"
    )
    (tmp_path / "program.py").write_text(
        "import sys\n"
        "from concurrent.futures import ProcessPoolExecutor\n"
        "from multiprocessing.connection import wait\n"
        "if __name__ == '__main__':\n"
        "    print(sys.modules['sitecustomize'].kept is wait, wait.__module__)\n"
        "    with ProcessPoolExecutor(1) as executor:\n"
        "        print(executor.submit(pow, 2, 3).result())\n"
    )

    result = run([*OURS, "program.py"], tmp_path, PYTHONPATH=str(early))

    assert (0, "False procession.connection\n8\n", "") == result


# -- cost ----------------------------------------------------------------------------------

TELL_MODULES = "import json, sys\nprint(json.dumps(sorted(sys.modules)))\n"


def test_program_without_multiprocessing_loads_nothing(tmp_path: Path) -> None:
    """A program that does not import multiprocessing has the command and the import hook only."""
    (tmp_path / "program.py").write_text(TELL_MODULES)
    # As the installed script does it; runpy, for -m, would import some more.
    (tmp_path / "procession-script").write_text(
        "import sys\nfrom procession.cli import main\nsys.exit(main())\n"
    )

    _, plain, _ = run([*STANDARD, "program.py"], tmp_path)
    _, ours, _ = run([*STANDARD, "procession-script", "run", "program.py"], tmp_path)

    added = {*json.loads(ours)} - {*json.loads(plain)}
    parts = ["command", "main_program", "redirect"]
    assert added == {
        *["__future__", "procession", "procession.cli"],
        *["procession._commands", "procession._commands.run"],
        *(f"procession._commands.run.{part}" for part in parts),
    }


def test_children_stay_slim(tmp_path: Path) -> None:
    """A child has the import hook beyond what it would have, and no standard package."""
    (tmp_path / "program.py").write_text(
        "import sys\n"
        "from multiprocessing import Process\n"
        "def tell():\n    print(*sorted(sys.modules))\n"
        "if __name__ == '__main__':\n"
        "    process = Process(target=tell)\n    process.start()\n    process.join()\n"
    )
    (tmp_path / "ported.py").write_text(
        (tmp_path / "program.py").read_text().replace("multiprocessing", "procession")
    )

    _, ours, _ = run([*OURS, "--start-method", "spawn", "program.py"], tmp_path)
    _, ported, _ = run([*STANDARD, "ported.py"], tmp_path, PROCESSION_START_METHOD="spawn")

    assert {*ours.split()} - {*ported.split()} == {
        *["multiprocessing", "procession._commands", "procession._commands.run"],
        *["procession._commands.run.redirect", "procession._commands.run.counterparts"],
    }


def test_the_standard_package_is_kept_in_step(tmp_path: Path, method: str) -> None:
    """A library that asks the standard package in a child is told of that child."""
    folder = tmp_path / "site-packages"
    folder.mkdir()
    (folder / "library.py").write_text(
        "import multiprocessing\n"
        "def name():\n    return multiprocessing.current_process().name, multiprocessing.Process\n"
    )
    (tmp_path / "program.py").write_text(
        "import library\n"
        "from multiprocessing import Process, Queue\n"
        "def tell(queue):\n"
        "    name, kind = library.name()\n"
        "    queue.put((name, kind.__module__))\n"
        "if __name__ == '__main__':\n"
        "    queue = Queue()\n"
        "    process = Process(target=tell, args=(queue,), name='the child')\n"
        "    process.start()\n    print(*queue.get())\n    process.join()\n"
    )

    result = run([*OURS, "--start-method", method, "program.py"], tmp_path, PYTHONPATH=str(folder))

    assert (0, "the child multiprocessing.context\n", "") == result
