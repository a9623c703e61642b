# mypy: ignore-errors
"""Waiting for many things at once: connections and sentinels."""

import importlib
import sys

mp = importlib.import_module(sys.argv[1])
wait = importlib.import_module(sys.argv[1] + ".connection").wait


def count(w, number):
    for i in range(number):
        w.send((i, number))
    w.close()


if __name__ == "__main__":
    ctx = mp.get_context(sys.argv[2])
    readers, received = [], []
    processes = []
    for number in range(4):
        r, w = ctx.Pipe(duplex=False)
        readers.append(r)
        p = ctx.Process(target=count, args=(w, number))
        processes.append(p)
        p.start()
        # Closing it here makes the process the only owner: wait reports r at its end.
        w.close()
    while readers:
        for r in wait(readers):
            try:
                received.append(r.recv())
            except EOFError:
                readers.remove(r)
    print(sorted(received))
    sentinels = {p.sentinel for p in processes}
    ended = set()
    while ended != sentinels:
        ended |= set(wait(list(sentinels - ended)))
    for p in processes:
        p.join()
    print([p.exitcode for p in processes], wait([], timeout=0))
