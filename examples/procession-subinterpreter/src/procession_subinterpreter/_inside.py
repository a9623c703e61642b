"""What runs in the subinterpreter."""

from __future__ import annotations

from procession.child import run_parcel


def run(parcel: int, descriptors: tuple[int, ...]) -> int:
    """Open a parcel, do what it says, and return the exit code. Takes over the descriptors."""
    return run_parcel(parcel, descriptors, shares_process=True)
