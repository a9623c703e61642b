"""`TlsEngine`: bytes in, bytes out, and never a byte more than was asked for."""

from __future__ import annotations

import ssl
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from procession import errors
from procession._remote.tls_engine import TlsEngine
from procession.tls import Tls


@pytest.fixture(scope="module")
def contexts(certificates: Any) -> tuple[ssl.SSLContext, ssl.SSLContext]:
    """Those of a server and of a client that know each other."""
    tls: Tls = certificates.tls()
    return tls._context(server=True, authkey=None), tls._context(server=False, authkey=None)


def pair(contexts: tuple[ssl.SSLContext, ssl.SSLContext]) -> tuple[TlsEngine, TlsEngine]:
    """Two engines whose handshake is through."""
    server = TlsEngine(contexts[0], server=True, name=None, peer="client")
    client = TlsEngine(contexts[1], server=False, name="127.0.0.1", peer="server")
    done = [False, False]
    while not all(done):
        for index, (one, other) in enumerate(((client, server), (server, client))):
            done[index] = one.shake_hands()
            data = one.output()
            if data:
                other.feed(data)
    return server, client


@settings(max_examples=60, deadline=None)
@given(
    sizes=st.lists(st.integers(1, 70_000), min_size=1, max_size=4),
    cuts=st.lists(st.integers(1, 40_000), min_size=1, max_size=50),
)
def test_nothing_of_the_next_message_is_wanted(
    sizes: list[int], cuts: list[int], contexts: tuple[ssl.SSLContext, ssl.SSLContext]
) -> None:
    """However the stream is divided, a message ends with what was wanted for it."""
    server, client = pair(contexts)
    parts = [client.encrypt(bytes([number]) * size) for number, size in enumerate(sizes)]
    stream = b"".join(parts)
    position, turn, end = 0, 0, 0
    for number, size in enumerate(sizes):
        end += len(parts[number])
        view = memoryview(bytearray(size))
        rest = view
        while rest:
            count = server.decrypt_into(rest)
            rest = rest[count:]
            if rest and not count:
                wanted = min(server.wanted(len(rest)), cuts[turn % len(cuts)])
                turn += 1
                server.feed(stream[position : position + wanted])
                position += wanted
                assert position <= end
        assert bytes([number]) * size == view
        assert end == position
        assert not server.pending()


@settings(max_examples=60, deadline=None)
@given(data=st.binary(min_size=6, max_size=400))
def test_garbage_after_the_handshake(
    data: bytes, contexts: tuple[ssl.SSLContext, ssl.SSLContext]
) -> None:
    """It is a named error, or more is needed; never a message."""
    server, _ = pair(contexts)
    server.feed(data)
    view = memoryview(bytearray(10))
    try:
        assert 0 == server.decrypt_into(view)
    except (errors.BrokenConnectionError, errors.TlsError):
        return
    server.feed(b"")
    with pytest.raises((errors.BrokenConnectionError, errors.TlsError)):
        server.decrypt_into(view)


@settings(max_examples=40, deadline=None)
@given(position=st.integers(0, 10_000), flip=st.integers(1, 255))
def test_a_changed_byte(
    position: int, flip: int, contexts: tuple[ssl.SSLContext, ssl.SSLContext]
) -> None:
    """Wherever it is, nothing wrong is decrypted."""
    server, client = pair(contexts)
    stream = bytearray(client.encrypt(b"x" * 1000))
    stream[position % len(stream)] ^= flip
    server.feed(bytes(stream))
    server.feed(b"")
    with pytest.raises((errors.BrokenConnectionError, errors.TlsError)):
        server.decrypt_into(memoryview(bytearray(1000)))


def test_goodbye_is_an_end(contexts: tuple[ssl.SSLContext, ssl.SSLContext]) -> None:
    """And only that is."""
    server, client = pair(contexts)
    server.feed(client.encrypt(b"last") + client.say_goodbye())
    view = memoryview(bytearray(10))
    assert 4 == server.decrypt_into(view)
    with pytest.raises(EOFError):
        server.decrypt_into(view)
