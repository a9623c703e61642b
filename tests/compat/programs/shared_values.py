"""Values, arrays and structures, with locks and without, and named memory."""

from __future__ import annotations

import ctypes
import importlib
import sys
from typing import Any

mp = importlib.import_module(sys.argv[1])
shared_memory = importlib.import_module(sys.argv[1] + ".shared_memory")


class Point(ctypes.Structure):
    _fields_ = (("x", ctypes.c_double), ("y", ctypes.c_double))


def modify(n: Any, x: Any, s: Any, points: Any, raw: Any) -> None:
    n.value **= 2
    x.value **= 2
    s.value = s.value.upper()
    for point in points:
        point.x **= 2
        point.y **= 2
    for index in range(len(raw)):
        raw[index] = -raw[index]


def count(value: Any, times: int) -> None:
    for _ in range(times):
        with value.get_lock():
            value.value += 1


def fill(name: str, items: Any) -> None:
    memory = shared_memory.SharedMemory(name)
    memory.buf[:5] = b"child"
    memory.close()
    items[1] = "two"
    items.shm.close()


def main() -> None:
    ctx = mp.get_context(sys.argv[2])
    lock = ctx.Lock()
    n = ctx.Value("i", 7)
    x = ctx.Value(ctypes.c_double, 1.0 / 4, lock=False)
    s = ctx.Array("c", b"hello world", lock=lock)
    points = ctx.Array(Point, [(1.5, -6.25), (-5.75, 2.0)], lock=lock)
    raw = ctx.RawArray("h", range(4))
    process = ctx.Process(target=modify, args=(n, x, s, points, raw))
    process.start()
    process.join()
    print(n, n.value, x.value, s.value, [(p.x, p.y) for p in points], raw[:], process.exitcode)

    counter = ctx.Value("L")
    processes = [ctx.Process(target=count, args=(counter, 200)) for _ in range(3)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    print(counter.value, [process.exitcode for process in processes])

    memory = shared_memory.SharedMemory(create=True, size=16)
    items = shared_memory.ShareableList(["one", "zzz", 3])
    process = ctx.Process(target=fill, args=(memory.name, items))
    process.start()
    process.join()
    print(bytes(memory.buf), list(items), items.format, process.exitcode)
    for each in (memory, items.shm):
        each.close()
        each.unlink()


if __name__ == "__main__":
    main()
