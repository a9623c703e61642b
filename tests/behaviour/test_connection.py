"""`Connection`: messages, sizes, limits, ends, and what each method refuses."""

from __future__ import annotations

import array
import pickle
import threading
from collections.abc import Callable
from typing import Any

import pytest

from procession.testing import payloads

DEADLINE = 30.0
KIB, MIB = 2**10, 2**20
SIZES = [0, 1, 2, 16 * KIB, 64 * KIB - 1, 64 * KIB, 64 * KIB + 1, 16 * MIB]
Make = Callable[..., Any]

transports = pytest.mark.one_pair_per("transport")


@transports
@pytest.mark.parametrize("duplex", [True, False])
def test_directions(pipe: Make, duplex: bool) -> None:
    """The first end of a one-way pipe only receives, the second only sends."""
    first, second = pipe(duplex)

    assert (True, duplex) == (first.readable, first.writable)
    assert (duplex, True) == (second.readable, second.writable)
    second.send("there")
    assert "there" == first.recv()
    if duplex:
        first.send("and back")
        assert "and back" == second.recv()
        return
    with pytest.raises(OSError, match="connection is read-only"):
        first.send("back")
    with pytest.raises(OSError, match="connection is read-only"):
        first.send_bytes(b"back")
    for receive in (second.recv, second.recv_bytes, second.poll):
        with pytest.raises(OSError, match="connection is write-only"):
            receive()
    with pytest.raises(OSError, match="connection is write-only"):
        second.recv_bytes_into(bytearray(1))


@transports
@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ((), b"0123456789"),
        ((3,), b"3456789"),
        ((3, 4), b"3456"),
        ((10,), b""),
        ((0, 0), b""),
        ((0, 10), b"0123456789"),
    ],
)
def test_send_bytes_part(pipe: Make, arguments: tuple[int, ...], expected: bytes) -> None:
    """send_bytes sends the part that offset and size name."""
    receiver, sender = pipe(False)
    sender.send_bytes(bytearray(b"0123456789"), *arguments)

    assert expected == receiver.recv_bytes()


@transports
@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ((-1,), "offset is negative"),
        ((11,), "buffer length < offset"),
        ((0, -1), "size is negative"),
        ((0, 11), r"buffer length < offset \+ size"),
        ((8, 3), r"buffer length < offset \+ size"),
    ],
)
def test_send_bytes_refuses(pipe: Make, arguments: tuple[int, ...], text: str) -> None:
    """A part outside the buffer is refused, and nothing is sent."""
    receiver, sender = pipe(False)
    with pytest.raises(ValueError, match=text):
        sender.send_bytes(b"0123456789", *arguments)

    assert not receiver.poll()


@transports
def test_send_bytes_takes_bytes_like_only(pipe: Make) -> None:
    """A str has no bytes; wider arrays are sent as their bytes."""
    receiver, sender = pipe(False)
    with pytest.raises(TypeError):
        sender.send_bytes("text")
    numbers = array.array("I", range(5))
    sender.send_bytes(numbers)

    assert numbers.tobytes() == receiver.recv_bytes()


@transports
def test_recv_bytes_into(pipe: Make) -> None:
    """recv_bytes_into fills the buffer from the offset and returns the length."""
    receiver, sender = pipe(False)
    buffer = bytearray(10)
    sender.send_bytes(b"hello")
    assert 5 == receiver.recv_bytes_into(buffer)
    sender.send_bytes(b"bye")
    assert 3 == receiver.recv_bytes_into(buffer, 7)
    assert b"hello\0\0bye" == bytes(buffer)

    numbers = array.array("i", [0] * 4)
    sender.send_bytes(array.array("i", [7, 8]))
    assert 2 * numbers.itemsize == receiver.recv_bytes_into(numbers, 2 * numbers.itemsize)
    assert [0, 0, 7, 8] == list(numbers)


@transports
def test_recv_bytes_into_refuses(pipe: Make) -> None:
    """Offsets outside the buffer are refused before anything is received."""
    receiver, sender = pipe(False)
    sender.send_bytes(b"kept")
    with pytest.raises(ValueError, match="negative offset"):
        receiver.recv_bytes_into(bytearray(4), -1)
    with pytest.raises(ValueError, match="offset too large"):
        receiver.recv_bytes_into(bytearray(4), 5)

    assert b"kept" == receiver.recv_bytes()


@transports
@pytest.mark.parametrize("size", [5, 64 * KIB, MIB])
def test_buffer_too_short(library: Any, pipe: Make, size: int) -> None:
    """BufferTooShort carries the whole message, and the connection goes on."""
    receiver, sender = pipe(False)
    message = b"m" * size
    writer = threading.Thread(target=sender.send_bytes, args=(message,))
    writer.start()
    buffer = bytearray(4)
    with pytest.raises(library.BufferTooShort) as caught:
        receiver.recv_bytes_into(buffer, 1)
    writer.join()

    assert (message,) == caught.value.args
    assert isinstance(caught.value, library.ProcessError)
    sender.send_bytes(b"ok")
    assert b"ok" == receiver.recv_bytes()


@transports
def test_maxlength(pipe: Make) -> None:
    """A message up to maxlength is received; negative limits are refused."""
    receiver, sender = pipe(False)
    sender.send_bytes(b"12345")
    with pytest.raises(ValueError, match="negative maxlength"):
        receiver.recv_bytes(-1)
    assert b"12345" == receiver.recv_bytes(5)
    sender.send_bytes(b"")
    assert b"" == receiver.recv_bytes(0)


@transports
def test_longer_than_maxlength_ends_a_one_way_connection(pipe: Make) -> None:
    """After a message that is too long, a read-only connection is closed."""
    receiver, sender = pipe(False)
    sender.send_bytes(b"123456")
    with pytest.raises(OSError, match="bad message length"):
        receiver.recv_bytes(5)

    assert receiver.closed


@transports
def test_longer_than_maxlength_ends_reading_of_a_duplex_one(pipe: Make) -> None:
    """After a message that is too long, a duplex connection can only be written."""
    here, there = pipe()
    there.send_bytes(b"123456")
    with pytest.raises(OSError, match="bad message length"):
        here.recv_bytes(5)

    assert (False, False, True) == (here.closed, here.readable, here.writable)
    here.send("still")
    assert "still" == there.recv()
    with pytest.raises(OSError, match="connection is write-only"):
        here.recv()


@transports
@pytest.mark.parametrize("duplex", [True, False])
def test_end_of_file(pipe: Make, duplex: bool) -> None:
    """What was sent before the close is received; then EOFError, again and again."""
    receiver, sender = pipe(duplex)
    sender.send("last words")
    sender.close()

    assert receiver.poll()
    assert "last words" == receiver.recv()
    for _ in range(2):
        assert receiver.poll() is True
        for receive in (receiver.recv, receiver.recv_bytes):
            with pytest.raises(EOFError):
                receive()
        with pytest.raises(EOFError):
            receiver.recv_bytes_into(bytearray(1))


@transports
@pytest.mark.parametrize("duplex", [True, False])
def test_broken_pipe(pipe: Make, duplex: bool) -> None:
    """Sending to a closed other end is an error, and no signal."""
    receiver, sender = pipe(duplex)
    receiver.close()
    with pytest.raises((BrokenPipeError, ConnectionResetError)):
        sender.send("to nobody")


@transports
def test_large_message_to_a_closing_receiver(pipe: Make) -> None:
    """A sender that waits for room learns that the receiver has gone."""
    receiver, sender = pipe(False)
    sender.send_bytes(b"first")
    failures: list[BaseException] = []

    def send() -> None:
        try:
            sender.send_bytes(bytes(4 * MIB))
        except OSError as error:
            failures.append(error)

    writer = threading.Thread(target=send)
    writer.start()
    assert b"first" == receiver.recv_bytes()
    receiver.close()
    writer.join(DEADLINE)

    assert not writer.is_alive()
    assert isinstance(failures[0], (BrokenPipeError, ConnectionResetError))


@transports
def test_poll(pipe: Make) -> None:
    """poll tells without waiting, waits up to its timeout, and eats nothing."""
    receiver, sender = pipe(False)
    assert receiver.poll() is False
    assert receiver.poll(0) is False
    assert receiver.poll(0.01) is False
    assert receiver.poll(-1) is False
    sender.send_bytes(b"")
    for timeout in (0, 0.0, 1, None):
        assert receiver.poll(timeout) is True
    assert b"" == receiver.recv_bytes()
    assert receiver.poll() is False


@transports
def test_poll_sees_each_of_several_messages(pipe: Make) -> None:
    """A message that waits behind another is seen once the first was taken."""
    receiver, sender = pipe(False)
    for number in range(20):
        sender.send(number)
    for number in range(20):
        assert receiver.poll()
        assert number == receiver.recv()

    assert not receiver.poll()


@transports
def test_closed_connection_refuses(pipe: Make) -> None:
    """Every use of a closed connection is an OSError; closing again is no error."""
    here, _ = pipe()
    assert isinstance(here.fileno(), int)
    assert here.closed is False
    here.close()
    here.close()

    assert here.closed is True
    for use in (here.recv, here.recv_bytes, here.poll, here.fileno, lambda: here.send(1)):
        with pytest.raises(OSError, match="handle is closed"):
            use()


@transports
def test_context_manager_closes(pipe: Make) -> None:
    """``with`` gives the connection itself and closes it."""
    here, _ = pipe()
    with here as entered:
        assert here is entered

    assert here.closed


@transports
def test_garbage_is_closed(ctx: Any) -> None:
    """Dropping an end without closing it closes it; the other side sees the end."""
    here, there = ctx.Pipe()
    del there
    with pytest.raises(EOFError):
        here.recv()
    here.close()


@transports
def test_pickling_error_is_the_callers(pipe: Make) -> None:
    """What cannot be pickled raises in send and nothing is sent."""
    receiver, sender = pipe(False)
    with pytest.raises(TypeError, match="cannot pickle Unpicklable"):
        sender.send(payloads.Unpicklable())
    with pytest.raises((AttributeError, pickle.PicklingError)):
        sender.send(lambda: None)

    assert not receiver.poll()


@transports
def test_unpickling_error_is_the_receivers(pipe: Make) -> None:
    """What cannot be unpickled raises in recv; the next message is received."""
    receiver, sender = pipe(False)
    sender.send(payloads.FailsToUnpickle())
    sender.send("next")
    with pytest.raises(ArithmeticError, match="cannot unpickle"):
        receiver.recv()

    assert "next" == receiver.recv()


@transports
def test_repr_and_hash(pipe: Make) -> None:
    """Connections are told apart and can be keys."""
    here, there = pipe()

    assert 2 == len({here, there})
    assert "Connection" in repr(here)
