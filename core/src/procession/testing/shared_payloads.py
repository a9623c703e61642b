"""What runs in children that share memory; see `procession.testing.payloads`."""

from __future__ import annotations

import ctypes

TYPE_CHECKING = False  # importing typing would bring `re` and more into every child
if TYPE_CHECKING:
    from typing import Any


class Point(ctypes.Structure):
    """A structure with two fields."""

    _fields_ = (("x", ctypes.c_int), ("y", ctypes.c_double))


class Triple(ctypes.c_int * 3):  # type: ignore[misc]  # the stubs have no metaclass here
    """An array type that a module has by name."""


def set_value(obj: Any, value: Any) -> None:
    """Set ``obj.value``."""
    obj.value = value


def set_item(obj: Any, index: int, value: Any) -> None:
    """Set ``obj[index]``."""
    obj[index] = value


def set_field(obj: Any, name: str, value: Any) -> None:
    """Set an attribute."""
    setattr(obj, name, value)


def set_field_of_item(obj: Any, index: int, name: str, value: Any) -> None:
    """Set an attribute of an item."""
    setattr(obj[index], name, value)


def write(memory: Any, content: bytes) -> None:
    """Write to the start of something with a ``buf``."""
    memory.buf[: len(content)] = content


def increment(value: Any, times: int) -> None:
    """Add one under the lock, again and again."""
    for _ in range(times):
        with value.get_lock():
            value.value += 1


def fill_array(array: Any, number: Any) -> None:
    """Set every item of a numpy array."""
    array[...] = number


def write_received(connection: Any, content: bytes) -> None:
    """Receive memories, one a message until None; write to each, and say so."""
    while (memory := connection.recv()) is not None:
        memory.buf[: len(content)] = content
        connection.send("written")


def set_received(source: Any, index: int, value: Any, done: Any) -> None:
    """Take an array from a queue, set an item and send what it had before."""
    array = source.get()
    before = array[index]
    array[index] = value
    done.send(before)


def are_same_memory(first: Any, second: Any) -> bool:
    """Return whether a write to one shows in the other."""
    first[0] = 41
    return bool(second[0] == 41)


def count_arenas(connection: Any) -> None:
    """Receive objects until None, keep all, and send how many memories are mapped."""
    kept = []
    while (received := connection.recv()) is not None:
        kept.append(received)
    with open("/proc/self/maps", encoding="ascii") as maps:
        connection.send(sum("memfd:procession-arena" in line for line in maps))


def create_memory(package: str, connection: Any, size: int) -> None:
    """Create named memory, send its name, and end without closing or unlinking it."""
    from importlib import import_module

    memory = import_module(f"{package}.shared_memory").SharedMemory(create=True, size=size)
    memory.buf[:5] = b"child"
    connection.send(memory.name)


def survive(name: str, connection: Any, go: str) -> None:
    """Attach named memory, say so, and end some time after the parent, when file *go* is there."""
    import os
    import time

    from procession.shared_memory import SharedMemory

    memory = SharedMemory(name)
    connection.send("attached")
    while not os.path.exists(go):
        time.sleep(0.005)
    assert memory.buf is not None
    assert bytes(memory.buf[:5]) == b"still"


def use_manager(manager: Any, connection: Any) -> None:
    """Have a manager make memory and a list, write to both, and send their names."""
    memory = manager.SharedMemory(100)
    memory.buf[:5] = b"child"
    items = manager.ShareableList([1, "two", None])
    connection.send((memory.name, items.shm.name))
    memory.close()
    items.shm.close()


def make_without_end(manager: Any) -> None:
    """Have a manager make memory and lists, use them and forget them, until killed."""
    while True:
        memory = manager.SharedMemory(5000)
        memory.buf[4999] = 1
        manager.ShareableList(["a", 1]).shm.close()
        memory.close()
