"""Children of a measurement: started alike for every contender, and never failing unseen."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from contenders import AnyProcess, Context


def started(context: Context, target: Callable[..., object], *args: object) -> AnyProcess:
    """Start *target* in a daemonic child, which ends with us if the measurement fails."""
    process = context.Process(target=target, args=args, daemon=True)
    process.start()
    return process


def join(processes: Iterable[AnyProcess]) -> None:
    """Wait for the end of *processes*; `RuntimeError` if one of them failed.

    There is no timeout: the runner puts a limit on the whole measurement.
    """
    for process in processes:
        process.join()
        if process.exitcode != 0:
            raise RuntimeError(f"a child ended with exit code {process.exitcode}")
