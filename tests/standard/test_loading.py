"""When the standard package is loaded: never for us, and followed whenever somebody else does."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import procession

pytestmark = [
    pytest.mark.beyond("the standard package is itself"),
    pytest.mark.one_pair_per("method"),
]

Run = Callable[..., "subprocess.CompletedProcess[str]"]

HEAD = """\
import json, sys
import procession
from procession.testing import payloads, standard

def ask(function, *args, **options):
    ctx = procession.get_context(sys.argv[1], transport=sys.argv[2])
    here, there = ctx.Pipe()
    process = ctx.Process(target=standard.say, args=(there, function, *args), **options)
    process.start()
    there.close()
    answer = here.recv()
    here.send("go")
    process.join()
    assert process.exitcode == 0
    return answer
"""


def answer_of(run: Run, text: str, method: str, transport: str) -> Any:
    """Return what a program prints last, as JSON."""
    done = run(HEAD + text, method, transport)
    assert (0, "") == (done.returncode, done.stderr)
    return json.loads(done.stdout.splitlines()[-1])


@pytest.fixture
def answer(run: Run, pair: Any) -> Callable[[str], Any]:
    """Return what a program prints last, as JSON."""
    return lambda text: answer_of(run, text, pair.method, pair.transport)


@pytest.fixture
def answer_once(run: Run) -> Callable[[str], Any]:
    """The same, on one pair: for what happens in the parent, or in any child alike."""
    method, transport = procession.get_start_method(), procession.get_transport()
    assert method is not None
    assert transport is not None
    return lambda text: answer_of(run, text, method, transport)


def test_who_does_without_it_does_not_load_it(answer: Callable[[str], Any]) -> None:
    """Neither the parent nor a child has anything of it, nor of what keeps it in step."""
    words = '"multiprocessing", "_standard"'
    assert [[], []] == answer(
        f"""
if __name__ == "__main__":
    child = ask(standard.loaded, {words})
    print(json.dumps([child, standard.loaded({words})]))
"""
    )


def test_a_child_may_load_it_by_itself(answer: Callable[[str], Any]) -> None:
    """It finds the child as it is, although the parent has never heard of it."""
    name, parent = answer(
        """
if __name__ == "__main__":
    child = ask(standard.who_am_i, name="bob")
    assert not standard.loaded("multiprocessing")
    print(json.dumps([child["name"], child["parent"][0]]))
"""
    )
    assert (["bob", "bob"], "MainProcess") == (name, parent)


def test_processes_that_load_it_apart_have_one_key(answer: Callable[[str], Any]) -> None:
    """Before the parent, after it, or before there was a child: the family has one key."""
    keys = answer(
        """
if __name__ == "__main__":
    first = ask(standard.standard_authkey)
    import multiprocessing
    own = bytes(multiprocessing.current_process().authkey)
    second = ask(standard.standard_authkey)
    print(json.dumps([key.hex() for key in (first, own, second)]))
"""
    )
    assert len(set(keys)) == 1


def test_its_own_key_stays(answer_once: Callable[[str], Any]) -> None:
    """A key that was set before procession had anything to do goes to the children."""
    assert b"secret".hex() == answer_once(
        """
import multiprocessing
if __name__ == "__main__":
    multiprocessing.current_process().authkey = b"secret"
    print(json.dumps(ask(standard.standard_authkey).hex()))
"""
    )


def test_sockets_travel_without_it(answer: Callable[[str], Any]) -> None:
    """As arguments, through connections and through queues."""
    assert ["argument", "connection", "queue", []] == answer(
        """
import socket
if __name__ == "__main__":
    ctx = procession.get_context(sys.argv[1], transport=sys.argv[2])
    here, there = ctx.Pipe()
    queue = ctx.Queue()
    ours, theirs = socket.socketpair()
    process = ctx.Process(target=standard.send_text, args=(theirs, b"argument"))
    process.start()
    process.join()
    argument = ours.recv(100).decode()
    process = ctx.Process(target=standard.echo, args=(there,))
    process.start()
    here.send((theirs, b"connection"))
    assert here.recv() == "done"
    process.join()
    connection = ours.recv(100).decode()
    queue.put([theirs])
    queue.get()[0].sendall(b"queue")
    queued = ours.recv(100).decode()
    print(json.dumps([argument, connection, queued, standard.loaded("multiprocessing")]))
"""
    )


def test_what_cannot_be_pickled_is_said_once(answer_once: Callable[[str], Any]) -> None:
    """Looking for sockets in it leaves no trace in the error."""
    text, context = answer_once(
        """
import socket
if __name__ == "__main__":
    here, there = procession.Pipe()
    try:
        here.send([sys.stdin, 1])
    except TypeError as error:
        print(json.dumps([str(error), error.__suppress_context__ or error.__context__ is None]))
"""
    )
    assert "TextIOWrapper" in text
    assert context is True


def test_it_lists_children_that_are_older_than_itself(answer_once: Callable[[str], Any]) -> None:
    """Who loads it late is told of the children that run."""
    assert [["old"], []] == answer_once(
        """
if __name__ == "__main__":
    ctx = procession.get_context(sys.argv[1], transport=sys.argv[2])
    here, there = ctx.Pipe()
    process = ctx.Process(target=payloads.hold, args=(there,), name="old")
    process.start()
    here.recv()
    import multiprocessing
    names = [[child.name for child in multiprocessing.active_children()]]
    here.send("go")
    process.join()
    names.append([child.name for child in multiprocessing.active_children()])
    print(json.dumps(names))
"""
    )


def test_its_start_method_is_inherited(answer_once: Callable[[str], Any]) -> None:
    """What a program has chosen for the standard package holds in our children, too."""
    assert "spawn" == answer_once(
        """
import multiprocessing
if __name__ == "__main__":
    multiprocessing.set_start_method("spawn")
    print(json.dumps(ask(standard.who_am_i)["method"]))
"""
    )


DEAF_DAEMON = """\
{}
import signal, sys
from procession.testing import payloads

def deaf(connection):
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    payloads.hold(connection)

if __name__ == "__main__":
    from procession._starting import launch
    launch.TERMINATION_SECONDS = 0.1
    ctx = procession.get_context()
    here, there = ctx.Pipe()
    ctx.Process(target=deaf, args=(there,), daemon=True).start()
    here.recv()
    import multiprocessing.util
    print("end")
"""


@pytest.mark.parametrize(
    "first",
    [
        "import multiprocessing.util, procession",
        "import procession, multiprocessing.util",
        "import procession",
    ],
)
def test_daemons_that_do_not_listen_are_killed_at_the_end(run: Run, first: str) -> None:
    """Its exit handler would wait for them for ever; whichever of the two was loaded first."""
    done = run(DEAF_DAEMON.format(first))
    assert (0, "end\n", "") == (done.returncode, done.stdout, done.stderr)


def test_errors_are_the_standard_package_s(answer_once: Callable[[str], Any]) -> None:
    """``except multiprocessing.TimeoutError`` catches ours, whatever was loaded when."""
    assert [["ProcessError", "TimeoutError", "BufferTooShort", "AuthenticationError"]] * 2 == (
        answer_once(
            """
def caught():
    import multiprocessing
    from procession import errors
    names = []
    for name in ("ProcessError", "TimeoutError", "BufferTooShort", "AuthenticationError"):
        try:
            raise getattr(errors, name)
        except getattr(multiprocessing, name):
            names.append(name)
    try:
        raise errors.HandshakeTimeoutError
    except multiprocessing.AuthenticationError:
        pass
    return names

if __name__ == "__main__":
    from procession import errors
    child = ask(caught)
    print(json.dumps([child, caught()]))
"""
        )
    )


def test_other_packages_may_have_its_name(answer_once: Callable[[str], Any]) -> None:
    """What replaces it under its name is left alone."""
    assert ["kept", False] == answer_once(
        """
import types
if __name__ == "__main__":
    ask(payloads.nothing)
    sys.modules["multiprocessing"] = types.SimpleNamespace(current_process="kept")
    import multiprocessing
    ask(payloads.nothing)
    from procession._ground import standard as _standard
    print(json.dumps([multiprocessing.current_process, _standard.followed]))
"""
    )


def test_it_is_loaded_as_ever(answer_once: Callable[[str], Any]) -> None:
    """Waiting for it leaves no trace in it: tools find its loader and its source."""
    loader, finders = answer_once(
        """
import inspect
if __name__ == "__main__":
    ask(payloads.nothing)
    import multiprocessing
    assert "current_process" in inspect.getsource(sys.modules["multiprocessing.process"])
    assert multiprocessing.__spec__.loader is multiprocessing.__loader__
    finders = [each for each in sys.meta_path if "procession" in getattr(each, "__module__", "")]
    print(json.dumps([type(multiprocessing.__loader__).__name__, len(finders)]))
"""
    )
    assert ("SourceFileLoader", 0) == (loader, finders)


def test_a_fork_server_may_have_loaded_it(answer_once: Callable[[str], Any]) -> None:
    """Its children are their own, with the key of the family, as if they had loaded it."""
    name, keys = answer_once(
        """
import multiprocessing
if __name__ == "__main__":
    procession.set_forkserver_preload(["multiprocessing.util", "procession.connection"])
    names = ask(standard.who_am_i, name="bob")["name"]
    keys = [ask(standard.standard_authkey), bytes(multiprocessing.current_process().authkey)]
    print(json.dumps([names, [key.hex() for key in keys]]))
"""
    )
    assert ["bob", "bob"] == name
    assert len(set(keys)) == 1


def test_it_may_be_hidden_behind_facades(run: Run, tmp_path: Path) -> None:
    """As in `procession run`, where the executor has the standard package and the program ours."""
    path = tmp_path / "executor.py"
    path.write_text(
        """
import multiprocessing
from concurrent.futures import ProcessPoolExecutor

if __name__ == "__main__":
    context = multiprocessing.get_context("spawn")
    assert type(context).__module__ == "procession.context"
    with ProcessPoolExecutor(1, mp_context=context) as executor:
        print(list(executor.map(abs, [-1, 2])))
"""
    )
    program = "from procession.cli import main; import sys; sys.exit(main(['run', *sys.argv[1:]]))"
    done = run(program, str(path))
    assert (0, "[1, 2]\n", "") == (done.returncode, done.stdout, done.stderr)
