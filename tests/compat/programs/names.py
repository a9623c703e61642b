# mypy: ignore-errors
"""Default names, given names, names of grandchildren."""

import importlib
import sys

mp = importlib.import_module(sys.argv[1])


def report(conn, depth):
    ctx = mp.get_context(sys.argv[2])
    me = mp.current_process()
    conn.send((me.name, mp.parent_process().name))
    if depth:
        for _ in range(2):
            p = ctx.Process(target=report, args=(conn, depth - 1))
            p.start()
            p.join()


if __name__ == "__main__":
    ctx = mp.get_context(sys.argv[2])
    here, there = ctx.Pipe()
    first = mp.Process()
    second = ctx.Process()
    given = ctx.Process(name="given")
    print(first.name, second.name, given.name, mp.current_process().name)
    given.name = "changed"
    print(given.name)
    p = ctx.Process(target=report, args=(there, 2))
    p.start()
    p.join()
    while here.poll():
        print(here.recv())
