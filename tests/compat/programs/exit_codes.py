# mypy: ignore-errors
"""All the ways of ending."""

import importlib
import os
import signal
import sys

mp = importlib.import_module(sys.argv[1])


def leave(how):
    if isinstance(how, tuple):
        os.kill(os.getpid(), how[0])
    sys.exit(how)


def fall():
    {}["missing"]


def leave_at_once():
    os._exit(9)


if __name__ == "__main__":
    ctx = mp.get_context(sys.argv[2])
    cases = [None, 0, 1, 77, 300, -1, True, "a message", (signal.SIGTERM,), (signal.SIGKILL,)]
    for how in cases:
        p = ctx.Process(target=leave, args=(how,), name="leaver")
        p.start()
        p.join()
        print(how, p.exitcode)
    for target in (fall, leave_at_once):
        p = ctx.Process(target=target, name=target.__name__)
        p.start()
        p.join()
        print(target.__name__, p.exitcode)
