# mypy: ignore-errors
"""Managers: shared containers, and objects of classes that the program registers."""

import sys
from multiprocessing import Manager, Process, set_start_method
from multiprocessing.managers import BaseManager, NamespaceProxy


class Calculator:
    def add(self, a, b):
        return a + b

    def divide(self, a, b):
        return a / b


class CalculatorManager(BaseManager):
    pass


CalculatorManager.register("Calculator", Calculator)


def fill(mapping, items, space, lock):
    with lock:
        mapping[1] = "one"
        mapping["two"] = [2]
        items.reverse()
        items.append("more")
        space.x += 1


if __name__ == "__main__":
    set_start_method(sys.argv[1])
    with Manager() as manager:
        mapping, items = manager.dict(), manager.list(range(4))
        space = manager.Namespace(x=1)
        lock = manager.Lock()
        process = Process(target=fill, args=(mapping, items, space, lock))
        process.start()
        process.join()
        print(sorted(mapping.items(), key=str), list(items), space.x)
        print(isinstance(space, NamespaceProxy), type(mapping).__name__)
        queue = manager.Queue()
        queue.put("through the server")
        print(queue.get(timeout=20))
    with CalculatorManager() as manager:
        calculator = manager.Calculator()
        print(calculator.add(4, 3))
        try:
            calculator.divide(1, 0)
        except ZeroDivisionError as error:
            print("raised", error)
