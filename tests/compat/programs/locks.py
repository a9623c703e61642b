# mypy: ignore-errors
"""Locks, semaphores, events, conditions and barriers, and what is refused."""

import importlib
import sys
import threading

mp = importlib.import_module(sys.argv[1])


def hold(lock, held, release):
    with lock:
        print("child", lock, flush=True)
        held.set()
        release.wait()


def meet(barrier, answers):
    answers.put(barrier.wait())


def take(condition, semaphore, answers):
    with condition:
        semaphore.release()
        answers.put(condition.wait(30))


def attempt(what, function, *args, **kwargs):
    try:
        print(what, function(*args, **kwargs))
    except Exception as error:
        kinds = (OSError, TypeError, ValueError, AssertionError)
        wordless = (OverflowError, threading.BrokenBarrierError)
        known = next(each for each in kinds + wordless if isinstance(error, each))
        # The text may say more than multiprocessing's; programs match its beginning.
        print(what, known.__name__, "" if known in wordless else str(error)[:22])


if __name__ == "__main__":
    ctx = mp.get_context(sys.argv[2])
    for make in (ctx.Lock, ctx.RLock, ctx.Semaphore, ctx.BoundedSemaphore):
        lock, held, release = make(), ctx.Event(), ctx.Event()
        process = ctx.Process(target=hold, args=(lock, held, release), name="holder")
        process.start()
        print(
            held.wait(30), lock.acquire(False), lock.acquire(timeout=0.01), lock.acquire(True, -1)
        )
        release.set()
        print(lock.acquire(), lock)
        lock.release()
        process.join()
        print(process.exitcode, lock)
    for value in (-1, 1 << 31, 1 << 70, "1"):
        attempt("semaphore", ctx.Semaphore, value)
    attempt("lock", ctx.Lock().release)
    attempt("rlock", ctx.RLock().release)
    attempt("bounded", ctx.BoundedSemaphore(2).release)
    attempt("semaphore", ctx.Semaphore(2).release)
    attempt("wait", ctx.Condition().wait)
    attempt("notify", ctx.Condition().notify)
    answers, barrier = ctx.Queue(), ctx.Barrier(3)
    processes = [ctx.Process(target=meet, args=(barrier, answers)) for _ in range(2)]
    for process in processes:
        process.start()
    print(sorted([barrier.wait(), answers.get(), answers.get()]), barrier.n_waiting)
    barrier.abort()
    attempt("broken", barrier.wait)
    condition, semaphore = ctx.Condition(), ctx.Semaphore(0)
    processes += [ctx.Process(target=take, args=(condition, semaphore, answers)) for _ in range(3)]
    for process in processes[2:]:
        process.start()
    for _ in range(3):
        semaphore.acquire()
    with condition:
        print(condition)
        condition.notify(2)
    print(answers.get(), answers.get())
    with condition:
        condition.notify_all()
    print(answers.get(), condition.wait_for(lambda: 5))
    for process in processes:
        process.join()
        print(process.exitcode)
