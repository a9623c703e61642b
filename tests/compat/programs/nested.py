# mypy: ignore-errors
"""A tree of processes that adds its leaves up through pipes."""

import importlib
import sys

mp = importlib.import_module(sys.argv[1])


def add(conn, low, high):
    if high - low <= 2:
        conn.send(sum(range(low, high)))
        return
    ctx = mp.get_context(sys.argv[2])
    middle = (low + high) // 2
    parts = []
    for part in ((low, middle), (middle, high)):
        here, there = ctx.Pipe(duplex=False)
        p = ctx.Process(target=add, args=(there, *part))
        p.start()
        parts.append((here, p))
    conn.send(sum(here.recv() for here, _ in parts))
    for _, p in parts:
        p.join()


if __name__ == "__main__":
    here, there = mp.get_context(sys.argv[2]).Pipe(duplex=False)
    add(there, 0, 8)
    print(here.recv(), mp.active_children())
