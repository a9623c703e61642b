"""What happens to the main module of a program: scripts, packages, guards, no file at all."""

from __future__ import annotations

import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

Make = Callable[..., Any]
pytestmark = pytest.mark.one_pair_per("method")

_PROGRAM = """
import sys
import {mp} as mp

def work(conn):
    conn.send([__name__ in ("__main__", "__mp_main__"), VALUE.words])

class Value:
    def __init__(self, words):
        self.words = words

VALUE = Value("from the main module")

def answer(conn, value):
    conn.send((type(value) is Value, value.words))

def main():
    ctx = mp.get_context(sys.argv[1])
    here, there = ctx.Pipe(duplex=False)
    for target, args in ((work, (there,)), (answer, (there, Value("sent")))):
        p = ctx.Process(target=target, args=args)
        p.start()
        print(here.recv())
        p.join()

if __name__ == "__main__":
    main()
"""
_EXPECTED = "[True, 'from the main module']\n(True, 'sent')\n"


def test_script(run_program: Make, pair: Any) -> None:
    """Functions and classes of a script are found in its children."""
    done = run_program(_PROGRAM, pair.method)

    assert (_EXPECTED, "", 0) == (done.stdout, done.stderr, done.returncode)


def test_module_run_by_name(run_program: Make, pair: Any, tmp_path: Path, subject: str) -> None:
    """``python -m module`` finds its functions in its children."""
    (tmp_path / "named.py").write_text(_PROGRAM.replace("{mp}", subject))
    done = run_program(command=("-m", "named", pair.method))

    assert (_EXPECTED, "", 0) == (done.stdout, done.stderr, done.returncode)


def test_package_run_by_name(run_program: Make, pair: Any, tmp_path: Path, subject: str) -> None:
    """``python -m package`` runs ``__main__`` of a package, relative imports included."""
    package = tmp_path / "parcel"
    package.mkdir()
    (package / "__init__.py").write_text("")
    (package / "work.py").write_text("def double(conn, n):\n    conn.send(2 * n)\n")
    (package / "__main__.py").write_text(
        f"""
import sys
import {subject} as mp
from . import work

if __name__ == "__main__":
    here, there = mp.Pipe(duplex=False)
    p = mp.get_context(sys.argv[1]).Process(target=work.double, args=(there, 21))
    p.start()
    print(here.recv())
    p.join()
"""
    )
    done = run_program(command=("-m", "parcel", pair.method))

    assert ("42\n", "", 0) == (done.stdout, done.stderr, done.returncode)


def test_module_in_a_package(run_program: Make, pair: Any, tmp_path: Path, subject: str) -> None:
    """``python -m package.module`` finds its functions in its children."""
    package = tmp_path / "parcel"
    package.mkdir()
    (package / "__init__.py").write_text("")
    (package / "inner.py").write_text(_PROGRAM.replace("{mp}", subject))
    done = run_program(command=("-m", "parcel.inner", pair.method))

    assert (_EXPECTED, "", 0) == (done.stdout, done.stderr, done.returncode)


def test_directory_and_zip(run_program: Make, pair: Any, tmp_path: Path, subject: str) -> None:
    """A directory or zip file with a ``__main__.py`` can start processes from its modules."""
    main = f"""
import sys
import {subject} as mp
import helper_of_main

if __name__ == "__main__":
    here, there = mp.Pipe(duplex=False)
    p = mp.get_context(sys.argv[1]).Process(target=helper_of_main.work, args=(there,))
    p.start()
    print(here.recv())
    p.join()
"""
    helper = "def work(conn):\n    conn.send('packed')\n"
    with zipfile.ZipFile(tmp_path / "program.zip", "w") as archive:
        archive.writestr("__main__.py", main)
        archive.writestr("helper_of_main.py", helper)
    folder = tmp_path / "folder"
    folder.mkdir()
    (folder / "__main__.py").write_text(main)
    (folder / "helper_of_main.py").write_text(helper)

    for name in ("program.zip", "folder"):
        done = run_program(command=(name, pair.method))
        assert ("packed\n", "", 0) == (done.stdout, done.stderr, done.returncode)


@pytest.mark.beyond("multiprocessing's child cannot say why it finds nothing")
def test_what_a_package_has_in_its_main_program(
    run_program: Make, pair: Any, tmp_path: Path, subject: str
) -> None:
    """It cannot be found in a fresh interpreter, which `start` says, with what to do."""
    package = tmp_path / "parcel"
    package.mkdir()
    (package / "__init__.py").write_text("")
    text = _PROGRAM.replace("{mp}", subject)
    (package / "__main__.py").write_text(text)
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "__main__.py").write_text(text)

    for command in (("-m", "parcel"), ("folder",)):
        done = run_program(command=(*command, pair.method))
        if pair.method == "fork":
            assert (_EXPECTED, "", 0) == (done.stdout, done.stderr, done.returncode)
            continue
        assert "PicklingError: work is defined in " in done.stderr
        assert "__main__.py, the main program of a package" in done.stderr
        assert "put it into a module of its own" in done.stderr


def test_relative_path_after_chdir(
    run_program: Make, pair: Any, tmp_path: Path, subject: str
) -> None:
    """A script named by a relative path may change directory before it starts a process."""
    text = _PROGRAM.replace("def main():", "def main():\n    __import__('os').chdir('/')")
    (tmp_path / "relative.py").write_text(text.replace("{mp}", subject))
    done = run_program(command=("relative.py", pair.method))

    assert (_EXPECTED, "", 0) == (done.stdout, done.stderr, done.returncode)


def test_unguarded_script(run_program: Make, pair: Any) -> None:
    """A script that starts processes when imported is told about the guard, and ends."""
    if pair.method == "fork":
        pytest.skip("a forked child does not import the main module")
    done = run_program(
        """
import sys
import {mp} as mp

def work():
    pass

p = mp.get_context(sys.argv[1]).Process(target=work)
p.start()
p.join()
sys.exit(p.exitcode)
""",
        pair.method,
    )

    assert 1 == done.returncode
    assert "RuntimeError" in done.stderr or "UnguardedMainError" in done.stderr
    assert "bootstrapping phase" in done.stderr
    assert 'if __name__ == "__main__":' in done.stderr.replace("'", '"')


@pytest.mark.beyond("multiprocessing's child looks for a file named <stdin>")
def test_program_from_stdin(run_program: Make, pair: Any) -> None:
    """A function typed into a program without a file cannot be found: a clear error, no hang."""
    done = run_program(
        command=("-", pair.method),
        given=f"""
import sys
import {pair.subject} as mp

def work():
    print("ran", flush=True)

if __name__ == "__main__":
    p = mp.get_context(sys.argv[1]).Process(target=work)
    p.start()
    p.join()
    print(p.exitcode)
""",
    )

    if pair.method == "fork":
        assert ("ran\n0\n", "") == (done.stdout, done.stderr)
        return
    assert "ran" not in done.stdout
    assert "work is defined in an interactive session" in done.stderr
    assert "PicklingError" in done.stderr


def test_command_line_program(run_program: Make, pair: Any) -> None:
    """``python -c`` may start what is importable."""
    done = run_program(
        command=(
            "-c",
            f"import sys, {pair.subject} as mp\n"
            "from procession.testing import payloads\n"
            "p = mp.get_context(sys.argv[1]).Process(target=payloads.exit_with, args=(5,))\n"
            "p.start(); p.join(); print(p.exitcode)",
            pair.method,
        )
    )

    assert ("5\n", "", 0) == (done.stdout, done.stderr, done.returncode)


def test_unpicklable_target_raises_in_the_parent(pair: Any, make: Make, library: Any) -> None:
    """What cannot be pickled raises in start, in the parent; no child remains, a retry is fine."""
    import pickle

    captured = object()

    def local() -> object:
        return captured

    process = make(local)
    if pair.method == "fork":
        process.start()
        process.join()
        assert 0 == process.exitcode
        return
    with pytest.raises((AttributeError, pickle.PicklingError, TypeError), match="local"):
        process.start()

    assert process.pid is None or process.pid
    assert [] == library.active_children()


def test_unpicklable_argument_raises_in_the_parent(pair: Any, make: Make, library: Any) -> None:
    """An argument that cannot be pickled raises in start, too."""
    from procession.testing import payloads

    process = make(payloads.nothing_with, payloads.Unpicklable())
    if pair.method == "fork":
        process.start()
        process.join()
        assert 0 == process.exitcode
        return
    with pytest.raises(TypeError, match="cannot pickle Unpicklable"):
        process.start()

    assert [] == library.active_children()
