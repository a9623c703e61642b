"""Children draw other numbers than each other, and the same in each run."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest

import procession
import procession_seeds
from procession.testing import drawing

METHODS = procession.get_all_start_methods()
each_method = pytest.mark.parametrize("method", METHODS)


@pytest.fixture
def seeds() -> Iterator[None]:
    """The plugin, switched on for the test."""
    procession.set_plugins(["seeds"])
    yield
    procession.set_plugins(None)


def draw(method: str, *, root: int, children: int = 2, deep: bool = False) -> list[Any]:
    """Return what children draw, each of them numbers of `random` and of numpy."""
    ctx = procession.get_context(method)
    procession_seeds.set_root(root)
    found = []
    for _ in range(children):
        receiver, sender = ctx.Pipe(duplex=False)
        target = drawing.draw_deeper if deep else drawing.draw
        process = ctx.Process(target=target, args=(sender, method))
        process.start()
        found.append(receiver.recv())
        process.join(check=True)
        process.close()
        receiver.close()
        sender.close()
    return found


@pytest.mark.once
@each_method
@pytest.mark.parametrize("deep", [False, True])
def test_distinct_and_reproducible(seeds: None, method: str, deep: bool) -> None:
    """The two promises; of grandchildren, too."""
    children = 1 if deep else 2
    first = draw(method, root=7, children=children, deep=deep)

    assert first == draw(method, root=7, children=children, deep=deep)
    other = draw(method, root=8, children=1, deep=deep)
    for kind in range(2):
        numbers = [str(drawn[kind]) for drawn in first + other]
        assert len(numbers) == len(set(numbers))


def test_every_method_gives_the_same(seeds: None) -> None:
    """A change of the start method is no change of the numbers."""
    found = [draw(method, root=7) for method in METHODS]

    assert [found[0]] * len(METHODS) == found


@each_method
def test_off(method: str) -> None:
    """Without it, nothing is seeded."""
    first = draw(method, root=7, children=1)

    assert first != draw(method, root=7, children=1) or method == "fork"


@pytest.mark.parametrize("wrong", [-1, "7", True, 1.5])
def test_a_wrong_root(wrong: Any) -> None:
    """A seed that would be taken for another one is refused."""
    with pytest.raises((TypeError, ValueError), match="seed is"):
        procession_seeds.set_root(wrong)


@pytest.mark.parametrize(("given", "printed"), [("7", "7"), ("x", "whole number")])
def test_the_root_of_the_environment(given: str, printed: str) -> None:
    """An operator repeats a run without touching the program."""
    done = subprocess.run(
        [sys.executable, "-c", "import procession_seeds; print(procession_seeds.root())"],
        env={"PROCESSION_SEEDS_ROOT": given},
        capture_output=True,
        text=True,
        timeout=30,
    )

    assert printed in done.stdout + done.stderr


def test_a_random_root_is_kept() -> None:
    """It can be written down at any time."""
    code = "import procession_seeds as s; print(s.root() == s.root() > 0)"
    done = subprocess.run(
        [sys.executable, "-c", code], env={}, capture_output=True, text=True, timeout=30
    )

    assert "True\n" == done.stdout
