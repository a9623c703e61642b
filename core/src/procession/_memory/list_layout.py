"""A list of simple items in a piece of memory, laid out as the standard library does it.

First the number of items, then where each begins and where the last one ends, relative to
the first: 8 bytes each. Then the items; then the format that each has in `struct`, in 8
bytes; then a byte for each that tells text from bytes, which have the same format.

Nothing here locks or allocates: these are functions on memory.
"""

from __future__ import annotations

import struct
from itertools import accumulate

TYPE_CHECKING = False  # importing typing would bring `re` and more into every child
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any, TypeAlias

    Item: TypeAlias = int | float | bool | str | bytes | None

_WORD = struct.Struct("q")
_SLOT = 8
#: The formats of what is no string; all of them take 8 bytes.
_FORMATS: dict[type[Any], str] = {
    int: "q",
    float: "d",
    bool: "xxxxxxx?",
    type(None): "xxxxxx?x",
}
_NUMBER, _TEXT, _BYTES, _NONE = range(4)
_KINDS: dict[type[Any], int] = {str: _TEXT, bytes: _BYTES, type(None): _NONE}
#: The longest string whose format can be written in 8 bytes.
_LONGEST = 9_999_999


def pack(items: Sequence[Item]) -> bytes:
    """Return the memory of a list of *items*.

    Raises `KeyError` for an item of another type, `ValueError` for a string that is too
    long and `struct.error` for a number of more than 64 bits.
    """
    formats = [_format_for(item) for item in items]
    data = [struct.pack(text, _stored(item)) for text, item in zip(formats, items, strict=True)]
    offsets = accumulate(map(len, data), initial=0)
    return b"".join(
        (
            struct.pack(f"{len(items) + 2}q", len(items), *offsets),
            *data,
            *(text.encode().ljust(_SLOT, b"\0") for text in formats),
            bytes(_KINDS.get(type(item), _NUMBER) for item in items),
        )
    )


def count(memory: memoryview) -> int:
    """Return the number of items."""
    return int(_WORD.unpack_from(memory)[0])


def get(memory: memoryview, index: int) -> Item:
    """Return item *index*, which is there."""
    start, _ = _bounds(memory, index)
    kind = memory[_kind_place(memory, index)]
    if kind == _NONE:
        return None
    item: Any = struct.unpack_from(get_format(memory, index), memory, start)[0]
    if kind == _NUMBER:
        return item  # type: ignore[no-any-return]
    item = item.rstrip(b"\0")
    return item.decode() if kind == _TEXT else item  # type: ignore[no-any-return]


def set(memory: memoryview, index: int, item: Item) -> None:
    """Replace item *index*, which is there.

    Raises `ValueError` for a string that is longer than the place, and like `pack`.
    """
    start, end = _bounds(memory, index)
    text = _format_for(item)
    stored = _stored(item)
    if isinstance(stored, bytes):
        if len(stored) > end - start:
            raise ValueError(
                f"bytes/str item exceeds available storage: it has {len(stored)} bytes and "
                f"its place in the list {end - start}"
            )
        text = f"{end - start}s"
    # First what may fail, in one piece.
    data = struct.pack(text, stored)
    memory[start : start + len(data)] = data
    place = _format_place(memory, index)
    memory[place : place + _SLOT] = text.encode().ljust(_SLOT, b"\0")
    memory[_kind_place(memory, index)] = _KINDS.get(type(item), _NUMBER)


def get_format(memory: memoryview, index: int) -> str:
    """Return the format of item *index*, which is there."""
    place = _format_place(memory, index)
    return bytes(memory[place : place + _SLOT]).rstrip(b"\0").decode()


def _bounds(memory: memoryview, index: int) -> tuple[int, int]:
    base = _items_start(memory)
    start, end = struct.unpack_from("2q", memory, (index + 1) * _SLOT)
    return base + start, base + end


def _items_start(memory: memoryview) -> int:
    return (count(memory) + 2) * _SLOT


def _format_place(memory: memoryview, index: int) -> int:
    return _items_end(memory) + index * _SLOT


def _kind_place(memory: memoryview, index: int) -> int:
    return _items_end(memory) + count(memory) * _SLOT + index


def _items_end(memory: memoryview) -> int:
    number = count(memory)
    return _items_start(memory) + int(_WORD.unpack_from(memory, (number + 1) * _SLOT)[0])


def _format_for(item: Item) -> str:
    """Return the format of a new item: a string has room for growing to 8 bytes and more."""
    found = _FORMATS.get(type(item))
    if found is not None:
        return found
    if type(item) not in _KINDS:
        raise KeyError(
            f"{type(item)!r} cannot be in a shareable list: its items are int, float, bool, "
            f"str, bytes and None"
        )
    size = _SLOT * (len(_stored(item)) // _SLOT + 1)
    if size > _LONGEST:
        raise ValueError(f"a string of {size} bytes is too long: the most is {_LONGEST}")
    return f"{size}s"


def _stored(item: Item) -> Any:
    return item.encode() if isinstance(item, str) else item
