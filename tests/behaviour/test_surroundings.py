"""What a child finds around it: streams, directory, arguments, environment, interpreter flags."""

from __future__ import annotations

import json
import os
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from procession.testing import payloads

Make = Callable[..., Any]
pytestmark = pytest.mark.one_pair_per("method")


def test_surroundings(pair: Any, ask: Make, monkeypatch: pytest.MonkeyPatch, tmp_path: Any) -> None:
    """argv, path and directory are the parent's; stdin is the null device."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["program", "--argument"])
    found = ask(payloads.environment_of_child)

    assert ["program", "--argument"] == found["argv"]
    assert str(tmp_path) == found["cwd"]
    assert set(filter(None, sys.path)) <= set(found["path"])
    assert "" == found["stdin"]


def test_environment(pair: Any, ask: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    """A variable set before the start is seen by the child."""
    if pair.subject == "multiprocessing" and pair.method == "forkserver":
        pytest.skip("multiprocessing's fork server keeps the environment it was started in")
    monkeypatch.setenv("PROCESSION_TESTS_VARIABLE", "set late")

    assert "set late" == ask(payloads.environment_of_child)["variable"]


def test_threads(ask: Make) -> None:
    """There is the main thread, and its number is its own, not that of the parent's."""
    ((name, number),) = ask(payloads.threads_of_child)

    assert "MainThread" == name
    assert number not in (None, threading.main_thread().native_id)


_STREAMS = """
import os, sys
import {mp} as mp
from procession.testing import payloads

if __name__ == "__main__":
    report = os.dup(1)
    {spoil}
    p = mp.get_context(sys.argv[1]).Process(target=payloads.exit_with, args=(3,))
    p.start()
    p.join()
    os.write(report, b"%d\\n" % p.exitcode)
"""


@pytest.mark.parametrize(
    "spoil",
    [
        "os.close(0)",
        "sys.stdin.close()",
        "sys.stdin = None",
        "sys.stdout = sys.stderr = None",
        "os.close(0); os.close(1)",
        "sys.stdin = sys.stdout = sys.stderr = None; os.close(0); os.close(1); os.close(2)",
        "sys.stdin = __import__('io').StringIO('typed')",
        "sys.stdout = sys.stderr = type('Log', (), {'write': lambda self, text: None})()",
        pytest.param(
            "sys.stdin = object()",
            marks=pytest.mark.beyond("multiprocessing closes whatever is there"),
        ),
    ],
)
def test_missing_streams(run_program: Make, pair: Any, spoil: str) -> None:
    """Standard streams may be closed, None or something else: start works all the same."""
    done = run_program(_STREAMS.replace("{spoil}", spoil), pair.method)

    assert "3\n" == done.stdout, done.stderr


@pytest.mark.beyond("multiprocessing looks for the directory again when it needs a helper")
def test_a_removed_directory(run_program: Make, pair: Any, tmp_path: Path) -> None:
    """A program may be imported and start processes where there is no directory any more."""
    place = tmp_path / "place"
    place.mkdir()
    done = run_program(
        """
import os, sys
if __name__ == "__main__":
    os.chdir("place")
    os.rmdir("../place")
    sys.path.append("")
import {mp} as mp

def work(conn):
    conn.send("here")

if __name__ == "__main__":
    ctx = mp.get_context(sys.argv[1])
    here, there = ctx.Pipe(duplex=False)
    p = ctx.Process(target=work, args=(there,))
    p.start()
    print(here.recv())
    p.join()
""",
        pair.method,
    )

    assert ("here\n", "", 0) == (done.stdout, done.stderr, done.returncode)


def test_stdin_belongs_to_the_parent(run_program: Make, pair: Any) -> None:
    """A child that reads its stdin gets the end of file; the parent's input is untouched."""
    done = run_program(
        """
import sys
import {mp} as mp

def work(conn):
    conn.send(sys.stdin.read())

if __name__ == "__main__":
    ctx = mp.get_context(sys.argv[1])
    here, there = ctx.Pipe()
    p = ctx.Process(target=work, args=(there,))
    p.start()
    print(repr(here.recv()))
    p.join()
    print(sys.stdin.read())
""",
        pair.method,
        given="for the parent",
    )

    assert "''\nfor the parent\n" == done.stdout, done.stderr


_FLAGS = """
import json, sys
import {mp} as mp

def flags(conn, depth):
    if depth:
        p = mp.get_context(sys.argv[1]).Process(target=flags, args=(conn, depth - 1))
        p.start()
        p.join()
        return
    conn.send([list(sys.flags), sys._xoptions, sys.warnoptions])

if __name__ == "__main__":
    here, there = mp.Pipe()
    flags(there, 2)
    there_found = here.recv()
    flags(there, 0)
    print(json.dumps([here.recv(), there_found]))
"""


def test_interpreter_flags_reach_grandchildren(run_program: Make, pair: Any) -> None:
    """-O, -W, -X, -B ... of the program hold in its children's children."""
    if pair.subject == "multiprocessing" and pair.method == "forkserver":
        pytest.skip("multiprocessing's fork server does not nest under every flag")
    done = run_program(
        _FLAGS, pair.method, options=("-O", "-B", "-W", "error::UserWarning", "-X", "dev")
    )
    here, there = json.loads(done.stdout or "[0, 1]")

    assert here == there, done.stderr


@pytest.mark.parametrize("options", [("-E",), ("-s",), ("-OO", "-b"), ("-I",)])
def test_single_flags(run_program: Make, pair: Any, options: tuple[str, ...]) -> None:
    """Flags that change where modules come from reach a child, too."""
    done = run_program(_FLAGS, pair.method, options=options)
    here, there = json.loads(done.stdout or "[0, 1]")

    assert here == there, done.stderr


def test_set_executable(run_program: Make, pair: Any) -> None:
    """Children of a fresh-interpreter method run the interpreter that set_executable names."""
    if pair.method != "spawn":
        pytest.skip("only spawn starts an interpreter for each child")
    done = run_program(
        """
import os, stat, sys
import {mp} as mp
from procession.testing import payloads

if __name__ == "__main__":
    wrapper = os.path.abspath("wrapper")
    with open(wrapper, "w") as file:
        file.write(f'#!/bin/sh\\nexport WRAPPED=yes\\nexec "{sys.executable}" "$@"\\n')
    os.chmod(wrapper, 0o700)
    mp.set_executable(wrapper)
    ctx = mp.get_context("spawn")
    here, there = ctx.Pipe()
    p = ctx.Process(target=payloads.call, args=(there, os.getenv, "WRAPPED"))
    p.start()
    print(here.recv())
    p.join()
""",
        pair.method,
    )

    assert "yes\n" == done.stdout, done.stderr


@pytest.mark.beyond("multiprocessing's children import much of it")
def test_children_import_little(pair: Any, run_program: Make) -> None:
    """A fresh child has imported none of the libraries that only a parent needs.

    In a program of its own: a fork server loads what one child wants for all later ones.
    """
    if pair.method == "fork":
        pytest.skip("a forked child has what its parent has")
    done = run_program(
        f"""
import procession
from procession.testing import payloads
heavy = ["attrs", "attr", "pluggy", "importlib.metadata", "re", "socket", "subprocess", "typing",
         "multiprocessing"]
if __name__ == "__main__":
    ctx = procession.get_context({pair.method!r}, transport={pair.transport!r})
    here, there = ctx.Pipe()
    p = ctx.Process(target=payloads.call, args=(there, payloads.loaded_modules, heavy))
    p.start()
    print(here.recv())
    p.join()
"""
    )

    assert "[]\n" == done.stdout, done.stderr


@pytest.mark.one_pair_per("method")
@pytest.mark.beyond("multiprocessing's children import much of it")
def test_children_that_are_given_nothing_import_less(pair: Any, run_program: Make) -> None:
    """Neither errors nor threads are there before somebody needs them: a start is import time."""
    if pair.method == "fork":
        pytest.skip("a forked child has what its parent has")
    done = run_program(
        f"""
import procession, sys
def tell():
    print(sorted({{"procession.errors", "queue", "threading"}} & sys.modules.keys()), flush=True)
if __name__ == "__main__":
    p = procession.get_context({pair.method!r}).Process(target=tell)
    p.start()
    p.join()
"""
    )

    assert "[]\n" == done.stdout, done.stderr


def test_environment_is_kept_clean(ask: Make) -> None:
    """Starting children sets no variables in the parent."""
    before = dict(os.environ)
    ask(payloads.environment_of_child)

    assert before == dict(os.environ)


_DAEMON = """
import os, sys
import {mp} as mp

def work():
    os.write(1, b"works\\n")

if __name__ == "__main__":
    ctx = mp.get_context(sys.argv[1])
    for _ in range(2):
        p = ctx.Process(target=work, daemon=True)
        p.start()
        p.join()
        print(p.exitcode, flush=True)
        p.close()
        # What makes a daemon closes all files, and the program opens its own in their places.
        os.closerange(3, 100)
        own = [os.open(sys.argv[0], os.O_RDONLY) for _ in range(20)]
    if os.fork() == 0:
        print(len([os.fstat(fd) for fd in own]), flush=True)
        os._exit(0)
    os.wait()
"""


@pytest.mark.beyond("multiprocessing's tracker is lost with its descriptor")
def test_other_files_in_the_place_of_ours(run_program: Make, pair: Any) -> None:
    """Who closes descriptors that are ours can start processes, and keeps his own files."""
    if pair.method == "forkserver":
        pytest.skip("the socket to the server is closed for good")
    done = run_program(_DAEMON, pair.method)

    expected = "works\n0\nworks\n0\n20\n"
    assert (expected, "", 0) == (done.stdout, done.stderr, done.returncode)


_SUBINTERPRETER = """
import sys
import {mp} as mp

def main():
    try:
        import _interpreters as interpreters
    except ImportError:
        import _xxsubinterpreters as interpreters
    run = getattr(interpreters, "exec", None) or interpreters.run_string
    text = '''
import sys
sys.path[:] = PATH
import procession
process = procession.get_context(METHOD).Process(target=print, args=("from a child",))
try:
    process.start()
except RuntimeError as error:
    print(error, flush=True)
else:
    process.join()
'''
    text = text.replace("PATH", repr(sys.path)).replace("METHOD", repr(sys.argv[1]))
    print(run(interpreters.create(), text))

if __name__ == "__main__":
    main()
"""


@pytest.mark.beyond("multiprocessing's tracker cannot be started there")
def test_a_parent_that_is_a_subinterpreter(run_program: Make, pair: Any) -> None:
    """It has children of fresh interpreters, and is told that it cannot be copied."""
    if sys.version_info[:2] == (3, 12):
        pytest.skip("3.12.1 crashes where a subinterpreter ends that has hashlib")
    done = run_program(_SUBINTERPRETER, pair.method)

    expected = "fork not supported for isolated subinterpreters\nNone\n"
    if pair.method != "fork":
        expected = "from a child\nNone\n"
    assert (expected, "", 0) == (done.stdout, done.stderr, done.returncode)
