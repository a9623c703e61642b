# mypy: ignore-errors
"""Locks, events, conditions, barriers, shared values and arrays, and shared memory."""

import ctypes
import multiprocessing as mp
import sys
from multiprocessing import shared_memory
from multiprocessing.managers import SharedMemoryManager
from multiprocessing.sharedctypes import RawArray, Value


class Point(ctypes.Structure):
    _fields_ = [("x", ctypes.c_double), ("y", ctypes.c_double)]


def count(counter, array, lock, barrier):
    barrier.wait()
    for _ in range(200):
        with counter.get_lock():
            counter.value += 1
    with lock:
        for index in range(len(array)):
            array[index] += 1


def answer(condition, flag, event, semaphore):
    event.wait()
    with semaphore, condition:
        flag.value = 1
        condition.notify_all()


def shift(points, raw):
    for point in points:
        point.x, point.y = point.y, point.x
    raw[0] = 9


def write(name, names):
    memory = shared_memory.SharedMemory(name=name)
    memory.buf[:5] = b"hello"
    memory.close()
    values = shared_memory.ShareableList(name=names)
    values[1] = "changed"
    values.shm.close()


def run(target, *arguments):
    process = mp.Process(target=target, args=arguments)
    process.start()
    return process


if __name__ == "__main__":
    mp.set_start_method(sys.argv[1])
    counter, array, lock = Value("i", 0), mp.Array("d", [0.5, 1.5]), mp.Lock()
    barrier = mp.Barrier(2)
    for process in [run(count, counter, array, lock, barrier) for _ in range(2)]:
        process.join()
    print(counter.value, array[:])

    condition, flag, event = mp.Condition(), mp.Value("b", 0), mp.Event()
    semaphore = mp.BoundedSemaphore(1)
    process = run(answer, condition, flag, event, semaphore)
    print(event.is_set(), flag.value)
    with condition:
        event.set()
        print(condition.wait_for(lambda: flag.value, timeout=20))
    process.join()

    points, raw = mp.Array(Point, [(1.5, 2.5), (3.5, 4.5)]), RawArray("i", 2)
    run(shift, points, raw).join()
    print([(point.x, point.y) for point in points], list(raw))

    memory = shared_memory.SharedMemory(create=True, size=16)
    with SharedMemoryManager() as manager:
        values = manager.ShareableList([1, "before it", 2.5])
        run(write, memory.name, values.shm.name).join()
        print(bytes(memory.buf[:5]), list(values))
    memory.close()
    memory.unlink()
