# mypy: ignore-errors
"""Pools: every way to give them work, results in order, errors, time-outs, initializers."""

import multiprocessing
import os
import sys
import time
from functools import partial
from multiprocessing import Pool, TimeoutError, cpu_count

base = None


def prepare(value):
    global base
    base = value


def add(number):
    return base + number


def power(number, exponent):
    return number**exponent


def fail(number):
    if number == 3:
        raise ValueError(f"no {number}")
    return number


def nap(seconds):
    time.sleep(seconds)
    return seconds


if __name__ == "__main__":
    multiprocessing.set_start_method(sys.argv[1])
    print(cpu_count() == os.cpu_count())
    with Pool(2, prepare, (100,)) as pool:
        print(pool.map(add, range(10), chunksize=3))
        print(list(pool.imap(add, range(5))))
        print(sorted(pool.imap_unordered(add, range(5))))
        print(pool.apply(power, (2, 10)), pool.starmap(power, [(2, 3), (3, 2)]))
        print(pool.map(partial(power, exponent=2), range(4)))
        results = [pool.apply_async(power, (n,), {"exponent": 3}) for n in range(4)]
        print([result.get(timeout=20) for result in results])
        called = []
        pool.map_async(add, range(3), callback=called.append).wait()
        print(called)
        try:
            pool.map(fail, range(5))
        except ValueError as error:
            print("failed with", error)
        try:
            pool.apply_async(nap, (30,)).get(timeout=0.01)
        except TimeoutError:
            print("too late")
        except multiprocessing.context.TimeoutError:
            print("another class")
    with multiprocessing.Pool(1, maxtasksperchild=1) as pool:
        pids = {pool.apply(os.getpid) for _ in range(2)}
        pool.close()
        pool.join()
    # Not before: the standard library's pool forks new workers from a thread, and one that is
    # forked between the print and the flush prints it once more.
    print(len(pids), os.getpid() in pids)
