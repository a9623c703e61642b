# mypy: ignore-errors
"""The documentation's example of a queue."""

import importlib
import sys

mp = importlib.import_module(sys.argv[1])


def fill(q):
    q.put([42, None, "hello"])


if __name__ == "__main__":
    ctx = mp.get_context(sys.argv[2])
    q = ctx.Queue()
    p = ctx.Process(target=fill, args=(q,))
    p.start()
    print(q.get())  # prints "[42, None, 'hello']"
    p.join()
    print(p.exitcode)
