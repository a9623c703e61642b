# mypy: ignore-errors
"""The documentation's worker example: tasks through one queue, results through another."""

import importlib
import sys

mp = importlib.import_module(sys.argv[1])


def worker(tasks, done):
    for function, arguments in iter(tasks.get, "STOP"):
        done.put(f"{function.__name__}{arguments} = {function(*arguments)}")


def mul(a, b):
    return a * b


def plus(a, b):
    return a + b


if __name__ == "__main__":
    ctx = mp.get_context(sys.argv[2])
    tasks, done = ctx.Queue(), ctx.Queue()
    for i in range(20):
        tasks.put((mul, (i, 7)))
    workers = [ctx.Process(target=worker, args=(tasks, done)) for _ in range(4)]
    for process in workers:
        process.start()
    results = [done.get() for _ in range(20)]
    for i in range(10):
        tasks.put((plus, (i, 8)))
    results += [done.get() for _ in range(10)]
    for _ in workers:
        tasks.put("STOP")
    for process in workers:
        process.join()
    print(*sorted(results), sep="\n")
    print([process.exitcode for process in workers])
