"""What children of the tests of listeners and clients do."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

__all__ = ["tell_limits"]


def tell_limits(end: Any) -> None:
    """Send the limits of *end*, and then what receiving from it raises."""
    end.send((end.channel.silence.limit, end.recv_limit))
    try:
        end.recv()
    except OSError as error:
        end.send(type(error).__name__)
