"""Memory with a name and without: found, sent, closed, unlinked, and never left behind."""

from __future__ import annotations

import gc
import importlib
import os
import pickle
import signal
import struct
import subprocess
import sys
from collections.abc import Callable, Iterator
from multiprocessing import shared_memory as standard
from pathlib import Path
from typing import Any

import pytest

from procession.testing import shared_payloads
from procession.testing.leaks import descriptors

if sys.platform != "linux":
    pytest.skip("named memory is a file in /dev/shm", allow_module_level=True)

Make = Callable[..., Any]
per_method = pytest.mark.one_pair_per("method")
handing_over = pytest.mark.usefixtures("warm_handing_over")
DEADLINE = 30.0
FOLDER = Path("/dev/shm")
#: Begins every name that the tests give: other runs on this machine have others.
OURS = f"procession-{os.getpid()}"


@pytest.fixture(scope="session")
def standard_tracker() -> None:
    """Start the standard library's tracker process, which stays."""
    from multiprocessing import resource_tracker

    resource_tracker.ensure_running()


@pytest.fixture(autouse=True)
def order(standard_tracker: None, nothing_left_behind: None) -> Iterator[None]:
    """Collect what a failed assertion keeps, before descriptors are compared."""
    yield
    gc.collect()


@pytest.fixture
def module(subject: str) -> Any:
    """The module `shared_memory` of the package under test."""
    return importlib.import_module(f"{subject}.shared_memory")


@pytest.fixture
def create(module: Any, cleanup: Any) -> Make:
    """Make a named segment; it is closed and unlinked after the test."""

    def create(size: int = 100, **options: Any) -> Any:
        memory = module.SharedMemory(create=True, size=size, **options)
        cleanup.callback(_unlink, memory)
        return memory

    return create


def _unlink(memory: Any) -> None:
    memory.close()
    try:
        memory.unlink()
    except FileNotFoundError:
        return


class TestNamed:
    """`SharedMemory`, as in the standard library."""

    def test_create_and_attach(self, module: Any, create: Make) -> None:
        """Both see the same bytes, which are zero at first."""
        memory = create(5000)
        assert (5000, bytes(5000)) == (memory.size, bytes(memory.buf))
        other = module.SharedMemory(memory.name)
        other.buf[7] = 8

        assert (5000, 8) == (other.size, memory.buf[7])
        assert f"SharedMemory({memory.name!r}, size=5000)" == repr(other)
        other.close()
        other.close()
        assert (other.buf, other.size, memory.name) == (None, 5000, other.name)

    def test_given_names(self, module: Any, create: Make) -> None:
        """A name may be given; a slash in front of it makes no difference to others."""
        name = f"{OURS}-given"
        memory = create(10, name=name)
        assert (name, (FOLDER / name).exists()) == (memory.name, True)
        other = module.SharedMemory(f"/{name}")
        other.buf[0] = 3
        assert (3, f"/{name}") == (memory.buf[0], other.name)
        other.close()
        with pytest.raises(FileExistsError, match=f"File exists: '/{name}"):
            module.SharedMemory(name, create=True, size=1)

    @pytest.mark.parametrize(
        ("arguments", "kind", "text"),
        [
            ({}, ValueError, "'name' can only be None if create=True"),
            ({"create": True}, ValueError, "'size' must be a positive number different from zero"),
            ({"create": True, "size": -1}, ValueError, "'size' must be a positive integer"),
            ({"name": "x", "size": -1}, ValueError, "'size' must be a positive integer"),
            ({"create": True, "size": "a"}, TypeError, "'>=' not supported"),
            ({"name": "procession-no"}, FileNotFoundError, "No such file .*'/procession-no'"),
            ({"name": "", "create": True, "size": 1}, OSError, "Invalid argument"),
            ({"name": "a/b", "create": True, "size": 1}, OSError, "Invalid argument"),
            ({"name": "x" * 300, "create": True, "size": 1}, OSError, "Invalid argument"),
            ({"name": 5, "create": True, "size": 1}, TypeError, "can only concatenate"),
        ],
    )
    def test_wrong_arguments(
        self, module: Any, arguments: dict[str, Any], kind: type[Exception], text: str
    ) -> None:
        """Classes, numbers and texts are the standard library's."""
        with pytest.raises(kind, match=text):
            module.SharedMemory(**arguments)

    def test_close_with_views(self, create: Make) -> None:
        """A segment cannot be closed under a view, and can afterwards."""
        memory = create()
        view = memory.buf[:3]
        with pytest.raises(BufferError, match="cannot close exported pointers exist"):
            memory.close()
        view[0] = 1
        view.release()
        memory.close()

    def test_unlink(self, module: Any, create: Make) -> None:
        """The name goes at once, the memory with the last who has it."""
        memory = create()
        memory.unlink()
        memory.buf[0] = 1
        with pytest.raises(FileNotFoundError):
            module.SharedMemory(memory.name)
        if module is not standard:  # there, the tracker would complain
            with pytest.raises(FileNotFoundError):
                memory.unlink()

    @per_method
    def test_pickled_as_the_name(self, ctx: Any, create: Make, finish: Make) -> None:
        """A segment that is an argument is attached in the child."""
        memory = create()
        assert 0 == finish(shared_payloads.write, memory, b"hello").exitcode
        assert b"hello" == memory.buf[:5]

    @pytest.mark.beyond("the standard library does not reserve, and can be killed by SIGBUS")
    def test_full(self, run_program: Make, subject: str) -> None:
        """A full ``/dev/shm`` is an error that says so, and what was there goes on."""
        program = """
            from procession.errors import ResourceError
            from procession.shared_memory import SharedMemory, ShareableList
            import os
            first = SharedMemory(create=True, size=500_000)
            first.buf[:] = b"x" * 500_000
            for make in (lambda: SharedMemory(create=True, size=600_000),
                         lambda: SharedMemory("given", create=True, size=600_000),
                         lambda: ShareableList([b"y" * 600_000])):
                try:
                    make()
                except ResourceError as error:
                    print(error.errno, "/dev/shm is full (its size is 1048576 bytes" in str(error))
            print(os.listdir("/dev/shm") == [first.name])
            second = SharedMemory(create=True, size=400_000)
            second.buf[:] = b"z" * 400_000
            print(bytes(first.buf) == b"x" * 500_000)
            """
        mounted = 'mount -t tmpfs -o size=1m tmpfs /dev/shm && exec "$@"'
        tried = subprocess.run(
            ["unshare", "-m", "sh", "-c", mounted, "sh", "true"], capture_output=True, text=True
        )
        if tried.returncode:
            pytest.skip(f"NOT TESTED: this needs to mount a tmpfs: {tried.stderr.strip()}")
        path = Path(os.environ["TMPDIR"]) / "full.py"
        path.write_text("\n".join(line[12:] for line in program.splitlines()))
        done = subprocess.run(
            ["unshare", "-m", "sh", "-c", mounted, "sh", sys.executable, str(path)],
            capture_output=True,
            text=True,
            timeout=DEADLINE,
        )
        path.unlink()

        assert ("28 True\n" * 3 + "True\nTrue\n", "", 0) == (
            done.stdout,
            done.stderr,
            done.returncode,
        )


@pytest.mark.beyond("the standard library says nothing about limits")
def test_no_more_descriptors(run_program: Make) -> None:
    """The first use of shared memory in a process without free descriptors says so, too."""
    program = """
import os, resource
from procession.errors import ResourceError
from procession.shared_memory import AnonymousMemory, SharedMemory
resource.setrlimit(resource.RLIMIT_NOFILE, (60, 60))
while True:
    try:
        os.dup(0)
    except OSError:
        break
for make in AnonymousMemory, lambda size: SharedMemory(create=True, size=size):
    try:
        make(10)
    except ResourceError as error:
        print(error.errno, "RLIMIT_NOFILE is 60" in str(error), flush=True)
os._exit(0)
"""
    assert "24 True\n24 True\n" == run_program(program).stdout


class TestInterchange:
    """One side's segments and lists are the other's."""

    pytestmark = pytest.mark.beyond("this is about two packages")

    @pytest.mark.parametrize(
        ("here", "there"), [("procession", "multiprocessing"), ("multiprocessing", "procession")]
    )
    def test_memory(self, here: str, there: str, cleanup: Any) -> None:
        """Created by one, attached and written by the other, unlinked by the first."""
        modules = [importlib.import_module(f"{name}.shared_memory") for name in (here, there)]
        # Not tracked by the standard library's tracker, which would unlink at its own time.
        options = {"track": False} if sys.version_info >= (3, 13) else {}
        mine = modules[0].SharedMemory(
            create=True, size=5000, **(options if here == "multiprocessing" else {})
        )
        theirs = modules[1].SharedMemory(
            mine.name, **(options if there == "multiprocessing" else {})
        )
        theirs.buf[4999] = 9

        assert (5000, 9) == (theirs.size, mine.buf[4999])
        theirs.close()
        mine.close()
        mine.unlink()

    @pytest.mark.parametrize(
        ("here", "there"), [("procession", "multiprocessing"), ("multiprocessing", "procession")]
    )
    def test_the_tracker_hears_of_removals(
        self, here: str, there: str, run_program: Callable[..., Any]
    ) -> None:
        """What procession has removed the standard library does not complain of at its end."""
        program = f"""
import {here}.shared_memory, {there}.shared_memory
import procession.shared_memory
made = {here}.shared_memory.SharedMemory(create=True, size=10)
found = {there}.shared_memory.SharedMemory(made.name)
for each in (made, found):
    each.close()
for each in (made, found):
    if isinstance(each, procession.shared_memory.SharedMemory):
        each.unlink()
"""
        done = run_program(program)
        assert (0, "") == (done.returncode, done.stderr)

    @pytest.mark.parametrize(
        ("here", "there"), [("procession", "multiprocessing"), ("multiprocessing", "procession")]
    )
    def test_list(self, here: str, there: str) -> None:
        """Items of every type, before and after they are replaced, and the formats."""
        modules = [importlib.import_module(f"{name}.shared_memory") for name in (here, there)]
        items = ["a", b"bb", 1, 2.5, True, None, "howdy there", "", b"12345678", "xxxxxxxx"]
        mine = modules[0].ShareableList(items)
        theirs = modules[1].ShareableList(name=mine.shm.name)
        assert (items, mine.format) == (list(theirs), theirs.format)
        changes = [5, "two", None, False, "four", 1.5, "é" * 7, b"seven", "12345678", b"z" * 15]
        for position, item in enumerate(changes):
            theirs[position] = item
            assert (item, theirs.format) == (mine[position], mine.format)

        assert changes == list(mine) == list(theirs)
        theirs.shm.close()
        mine.shm.close()
        mine.shm.unlink()


class TestShareableList:
    """`ShareableList`, as in the standard library."""

    @pytest.fixture
    def make_list(self, module: Any, cleanup: Any) -> Make:
        """Make a list; its memory is closed and unlinked after the test."""

        def make_list(*args: Any, **options: Any) -> Any:
            made = module.ShareableList(*args, **options)
            cleanup.callback(_unlink, made.shm)
            return made

        return make_list

    def test_items(self, make_list: Make) -> None:
        """Length, items, positions from the end, `count`, `index`, `format`, repr."""
        items = ["a", b"bb", 1, 2.5, True, None, "howdy there", 1]
        made = make_list(items)

        assert (8, items, 1, None) == (len(made), list(made), made[-1], made[5])
        assert (3, 1, 2) == (made.count(1), made.count(None), made.index(1))
        assert "8s8sqdxxxxxxx?xxxxxx?x16sq" == made.format
        assert f"ShareableList({items}, name={made.shm.name!r})" == repr(made)
        assert [] == list(make_list([]))
        assert [] == list(make_list())
        assert ["a", "b"] == list(make_list("ab"))

    def test_replacing(self, make_list: Make) -> None:
        """An item may change its type, within its room."""
        made = make_list(["a", 1])
        made[0] = 5
        made[1] = "12345678"
        made[-2] = b"x\0"

        assert ([b"x", "12345678"], "8s8s") == (list(made), made.format)

    def test_errors(self, module: Any, make_list: Make) -> None:
        """Classes and texts are the standard library's."""
        made = make_list(["a", 1])
        with pytest.raises(IndexError, match="index out of range"):
            made[2]
        with pytest.raises(IndexError, match="assignment index out of range"):
            made[2] = 3
        with pytest.raises(ValueError, match="bytes/str item exceeds available storage"):
            made[1] = "123456789"
        with pytest.raises(ValueError, match="'zzz' not in this container"):
            made.index("zzz")
        with pytest.raises(KeyError, match="dict"):
            made[0] = {}
        with pytest.raises(KeyError, match="object"):
            module.ShareableList([object()])
        with pytest.raises(struct.error):
            made[0] = 2**70
        with pytest.raises(TypeError):
            made["a"]
        with pytest.raises(FileNotFoundError):
            module.ShareableList(name="procession-no-list")
        assert ["a", 1] == list(made)

    @pytest.mark.beyond("the standard library reads beyond the list")
    def test_positions_before_the_list(self, make_list: Make) -> None:
        """A position too far before the end is an error, too."""
        made = make_list(["a", 1])
        with pytest.raises(IndexError, match="index out of range"):
            made[-3]
        with pytest.raises(IndexError, match="assignment index out of range"):
            made[-3] = 1

    @per_method
    def test_in_a_child(self, ctx: Any, make_list: Make, finish: Make) -> None:
        """A list that is an argument is the same list there."""
        made = make_list([1, 2, 3])
        assert 0 == finish(shared_payloads.set_item, made, 1, "eight").exitcode
        assert [1, "eight", 3] == list(made)


class TestNothingLeft:
    """Names are removed for those who were killed, and kept for those who are there."""

    pytestmark = pytest.mark.beyond("the standard library has a tracker process for it")

    @per_method
    def test_creator_ends_and_parent_attaches(
        self, ctx: Any, pipe: Make, finish: Make, module: Any
    ) -> None:
        """What a child has created outlives it: its family may come for it."""
        receiver, sender = pipe(False)
        finish(shared_payloads.create_memory, "procession", sender, 100)
        memory = module.SharedMemory(receiver.recv())

        assert b"child" == memory.buf[:5]
        memory.close()
        memory.unlink()

    @pytest.mark.parametrize("end", ["pass", "os._exit(0)", "os.kill(os.getpid(), 9)", "1 / 0"])
    def test_program_that_unlinks_nothing(self, run_program: Make, end: str) -> None:
        """Its segments are gone when it has ended, or when the next program has begun."""
        untracked = FOLDER / f"{OURS}-untracked"
        program = f"""
import os, procession
from procession.shared_memory import SharedMemory
from procession.testing import shared_payloads
if __name__ == "__main__":
    receiver, sender = procession.Pipe(False)
    closed = SharedMemory(create=True, size=10)
    closed.close()
    kept = SharedMemory(create=True, size=10)
    process = procession.Process(
        target=shared_payloads.create_memory, args=("procession", sender, 10))
    process.start()
    print(closed.name, kept.name, receiver.recv(), flush=True)
    process.join()
    untracked = SharedMemory("{untracked.name}", create=True, size=10, track=False)
    {end}
"""
        names = run_program(program).stdout.split()
        assert 3 == len(names)
        if end in ("pass", "1 / 0"):
            assert [] == [name for name in names if (FOLDER / name).exists()]
        # It ended without a chance to clean up, and this one does.
        next_one = "from procession.shared_memory import SharedMemory as S\n"
        next_one += "m = S(create=True, size=1); m.close(); m.unlink()"
        assert 0 == run_program(next_one).returncode
        assert [] == [name for name in names if (FOLDER / name).exists()]
        assert untracked.exists()
        untracked.unlink()

    @per_method
    def test_parent_killed_child_goes_on(self, pair: Any, run_program: Make) -> None:
        """A killed family's segment stays while one of it uses it, and goes with that one."""
        program = """
import os, sys, procession
from procession.testing import shared_payloads
from procession.shared_memory import SharedMemory
if __name__ == "__main__":
    ctx = procession.get_context(sys.argv[1])
    here, there = ctx.Pipe()
    memory = SharedMemory(create=True, size=10)
    memory.buf[:5] = b"still"
    process = ctx.Process(target=shared_payloads.survive, args=(memory.name, there, "wait"),
                          stdout="null", stderr="null")
    process.start()
    here.recv()
    print(memory.name, process.pid, flush=True)
    os.kill(os.getpid(), 9)
"""
        go = FOLDER / f"{OURS}-go"
        done = run_program(program.replace('"wait"', repr(str(go))), pair.method)
        name, pid = done.stdout.split()
        # Somebody comes and looks for abandoned memory: this one is in use.
        next_one = (
            "from procession.shared_memory import remove_abandoned; print(remove_abandoned())"
        )
        assert name not in run_program(next_one).stdout
        assert b"still" == (FOLDER / name).read_bytes()[:5]
        pidfd = os.pidfd_open(int(pid))
        go.touch()
        _await(pidfd)
        assert not (FOLDER / name).exists()
        go.unlink()

    def test_killed_while_creating(self, run_program: Make) -> None:
        """A process killed at any moment leaves no half-made segment and no name for good."""
        found = FOLDER / f"{OURS}-victim"
        program = f"""
from procession.shared_memory import SharedMemory
while True:
    memory = SharedMemory("{found.name}", create=True, size=300_000)
    memory.buf[0] = 1
    memory.close()
    memory.unlink()
"""
        path = Path(os.environ["TMPDIR"]) / "victim.py"
        path.write_text(program)
        for round in range(8):
            process = subprocess.Popen([sys.executable, str(path)])
            while not found.exists():
                assert process.poll() is None
            for _ in range(round * 50):
                found.exists()
            process.send_signal(signal.SIGKILL)
            process.wait()
            assert not found.exists() or found.stat().st_size == 300_000
            from procession.shared_memory import remove_abandoned

            remove_abandoned()
            assert not found.exists()
        path.unlink()

    def test_killed_while_attaching(self, module: Any, create: Make) -> None:
        """A process killed while it attaches or lets go changes nothing for the others."""
        memory = create(5000)
        memory.buf[:5] = b"still"
        program = f"""
from procession.shared_memory import SharedMemory
print(flush=True)
while True:
    memory = SharedMemory("{memory.name}")
    assert b"still" == memory.buf[:5]
    memory.close()
"""
        path = Path(os.environ["TMPDIR"]) / "attacher.py"
        path.write_text(program)
        for round in range(5):
            with subprocess.Popen([sys.executable, str(path)], stdout=subprocess.PIPE) as process:
                assert process.stdout is not None
                assert b"\n" == process.stdout.readline()
                for _ in range(round * 50):
                    (FOLDER / memory.name).exists()
                assert process.poll() is None
                process.send_signal(signal.SIGKILL)
            assert memory.name not in module.remove_abandoned()
            other = module.SharedMemory(memory.name)
            assert b"still" == other.buf[:5]
            other.close()
        path.unlink()

    def test_unlinked_under_an_attacher(self, create: Make) -> None:
        """Files that are not marked, or are somebody else's, are never touched."""
        from procession.shared_memory import remove_abandoned

        memory = standard.SharedMemory(create=True, size=10)
        stranger = FOLDER / f"{OURS}-stranger"
        stranger.write_bytes(b"mine")
        stranger.chmod(0o1600)

        removed = remove_abandoned()  # of other runs, perhaps
        assert not {stranger.name, memory.name} & set(removed)
        assert stranger.exists()
        stranger.unlink()
        memory.close()
        memory.unlink()


def _await(pidfd: int) -> None:
    import select

    assert select.select([pidfd], [], [], DEADLINE)[0]
    os.close(pidfd)


class TestAnonymous:
    """Memory without a name, which is sent."""

    pytestmark = pytest.mark.beyond("the standard library has only named memory")

    @per_method
    def test_as_an_argument(self, ctx: Any, module: Any, finish: Make) -> None:
        """A child has the same memory; no name stands for it."""
        memory = module.AnonymousMemory(5000)
        assert (5000, bytes(5000)) == (memory.size, bytes(memory.buf))
        assert not [what for what in descriptors().values() if what.startswith(str(FOLDER))]
        assert 0 == finish(shared_payloads.write, memory, b"hello").exitcode

        assert b"hello" == memory.buf[:5]

    @handing_over
    @pytest.mark.one_pair_per("transport")
    def test_through_a_connection(self, ctx: Any, module: Any, pipe: Make, start: Make) -> None:
        """A running process gets it in a message, also a second time, also when we let go."""
        here, there = pipe()
        process = start(shared_payloads.write_received, there, b"hello")
        memory = module.AnonymousMemory(100)
        view = memory.buf
        for _ in range(2):
            here.send(memory)
            assert "written" == here.recv()
        assert b"hello" == view[:5]
        memory.close()
        here.send(None)
        process.join(DEADLINE)
        assert 0 == process.exitcode

    def test_close(self, module: Any) -> None:
        """Views stay valid; the object is of no more use."""
        with module.AnonymousMemory(10) as memory:
            view = memory.buf[:3]
            view[:] = b"abc"
        memory.close()

        assert (None, b"abc", 10) == (memory.buf, view.tobytes(), memory.size)
        assert "<AnonymousMemory size=10 closed>" == repr(memory)
        with pytest.raises(ValueError, match="cannot be sent"):
            memory.__reduce__()

    @pytest.mark.parametrize(
        ("size", "kind"), [(0, ValueError), (-1, ValueError), ("a", TypeError)]
    )
    def test_sizes(self, module: Any, size: Any, kind: type[Exception]) -> None:
        """There is no memory of no bytes."""
        with pytest.raises(kind):
            module.AnonymousMemory(size)


class TestSharedArray:
    """numpy arrays in shared memory."""

    pytestmark = pytest.mark.beyond("the standard library has no arrays")

    @pytest.fixture(autouse=True)
    def numpy(self) -> Any:
        """numpy, without which there are no such tests."""
        return pytest.importorskip("numpy")

    @per_method
    def test_as_an_argument(self, ctx: Any, module: Any, finish: Make, numpy: Any) -> None:
        """The child writes into the parent's memory, through a slice, too."""
        array = module.shared_array((3, 4), "i4")
        assert 0 == finish(shared_payloads.fill_array, array, 7).exitcode
        assert 0 == finish(shared_payloads.fill_array, array[1:, ::-2], 9).exitcode

        assert [[7, 7, 7, 7], [7, 9, 7, 9], [7, 9, 7, 9]] == array.tolist()

    @handing_over
    @pytest.mark.one_pair_per("transport")
    def test_through_a_queue(
        self, ctx: Any, module: Any, queue: Make, pipe: Make, start: Make
    ) -> None:
        """A large array is sent by reference, and lives on when the sender drops it."""
        tasks = queue()
        receiver, sender = pipe(False)
        array = module.shared_array(10_000_000, "u1")
        array[5] = 3
        process = start(shared_payloads.set_received, tasks, 5, 4, sender)
        tasks.put(array)
        assert (3, 4) == (receiver.recv(), array[5])
        process.join(DEADLINE)

        tasks.put(array)
        del array
        assert 4 == tasks.get()[5]

    def test_read_only_views_stay_so(self, module: Any) -> None:
        """A view that cannot be written to here cannot where it is sent."""
        array = module.shared_array(3)
        view = array[:2]
        view.flags.writeable = False
        there = pickle.loads(pickle.dumps([view, array], 5))

        assert [False, True] == [each.flags.writeable for each in there]
        there[1][1] = 4
        assert [0, 4, 0] == array.tolist()
        assert [0, 4] == there[0].tolist()

    def test_computed_arrays_are_ordinary(self, module: Any, numpy: Any) -> None:
        """What is computed lies elsewhere, and is sent by value."""
        array = module.shared_array(3)
        array += 1
        assert type(array) is type(array[1:])
        assert numpy.ndarray is type(array + 1) is type(numpy.sqrt(array))
        assert numpy.float64 is type(array.sum()) is type(array[0])
        for made in (array.copy(), numpy.asarray(array), array.astype("f4")):
            sent = pickle.loads(pickle.dumps(made, 5))
            sent[0] = 5
            assert (numpy.ndarray, [5, 1, 1]) == (type(sent), sent.tolist())
            assert [1, 1, 1] == made.tolist()
        assert [1, 1, 1] == array.tolist()

    def test_views_keep_the_memory(self, module: Any, numpy: Any) -> None:
        """An ordinary view of an array that is gone still has it."""
        from procession._memory.heap import heap

        blocks = heap.blocks
        plain = numpy.asarray(module.shared_array(4, "i4"))[1:]
        gc.collect()
        plain[0] = 6
        others = [module.shared_array(4, "i4") for _ in range(100)]
        for other in others:
            other[:] = 9
        assert (6, blocks + 101) == (plain[0], heap.blocks)
        del plain, others, other
        assert blocks == heap.blocks

    def test_shapes_and_types(self, module: Any) -> None:
        """Any shape, empty ones too; what cannot be shared is refused."""
        assert (0, 3) == module.shared_array((0, 3)).shape
        assert () == module.shared_array(()).shape
        assert "<M8[s]" == module.shared_array(2, "M8[s]").dtype.str
        with pytest.raises(TypeError, match="cannot be shared"):
            module.shared_array(3, object)
        with pytest.raises(ValueError, match="negative"):
            module.shared_array(-1)

    def test_without_numpy(self, run_program: Make) -> None:
        """The error says what is missing and what to use instead."""
        done = run_program(
            "import sys; sys.modules['numpy'] = None\nimport procession\nprocession.shared_array(3)"
        )
        assert "pip install numpy" in done.stderr
        assert "ImportError" in done.stderr
