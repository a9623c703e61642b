"""Whether daemonic processes may have children."""

from __future__ import annotations

from procession import process

OPEN = "open"
STRICT = "strict"


def set_daemon_policy(policy: str) -> None:
    """Say whether daemonic processes may have children: "open" (the default) or "strict".

    Strict is multiprocessing's rule: `Process.start` raises `procession.errors.\
DaemonicProcessError`, an `AssertionError`, in a daemonic process. Open, a daemonic process may
    start what it likes; its own daemonic children end with it, however it ends.

    Holds in this process, and in those that are made in it from now on.
    Raises `ValueError` for another policy.
    """
    if policy not in (OPEN, STRICT):
        raise ValueError(f"the daemon policy is {OPEN!r} or {STRICT!r}, not {policy!r}")
    process.current_process()._strict_daemons = policy == STRICT


def get_daemon_policy() -> str:
    """Return the policy of this process, "open" or "strict"."""
    return STRICT if process.current_process()._strict_daemons else OPEN
