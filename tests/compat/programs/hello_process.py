# mypy: ignore-errors
"""The documentation's first example: a process, its pid and that of its parent."""

import importlib
import os
import sys

mp = importlib.import_module(sys.argv[1])


def info(title, expected_parent):
    print(title)
    print("module name:", __name__ == "__main__" or __name__ == "__mp_main__")
    print("my parent is the main process:", mp.parent_process().pid == expected_parent)


def greet(name, expected_parent):
    info("function greet", expected_parent)
    print("hello", name)


if __name__ == "__main__":
    mp.set_start_method(sys.argv[2])
    print("main line", mp.parent_process(), flush=True)
    p = mp.Process(target=greet, args=("bob", os.getpid()))
    p.start()
    p.join()
    print("exit code", p.exitcode, "alive", p.is_alive())
