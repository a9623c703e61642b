# mypy: ignore-errors
"""The standard executor beside multiprocessing, and an error that nobody handles."""

import multiprocessing
import sys
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool


def square(number):
    return number * number


def total(queue, numbers):
    queue.put(sum(numbers))


if __name__ == "__main__":
    multiprocessing.set_start_method(sys.argv[1])
    with ProcessPoolExecutor(max_workers=2) as executor:
        print(list(executor.map(square, range(5))))
        futures = [executor.submit(square, n) for n in (7, 8)]
        print(sorted(future.result() for future in as_completed(futures)))
        print(type(executor.submit(divmod, 1, 0).exception()).__name__)
    queue = multiprocessing.Queue()
    process = multiprocessing.Process(target=total, args=(queue, [1, 2, 3]))
    process.start()
    print(queue.get(), issubclass(BrokenProcessPool, RuntimeError))
    process.join()
    {}["nobody has this key"]
