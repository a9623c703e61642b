"""Listeners, clients and managers, with the standard library at the other end of the line.

The other interpreter is this one; ``PROCESSION_OTHER_PYTHONS`` names more of them, divided by
colons, for the protocol differs between versions (from 3.12 on the digest is negotiated).
"""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Callable
from contextlib import ExitStack
from typing import Any

import pytest

if sys.platform != "linux":
    pytest.skip("abstract sockets", allow_module_level=True)

from procession import managers, process
from procession.connection import Client, Listener
from procession.context import get_context

KEY = b"a common secret"
PYTHONS = [sys.executable, *filter(None, os.environ.get("PROCESSION_OTHER_PYTHONS", "").split(":"))]
ADDRESSES: dict[str, Any] = {
    "AF_UNIX": b"",
    "AF_INET": ("127.0.0.1", 0),
    "AF_INET6": ("::1", 0, 0, 0),
}


@pytest.fixture(params=PYTHONS, ids=lambda path: path.replace("/", "_"))
def run(request: pytest.FixtureRequest, cleanup: ExitStack) -> Callable[..., Any]:
    """Start a program of the standard library; it is killed after the test."""

    def run(program: str, *args: object) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [request.param, "-c", program, *map(repr, args)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

        def end() -> None:
            process.kill()
            process.communicate()

        cleanup.callback(end)
        return process

    return run


def finish(process: subprocess.Popen[str]) -> str:
    """Wait for the end of a program that went well, and return what it has printed."""
    output, errors = process.communicate(timeout=30)
    assert (0, "") == (process.returncode, errors)
    return output


CLIENT = """
import ast, sys
from multiprocessing.connection import Client
address, family, key = map(ast.literal_eval, sys.argv[1:])
with Client(address, family, authkey=key) as connection:
    connection.send({"from": "the standard library"})
    assert connection.recv_bytes() == b"x" * 100_000
    print(connection.recv())
"""
SERVER = """
import ast, os, sys
from multiprocessing.connection import Listener
address, family, key = map(ast.literal_eval, sys.argv[1:])
if not address:
    address = "\\0procession interop %d" % os.getpid()
with Listener(address, family, authkey=key) as listener:
    print(repr(listener.address), flush=True)
    with listener.accept() as connection:
        connection.send({"from": "the standard library"})
        assert connection.recv_bytes() == b"x" * 100_000
        print(connection.recv())
"""


@pytest.mark.parametrize("key", [None, KEY], ids=["open", "authkey"])
@pytest.mark.parametrize("family", ["AF_UNIX", "AF_INET"])  # their client knows no IPv6
def test_their_client_and_our_listener(
    family: str, key: bytes | None, run: Callable[..., Any]
) -> None:
    """Their client finds nothing strange about our listener."""
    with Listener(ADDRESSES[family] or None, family, authkey=key) as listener:
        process = run(CLIENT, listener.address, family, key)
        with listener.accept() as connection:
            assert {"from": "the standard library"} == connection.recv()
            connection.send_bytes(b"x" * 100_000)
            connection.send(["from", "procession"])
        assert "['from', 'procession']\n" == finish(process)


@pytest.mark.parametrize("key", [None, KEY], ids=["open", "authkey"])
@pytest.mark.parametrize("family", list(ADDRESSES))
def test_our_client_and_their_listener(
    family: str, key: bytes | None, run: Callable[..., Any]
) -> None:
    """Their listener finds nothing strange about our client."""
    process = run(SERVER, ADDRESSES[family], family, key)
    address = eval(process.stdout.readline())
    with Client(address, family, authkey=key) as connection:
        assert {"from": "the standard library"} == connection.recv()
        connection.send_bytes(b"x" * 100_000)
        connection.send(["from", "procession"])
    assert "['from', 'procession']\n" == finish(process)


def test_wrong_keys_either_way(run: Callable[..., Any]) -> None:
    """Both sides say so, whoever they are."""
    with Listener(authkey=KEY) as listener:
        process = run(CLIENT, listener.address, "AF_UNIX", b"wrong")
        with pytest.raises(Exception, match="digest received was wrong"):
            listener.accept()
        _, errors = process.communicate(timeout=30)
        assert "AuthenticationError: digest sent was rejected" in errors
    process = run(SERVER, b"", "AF_UNIX", b"wrong")
    address = eval(process.stdout.readline())
    with pytest.raises(Exception, match="digest sent was rejected"):
        Client(address, authkey=KEY)
    _, errors = process.communicate(timeout=30)
    assert "AuthenticationError" in errors


MANAGER = """
import ast, os, sys
from multiprocessing.managers import BaseManager, RemoteError, SyncManager
class Counter:
    def __init__(self, number): self.number = number
    def up(self): self.number += 1; return self.number
    def me(self): return self
    def fail(self): raise ArithmeticError("over there")
class Manager(SyncManager): pass
Manager.register("Counter", Counter, method_to_typeid={"me": "Same"})
Manager.register("Same", exposed=("up",), create_method=False)
"""
THEIR_SERVER = (
    MANAGER
    + """
address = "\\0procession manager %d" % os.getpid()
server = Manager(address, ast.literal_eval(sys.argv[1])).get_server()
print(repr(server.address), flush=True)
server.serve_forever()
"""
)
THEIR_CLIENT = (
    MANAGER
    + """
import multiprocessing
address, key = map(ast.literal_eval, sys.argv[1:])
multiprocessing.current_process().authkey = key
manager = Manager(address, key)
manager.connect()
d = manager.dict(a=1)
d["b"] = [2]
d.update(c=3)
assert sorted(d) == ["a", "b", "c"] and sorted(d.keys()) == ["a", "b", "c"], d
assert str(d) == "{'a': 1, 'b': [2], 'c': 3}"
assert d.copy() == {"a": 1, "b": [2], "c": 3}
l = manager.list(range(3))
l.append(9); l += [10]
assert l[:] == [0, 1, 2, 9, 10] and len(l) == 5 and 9 in l
n = manager.Namespace(name="Bob"); n.age = 5; assert (n.name, n.age) == ("Bob", 5)
v = manager.Value("i", 1); v.value = 2; assert v.value == 2
q = manager.Queue(); q.put("x"); assert q.get() == "x"
lock = manager.Lock()
with lock: assert not lock.acquire(False)
c = manager.Counter(4)
assert c.up() == 5 and c.me().up() == 6
try: c.fail()
except ArithmeticError as error: assert str(error) == "over there"
try: d["nothing"]
except KeyError: pass
else: raise AssertionError
try: d._callmethod("__class__")
except RemoteError as error: assert "is not in exposed=" in str(error)
else: raise AssertionError
lost = manager.list()
lost._close()
try: len(lost)
except RemoteError as error: assert "nobody refers to it any more" in str(error)
else: raise AssertionError
before = manager._number_of_objects()
del l
assert manager._number_of_objects() == before - 1
print("done")
"""
)


class Counter:
    """As in the program above."""

    def __init__(self, number: int) -> None:
        self.number = number

    def up(self) -> int:
        """Count."""
        self.number += 1
        return self.number

    def me(self) -> Counter:
        """Return itself."""
        return self

    def fail(self) -> None:
        """Raise."""
        raise ArithmeticError("over there")


class Manager(managers.SyncManager):
    """As in the program above."""


Manager.register("Counter", Counter, method_to_typeid={"me": "Same"})
Manager.register("Same", exposed=("up",), create_method=False)


def test_our_proxies_and_their_manager(run: Callable[..., Any]) -> None:
    """All types, exceptions, results that stay there, and references that are given back."""
    process = run(THEIR_SERVER, KEY)
    manager = Manager(eval(process.stdout.readline()), KEY)
    manager.connect()
    mapping = manager.dict(a=1)
    mapping["b"] = [2]
    assert ["a", "b"] == sorted(mapping) == sorted(mapping.keys())
    assert "{'a': 1, 'b': [2]}" == str(mapping)
    sequence = manager.list(range(3))
    sequence += [9]
    assert [0, 1, 2, 9] == sequence[:]
    space = manager.Namespace(name="Bob")
    assert "Bob" == space.name
    lock = manager.Lock()
    with lock:
        assert not lock.acquire(False)
    queue = manager.Queue()
    queue.put("x")
    assert "x" == queue.get()
    counter = manager.Counter(4)
    assert 5 == counter.up()
    with pytest.raises(ArithmeticError, match="over there"):
        counter.fail()
    # Last: their server then exposes only what the second type does, for the object is the same.
    assert 6 == counter.me().up()
    with pytest.raises(KeyError):
        mapping["nothing"]
    before = manager._number_of_objects()
    del sequence
    assert before - 1 == manager._number_of_objects()
    process.kill()
    process.wait(30)
    with pytest.raises(ConnectionRefusedError):
        mapping["a"]


def test_their_proxies_and_our_manager(run: Callable[..., Any]) -> None:
    """A program of the standard library does not see whose server it uses."""
    server = Manager(authkey=KEY).get_server()

    def serve() -> None:
        with pytest.raises(SystemExit):
            server.serve_forever()

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        assert "done\n" == finish(run(THEIR_CLIENT, server.address, KEY))
    finally:
        server.stop_event.set()
        thread.join(30)


THEIR_MEMORY = """
import ast, os, sys
from multiprocessing.managers import SharedMemoryManager
"""
THEIR_MEMORY_SERVER = (
    THEIR_MEMORY
    + """
import threading
address = "\\0procession memory %d" % os.getpid()
server = SharedMemoryManager(address, ast.literal_eval(sys.argv[1])).get_server()
print(repr(server.address), flush=True)
server.serve_forever()
"""
)
THEIR_MEMORY_CLIENT = (
    THEIR_MEMORY
    + """
import multiprocessing
address, key = map(ast.literal_eval, sys.argv[1:])
multiprocessing.current_process().authkey = key
manager = SharedMemoryManager(address, key)
manager.connect()
memory = manager.SharedMemory(100)
memory.buf[:5] = b"their"
items = manager.ShareableList([1, "two"])
print(memory.name, items.shm.name, flush=True)
sys.stdin.read()
os._exit(0)  # past their own tracker, which would say that these are leaked
"""
)


def test_our_shared_memory_manager_and_their_client(run: Callable[..., Any], method: str) -> None:
    """What their client creates is the manager's: it goes with that."""
    from procession.shared_memory import ShareableList, SharedMemory

    current = process.current_process()
    authkey, current.authkey = current.authkey, KEY
    try:
        with managers.SharedMemoryManager(authkey=KEY, ctx=get_context(method)) as manager:
            client = run(THEIR_MEMORY_CLIENT, manager.address, KEY)
            names = client.stdout.readline().split()
            memory, items = SharedMemory(names[0]), ShareableList(name=names[1])
            assert memory.buf is not None
            assert b"their" == bytes(memory.buf[:5])
            assert [1, "two"] == list(items)
            assert sorted(names) == sorted(manager._check_started().ask("list_segments"))
        assert [] == [name for name in names if os.path.exists(f"/dev/shm/{name}")]
        memory.close()
        items.shm.close()
    finally:
        current.authkey = authkey


def test_our_client_and_their_shared_memory_manager(run: Callable[..., Any]) -> None:
    """Their server is told the names, and unlinks them when it is asked to end."""
    server = run(THEIR_MEMORY_SERVER, KEY)
    manager = managers.SharedMemoryManager(eval(server.stdout.readline()), KEY)
    manager.connect()
    memory, items = manager.SharedMemory(100), manager.ShareableList([1, "two"])
    names = memory.name, items.shm.name
    assert [1, "two"] == list(items)
    session = manager._check_started()
    assert sorted(names) == sorted(session.ask("list_segments"))
    session.ask("release_segment", names[0])
    assert [False, True] == [os.path.exists(f"/dev/shm/{name}") for name in names]
    session.ask("release_segment", names[1])
    memory.close()
    items.shm.close()
