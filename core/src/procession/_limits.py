"""What a connection with processes elsewhere puts up with: how long a silence, how long a message.

Each limit is what the first of these says: an argument, `Tls` (of a silence), a variable of
the environment, ``[tool.procession]`` in the configuration file, or the default.
"""

from __future__ import annotations

from procession._variables import variable
from procession.errors import ConfigurationError

TYPE_CHECKING = False  # importing typing would bring `re` and more into every child
if TYPE_CHECKING:
    from typing import TypeAlias

    from procession.tls import Tls

    #: A number, and where it is from, for messages.
    Limit: TypeAlias = "tuple[float, str]"

#: How long the other host may owe an answer, in seconds.
SILENCE_SECONDS = 60.0
#: The kernel's keepalive counts in seconds: no shorter silence can be told from none.
SHORTEST_SILENCE = 3.0

SILENCE_VARIABLE = "PROCESSION_SILENCE"
RECV_VARIABLE = "PROCESSION_RECV_LIMIT"
SILENCE_KEY = "silence"
RECV_KEY = "recv-limit"
#: The keys of the configuration file, and the least that each may be.
KEYS = {SILENCE_KEY: SHORTEST_SILENCE, RECV_KEY: 1}


def silence(argument: float | None = None, tls: Tls | None = None) -> Limit:
    """Return how long the other side may owe something, in seconds, and where that is from.

    Raises `ValueError` for less than can be kept, and `ConfigurationError` for what is no number.
    """
    if argument is None and tls is not None:
        argument = tls.silence
    if argument is not None:
        return check_silence(argument), "given by the program"
    return _configured(SILENCE_VARIABLE, SILENCE_KEY) or (SILENCE_SECONDS, "the default")


def recv_limit(argument: int | None = None) -> tuple[int | None, str]:
    """Return the longest message that is received, in bytes (None: any), and where that is from.

    Raises like `silence`.
    """
    if argument is not None:
        return check_recv_limit(argument), "given by the program"
    found = _configured(RECV_VARIABLE, RECV_KEY)
    if found is None:
        return None, "the default"
    return int(found[0]), found[1]


def check_silence(seconds: float) -> float:
    """Return *seconds*; raise `ValueError` if that cannot be kept."""
    if not seconds >= SHORTEST_SILENCE:
        raise ValueError(f"silence is {seconds:g} seconds; it may be {SHORTEST_SILENCE:g} or more")
    return seconds


def check_recv_limit(limit: int) -> int:
    """Return *limit*; raise `TypeError` or `ValueError` if it is no number of bytes."""
    if limit.__index__() < 1:
        raise ValueError(f"recv_limit is {limit}; it may be 1 (byte) or more, or None for any")
    return limit


def _configured(name: str, key: str) -> Limit | None:
    """Return what the environment or else the configuration file says, if one does."""
    text = variable(name)
    if text:
        try:
            number = float(text)
        except ValueError:
            number = -1.0
        if not KEYS[key] <= number < float("inf"):
            raise ConfigurationError(
                f"{name} is {text!r} in the environment; it may be a number, {KEYS[key]:g} or more",
                key=name,
            )
        return number, f"{name} in the environment"
    from procession._selection import settings

    found = settings()
    if found is None or key not in found.limits:
        return None
    return found.limits[key], f"{key} in {found.file}"
