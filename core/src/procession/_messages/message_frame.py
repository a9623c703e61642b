"""A message with out-of-band buffers as one piece of bytes."""

from __future__ import annotations

import struct

TYPE_CHECKING = False  # importing typing would bring `re` and more into every child
if TYPE_CHECKING:
    from collections.abc import Sequence

    from procession._contracts.channel import Buffer, Message

_COUNT = struct.Struct("=I")


def frame(body: Buffer, buffers: Sequence[Buffer]) -> bytes:
    """Return *body* and *buffers* in one piece, with their lengths in front."""
    pieces = (body, *buffers)
    lengths = struct.pack(f"={len(pieces)}I", *map(len, pieces))
    return b"".join((_COUNT.pack(len(pieces)), lengths, *pieces))


def unframe(data: bytes) -> Message:
    """Return the message that `frame` made *data* of; its buffers may be written to."""
    (count,) = _COUNT.unpack_from(data)
    position = _COUNT.size * (1 + count)
    pieces = []
    for length in struct.unpack_from(f"={count}I", data, _COUNT.size):
        pieces.append(data[position : position + length])
        position += length
    return pieces[0], [bytearray(piece) for piece in pieces[1:]]


def message_in(packet: tuple[bytes, int]) -> Message:
    """Return the message in *packet*, which is framed if its second part is not 0."""
    return unframe(packet[0]) if packet[1] else (packet[0], ())
