# mypy: ignore-errors
"""Consumers that acknowledge: JoinableQueue."""

import importlib
import queue
import sys

mp = importlib.import_module(sys.argv[1])


def consume(items, answers):
    while True:
        item = items.get()
        if item is not None:
            answers.put(item + 100)
        items.task_done()
        if item is None:
            return


if __name__ == "__main__":
    ctx = mp.get_context(sys.argv[2])
    items, answers = ctx.JoinableQueue(), ctx.Queue()
    consumers = [ctx.Process(target=consume, args=(items, answers)) for _ in range(3)]
    for process in consumers:
        process.start()
    for number in range(12):
        items.put(number)
    items.join()
    print(sorted(answers.get() for _ in range(12)))
    for _ in consumers:
        items.put(None)
    items.join()
    for process in consumers:
        process.join()
    try:
        items.task_done()
    except ValueError as error:
        print(error)
    try:
        items.get_nowait()
    except queue.Empty as error:
        print(repr(error))
