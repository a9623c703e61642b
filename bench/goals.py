"""What procession wants to reach: shown next to what was measured, and asserted nowhere.

A goal is about the ratio of procession to the standard library, as measured in one run, or,
where that says nothing, about procession's own figure.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Goal:
    """A bound for one figure of one case."""

    subject: str
    case: str
    figure: str
    #: Which side of `bound` is wanted.
    side: Literal["at most", "at least"]
    bound: float
    #: "ratio" to the baseline, or the "value" of procession's own figure.
    of: Literal["ratio", "value"] = "ratio"
    #: Only for this start method or transport; None for each of them.
    method: str | None = None
    transport: str | None = None

    def is_reached(self, ratio: float, value: float) -> bool:
        """Return whether the goal is reached with this *ratio* and own *value*."""
        number = ratio if self.of == "ratio" else value
        return number <= self.bound if self.side == "at most" else number >= self.bound

    def to_text(self, unit: str) -> str:
        """Return the goal for a table: `<= 0.3 x`, `<= 60 ms`."""
        sign = "<=" if self.side == "at most" else ">="
        return f"{sign} {self.bound:g} {'x' if self.of == 'ratio' else unit}".rstrip()


def _start_goals() -> tuple[Goal, ...]:
    return tuple(
        Goal("start", parent, "first instruction", "at most", bound, method=method)
        for parent in ("small parent", "500 MB parent")
        for method, bound in (("fork", 1.0), ("spawn", 0.5), ("forkserver", 0.3))
    )


def _memory_goals() -> tuple[Goal, ...]:
    return tuple(
        goal
        for case in ("idle child", "child at a queue")
        for goal in (
            Goal("memory", case, "private memory", "at most", 1.0),
            # No tracker process: nothing beside the child but the fork server itself.
            Goal("memory", case, "helper processes", "at most", 0, "value", "fork"),
            Goal("memory", case, "helper processes", "at most", 0, "value", "spawn"),
            Goal("memory", case, "helper processes", "at most", 1, "value", "forkserver"),
        )
    )


GOALS: tuple[Goal, ...] = (
    *_start_goals(),
    *_memory_goals(),
    Goal("imports", "Process and Queue", "import", "at most", 1.0),
    Goal("imports", "Process and Queue", "ready after import", "at most", 60, "value"),
    *(
        Goal("queues", f"small tuples {shape}", "rate", "at least", 2, transport="pipe")
        for shape in ("1:1", "4:1", "1:4", "4:4")
    ),
    # Of the native primitives; the pure ones are far from the first.
    *(
        Goal("locks", f"{kind} alone", "acquire and release", "at most", 1.5)
        for kind in ("Lock", "RLock", "Semaphore")
    ),
    *(
        Goal("locks", f"Lock wanted by {workers}", "acquire and release", "at most", 1)
        for workers in (2, 4)
    ),
    Goal("locks", "Event", "set to awake", "at most", 1),
    Goal("connections", "numpy 16 MiB", "throughput", "at least", 4, transport="pipe"),
    Goal("connections", "numpy 16 MiB", "throughput", "at least", 8, transport="socketpair"),
    # Memory without a name against memory with one.
    *(
        Goal("shared", f"create, fill and drop {size}", "time", "at most", 1)
        for size in ("4 KiB", "1 MiB", "32 MiB")
    ),
    Goal("shared", "200 segments as arguments", "start", "at most", 1),
    Goal("shared", "send a segment", "round trip", "at most", 1),
    Goal("managers", "dict", "get and set", "at least", 2),
    Goal("network", "8 MiB", "throughput", "at least", 2),
    Goal("network", "handshake, certificates", "handshake", "at most", 3, "value"),
    Goal("network", "handshake, authkey", "handshake", "at most", 3, "value"),
    *(
        goal
        for transport, tasks, arrays in (("ring", 4, 20), ("pipe", 2, 4))
        for goal in (
            Goal("pools", "short tasks", "imap_unordered", "at least", tasks, transport=transport),
            Goal("pools", "short tasks", "apply_async", "at least", tasks, transport=transport),
            Goal("pools", "numpy 32 MiB", "arguments", "at least", arrays, transport=transport),
            Goal("pools", "numpy 32 MiB", "results", "at least", arrays, transport=transport),
        )
    ),
    Goal("pools", "round trip", "apply", "at most", 0.33),
    Goal("pools", "first result", "first result", "at most", 0.5),
)


def goal_for(
    subject: str, case: str, figure: str, method: str | None, transport: str | None
) -> Goal | None:
    """Return the goal for a figure on a start method and transport, or None."""
    for goal in GOALS:
        if (
            (goal.subject, goal.case, goal.figure) == (subject, case, figure)
            and goal.method in (None, method)
            and goal.transport in (None, transport)
        ):
            return goal
    return None
