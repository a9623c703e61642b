"""What connections and queues put up with: how long a silence, how long a message, what leases.

Each limit is what the first of these says: an argument, `Tls` (of a silence), a context (of what
it makes), a variable of the environment, ``[tool.procession]`` in the configuration file, or the
default.
"""

from __future__ import annotations

from _operator import index

from procession._processes.variables import variable
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

LEASE_VARIABLE = "PROCESSION_LEASE_BUDGET"
LEASE_KEY = "lease-budget"

#: The keys of the configuration file, and the least that each may be. The last is a transport's.
KEYS = {SILENCE_KEY: SHORTEST_SILENCE, RECV_KEY: 1, LEASE_KEY: 1, "ring-size": 1}


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


def lease_budget(argument: int | None = None) -> tuple[int, str]:
    """Return how many bytes the leases of a queue or pipe may keep, and where that is from.

    0 bytes if nobody says. Raises like `silence`, and `TypeError` for an *argument* that is no
    integer.
    """
    if argument is not None:
        return check_lease_budget(argument), "given by the program"
    found = _configured(LEASE_VARIABLE, LEASE_KEY)
    if found is None:
        return 0, "the default"
    number, source = found
    try:
        return check_lease_budget(int(number)), source
    except ValueError as error:
        raise ConfigurationError(f"{error} (by {source})", key=LEASE_KEY) from None


def configured_number(key: str) -> Limit | None:
    """Return what *key* says in the configuration file, and where that is, if it is there.

    Raises `ConfigurationError` for a file that is wrong.
    """
    from procession._choosing.selection import settings

    found = settings()
    if found is None or key not in found.limits:
        return None
    return found.limits[key], f"{key} in {found.file}"


def check_lease_budget(budget: int) -> int:
    """Return *budget*; raise `TypeError` or `ValueError` if it is none that can be kept."""
    from procession._mailboxes.shelves import LEAST_BUDGET, MOST_BUDGET

    if not LEAST_BUDGET <= index(budget) <= MOST_BUDGET:
        raise ValueError(
            f"lease_budget is {budget}; it may be between {LEAST_BUDGET} and {MOST_BUDGET} bytes"
        )
    return budget


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
    return configured_number(key)
