# mypy: ignore-errors
"""Every way to import multiprocessing, and that what is imported is one thing."""

import importlib
import logging
import multiprocessing
import multiprocessing as mp
import multiprocessing.connection
import multiprocessing.dummy
import multiprocessing.managers as managers
import multiprocessing.pool
import multiprocessing.process
import multiprocessing.shared_memory
import multiprocessing.sharedctypes
import multiprocessing.synchronize
import multiprocessing.util
import sys
from multiprocessing import Pool, Process, Queue, context, queues, set_start_method
from multiprocessing.connection import wait
from multiprocessing.context import TimeoutError as ContextTimeoutError
from multiprocessing.dummy import Pool as ThreadPool
from multiprocessing.pool import ThreadPool as AnotherThreadPool
from multiprocessing.queues import Empty, Full
from multiprocessing.synchronize import Lock as LockType


def report(queue, lock, number):
    with lock:
        queue.put((number, isinstance(queue, queues.Queue), isinstance(lock, LockType)))


def late():
    from multiprocessing.shared_memory import SharedMemory

    return SharedMemory is multiprocessing.shared_memory.SharedMemory


def double(number):
    return 2 * number


if __name__ == "__main__":
    set_start_method(sys.argv[1])
    print(multiprocessing is mp is importlib.import_module("multiprocessing"))
    print(multiprocessing.get_start_method() == sys.argv[1], multiprocessing.__name__)
    print(issubclass(Process, multiprocessing.process.BaseProcess))
    print(issubclass(managers.SyncManager, multiprocessing.managers.BaseManager), late())
    print(ContextTimeoutError is mp.TimeoutError, context.ProcessError is mp.ProcessError)
    print(multiprocessing.util.get_logger() is mp.get_logger(), callable(wait))
    print(hasattr(mp, "Nothing"), getattr(mp, "Nothing", "nothing"))
    queue, lock = Queue(), mp.Lock()
    processes = [Process(target=report, args=(queue, lock, n)) for n in range(2)]
    for process in processes:
        process.start()
    print(sorted(queue.get() for _ in processes))
    for process in processes:
        process.join()
    try:
        queue.get_nowait()
    except Empty:
        print("empty")
    bounded = Queue(1)
    bounded.put(1)
    try:
        bounded.put(2, timeout=0.01)
    except Full:
        print("full", bounded.get())
    for kind in (Pool, ThreadPool, AnotherThreadPool):
        with kind(2) as pool:
            print(pool.map(double, range(4)))
    logging.basicConfig(format="%(processName)s %(message)s", stream=sys.stdout)
    logging.warning("done")
