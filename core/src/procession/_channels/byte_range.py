"""The part of a bytes-like object that is to be sent, or received into."""

from __future__ import annotations

TYPE_CHECKING = False  # importing typing would bring `re` and more into every child
if TYPE_CHECKING:
    from procession._contracts.channel import Buffer


def part(buf: Buffer, offset: int, size: int | None) -> memoryview:
    """Return the *size* bytes of *buf* that begin at *offset*; without a size, all from there on.

    Raises `ValueError` when there are not so many.
    """
    view = memoryview(buf)
    if not view.contiguous:
        view = memoryview(bytes(view))
    view = view.cast("B") if view.nbytes else memoryview(b"")
    length = len(view)
    if offset < 0:
        raise ValueError("offset is negative")
    if length < offset:
        raise ValueError("buffer length < offset")
    if size is None:
        return view[offset:]
    if size < 0:
        raise ValueError("size is negative")
    if offset + size > length:
        raise ValueError("buffer length < offset + size")
    return view[offset : offset + size]


def room(buf: Buffer, offset: int) -> memoryview:
    """Return the bytes of the writable *buf* from *offset* on.

    Raises `TypeError` for one that is not writable, and `ValueError`.
    """
    into = memoryview(buf)
    if into.readonly:
        raise TypeError("a writable buffer is needed, and this one is read-only")
    if not into.contiguous:
        raise ValueError("a contiguous buffer is needed")
    into = into.cast("B") if into.nbytes else memoryview(bytearray())
    if offset < 0:
        raise ValueError("negative offset")
    if offset > len(into):
        raise ValueError("offset too large")
    return into[offset:]
