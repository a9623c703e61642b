"""What children of tests do with queues, several objects at a time, or where they lie."""

from __future__ import annotations

from typing import Any

from procession.queues import Queue


class CountingQueue(Queue):
    """A queue of somebody's own, made as such classes are made for multiprocessing."""

    def __init__(self, *args: Any, ctx: Any, **kwargs: Any) -> None:
        super().__init__(*args, ctx=ctx, **kwargs)
        self.puts = ctx.Value("i", 0)

    def __getstate__(self) -> Any:
        """Return its own state beside the queue's."""
        return super().__getstate__(), self.puts

    def __setstate__(self, state: Any) -> None:
        """Take back what `__getstate__` has returned."""
        state, self.puts = state
        super().__setstate__(state)

    def put(self, *args: Any, **kwargs: Any) -> None:
        """Count, and put."""
        super().put(*args, **kwargs)
        with self.puts.get_lock():
            self.puts.value += 1


def put_many(items: Any, count: int) -> None:
    """Put the numbers up to *count* together; all of them must be put."""
    assert count == items.put_many(range(count))


def answer_with_leases(questions: Any, answers: Any) -> None:
    """Multiply arrays by factors until None comes, copying none of them."""
    while True:
        with questions.lease(timeout=30.0) as lease:
            if lease.object is None:
                return
            factor = lease.object["factor"]
            with answers.put_empty(lease.object["array"].shape, "i8") as answer:
                answer[:] = lease.object["array"]
                answer *= factor


def hold(items: Any, report: Any) -> None:
    """Get one object with a lease, say so, and keep it until killed."""
    kept = items.get(lease=True)
    report.send(int(kept[-1]))
    report.recv()
