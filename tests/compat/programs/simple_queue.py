# mypy: ignore-errors
"""A SimpleQueue between two processes, in both directions."""

import importlib
import sys

mp = importlib.import_module(sys.argv[1])


def square(requests, answers):
    while (number := requests.get()) is not None:
        answers.put(number * number)
    answers.put("end")


if __name__ == "__main__":
    ctx = mp.get_context(sys.argv[2])
    requests, answers = ctx.SimpleQueue(), ctx.SimpleQueue()
    p = ctx.Process(target=square, args=(requests, answers))
    p.start()
    for number in range(5):
        requests.put(number)
        print(answers.get())
    requests.put(None)
    print(answers.get())
    p.join()
    print(answers.empty(), p.exitcode)
