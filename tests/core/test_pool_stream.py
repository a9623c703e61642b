"""How the input of `imap` is given to a pool that may end meanwhile."""

from __future__ import annotations

from typing import Any

import pytest

from procession._pools.options import MapTerms
from procession._pools.stream import Feeder, IMapUnorderedIterator
from procession._pools.task import FunctionReference, Task
from procession.errors import TaskCancelledError

pytestmark = pytest.mark.once


class _Crew:
    """One that ends while it is given input, and says so of each task that it has got."""

    reads_input = True

    def __init__(self, stops_at: int) -> None:
        self._stops_at = stops_at
        self.feeder: Feeder

    def add_feeder(self, feeder: Feeder) -> None:
        self.feeder = feeder

    def drop_feeder(self, feeder: Feeder) -> None:
        pass

    def look_for_input(self) -> None:
        pass

    def check_may_wait(self) -> None:
        pass

    def is_quick(self) -> bool:
        return True

    def terms(self) -> Any:
        """Return terms that end the pool, as another thread would, at a certain task."""
        crew = self

        class Ending(MapTerms):
            ends_tasks = True

            def apply_to(self, task: Task) -> None:
                if task.number == crew._stops_at:
                    crew.feeder.stop(TaskCancelledError("the pool was terminated"))

        return Ending()

    def feed(self, tasks: list[Task]) -> None:
        """Do none of them, as nobody is left."""
        for task in tasks:
            task.job.deliver(task, False, TaskCancelledError(task.describe()))


class _Pool:
    def __init__(self, crew: _Crew) -> None:
        self._crew = crew


def _all_of(stream: IMapUnorderedIterator) -> list[Any]:
    """Return all that *stream* has; `TimeoutError` where one would wait for more."""
    outcomes: list[Any] = []
    while True:
        try:
            outcomes.append(stream.next(timeout=0))
        except StopIteration:
            return outcomes
        except TaskCancelledError as error:
            outcomes.append(error)


@pytest.mark.parametrize("size", [1, 3])
@pytest.mark.parametrize("stops_at", [0, 1, 5, 7])
def test_a_pool_that_ends_while_input_is_read_leaves_nobody_waiting(
    size: int, stops_at: int
) -> None:
    """All tasks that were counted are told of, so that the end of the stream comes."""
    crew = _Crew(stops_at)
    stream = IMapUnorderedIterator(_Pool(crew), FunctionReference(abs), None)
    feeder = Feeder(stream, crew, range(8 * size), size, 100, 100, crew.terms())  # type: ignore[arg-type]
    stream.begin(feeder)
    feeder.give(crew.feed)
    outcomes = _all_of(stream)
    assert str(outcomes[-1]) == "the pool was terminated"
    assert all(isinstance(each, TaskCancelledError) for each in outcomes)
