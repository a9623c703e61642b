# mypy: ignore-errors
"""active_children, is_alive, terminate, kill, close and what is refused in which state."""

import importlib
import sys

mp = importlib.import_module(sys.argv[1])


def hold(conn):
    conn.send("ready")
    conn.recv()


def attempt(what, function, *args):
    try:
        print(what, function(*args))
    except Exception as error:
        bases = [each.__name__ for each in type(error).__mro__]
        kinds = ("AssertionError", "ValueError", "AttributeError", "RuntimeError")
        # The text may say more than multiprocessing's; programs match its beginning.
        print(what, next(each for each in bases if each in kinds), str(error)[:20])


if __name__ == "__main__":
    ctx = mp.get_context(sys.argv[2])
    pipes = [ctx.Pipe() for _ in range(3)]
    processes = [ctx.Process(target=hold, args=(there,), name="holder") for _, there in pipes]
    attempt("join", processes[0].join)
    attempt("alive", processes[0].is_alive)
    attempt("close", ctx.Process().close)
    for process in processes:
        process.start()
    for here, _ in pipes:
        print(here.recv())
    print(len(mp.active_children()), [p.is_alive() for p in processes])
    attempt("start", processes[0].start)
    attempt("close", processes[0].close)
    attempt("join", processes[0].join, 0)
    processes[0].terminate()
    processes[1].kill()
    pipes[2][0].send("go on")
    for process in processes:
        process.join()
    print(mp.active_children(), [p.exitcode for p in processes])
    for process in processes:
        process.close()
    for name in ("join", "is_alive", "terminate", "close", "start"):
        attempt(name, getattr(processes[0], name))
    attempt("exitcode", lambda: processes[0].exitcode)
    words = repr(processes[0]).split()
    print(words[1], words[-1], len(words))
