"""`SharedMemoryManager`: its memory is used by name, and goes with it, whoever is killed.

``PROCESSION_KILLS`` is how many are killed at random, ``PROCESSION_SEED`` the seed of the moments.
"""

from __future__ import annotations

import functools
import gc
import importlib
import os
import pickle
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from multiprocessing import shared_memory as standard
from pathlib import Path
from typing import Any

import pytest

if sys.platform != "linux":
    pytest.skip("named memory is a file in /dev/shm", allow_module_level=True)

from procession import get_all_start_methods
from procession._memory import abandoned_memory
from procession._processes import inheritance
from procession.testing import shared_payloads, shortage
from procession.testing.forked import until

Make = Callable[..., Any]
per_method = pytest.mark.one_pair_per("method")
KILLS = int(os.environ.get("PROCESSION_KILLS", "9"))
SEED = int(os.environ.get("PROCESSION_SEED", "7"))
FOLDER = Path("/dev/shm")


@pytest.fixture(autouse=True)
def order(nothing_left_behind: None) -> Iterator[None]:
    """Collect what a failed assertion keeps, before descriptors are compared."""
    yield
    gc.collect()


@pytest.fixture(scope="session")
def standard_tracker() -> None:
    """Start the standard library's tracker process, which stays."""
    from multiprocessing import resource_tracker

    resource_tracker.ensure_running()


@pytest.fixture
def managers(subject: str, standard_tracker: None) -> Any:
    """The module `managers` of the package under test."""
    return importlib.import_module(f"{subject}.managers")


@pytest.fixture
def memories(subject: str) -> Any:
    """The module `shared_memory` of the package under test."""
    return importlib.import_module(f"{subject}.shared_memory")


@pytest.fixture
def manager(managers: Any, ctx: Any) -> Iterator[Any]:
    """A started manager, with the key of this process."""
    with managers.SharedMemoryManager(ctx=ctx) as manager:
        yield manager


def exists(name: str) -> bool:
    """Return whether there is a segment of that name."""
    return (FOLDER / name).exists()


def kill(pid: int) -> None:
    """Kill, at once."""
    os.kill(pid, signal.SIGKILL)


def guardians(server: int) -> list[int]:
    """Return the child processes of a server."""
    return [
        int(child)
        for task in Path(f"/proc/{server}/task").iterdir()
        for child in (task / "children").read_text().split()
    ]


class TestUse:
    """What multiprocessing has as well."""

    @per_method
    def test_gone_with_the_block(self, managers: Any, memories: Any, ctx: Any) -> None:
        """The documentation's example: all is released at the end of the block."""
        with managers.SharedMemoryManager(ctx=ctx) as manager:
            memory = manager.SharedMemory(100)
            items = manager.ShareableList(range(3))
            assert (memories.SharedMemory, memories.ShareableList) == (type(memory), type(items))
            assert (100, bytes(100), [0, 1, 2]) == (memory.size, bytes(memory.buf), list(items))
            names = memory.name, items.shm.name
            assert [True, True] == list(map(exists, names))
        assert [False, False] == list(map(exists, names))
        memory.buf[0] = 7  # the name has gone, and not the memory
        items[0] = 8
        assert (7, [8, 1, 2]) == (memory.buf[0], list(items))
        memory.close()
        items.shm.close()

    @per_method
    def test_attached_by_children(self, manager: Any, finish: Make) -> None:
        """They are sent the name, and see the same memory."""
        memory = manager.SharedMemory(10)
        finish(shared_payloads.write, memory, b"child")
        assert b"child" == memory.buf[:5]
        memory.close()

    @pytest.mark.one_pair_per("method")
    @pytest.mark.parametrize(
        ("method_name", "argument", "kind", "text"),
        [
            ("SharedMemory", 0, ValueError, "'size' must be a positive number different from zero"),
            ("SharedMemory", -1, ValueError, "'size' must be a positive integer"),
            ("SharedMemory", "a", TypeError, "'>=' not supported"),
            pytest.param(
                *("SharedMemory", 1.5, TypeError, "float"),
                marks=pytest.mark.beyond("the standard library leaves an empty file"),
            ),
            ("ShareableList", 5, TypeError, "'int' object is not iterable"),
            ("ShareableList", [object()], KeyError, "object"),
        ],
    )
    def test_arguments(
        self, manager: Any, method_name: str, argument: Any, kind: type[Exception], text: str
    ) -> None:
        """Bad ones are refused as without a manager."""
        with pytest.raises(kind, match=text):
            getattr(manager, method_name)(argument)

    @per_method
    def test_connected(self, managers: Any, manager: Any) -> None:
        """Who connects has memory made by the same server, which outlives that manager."""
        other = managers.SharedMemoryManager(manager.address, manager._authkey)
        other.connect()
        memory = other.SharedMemory(10)
        del other
        gc.collect()
        assert exists(memory.name)
        assert 0 == manager._number_of_objects()
        memory.close()
        assert exists(memory.name)
        manager.shutdown()
        assert not exists(memory.name)


@pytest.mark.beyond("of procession only")
class TestBeyond:
    """What only procession promises."""

    @per_method
    def test_used_by_children(self, manager: Any, memories: Any, pipe: Make, finish: Make) -> None:
        """A child that is given the manager has memory made, which outlives the child."""
        receiver, sender = pipe(False)
        assert 0 == finish(shared_payloads.use_manager, manager, sender).exitcode
        names = receiver.recv()
        made, items = memories.SharedMemory(names[0]), memories.ShareableList(name=names[1])
        assert (b"child", [1, "two", None]) == (made.buf[:5], list(items))
        manager.shutdown()
        assert [False, False] == list(map(exists, names))
        made.close()
        items.shm.close()

    @per_method
    def test_unlinked_by_a_user(self, managers: Any, ctx: Any) -> None:
        """That harms nobody: the others go at the end, and the server ends well."""
        with managers.SharedMemoryManager(ctx=ctx) as manager:
            first, second = manager.SharedMemory(10), manager.SharedMemory(10)
            first.unlink()
        assert not exists(second.name)
        first.close()
        second.close()

    @per_method
    def test_states(self, managers: Any, ctx: Any) -> None:
        """A manager that is not started, or shut down, says so."""
        manager = managers.SharedMemoryManager(ctx=ctx)
        with pytest.raises(AssertionError, match="server not yet started"):
            manager.SharedMemory(1)
        manager.start()
        copied = pickle.loads(pickle.dumps(manager))
        memory = copied.SharedMemory(10)
        manager.shutdown()
        manager.shutdown()
        with pytest.raises(AssertionError, match="Manager has shut down"):
            manager.ShareableList([1])
        with pytest.raises(ConnectionError, match="has ended"):
            copied.SharedMemory(1)
        memory.close()

    @per_method
    def test_server_killed(self, managers: Any, manager: Any) -> None:
        """Its segments go at once, also while they are used, and the next call says it."""
        memory = manager.SharedMemory(10)
        unused = manager.SharedMemory(10)
        unused.close()
        kill(manager._process.pid)
        until(lambda: not exists(memory.name) and not exists(unused.name))
        memory.buf[0] = 1
        with pytest.raises(ConnectionError, match="has ended with exit code -9"):
            manager.SharedMemory(10)
        memory.close()

    @per_method
    def test_guardian_stays_for_nobody(self, manager: Any) -> None:
        """It ends with the server, and gets in nobody's way when it is killed itself."""
        server = manager._process.pid
        (guardian,) = guardians(server)
        memory = manager.SharedMemory(10)
        manager.shutdown()
        assert not Path(f"/proc/{guardian}").exists()
        assert not exists(memory.name)
        memory.close()

    @per_method
    def test_guardian_killed(self, managers: Any, ctx: Any) -> None:
        """The server cleans up by itself."""
        with managers.SharedMemoryManager(ctx=ctx) as manager:
            kill(guardians(manager._process.pid)[0])
            memory = manager.SharedMemory(10)
        assert not exists(memory.name)
        memory.close()

    @pytest.mark.parametrize(
        "end",
        ["pass", "os._exit(0)", "os.kill(os.getpid(), 9)", "os.killpg(0, 9)"],
    )
    @per_method
    def test_program_that_shuts_nothing_down(self, pair: Any, run_program: Make, end: str) -> None:
        """Its manager's memory goes with it, however it ends, also with its whole group."""
        program = f"""
import os, sys, procession
from procession.managers import SharedMemoryManager
from procession.testing import shared_payloads, shortage
if __name__ == "__main__":
    ctx = procession.get_context(sys.argv[1])
    manager = SharedMemoryManager(ctx=ctx)
    manager.start()
    memory = manager.SharedMemory(100)
    receiver, sender = ctx.Pipe(False)
    process = ctx.Process(target=shared_payloads.use_manager, args=(manager, sender))
    process.start()
    print(memory.name, *receiver.recv(), flush=True)
    process.join()
    {end}
"""
        names = run_program(program, pair.method).stdout.split()
        assert 3 == len(names)
        until(lambda: not any(map(exists, names)))

    def test_killed_at_random(self, managers: Any, run_program: Make) -> None:
        """Whoever is killed, whatever it is doing: nothing is left of what it had made."""
        program = """
import sys, procession, threading
from procession.managers import SharedMemoryManager
from procession.testing import shared_payloads, shortage
if __name__ == "__main__":
    ctx = procession.get_context(sys.argv[1])
    with SharedMemoryManager(ctx=ctx) as manager:
        users = [
            ctx.Process(target=shared_payloads.make_without_end, args=(manager,), stderr="null")
            for _ in range(2)]
        for each in users:
            each.start()
        print(manager._process.pid, users[0].pid, flush=True)
        sys.stdin.readline()
        for each in users:
            each.kill()
            each.join()
    print("ended")
"""
        path = Path(os.environ["TMPDIR"]) / "victims.py"
        path.write_text(program)
        random.seed(SEED)
        methods = get_all_start_methods()
        for round in range(KILLS):
            method = methods[round % len(methods)]
            process = subprocess.Popen(
                [sys.executable, str(path), method],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
            )
            assert process.stdout is not None
            server, user = map(int, process.stdout.readline().split())
            mark = mark_of(server)
            until(functools.partial(has_made, mark))
            victim = (server, user, process.pid)[round // 3 % 3]
            time.sleep(random.uniform(0, 0.1))  # the moment itself is what is tested
            kill(victim)
            output, errors = process.communicate("\n", timeout=30)
            if victim != process.pid:
                assert (0, "ended\n", "") == (process.returncode, output, errors)
            until(functools.partial(has_nothing, mark))
        path.unlink()

    def test_full_memory(self, run_program: Make) -> None:
        """A full ``/dev/shm`` is the error that it is without a manager, and nothing is lost."""
        program = """
from procession.errors import ResourceError
from procession.managers import SharedMemoryManager
if __name__ == "__main__":
    with SharedMemoryManager() as manager:
        first = manager.SharedMemory(500_000)
        try:
            manager.SharedMemory(5_000_000)
        except ResourceError as error:
            print(error.errno, "/dev/shm is full" in str(error))
        manager.SharedMemory(1000).close()
        first.close()
"""
        mounted = 'mount -t tmpfs -o size=1m tmpfs /dev/shm && exec "$@"'
        path = Path(os.environ["TMPDIR"]) / "full.py"
        path.write_text(program)
        done = subprocess.run(
            ["unshare", "-m", "sh", "-c", mounted, "sh", sys.executable, str(path)],
            capture_output=True,
            text=True,
            timeout=60,
        )
        path.unlink()
        if "unshare failed" in done.stderr or "permission denied" in done.stderr:
            pytest.skip(f"no mount namespaces here: {done.stderr}")
        assert ("28 True\n", "") == (done.stdout, done.stderr)

    def test_standard_users(self, managers: Any) -> None:
        """They attach by name what the manager has made."""
        with managers.SharedMemoryManager() as manager:
            memory = manager.SharedMemory(10)
            items = manager.ShareableList(["a", 1])
            program = """
import sys
from multiprocessing.shared_memory import SharedMemory, ShareableList
memory = SharedMemory(sys.argv[1])
memory.buf[:1] = b"!"
print(list(ShareableList(name=sys.argv[2])))
"""
            done = subprocess.run(
                [sys.executable, "-c", program, memory.name, items.shm.name],
                capture_output=True,
                text=True,
            )
            assert "['a', 1]\n" == done.stdout, done.stderr
            assert b"!" == memory.buf[:1]
        assert not exists(memory.name)
        memory.close()
        items.shm.close()

    def test_two_servers_of_one_process(self, managers: Any) -> None:
        """Each answers for its own segments only."""
        servers = [managers.SharedMemoryManager().get_server() for _ in range(2)]
        names = [each._create_segment(10) for each in servers]
        assert [[names[0]], [names[1]]] == [each._segments() for each in servers]
        servers[0]._unlink_all()
        assert [False, True] == list(map(exists, names))
        servers[1]._unlink_all()
        assert not exists(names[1])
        for each in servers:
            each.listener.close()

    def test_no_descriptors(self, managers: Any) -> None:
        """A client that cannot attach what was made for it leaves nothing behind."""
        with managers.SharedMemoryManager() as manager:
            manager.SharedMemory(10).close()
            session = manager._session
            before = session.ask("list_segments")
            with (
                shortage.free_descriptors(0),
                pytest.raises(OSError, match=r"descriptor|[Tt]oo many open files"),
            ):
                manager.SharedMemory(10)
            assert before == session.ask("list_segments")

    def test_many_threads(self, managers: Any) -> None:
        """Threads have memory made while the manager is shut down: nothing is left of it."""
        manager = managers.SharedMemoryManager()
        manager.start()
        mark = mark_of(manager._process.pid)
        clients = [pickle.loads(pickle.dumps(manager)) for _ in range(3)]

        def make(client: Any) -> None:
            try:
                while True:
                    client.SharedMemory(100).close()
            except (ConnectionError, FileNotFoundError):
                return  # the server has ended
            finally:
                client._session.close()

        threads = [threading.Thread(target=make, args=(each,)) for each in clients]
        for each in threads:
            each.start()
        until(lambda: len(managed(mark)) > 5)
        manager.shutdown()
        assert [] == managed(mark)
        for each in threads:
            each.join()
        assert [] == managed(mark)

    def test_foreign_segments_stay(self, managers: Any) -> None:
        """Only the manager's own go; and only those may be released."""
        mine = standard.SharedMemory(create=True, size=10)
        with managers.SharedMemoryManager() as manager:
            memory, other = manager.SharedMemory(10), manager.SharedMemory(10)
            session = manager._session
            assert sorted([memory.name, other.name]) == sorted(session.ask("list_segments"))
            with pytest.raises(ValueError, match="is no shared memory of this manager"):
                session.ask("release_segment", mine.name)
            session.ask("release_segment", memory.name)
            assert [other.name] == session.ask("list_segments")
        assert exists(mine.name)
        for each in (mine, memory, other):
            each.close()
        mine.unlink()


def managed(mark: int) -> list[str]:
    """Return the names of the segments with a mark."""
    return [e.name for e, status in abandoned_memory._segments() if status.st_atime_ns == mark]


def has_made(mark: int) -> bool:
    """Return whether a server has made more than two segments."""
    return len(managed(mark)) > 2


def has_nothing(mark: int) -> bool:
    """Return whether a server has no segments."""
    return not managed(mark)


def mark_of(server: int) -> int:
    """Return what marks the segments of a server that is still there."""
    identity = inheritance.identify(server)
    assert identity is not None
    return abandoned_memory._encode(identity, abandoned_memory._MAGIC_MANAGED)
