"""Subclasses of `Process`, and how they reach their children."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

Make = Callable[..., Any]
pytestmark = pytest.mark.one_pair_per("method")

_PROGRAM = """
import sys
import threading
import {mp} as mp

ctx = mp.get_context(sys.argv[1])

class Slotted(ctx.Process):
    __slots__ = ("first", "empty")

    def __init__(self, connection):
        super().__init__()
        self.first = 1
        self.connection = connection

    def run(self):
        self.connection.send((self.first, hasattr(self, "empty")))

class Careful(ctx.Process):
    def __init__(self, connection):
        super().__init__(target=print)
        self.lock = threading.Lock()
        self.connection = connection

    def __getstate__(self):
        state = self.__dict__.copy()
        del state["lock"]
        return state

    def __setstate__(self, state):
        self.__dict__.update(state)
        self.lock = "a new one"

    def run(self):
        self.connection.send(type(self.lock).__name__)

def main():
    here, there = ctx.Pipe(duplex=False)
    for kind in Slotted, Careful:
        process = kind(there)
        process.start()
        print(here.recv())
        process.join()
        print(process.exitcode)

if __name__ == "__main__":
    main()
"""


def test_what_it_says_of_its_state_counts(run_program: Make, pair: Any) -> None:
    """Slots arrive, and a class may leave out what cannot be pickled, as in any pickle."""
    done = run_program(_PROGRAM, pair.method)

    kept = "lock" if pair.method == "fork" else "str"
    assert (f"(1, False)\n0\n{kept}\n0\n", "", 0) == (done.stdout, done.stderr, done.returncode)
