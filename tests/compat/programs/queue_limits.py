# mypy: ignore-errors
"""maxsize, Full, Empty, closing, and what comes out of a queue in which order."""

import importlib
import queue
import sys

mp = importlib.import_module(sys.argv[1])


def attempt(what, function, *args, **kwargs):
    try:
        print(what, function(*args, **kwargs))
    except (queue.Full, queue.Empty) as error:
        print(what, type(error).__module__.lstrip("_"), type(error).__name__, error.args)
    except (ValueError, AssertionError) as error:
        kinds = ("ValueError", "AssertionError")
        print(what, [each.__name__ for each in type(error).__mro__ if each.__name__ in kinds])


def produce(q, count):
    for number in range(count):
        q.put(number)


if __name__ == "__main__":
    ctx = mp.get_context(sys.argv[2])
    q = ctx.Queue(2)
    attempt("get", q.get, False)
    attempt("get", q.get, timeout=0.01)
    q.put(1)
    q.put(2)
    attempt("put", q.put, 3, False)
    attempt("put", q.put, 3, timeout=0.01)
    print(q.full(), q.qsize(), q.get(), q.get(), q.empty())
    p = ctx.Process(target=produce, args=(q, 30))
    p.start()
    print([q.get() for _ in range(30)])
    p.join()
    attempt("join_thread", q.join_thread)
    q.close()
    attempt("put", q.put, 4)
    attempt("get", q.get)
    q.join_thread()
    print(p.exitcode)
