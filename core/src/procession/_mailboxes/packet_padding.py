"""How the kernel is made to count packets: their lengths say it.

The kernel tells the *sum* of the lengths of all packets that wait in a lane (FIONREAD),
not their number. So every packet is padded to a length of -1 modulo `MODULUS`, and the
number is minus the sum, modulo `MODULUS`; a lane must hold fewer packets than that.
The last two bytes of a packet say how much of it is padding, and its kind: the last byte
is below 128 for kind 0 only.
"""

from __future__ import annotations

MODULUS = 512
_TRAILER = 2
#: Set in the trailer of packets of kind 1.
KIND = 0x8000


def count(total: int) -> int:
    """Return how many packets have *total* bytes in all."""
    return -total % MODULUS


def capacity(longest: int) -> int:
    """Return the longest packet that is at most *longest* bytes long when padded."""
    return (longest + 1) // MODULUS * MODULUS - 1 - _TRAILER


def strip(padded: bytes) -> tuple[bytes, int]:
    """Return the packet within *padded*, and its kind."""
    trailer = padded[-2] | padded[-1] << 8
    if trailer < KIND:
        return padded[:-trailer], 0
    return padded[: KIND - trailer], 1


#: `PADDING[kind][length % MODULUS]` completes a packet of that length, if it is there already:
#: all of them are 300 KB, and `padding` makes each when it is first wanted.
PADDING: tuple[list[bytes], list[bytes]] = ([b""] * MODULUS, [b""] * MODULUS)


def padding(length: int, kind: int) -> bytes:
    """Return what completes a packet of *length* bytes. Threads: any; two may make the same."""
    missing = (MODULUS - 1 - _TRAILER - length) % MODULUS + _TRAILER
    trailer = (missing | KIND if kind else missing).to_bytes(_TRAILER, "little")
    made = PADDING[1 if kind else 0][length % MODULUS] = bytes(missing - _TRAILER) + trailer
    return made
