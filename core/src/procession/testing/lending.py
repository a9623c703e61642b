"""What children of tests do with connections that lend. This module imports almost nothing."""

from __future__ import annotations

from pickle import PickleBuffer
from typing import Any


class Block:
    """A number, and bytes that travel out of band and can be told from those of others.

    So that tests of leases do without numpy, as the processes that they start.
    """

    def __init__(self, number: int, size: int, content: Any = None) -> None:
        self.number = number
        self.size = size
        self.content = bytearray([number % 251]) * size if content is None else content

    def __reduce_ex__(self, protocol: Any) -> Any:
        """Pickle with the bytes beside it."""
        return Block, (self.number, self.size, PickleBuffer(self.content))

    def check(self) -> None:
        """Raise `AssertionError` if they are not those of its number, all of them."""
        view = memoryview(self.content)
        assert len(view) == self.size, (len(view), self.size)
        wrong = {*bytes(view)} - {self.number % 251}
        assert not wrong, f"{self.number} has bytes of {wrong}"


def echo(connection: Any) -> None:
    """Receive blocks with a lease and send each one back, keeping the last two, until None."""
    kept: list[Block] = []
    while True:
        block = connection.recv(lease=True)
        if block is None:
            return
        block.check()
        kept.append(block)
        connection.send(block)
        if len(kept) > 2:
            kept.pop(0).check()


def hold(connection: Any, report: Any) -> None:
    """Receive one block with a lease, report its number, and keep it until killed."""
    kept = connection.recv(lease=True)
    report.send(kept.number)
    report.recv()
    kept.check()


def multiply(connection: Any) -> None:
    """Double arrays until None comes, copying none of them."""
    while True:
        with connection.lease() as lease:
            if lease.object is None:
                return
            with connection.send_empty(lease.object.shape, lease.object.dtype) as answer:
                answer[...] = lease.object
                answer *= 2
