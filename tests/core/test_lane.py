"""What the contract of a lane gives to those that have only the operations on one packet."""

from __future__ import annotations

import errno
from typing import Any

import pytest

from procession.plugin import Lane


class Failing(Lane):
    """A lane in memory, which fails once at each of some packets."""

    limit = 100

    def __init__(self, failures: dict[int, Exception]) -> None:
        self.packets: list[bytes] = []
        self._failures = failures
        self._calls = 0

    def _fail_in_turn(self) -> None:
        call, self._calls = self._calls, self._calls + 1
        if call in self._failures:
            raise self._failures.pop(call)

    def send(self, packet: bytes, kind: int = 0, /) -> bool:
        """See `Lane.send`."""
        self._fail_in_turn()
        self.packets.append(packet)
        return True

    def receive(self) -> tuple[bytes, int] | None:
        """See `Lane.receive`."""
        self._fail_in_turn()
        return (self.packets.pop(0), 0) if self.packets else None

    def pending(self) -> int:
        """See `Lane.pending`."""
        return len(self.packets)

    def fileno(self) -> int:
        """See `Lane.fileno`."""
        raise OSError("nobody waits here")

    def export(self, handoff: Any, /) -> Any:
        """See `Exportable.export`."""
        raise OSError("it stays here")

    attach = None  # type: ignore[assignment]  # likewise

    def close(self) -> None:
        """See `Lane.close`."""


def failures(kind: type[Exception]) -> dict[int, Exception]:
    """Errors of the third call and of the one after it."""
    return {2: kind(errno.ENOMEM, "no memory"), 3: kind(errno.ENOMEM, "no memory")}


@pytest.mark.parametrize("kind", [OSError, MemoryError])
def test_a_batch_that_fails_in_the_middle_tells_how_much_was_sent(kind: type[Exception]) -> None:
    """Who was told of an error only would send the first ones again."""
    lane = Failing(failures(kind))
    packets = [b"%d" % number for number in range(5)]
    assert 2 == lane.send_many(packets)
    with pytest.raises(kind, match="no memory"):
        lane.send_many(packets[2:])
    assert 3 == lane.send_many(packets[2:])
    assert packets == lane.packets


@pytest.mark.parametrize("kind", [OSError, MemoryError])
def test_a_batch_that_fails_in_the_middle_gives_what_was_received(kind: type[Exception]) -> None:
    """What was taken has to reach somebody."""
    lane = Failing(failures(kind))
    lane.packets = [b"%d" % number for number in range(5)]
    assert [b"0\0", b"1\0"] == lane.receive_many(9)
    with pytest.raises(kind, match="no memory"):
        lane.receive_many(9)
    assert [b"2\0", b"3\0", b"4\0"] == lane.receive_many(9)
    assert [] == lane.receive_many(9)
