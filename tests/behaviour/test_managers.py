"""Managers: objects in a server, proxies for them, and what happens when either side goes."""

from __future__ import annotations

import copy
import gc
import os
import pickle
import queue
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

if sys.platform != "linux":
    pytest.skip("pidfds and signals", allow_module_level=True)

from procession.testing import manager_payloads as payloads
from procession.testing.forked import until

DEADLINE = 30.0


@pytest.fixture
def manager(ctx: Any) -> Iterator[Any]:
    """A started `SyncManager`."""
    with ctx.Manager() as manager:
        yield manager


@pytest.fixture
def shared_ctx(library: Any) -> Any:
    """One context, for what no start method and no transport decides."""
    methods = library.get_all_start_methods()
    return library.get_context("fork" if "fork" in methods else methods[0])


@pytest.fixture
def synced(shared_ctx: Any) -> Iterator[Any]:
    """A started `SyncManager` of that context."""
    with shared_ctx.Manager() as manager:
        yield manager


@pytest.fixture
def own(library: Any) -> Any:
    """A class of managers with types of the test's own."""
    managers = __import__(f"{library.__name__}.managers", fromlist=["x"])

    class Own(managers.BaseManager):  # type: ignore[name-defined,misc]
        pass

    Own.register("Counter", payloads.Counter, method_to_typeid={"me": "Same"})
    Own.register("Same", method_to_typeid={"me": "Same"}, create_method=False)
    Own.register("numbers", payloads.numbers, proxytype=managers.IteratorProxy)
    Own.register("up_only", payloads.Counter, exposed=("up",))
    Own.register("dict", dict, managers.DictProxy)
    Own.register("Iterator", proxytype=managers.IteratorProxy, create_method=False)
    return Own


def alarm() -> None:
    """Send SIGUSR1 to this process in a moment."""
    threading.Timer(0.1, os.kill, (os.getpid(), signal.SIGUSR1)).start()


def stop(pid: int) -> None:
    """Stop a process, and wait until all of it stands still."""
    os.kill(pid, signal.SIGSTOP)
    tasks = Path(f"/proc/{pid}/task")
    until(
        lambda: all(
            (each / "stat").read_bytes().rpartition(b")")[2].split()[0] == b"T"
            for each in tasks.iterdir()
        )
    )


one_pair = pytest.mark.one_pair_per("transport")
per_method = pytest.mark.one_pair_per("method")


@per_method
def test_shared_between_processes(manager: Any, finish: Callable[..., Any]) -> None:
    """The documentation's example: two processes change one object."""
    mapping = manager.dict()
    sequence = manager.list(range(3))
    for key in ("a", 1):
        assert 0 == finish(payloads.fill, mapping, key, [key]).exitcode
    lock = manager.Lock()
    for process in [finish(payloads.append_many, sequence, 5, lock) for _ in range(2)]:
        assert 0 == process.exitcode

    assert {"a": ["a"], 1: [1]} == mapping.copy()
    assert list(range(13)) == list(sequence)
    assert str(list(range(13))) == str(sequence)


@per_method
def test_every_type_reaches_a_child(
    manager: Any, start: Callable[..., Any], pipe: Callable[..., Any]
) -> None:
    """Proxies of all types are arguments of processes on every start method."""
    proxies = (
        manager.list([1]),
        manager.dict(a=1),
        manager.Namespace(name="Bob"),
        manager.Value("i", 3),
        manager.Array("i", [1, 2]),
    )
    receiver, sender = pipe(False)
    process = start(payloads.use_all, sender, *proxies)
    expected = ["[1]", "{'a': 1}", "Namespace(name='Bob')", "Value('i', 3)", "array('i', [1, 2])"]
    assert expected == receiver.recv()
    process.join(DEADLINE)
    assert 0 == process.exitcode


def test_list(synced: Any) -> None:
    """As a list does."""
    a = synced.list(range(5))
    a[2:] = ["x"]
    a += [7, 8]
    a.insert(0, "first")
    assert ["first", 0, 1, "x", 7, 8] == a[:] == a._getvalue()
    assert (6, True, 8, 1) == (len(a), "x" in a, a.pop(), a.index(0))
    del a[0]
    a.remove("x")
    a.reverse()
    a *= 2
    assert [7, 1, 0, 7, 1, 0] == list(a)
    assert [1] * 2 == [each for each in a if each == 1]
    assert [7, 1, 0, 7, 1, 0, 9] == [*a, 9]
    a.sort()
    assert [0, 0, 1, 1, 7, 7] == copy.deepcopy(a)
    with pytest.raises(IndexError):
        a[99]


def test_dict(synced: Any) -> None:
    """As a dictionary does; its views are lists."""
    d = synced.dict({1: "one"}, two=2)
    d[3] = None
    d.update({4: 4})
    assert {1, "two", 3, 4} == set(d.keys()) == set(d)
    assert [(1, "one"), ("two", 2), (3, None), (4, 4)] == d.items()
    assert ("one", "other", 4) == (d.get(1), d.get(9, "other"), len(d))
    assert d.pop("two") == d.setdefault("two", 2) == 2
    assert 9 not in d
    with pytest.raises(KeyError):
        d[9]
    d.clear()
    assert {} == d.copy()


def test_namespace_value_array(synced: Any) -> None:
    """Attributes, one value, and an array."""
    n = synced.Namespace(name="Bob", job="Builder", _hidden=1)
    del n.job
    n.age = 7
    n._mine = "the proxy's"
    assert "Namespace(age=7, name='Bob')" == str(n)
    assert "the proxy's" == n._mine
    assert hasattr(n, "name")
    assert not hasattr(n, "job")
    v = synced.Value("i", 1)
    v.value += 1
    assert 2 == v.get() == v.value
    a = synced.Array("d", [1.0, 2.0])
    a[1] = 5.0
    assert (2, 5.0) == (len(a), a[1])


def test_locks(synced: Any) -> None:
    """threading's own, in the server: one thread of a process at a time holds them."""
    for kind in ("Lock", "RLock", "Semaphore", "BoundedSemaphore"):
        lock = getattr(synced, kind)()
        with lock:
            assert (kind == "RLock") == lock.acquire(False)
            if kind == "RLock":
                lock.release()
        assert lock.acquire(timeout=1)
        lock.release()
        if kind != "Semaphore":
            with pytest.raises((RuntimeError, ValueError)):
                lock.release()
    event = synced.Event()
    assert not event.wait(0.01)
    event.set()
    assert event.wait()
    assert event.is_set()
    event.clear()
    assert not event.is_set()
    assert "EventProxy object, typeid 'Event' at" in repr(event)


@one_pair
def test_condition_and_barrier(manager: Any, start: Callable[..., Any]) -> None:
    """Who waits in the server keeps nobody else from being served."""
    condition = manager.Condition()
    results: list[Any] = []

    def wait() -> None:
        with condition:
            results.append("waits")
            results.append(condition.wait(DEADLINE))

    thread = threading.Thread(target=wait)
    thread.start()
    until(lambda: bool(results))
    with condition:
        condition.notify_all()
    thread.join(DEADLINE)
    assert ["waits", True] == results
    with condition:
        assert not condition.wait_for(lambda: False, 0.01)
        assert condition.wait_for(lambda: 5, 1) == 5
    barrier = manager.Barrier(3)
    met = manager.Queue()
    for _ in range(3):
        start(payloads.wait_at, barrier, met)
    assert [0, 1, 2] == sorted(met.get(timeout=DEADLINE) for _ in range(3))
    assert (3, 0, False) == (barrier.parties, barrier.n_waiting, barrier.broken)
    barrier.abort()
    assert barrier.broken
    with pytest.raises(threading.BrokenBarrierError):
        barrier.wait()


def test_queues(synced: Any) -> None:
    """The queue module's, with its own exceptions."""
    q = synced.Queue(2)
    q.put(1)
    q.put_nowait({"x": 2})
    with pytest.raises(queue.Full):
        q.put(3, False)
    assert (2, True, 1, {"x": 2}) == (q.qsize(), q.full(), q.get(), q.get(timeout=1))
    with pytest.raises(queue.Empty):
        q.get_nowait()
    j = synced.JoinableQueue()
    j.put(1)
    j.get()
    j.task_done()
    j.join()
    with pytest.raises(ValueError, match="task_done"):
        j.task_done()


def test_nested_proxies(synced: Any) -> None:
    """An object may hold others of the same server, and they live as long as it does."""
    outer = synced.list()
    inner = synced.dict(a=1)
    outer.append(inner)
    outer.append(synced.list([1, 2]))
    del inner
    gc.collect()
    outer[0]["b"] = 2
    outer[1].append(3)
    assert {"a": 1, "b": 2} == outer[0].copy()
    assert [1, 2, 3] == list(outer[1])
    assert "<DictProxy object, typeid 'dict' at 0x" in str(outer)
    tree = synced.dict(children=synced.list([outer]))
    assert 3 == len(tree["children"][0][1])


def test_own_types(shared_ctx: Any, own: Any, subject: str) -> None:
    """Public methods, exposed ones, results that stay in the server, and iterators."""
    managers = __import__(f"{subject}.managers", fromlist=["x"])
    with own(ctx=shared_ctx) as manager:
        counter = manager.Counter(5)
        assert 7 == counter.up(2) == counter._callmethod("up", (0,))
        assert "AutoProxy[Counter]" in repr(counter)
        assert not hasattr(counter, "_private")
        refused = r"'_private' of .*Counter.* is not in exposed="
        with pytest.raises(managers.RemoteError, match=refused):
            counter._callmethod("_private")
        again = counter.me()
        assert 8 == again.up()
        assert 8 == counter.me().me().up(0)
        assert not hasattr(manager.up_only(), "fail")
        assert [0, 1, 2] == list(manager.numbers(3))
        assert 8 == counter._getvalue().number
        assert {"a": 1} == dict(manager.dict(a=1))


def test_exceptions(shared_ctx: Any, own: Any, subject: str) -> None:
    """They are the object's own; what cannot be pickled is described."""
    managers = __import__(f"{subject}.managers", fromlist=["x"])
    with own(ctx=shared_ctx) as manager:
        counter = manager.Counter()
        with pytest.raises(ArithmeticError, match="on purpose"):
            counter.fail("on purpose")
        with pytest.raises(managers.RemoteError, match=r"(?s)cannot pickle|odd"):
            counter.fail_oddly()
        with pytest.raises(managers.RemoteError, match=r"(?s)Unserializable message.*pickle"):
            counter.unpicklable()
        with pytest.raises(managers.RemoteError, match=r"Silent|do not look"):
            counter.fail_without_a_word()
        with pytest.raises(TypeError):
            counter.up("x", "y")
        assert 1 == counter.up()
        with pytest.raises(managers.RemoteError, match="TypeError"):
            manager.numbers()


def test_a_forked_copy_shuts_nothing_down(shared_ctx: Any, own: Any) -> None:
    """Who leaves the block of a manager in a process forked there leaves it to its parent."""
    with own(ctx=shared_ctx) as manager:
        counter = manager.Counter()
        pid = os.fork()
        if pid == 0:
            try:
                manager.shutdown()
                manager.__exit__(None, None, None)
                os._exit(0)
            finally:
                os._exit(1)
        assert 0 == os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        assert 1 == counter.up()


@pytest.mark.beyond("multiprocessing loses the traceback")
def test_remote_traceback_is_the_cause(shared_ctx: Any, own: Any) -> None:
    """One sees where in the server it was raised."""
    with own(ctx=shared_ctx) as manager, pytest.raises(ArithmeticError) as caught:
        manager.Counter().fail("on purpose")
    assert "manager_payloads.py" in str(caught.value.__cause__)
    assert "raise ArithmeticError(text)" in str(caught.value.__cause__)


def test_life_of_a_manager(shared_ctx: Any, own: Any, library: Any) -> None:
    """Started once, shut down as often as one likes."""
    manager = own(ctx=shared_ctx)
    assert manager.address is None
    with pytest.raises(TypeError, match="initializer must be a callable"):
        manager.start(initializer=1)
    manager.start(initializer=payloads.pid)
    with pytest.raises(library.ProcessError, match="Already started server"):
        manager.start()
    with pytest.raises(library.ProcessError, match="Already started server"):
        manager.get_server()
    counter = manager.Counter()
    manager.shutdown()
    manager.shutdown()
    manager.join()
    with pytest.raises(library.ProcessError, match="Manager has shut down"):
        manager.start()
    with pytest.raises((ConnectionError, FileNotFoundError, EOFError)):
        counter.up()
    with pytest.raises(KeyError):
        own(serializer="nonsense")


@pytest.mark.beyond("multiprocessing raises EOFError and prints the rest")
def test_failure_to_start_is_told(shared_ctx: Any, own: Any) -> None:
    """The caller of `start` has the server's own exception, or the way it ended."""
    from procession.errors import ServerDiedError

    with pytest.raises(LookupError, match="not today") as caught:
        own(ctx=shared_ctx).start(payloads.fail_to_begin)
    assert "fail_to_begin" in str(caught.value.__cause__)
    with pytest.raises(ServerDiedError, match="exit code 7") as died:
        own(ctx=shared_ctx).start(payloads.die)
    assert isinstance(died.value, EOFError)
    assert 7 == died.value.exitcode
    with own(ctx=shared_ctx) as manager, pytest.raises(OSError, match="Address already in use"):
        own(address=manager.address, ctx=shared_ctx).start()


@pytest.mark.parametrize("family", ["AF_UNIX", "AF_INET"])
def test_connect(family: str, shared_ctx: Any, own: Any, library: Any) -> None:
    """Whoever knows address and key may use the objects, and whoever does not may not."""
    address = ("127.0.0.1", 0) if family == "AF_INET" else None
    with own(address=address, authkey=b"secret", ctx=shared_ctx) as manager:
        other = own(address=manager.address, authkey=b"secret")
        other.connect()
        assert 5 == other.Counter(4).up()
        with pytest.raises(library.AuthenticationError):
            own(address=manager.address, authkey=b"wrong").connect()
        assert 1 == manager.Counter().up()
    with pytest.raises((ConnectionError, FileNotFoundError)):
        other.connect()


def test_server_in_this_process(own: Any) -> None:
    """`get_server().serve_forever()` serves until it is told to stop."""
    server = own(authkey=b"secret").get_server()

    def serve() -> None:
        with pytest.raises(SystemExit):
            server.serve_forever()

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        manager = own(address=server.address, authkey=b"secret")
        manager.connect()
        assert 3 == manager.Counter(2).up()
        del manager
    finally:
        server.stop_event.set()
        thread.join(DEADLINE)
    assert not thread.is_alive()


@pytest.mark.beyond("multiprocessing sends an empty dictionary in place of the exception")
def test_xmlrpc(shared_ctx: Any, own: Any) -> None:
    """Values that XML can say, and no pickles."""
    with own(serializer="xmlrpclib", ctx=shared_ctx) as manager:
        counter = manager.Counter(4)
        assert 6 == counter.up(2)
        with pytest.raises(Exception, match="on purpose"):
            counter.fail("on purpose")


def test_references_are_given_back(synced: Any) -> None:
    """The last proxy takes its object along."""
    before = synced._number_of_objects()
    kept = [synced.list() for _ in range(5)]
    assert before + 5 == synced._number_of_objects()
    copied = pickle.loads(pickle.dumps(kept[0]))
    kept.clear()
    gc.collect()
    until(lambda: synced._number_of_objects() == before + 1)
    copied.append(1)
    del copied
    gc.collect()
    until(lambda: synced._number_of_objects() == before)
    assert isinstance(synced._debug_info(), str)


@per_method
@pytest.mark.beyond("multiprocessing loses the object")
def test_proxy_on_its_way(
    manager: Any, start: Callable[..., Any], pipe: Callable[..., Any]
) -> None:
    """An object does not vanish between the proxy that was sent and the one that arrives."""
    here, there = pipe()
    process = start(payloads.hold_proxy, there, manager.list(["only here"]))
    gc.collect()
    assert "['only here']" == here.recv()
    here.send("end")
    process.join(DEADLINE)
    assert 0 == process.exitcode


@per_method
@pytest.mark.beyond("multiprocessing leaks the references of killed processes")
def test_killed_client_gives_its_references_back(
    manager: Any, start: Callable[..., Any], pipe: Callable[..., Any]
) -> None:
    """However a process ends, what it referred to is not kept for it."""
    here, there = pipe()
    proxy = manager.list(["kept here"])
    before = manager._number_of_objects()
    process = start(payloads.make_and_hold, there, manager, 50)
    assert 50 == here.recv()
    assert before + 50 == manager._number_of_objects()
    process.kill()
    process.join(DEADLINE)
    until(lambda: manager._number_of_objects() == before)
    assert "['kept here']" == str(proxy)


@one_pair
def test_client_killed_in_a_call(
    manager: Any, start: Callable[..., Any], pipe: Callable[..., Any]
) -> None:
    """Who waits in the server for ever, or is killed there, keeps nobody waiting."""
    here, there = pipe()
    lock = manager.Lock()
    process = start(payloads.acquire_for_ever, there, lock)
    assert "acquired" == here.recv()
    mapping = manager.dict()
    mapping["others"] = "are served"
    process.kill()
    process.join(DEADLINE)
    lock.release()
    mapping["and"] = "afterwards"
    assert 2 == len(mapping)


@per_method
@pytest.mark.beyond("multiprocessing says connection refused, or worse")
def test_dead_server_is_named(manager: Any) -> None:
    """Name, process and how it ended; and still what programs catch today."""
    from procession.errors import PeerDiedError

    mapping = manager.dict(a=1)
    process = manager._process
    os.kill(process.pid, signal.SIGKILL)
    process.join(DEADLINE)
    for _ in range(2):
        with pytest.raises(PeerDiedError, match=f"{process.name}.*exit code -9") as caught:
            mapping["a"]
        assert (process.name, process.pid, -9) == (
            caught.value.process,
            caught.value.pid,
            caught.value.exitcode,
        )
        for kind in (BrokenPipeError, ConnectionRefusedError, ConnectionResetError, EOFError):
            assert isinstance(caught.value, kind)
    with pytest.raises(PeerDiedError):
        manager.list()


@pytest.mark.beyond("multiprocessing raises KeyError somewhere, or reaches another object")
def test_lost_referent_is_named(synced: Any) -> None:
    """A proxy to an object that is gone says so."""
    from procession.errors import ReferentLostError

    proxy = synced.list()
    proxy._decref()
    until(lambda: synced._number_of_objects() == 0)
    synced.list()
    with pytest.raises(ReferentLostError, match="nobody refers to it any more"):
        proxy.append(1)


@per_method
@pytest.mark.beyond("multiprocessing's server outlives a killed parent for a while")
def test_server_ends_with_its_parent(
    pair: Any, start: Callable[..., Any], pipe: Callable[..., Any]
) -> None:
    """Nobody is left to serve when the process that has started the server was killed."""
    here, there = pipe()
    process = start(payloads.start_manager, there, pair.spec)
    pid, _ = here.recv()
    watched = os.pidfd_open(pid)
    try:
        process.kill()
        process.join(DEADLINE)
        import select

        assert select.select([watched], [], [], DEADLINE)[0]
    finally:
        os.close(watched)


@pytest.mark.beyond("bounded by the handshake's deadline")
def test_silent_clients_keep_nobody_waiting(synced: Any) -> None:
    """Connections that never speak are not in the way of those that do."""
    import socket

    mapping = synced.dict()
    silent = []
    try:
        for _ in range(50):
            silent.append(socket.socket(socket.AF_UNIX))
            silent[-1].connect(synced.address)
        begun = time.monotonic()
        results: list[Any] = []
        thread = threading.Thread(target=lambda: results.append(len(mapping)))
        thread.start()  # a connection of its own
        thread.join(DEADLINE)
        assert [0] == results
        assert time.monotonic() - begun < 10
    finally:
        for each in silent:
            each.close()


@pytest.mark.beyond("multiprocessing takes the late answer for that to the next call")
def test_interrupted_call_is_not_answered_later(synced: Any) -> None:
    """After an exception of a signal handler, the next call gets its own answer."""

    class Interruption(Exception):
        pass

    def interrupt(*_: object) -> None:
        raise Interruption

    event = synced.Event()
    sequence = synced.list([1, 2, 3])
    before = signal.signal(signal.SIGUSR1, interrupt)
    try:
        alarm()
        with pytest.raises(Interruption):
            event.wait(DEADLINE)
    finally:
        signal.signal(signal.SIGUSR1, before)
    event.set()
    assert [1, 2, 3] == list(sequence)


@pytest.mark.beyond("multiprocessing asks over a connection for each question")
def test_interrupted_question_loses_no_reference(synced: Any) -> None:
    """A signal handler that raises between question and answer takes no object along."""

    class Interruption(Exception):
        pass

    def interrupt(*_: object) -> None:
        raise Interruption

    kept = synced.list(["kept"])
    server = synced._process.pid
    before = signal.signal(signal.SIGUSR1, interrupt)
    try:
        for _ in range(3):
            stop(server)
            alarm()
            with pytest.raises(Interruption):
                synced._number_of_objects()
            os.kill(server, signal.SIGCONT)
            assert 1 == synced._number_of_objects()
    finally:
        os.kill(server, signal.SIGCONT)
        signal.signal(signal.SIGUSR1, before)
    assert "['kept']" == str(kept)
    del kept
    until(lambda: synced._number_of_objects() == 0)


@pytest.mark.beyond("multiprocessing asks over a connection for each question")
def test_question_in_a_signal_handler_is_refused(synced: Any) -> None:
    """A handler that asks what the interrupted code is just asking would wait for itself."""
    from procession.errors import BusyConnectionError

    server = synced._process.pid
    caught: list[BaseException] = []

    def handle(*_: object) -> None:
        try:
            synced._number_of_objects()
        except BusyConnectionError as error:
            caught.append(error)
        os.kill(server, signal.SIGCONT)

    assert 0 == synced._number_of_objects()
    before = signal.signal(signal.SIGUSR1, handle)
    try:
        stop(server)
        alarm()
        assert 0 == synced._number_of_objects()
    finally:
        os.kill(server, signal.SIGCONT)
        signal.signal(signal.SIGUSR1, before)
    assert "a signal handler has interrupted" in str(caught[0])


@pytest.mark.beyond("multiprocessing mixes up the answers")
def test_call_in_a_signal_handler(synced: Any) -> None:
    """A handler may call a method while the code that it has interrupted waits in one."""
    event = synced.Event()
    before = signal.signal(signal.SIGUSR1, lambda *_: event.set())
    try:
        alarm()
        assert event.wait(DEADLINE)
    finally:
        signal.signal(signal.SIGUSR1, before)


def test_proxies_need_not_be_hashable(shared_ctx: Any, subject: str) -> None:
    """A type that exposes ``__eq__`` makes proxies without a hash."""
    managers = __import__(f"{subject}.managers", fromlist=["x"])

    class Own(managers.BaseManager):  # type: ignore[name-defined,misc]
        pass

    Own.register("word", str, managers.MakeProxyType("WordProxy", ("__eq__", "upper")))
    with Own(ctx=shared_ctx) as manager:
        word = manager.word("x")
        assert word == "x"
        assert "X" == word.upper()
