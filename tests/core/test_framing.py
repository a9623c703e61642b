"""`procession.framing`: what packets say, without any input or output."""

from __future__ import annotations

import struct

import pytest

from procession import framing


def views(*parts: bytes) -> list[memoryview]:
    """Give memory as the functions want it."""
    return [memoryview(part) for part in parts]


@pytest.mark.parametrize("lengths", [(), (0,), (1, 0, 2), (5_000_000_000, 1 << 40), (7,) * 400])
@pytest.mark.parametrize("body_length", [0, 1, 4096, 0x7FFFFFFF, 0x80000000, 1 << 46])
def test_header_comes_back(body_length: int, lengths: tuple[int, ...]) -> None:
    """Lengths of any size, also far beyond 4 GiB, are read as they were written."""
    header, table = framing.pack_header(body_length, lengths)

    assert b"" == table
    assert len(header) <= framing.SHORTEST_PACKET
    body, count, found, here = framing.unpack_header(header)
    assert (body_length, len(lengths), lengths, 0) == (body, count, tuple(found or ()), here)


@pytest.mark.parametrize("here", [0, 1, 7, 100])
def test_header_follows_the_data(here: int) -> None:
    """What a packet has before its header is data, and is counted."""
    header, _ = framing.pack_header(60, (40, 1000))

    assert (60, 2, (40, 1000), here) == framing.unpack_header(b"d" * here + header)


def test_many_buffers_have_a_table() -> None:
    """The lengths of more buffers than a packet has room for come on their own."""
    lengths = tuple(range(10_000))
    header, table = framing.pack_header(5, lengths)

    assert (5, 10_000, None, 0) == framing.unpack_header(header)
    assert lengths == framing.unpack_table(table, 5)


def test_table_begins_where_room_ends() -> None:
    """Every number of buffers is announced in one of the two ways, and never too long."""
    with_table = []
    for count in range(500, 520):
        header, table = framing.pack_header(0, (1,) * count)
        assert len(header) <= framing.SHORTEST_PACKET
        with_table.append(bool(table))
        assert count == framing.unpack_header(header)[1]

    assert sorted(with_table) == with_table
    assert {True, False} == set(with_table)


def test_headers_do_not_look_like_whole_messages() -> None:
    """The last byte tells a header from a message that is complete."""
    for lengths in ((), (1,), (1,) * 10_000):
        header, _ = framing.pack_header(0, lengths)
        assert framing.WHOLE != header[-1:]


def test_every_cut_header_is_refused() -> None:
    """A header that lost bytes at its beginning is an error, however many it lost."""
    header, _ = framing.pack_header(1 << 33, (3, 4))
    for start in range(1, len(header)):
        with pytest.raises(OSError, match="bad message"):
            framing.unpack_header(header[start:])


def test_any_wrong_byte_is_an_error_or_a_bounded_message() -> None:
    """No byte of a header makes it more than an error or lengths within the limits."""
    header, _ = framing.pack_header(300, (20, 30))
    for position in range(len(header)):
        for value in range(256):
            packet = bytearray(b"data" + header)
            packet[4 + position] = value
            if not packet[-1]:
                continue  # a whole message
            try:
                body, count, lengths, here = framing.unpack_header(bytes(packet))
            except OSError:
                continue
            assert body + sum(lengths or ()) <= framing.LONGEST_MESSAGE
            assert count <= framing.MOST_BUFFERS
            assert here <= body + sum(lengths or ())


@pytest.mark.parametrize(
    "packet",
    [
        b"",
        b"\x01",
        b"\xff" * 12,
        b"\xff" * 13,
        struct.pack("<QIB", 1, 0, 3),
        struct.pack("<QIB", 1 << 63, 0, 1),
        struct.pack("<QIB", 10, 1, 1),
        struct.pack("<QQIB", 1 << 63, 1 << 63, 1, 1),
        b"more than announced" + struct.pack("<QIB", 5, 0, 1),
        struct.pack("<QIB", 5, 3, 2),
        struct.pack("<QIB", 5, framing.MOST_BUFFERS + 1, 2),
        struct.pack("<QIB", 1 << 63, 5000, 2),
        b"data" + struct.pack("<QIB", 5, 5000, 2),
    ],
)
def test_malformed_headers(packet: bytes) -> None:
    """Nonsense is an `OSError` before any memory is asked for."""
    with pytest.raises(OSError, match="bad message"):
        framing.unpack_header(packet)


def test_lying_table() -> None:
    """A table of lengths that no memory has is refused."""
    with pytest.raises(OSError, match="bad message length"):
        framing.unpack_table(struct.pack("<2Q", 1 << 63, 1), 0)


def test_too_many_buffers_are_not_sent(monkeypatch: pytest.MonkeyPatch) -> None:
    """The sender refuses what the receiver would."""
    monkeypatch.setattr(framing, "MOST_BUFFERS", 600)
    with pytest.raises(OSError, match="601 buffers"):
        framing.pack_header(0, (0,) * 601)


def test_cut_at_every_place() -> None:
    """Cut anywhere, the two parts are the whole, without empty views."""
    parts = views(b"abc", b"", b"d", b"efghi", b"")
    for length in range(12):
        head, tail = framing.cut(parts, length)
        assert b"abcdefghi"[:length] == b"".join(head)
        assert b"abcdefghi"[length:] == b"".join(tail)
        assert all(head)
        assert all(tail)


def test_cut_copies_nothing() -> None:
    """The parts are views of the memory that was given."""
    memory = bytearray(b"abcdef")
    head, tail = framing.cut([memoryview(memory)], 3)
    memory[0:1] = b"X"
    memory[5:6] = b"Y"

    assert (b"Xbc", b"deY") == (bytes(head[0]), bytes(tail[0]))


@pytest.mark.parametrize("size", [1, 2, 3, 7, 100])
def test_batches(size: int) -> None:
    """Every batch but the last is of the size asked for, and nothing is lost."""
    parts = views(b"abc", b"", b"defghijk", b"l")
    found = [b"".join(batch) for batch in framing.batches(parts, size)]

    assert b"abcdefghijkl" == b"".join(found)
    assert all(size == len(batch) for batch in found[:-1])


def test_batches_have_few_views() -> None:
    """No batch has more views than one system call takes; the bytes stay in order."""
    data = bytes(range(256)) * 20
    parts = [memoryview(data)[i : i + 1] for i in range(len(data))]
    found = list(framing.batches(parts, 3000))

    assert all(len(batch) <= framing.MOST_VIEWS for batch in found)
    assert data == b"".join(b"".join(batch) for batch in found)
    assert [3000, 2120] == [sum(map(len, batch)) for batch in found]


def test_nothing_makes_no_batch() -> None:
    """No bytes, no system call."""
    assert [] == list(framing.batches(views(b"", b""), 10))
