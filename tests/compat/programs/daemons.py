# mypy: ignore-errors
"""Daemonic processes: the flag, its inheritance, the end with the parent."""

import importlib
import sys

mp = importlib.import_module(sys.argv[1])


def show(conn):
    conn.send(mp.current_process().daemon)
    conn.recv()


if __name__ == "__main__":
    ctx = mp.get_context(sys.argv[2])
    here, there = ctx.Pipe()
    p = ctx.Process(target=show, args=(there,), daemon=True)
    print(p.daemon)
    p.start()
    print(here.recv())
    try:
        p.daemon = False
    except AssertionError as error:
        print(error)
    print(p.is_alive(), p in mp.active_children())
    # The program ends here and takes the daemon along.
