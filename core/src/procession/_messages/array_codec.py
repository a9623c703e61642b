"""Plain numpy arrays as pickles that are written and read without a pickler.

Pickling an array costs numpy several microseconds, whatever its size. Nearly all of it says
again what was said of the last one: its shape and type. So that is kept, as the beginning
of a pickle and as what that beginning means. Any unpickler can load what is written here.

Nothing here imports numpy: the sender of an array has it, and unpickling the first one
imports it in the receiver.
"""

from __future__ import annotations

import copyreg
import sys

from procession._ground import standard
from procession._messages.pickling import SHORTEST_BUFFER

try:
    from _pickle import PickleBuffer
    from _pickle import loads as _loads
except ImportError:  # an interpreter without the C accelerator
    from pickle import PickleBuffer
    from pickle import loads as _loads

TYPE_CHECKING = False  # importing typing would bring `re` and more into every child
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

    from procession._contracts.channel import Buffer

# What a pickle of ours begins with: the protocol, and two numbers that its loader drops, how
# long the head is and whether the array is in Fortran's order. No pickler begins like this.
_BEGINNING = b"\x80\x05(K%cK%c1"
_LENGTH, _ORDER = 4, 6
# The function numpy.ndarray, and the mark where its arguments begin: shape, dtype, buffer,
# and, for Fortran's order, offset, strides, order.
_FUNCTION = b"\x8c\x05numpy\x8c\x07ndarray\x93("
_INSIDE, _BESIDE = b"\x96", b"\x97"
_TAILS = (b"tR.", b"K\x00N\x8c\x01FtR.")
_SIZE = 8

# The numbers of numpy's own types whose buffers it exports and whose name says all about them:
# numbers, bytes, text. Not objects, records, dates, and what others have added.
_TYPES = frozenset((*range(17), 18, 19, 23))

#: Shapes and types that are remembered; more of them are forgotten together.
_MOST_HEADS = 256
_heads: dict[Any, bytes | None] = {}
_meanings: dict[bytes, tuple[Any, ...]] = {}


def pack(array: Any) -> tuple[bytes, list[memoryview]] | None:
    """Return the pickle of *array*, of the very type `numpy.ndarray`, and its buffers.

    None if it is none that could be written here.
    """
    dtype = array.dtype
    kind = type(array)
    if dtype.metadata is not None or kind in copyreg.dispatch_table:
        return None
    if standard.followed and kind in standard.reducers():
        return None  # somebody has said how arrays are to be pickled
    flags = array.flags
    if not flags.writeable:
        return None  # it is to be received as such
    order = 0
    if not flags.c_contiguous:
        if not flags.f_contiguous:
            return None  # in which order it is received is numpy's to say
        order = 1
    key = array.shape, dtype, order
    try:
        head = _heads[key]
    except KeyError:
        head = _remember(key)
    if head is None:
        return None
    size = array.nbytes
    if size < SHORTEST_BUFFER:
        data = array.tobytes("A")
        return (
            b"".join((head, _INSIDE, size.to_bytes(_SIZE, "little"), data, _TAILS[order])),
            [],
        )
    return b"".join((head, _BESIDE, _TAILS[order])), [PickleBuffer(array).raw()]


def _remember(key: tuple[tuple[int, ...], Any, int]) -> bytes | None:
    if len(_heads) >= _MOST_HEADS:
        _heads.clear()
    _heads[key] = head = _head(*key)
    return head


def _head(shape: tuple[int, ...], dtype: Any, order: int) -> bytes | None:
    if dtype.num not in _TYPES or not dtype.itemsize or 0 in shape:
        return None
    name = dtype.str.encode()
    lengths = b"".join(map(_integer, shape))
    rest = b"".join((_FUNCTION, b"(", lengths, b"t\x8c", bytes((len(name),)), name))
    length = len(_BEGINNING) - 2 + len(rest)  # each %c becomes one byte
    if length > 0xFF:
        return None
    return _BEGINNING % (length, order) + rest


def _integer(number: int) -> bytes:
    """Return the pickle opcode of *number*, which is not negative."""
    if number < 1 << 31:
        return b"J" + number.to_bytes(4, "little")
    return b"\x8a\x08" + number.to_bytes(8, "little")


def unpack(body: Buffer, buffers: Sequence[Buffer] = ()) -> Any:
    """Return what `pack` or any other pickler has made *body* and *buffers* of."""
    end = body[_LENGTH] if len(body) > _ORDER else 0
    meaning = _meanings.get(bytes(body[:end]))
    if meaning is None:
        value = _loads(body, buffers=buffers)
        _learn(body, value)
        return value
    ndarray, shape, dtype, size, order = meaning
    start = end + 1
    if body[end] == _BESIDE[0]:
        (data,) = buffers
    else:
        start += _SIZE
        data = bytearray(memoryview(body)[start : start + size])
    return ndarray(shape, dtype, data, 0, None, order)


def _learn(body: Buffer, value: Any) -> None:
    """Remember what the head of *body* means, if it is one of ours."""
    numpy = sys.modules.get("numpy")
    if numpy is None or type(value) is not numpy.ndarray:
        return
    order = 1 if body[_ORDER] else 0
    head = _head(value.shape, value.dtype, order)
    if head is None or bytes(body[: len(head)]) != head:
        return
    if len(_meanings) >= _MOST_HEADS:
        _meanings.clear()
    _meanings[head] = (
        type(value), value.shape, value.dtype, value.nbytes, "F" if order else "C",
    )  # fmt: skip
