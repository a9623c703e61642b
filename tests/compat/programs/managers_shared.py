# mypy: ignore-errors
"""The documentation's programs with managers: shared types, own types, errors, nested proxies."""

import importlib
import sys

mp = importlib.import_module(sys.argv[1])
managers = importlib.import_module(sys.argv[1] + ".managers")


class MathsClass:
    def add(self, x, y):
        return x + y

    def mul(self, x, y):
        return x * y

    def _secret(self):
        return None


def baz():
    yield from (i * i for i in range(5))


class MyManager(managers.BaseManager):
    pass


class GeneratorProxy(managers.BaseProxy):
    _exposed_ = ("__next__",)

    def __iter__(self):
        return self

    def __next__(self):
        return self._callmethod("__next__")


MyManager.register("Maths", MathsClass)
MyManager.register("baz", baz, proxytype=GeneratorProxy)


def work(d, sequence, namespace, value, queue):
    d[1] = "1"
    d["2"] = 2
    sequence.reverse()
    namespace.x = 5
    value.value = 7
    queue.put("from the child")


def show(function, *args):
    try:
        print(function(*args))
    except Exception as error:
        print(type(error).__name__, error)


if __name__ == "__main__":
    ctx = mp.get_context(sys.argv[2])
    with ctx.Manager() as manager:
        d, sequence = manager.dict(), manager.list(range(10))
        namespace, value, queue = manager.Namespace(), manager.Value("i", 0), manager.Queue()
        p = ctx.Process(target=work, args=(d, sequence, namespace, value, queue))
        p.start()
        p.join()
        print(d, sequence, namespace, value, queue.get())
        print(type(d).__name__, type(sequence).__name__, repr(d).partition(" at ")[0])
        outer = manager.list([manager.dict(a=1), manager.list([2])])
        outer[0]["b"] = 3
        outer[1].append(4)
        print(outer[0], outer[1][:], len(outer), [dict(outer[0])])
        show(d.__getitem__, "missing")
        show(sequence.__getitem__, 99)
        show(lambda: namespace.missing)
        lock = manager.Lock()
        show(lock.release)
        print(lock.acquire(), lock.acquire(False), lock.release())
        print(sorted(d.keys(), key=str), [each for each in sequence if each > 7])
    with MyManager(ctx=ctx) as manager:
        maths = manager.Maths()
        print(maths.add(4, 3), maths.mul(7, 8), hasattr(maths, "_secret"), list(manager.baz()))
        show(manager.start)
    show(manager.start)
    show(managers.BaseManager, None, None, "nonsense")
