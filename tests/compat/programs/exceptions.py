# mypy: ignore-errors
"""Exceptions in children: printed there, exit code 1 here; chains and groups included."""

import importlib
import sys

mp = importlib.import_module(sys.argv[1])


class OwnError(Exception):
    """Defined in the main module."""


def chain():
    try:
        raise OwnError("first")
    except OwnError as error:
        raise ValueError("second") from error


def group():
    raise ExceptionGroup("several", [OwnError("one"), TypeError("two")])


def recursion():
    raise RecursionError("deep")


if __name__ == "__main__":
    ctx = mp.get_context(sys.argv[2])
    for target in (chain, group, recursion):
        p = ctx.Process(target=target, name=target.__name__)
        p.start()
        p.join()
        print(target.__name__, p.exitcode, flush=True)
