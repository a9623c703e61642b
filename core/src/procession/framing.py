"""How a message becomes packets: functions on bytes, without any input or output.

For transports whose kernel object keeps packets apart (a packet pipe, a sequenced-packet
socket). A message whose body fits is *one* packet, the body and a byte that says so::

    body | 00

so that a send is one system call and a receive another. Every other message begins with
a packet that ends in a header, and goes on in further packets, or as a stream of bytes,
until the lengths in the header are used up::

    first bytes of the data | length of each buffer | length of the body | buffers | 01
    (nothing)               |                       | length of the body | buffers | 02

The *data* is the body and the buffers, one after the other. Lengths are 8 bytes, the
number of buffers 4, little-endian. The second form is for more buffers than the first
packet has room for: packets with their lengths alone come next, then the data.

Of a message with *luggage*, descriptors that travel beside it, the first packet, in any of
these forms, goes on with what finds them::

    first packet | ticket of the descriptors | number of them | 03

The ticket is 8 bytes, the number one.

A receiver gives room for all of the rest of the data to each read, so that no packet of
it is ever cut short, however the sender divided it.
"""

from __future__ import annotations

from struct import Struct, pack, unpack_from

TYPE_CHECKING = False  # importing typing would bring `re` and more into every child
if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from procession._contracts.channel import Buffer

__all__ = [
    "LONGEST_MESSAGE",
    "MOST_BUFFERS",
    "MOST_VIEWS",
    "SHORTEST_PACKET",
    "TAG_SIZE",
    "WHOLE",
    "WITH_LUGGAGE",
    "batches",
    "cut",
    "pack_header",
    "pack_tag",
    "unpack_header",
    "unpack_table",
    "unpack_tag",
]

#: What a transport must at least be able to keep together as one packet.
SHORTEST_PACKET = 4096
#: What ends a packet that is a whole message.
WHOLE = b"\x00"
_TABLE_HERE = 1
_TABLE_NEXT = 2
#: What ends the first packet of a message with luggage.
WITH_LUGGAGE = b"\x03"

#: What no address space can hold is a lie, and refused before memory is asked for.
LONGEST_MESSAGE = 1 << 47
#: So is a number of buffers whose lengths alone would be half a GiB.
MOST_BUFFERS = 1 << 26
#: The most pieces of memory given to one readv or writev (IOV_MAX is 1024).
MOST_VIEWS = 512

_fixed = Struct("<QIB")
_tag = Struct("<8sBB")
#: How many bytes `pack_tag` adds.
TAG_SIZE = _tag.size
_ROOM_FOR_TABLE = (SHORTEST_PACKET - _fixed.size - TAG_SIZE) // 8


def pack_header(body_length: int, buffer_lengths: Sequence[int]) -> tuple[bytes, bytes]:
    """Return the end of the first packet, and the table to send after it, if any.

    If there is a table, the first packet has nothing but this header.
    """
    count = len(buffer_lengths)
    if not count:
        return _fixed.pack(body_length, 0, _TABLE_HERE), b""
    table = pack(f"<{count}Q", *buffer_lengths)
    if count <= _ROOM_FOR_TABLE:
        return table + _fixed.pack(body_length, count, _TABLE_HERE), b""
    if count > MOST_BUFFERS:
        raise OSError(f"a message of {count} buffers is more than the {MOST_BUFFERS} allowed")
    return _fixed.pack(body_length, count, _TABLE_NEXT), table


def unpack_header(packet: bytes) -> tuple[int, int, Sequence[int] | None, int]:
    """Return what a first *packet* that is not a whole message says about the message.

    That is the length of the body, the number of the buffers, their lengths (None if a
    table of them comes next), and how many bytes of the data this packet begins with.
    Raises `OSError` when it cannot be the first packet of a message.
    """
    if len(packet) < _fixed.size:
        raise OSError(f"bad message: its header has {len(packet)} bytes")
    body_length, count, kind = _fixed.unpack_from(packet, len(packet) - _fixed.size)
    if kind == _TABLE_NEXT:
        if len(packet) != _fixed.size or not _ROOM_FOR_TABLE < count <= MOST_BUFFERS:
            raise OSError(f"bad message: its header announces {count} buffers")
        _check_total(body_length)
        return body_length, count, None, 0
    if kind != _TABLE_HERE:
        raise OSError(f"bad message: a packet of the unknown kind {kind}")
    data_here = len(packet) - _fixed.size - 8 * count
    if data_here < 0:
        raise OSError(f"bad message: its header has no room for the lengths of {count} buffers")
    lengths = unpack_from(f"<{count}Q", packet, data_here) if count else ()
    total = body_length + sum(lengths)
    _check_total(total)
    if data_here > total:
        raise OSError(f"bad message: {data_here} bytes of a message of {total}")
    return body_length, count, lengths, data_here


def pack_tag(ticket: bytes, count: int) -> bytes:
    """Return what is added to the first packet of a message with *count* descriptors."""
    return _tag.pack(ticket, count, WITH_LUGGAGE[0])


def unpack_tag(packet: bytes) -> tuple[bytes, bytes, int]:
    """Return the first *packet* without what `pack_tag` added, the ticket and the number.

    Raises `OSError` when it cannot be the first packet of a message.
    """
    end = len(packet) - TAG_SIZE
    if end < 1 or packet[end - 1] == WITH_LUGGAGE[0]:
        raise OSError(f"bad message: its header has {max(end, 0)} bytes")
    ticket, count, _ = _tag.unpack_from(packet, end)
    return packet[:end], ticket, count


def unpack_table(table: Buffer, body_length: int) -> Sequence[int]:
    """Return the lengths of the buffers from a *table* that came on its own.

    Raises `OSError` when the message would be longer than any memory.
    """
    lengths: Sequence[int] = unpack_from(f"<{len(table) // 8}Q", table)
    _check_total(body_length + sum(lengths))
    return lengths


def _check_total(total: int) -> None:
    if total > LONGEST_MESSAGE:
        raise OSError(f"bad message length: {total} bytes")


def cut(views: Sequence[memoryview], length: int) -> tuple[list[memoryview], list[memoryview]]:
    """Divide the bytes behind *views* after *length*; no memory is copied.

    Empty views are left out. If there are fewer bytes, the second part is empty.
    """
    for index, view in enumerate(views):
        size = len(view)
        if length < size:
            head = [part for part in views[:index] if part]
            if length:
                head.append(view[:length])
            return head, [view[length:], *(part for part in views[index + 1 :] if part)]
        length -= size
    return [part for part in views if part], []


def batches(views: Sequence[memoryview], size: int) -> Iterator[list[memoryview]]:
    """Divide the bytes behind *views* into batches of *size* bytes; the last is shorter.

    No batch has more than `MOST_VIEWS` views: very short ones are copied together.
    """
    batch: list[memoryview] = []
    room = size
    for view in views:
        start = 0
        left = len(view)
        while left:
            taken = min(left, room)
            if len(batch) == MOST_VIEWS:
                batch = [memoryview(b"".join(batch))]
            batch.append(view[start : start + taken])
            start += taken
            left -= taken
            room -= taken
            if not room:
                yield batch
                batch = []
                room = size
    if batch:
        yield batch
