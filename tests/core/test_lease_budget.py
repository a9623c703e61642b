"""How much memory leases may keep: who says so, and what comes of it."""

from __future__ import annotations

import pickle
import sys
from collections.abc import Callable
from pathlib import Path
from queue import Empty
from typing import Any

import pytest

if sys.platform != "linux":
    pytest.skip("only Linux has leases", allow_module_level=True)

import procession
from procession._choosing import limits
from procession.errors import ConfigurationError, LeaseWarning
from procession.testing.lending import Block

KIBI, GIBI = 1 << 10, 1 << 30
VARIABLE = "PROCESSION_LEASE_BUDGET"


@pytest.fixture(autouse=True)
def nobody_says_anything(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No variable, and no configuration file above the current directory."""
    for name in (VARIABLE, "PROCESSION_CONFIG"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def ctx() -> Any:
    """A context of a transport that lends."""
    if not procession.get_all_start_methods() or "pipe" not in procession.get_all_transports():
        pytest.skip("needs a start method and pipe")
    return procession.get_context(transport="pipe")


def budget_of(made: Any) -> int:
    """Return the budget of a queue, or of the first end of a pipe, and close it."""
    if isinstance(made, tuple):
        found = {
            desk.shelves.budget for end in made for desk in (end.channel._in, end.channel._out)
        }
        for end in made:
            end.close()
        (budget,) = found
    else:
        budget = made._mailbox._memory.shelves.budget
        made.close()
    return int(budget)


MAKERS: list[Callable[..., Any]] = [
    lambda ctx, **options: ctx.Pipe(leases=True, **options),
    lambda ctx, **options: ctx.Queue(3, **options),
    lambda ctx, **options: ctx.JoinableQueue(**options),
    lambda ctx, **options: ctx.SimpleQueue(**options),
]


@pytest.mark.parametrize("make", MAKERS, ids=["Pipe", "Queue", "JoinableQueue", "SimpleQueue"])
def test_who_says_so(
    ctx: Any, make: Callable[..., Any], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """The call, the context, the environment, the file, the default, in this order."""
    assert GIBI == budget_of(make(ctx))
    (tmp_path / "pyproject.toml").write_text("[tool.procession]\nlease-budget = 100000\n")
    assert 100_000 == budget_of(make(ctx))
    monkeypatch.setenv(VARIABLE, "200000")
    assert 200_000 == budget_of(make(ctx))
    mine = ctx.with_lease_budget(300_000)
    assert 300_000 == budget_of(make(mine))
    assert 300_000 == budget_of(make(pickle.loads(pickle.dumps(mine))))
    assert 300_000 == budget_of(make(mine.with_options(nice=1)))
    assert 400_000 == budget_of(make(mine, lease_budget=400_000))
    assert 200_000 == budget_of(make(mine.with_lease_budget(None)))


def test_what_cannot_be_had(ctx: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """It is refused, with what is allowed, and who has said it."""
    for wrong in (0, -1, 65535, (1 << 34) + 1):
        with pytest.raises(ValueError, match=f"lease_budget is {wrong}; it may be between 65536"):
            ctx.Queue(lease_budget=wrong)
        with pytest.raises(ValueError, match=f"lease_budget is {wrong}"):
            ctx.Pipe(leases=True, lease_budget=wrong)
        with pytest.raises(ValueError, match=f"lease_budget is {wrong}"):
            ctx.with_lease_budget(wrong)
    for nothing in ("1 GiB", 1.5e9):
        with pytest.raises(TypeError, match="cannot be interpreted as an integer"):
            ctx.Queue(lease_budget=nothing)
    with pytest.raises(ValueError, match="a pipe that lends nothing: add leases=True"):
        ctx.Pipe(lease_budget=1 << 20)
    for text, message in (
        ("much", f"{VARIABLE} is 'much'"),
        ("nan", f"{VARIABLE} is 'nan'"),
        ("5", f"lease_budget is 5; .* {VARIABLE} in the environment"),
        ("1e12", r"lease_budget is 1000000000000; .* in the environment"),
    ):
        monkeypatch.setenv(VARIABLE, text)
        with pytest.raises(ConfigurationError, match=message):
            ctx.Queue()
    monkeypatch.delenv(VARIABLE)
    (tmp_path / "pyproject.toml").write_text("[tool.procession]\nlease-budget = 5\n")
    with pytest.raises(ConfigurationError, match=r"lease_budget is 5; .*lease-budget in .*toml"):
        ctx.Queue()
    (tmp_path / "pyproject.toml").write_text("[tool.procession]\nlease-budget = '1 GiB'\n")
    with pytest.raises(ConfigurationError, match="must be a number, 1 or more, not '1 GiB'"):
        limits.lease_budget()


def test_it_is_kept_to(ctx: Any) -> None:
    """By all processes: leases beyond it are copies, with a warning that names it."""
    queue = ctx.Queue(lease_budget=300 * KIBI)
    with pytest.raises(Empty):
        queue.get(block=False, lease=True)
    kept = []
    for number in range(2):
        queue.put(Block(number, 128 * KIBI))
        kept.append(queue.get(lease=True))
    with pytest.warns(LeaseWarning, match="keep 256 of 300 KiB"):
        queue.put(Block(2, 128 * KIBI))
    kept.append(queue.get(lease=True))
    assert [True, True, False] == [hasattr(each.content.obj, "hold") for each in kept]
    for each in kept:
        each.check()
    kept.clear()
    queue.close()


def test_other_ways_to_get_with_leases(ctx: Any) -> None:
    """Several at a time, and from the simplest of queues."""
    queue, simple = ctx.Queue(), ctx.SimpleQueue()
    queue.put("nothing to lend")
    simple.put("nothing to lend")
    assert ["nothing to lend"] == queue.get_many(5, lease=True)
    assert "nothing to lend" == simple.get(lease=True)
    for number in range(4):
        queue.put(Block(number, 100 * KIBI))
        simple.put(Block(number, 100 * KIBI))
    blocks = queue.get_many(3, lease=True)
    assert [0, 1, 2] == [block.number for block in blocks]
    blocks += queue.get_many(3, lease=True)
    blocks.append(simple.get(lease=True))
    for block in blocks:
        block.check()
        assert hasattr(block.content.obj, "hold")
    assert not hasattr(getattr(simple.get().content, "obj", None), "hold")
    with pytest.raises(Empty):
        queue.get_many(3, block=False, lease=True)
    queue.shutdown()
    with pytest.raises(procession.ShutDown):
        queue.get_many(3, lease=True)
    queue.close()
    simple.close()
