# mypy: ignore-errors
"""The documentation's programs with a manager of shared memory, and its errors."""

import importlib
import sys

mp = importlib.import_module(sys.argv[1])
managers = importlib.import_module(sys.argv[1] + ".managers")
shared_memory = importlib.import_module(sys.argv[1] + ".shared_memory")


def work(items, start, stop):
    for index in range(start, stop):
        items[index] *= 2


def write(memory, number):
    memory.buf[number] = number


def show(function, *args):
    try:
        print(function(*args))
    except Exception as error:
        print(type(error).__name__, error)


if __name__ == "__main__":
    ctx = mp.get_context(sys.argv[2])
    with managers.SharedMemoryManager(ctx=ctx) as manager:
        items = manager.ShareableList(range(20))
        memory = manager.SharedMemory(100)
        processes = [
            ctx.Process(target=work, args=(items, 0, 10)),
            ctx.Process(target=work, args=(items, 10, 20)),
            ctx.Process(target=write, args=(memory, 3)),
        ]
        for process in processes:
            process.start()
        for process in processes:
            process.join()
        print(list(items), bytes(memory.buf[:5]), memory.size)
        print(
            type(items) is shared_memory.ShareableList, type(memory) is shared_memory.SharedMemory
        )
        show(manager.SharedMemory, 0)
        show(manager.SharedMemory, -1)
        show(manager.ShareableList, 5)
        show(manager.start)
        names = memory.name, items.shm.name
    for name in names:
        try:
            shared_memory.SharedMemory(name=name)
        except FileNotFoundError:
            print("gone")
    print(memory.buf[3], items[3])
    items.shm.close()
    memory.close()
    show(manager.start)
