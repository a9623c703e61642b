# mypy: ignore-errors
"""A pool: calls, maps, callbacks, exceptions, and its end."""

import importlib
import sys

mp = importlib.import_module(sys.argv[1])


def square(number):
    return number * number


def refuse(number):
    raise ValueError("refused", number)


def prepare(word, event):
    global prepared, allowed
    prepared = word
    allowed = event


def wait():
    return allowed.wait(30)


def tell(number):
    return prepared, number


def main():
    ctx = mp.get_context(sys.argv[2])
    event = ctx.Event()
    with ctx.Pool(processes=2, initializer=prepare, initargs=("word", event)) as pool:
        print(pool.apply(square, (7,)), pool.apply(tell, kwds={"number": 1}))
        print(pool.map(square, range(20)), pool.starmap(pow, [(2, 3), (3, 2)]))
        print(list(pool.imap(square, range(10), chunksize=3)))
        print(sorted(pool.imap_unordered(square, range(10))))
        seen = []
        pool.map_async(square, [1, 2], callback=seen.append).wait()
        pool.apply_async(refuse, (3,), error_callback=lambda error: seen.append(error.args)).wait()
        try:
            pool.apply(refuse, (4,))
        except ValueError as error:
            print(error, type(error.__cause__).__name__)
        late = pool.apply_async(wait)
        try:
            late.successful()
        except ValueError as error:
            print(str(error).rpartition(" at ")[2].partition("> ")[2])
        event.set()
        print(late.get(), late.successful())
        pool.close()
        pool.join()
        print(seen)
        try:
            pool.map(square, [1])
        except ValueError as error:
            print(error)
    for wrong in ({"processes": 0}, {"processes": 1, "maxtasksperchild": 0}):
        try:
            ctx.Pool(**wrong)
        except ValueError as error:
            print(error)


if __name__ == "__main__":
    main()
