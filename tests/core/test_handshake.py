"""The handshake: both sides of it, one byte at a time, and against whatever may be sent."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from time import monotonic

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from procession import errors
from procession._remote import handshake as _handshake
from procession._remote.line import Handshake, Line, missing
from procession.connection import answer_challenge, deliver_challenge

KEY = b"the key"


class Script:
    """A connection whose other side has said everything beforehand."""

    def __init__(self, *messages: bytes) -> None:
        self.messages = list(messages)
        self.sent: list[bytes] = []

    def send_bytes(self, buf: bytes, /) -> None:
        """Keep it."""
        self.sent.append(buf)

    def recv_bytes(self, maxlength: int, /) -> bytes:
        """Return the next one."""
        assert maxlength == _handshake.LONGEST
        return self.messages.pop(0)


def converse(first: _handshake.Steps, second: _handshake.Steps) -> list[bytes]:
    """Let two sides talk to each other until both are through; return what was said."""
    said: list[bytes] = []
    inbox: dict[int, list[bytes]] = {0: [], 1: []}
    sides = [first, second]
    given: list[bytes | None] = [None, None]
    asks = [False, False]
    running = {0, 1}
    while running:
        for side in sorted(running):
            if asks[side]:
                if not inbox[side]:
                    continue
                given[side] = inbox[side].pop(0)
            try:
                step = sides[side].send(given[side])
            except StopIteration:
                running.discard(side)
                continue
            given[side] = None
            asks[side] = step is None
            if step is not None:
                said.append(step)
                inbox[1 - side].append(step)
    return said


def test_both_sides_agree_on_sha_256() -> None:
    """Two of ours never fall back to anything weaker."""
    said = converse(_handshake.accepting(KEY, md5=False), _handshake.connecting(KEY, md5=False))

    assert 6 == len(said)
    assert all(b"{sha256}" in each for each in said if each not in (b"#WELCOME#",))


def test_every_challenge_is_another() -> None:
    """A recorded answer is of no use."""
    challenges = {next(_handshake.deliver(KEY, md5=True)) for _ in range(100)}

    assert 100 == len(challenges)


@pytest.mark.parametrize("side", ["accepting", "connecting"])
def test_wrong_key(side: str) -> None:
    """Whoever has another key is told so, by name."""
    keys = {"accepting": KEY, "connecting": KEY, side: b"another"}
    with pytest.raises(errors.AuthenticationError, match=r"digest received was wrong.*authkey"):
        converse(
            _handshake.accepting(keys["accepting"], md5=True),
            _handshake.connecting(keys["connecting"], md5=True),
        )


def test_rejection_is_told_to_the_one_who_answers() -> None:
    """multiprocessing's text, which programs look for."""
    with pytest.raises(errors.AuthenticationError, match="digest sent was rejected"):
        answer_challenge(Script(b"#CHALLENGE#{sha256}" + b"1" * 40, b"#FAILURE#"), KEY)


def test_wrong_answer_is_told_before_we_give_up() -> None:
    """The other side need not guess why the connection ends."""
    script = Script(b"{sha256}" + b"0" * 32)
    with pytest.raises(errors.AuthenticationError, match="digest received was wrong"):
        deliver_challenge(script, KEY)

    assert b"#FAILURE#" == script.sent[-1]


@pytest.mark.parametrize(
    ("challenge", "says"),
    [
        (b"something bogus", "Protocol error, expected challenge"),
        (b"", "Protocol error, expected challenge"),
        (b"#CHALLENGE#", "unsupported message length"),
        (b"#CHALLENGE#" + b"1" * 50, "unsupported message length"),
        (b"#CHALLENGE#{sha512}" + b"1" * 40, "unsupported message length"),
        (b"#CHALLENGE#{sha256}" + b"1" * 10, "challenge too short: 10 bytes"),
    ],
)
def test_bad_challenges(challenge: bytes, says: str) -> None:
    """Nothing is signed that is not a challenge: a signature is what an attacker wants."""
    script = Script(challenge)
    with pytest.raises(errors.AuthenticationError, match=says):
        answer_challenge(script, KEY)

    assert [] == script.sent


@pytest.mark.parametrize("digest", ["sha256", "sha384", "sha3_256", "sha3_384"])
def test_digest_that_is_asked_for(digest: str) -> None:
    """The digests of multiprocessing are all understood."""
    script = Script(b"#CHALLENGE#{%s}" % digest.encode() + b"1" * 40, b"#WELCOME#")
    answer_challenge(script, KEY, accept_md5=False)

    assert script.sent[0].startswith(b"{%s}" % digest.encode())


def test_old_peers_and_how_to_refuse_them(monkeypatch: pytest.MonkeyPatch) -> None:
    """Before 3.12, 20 bytes are answered with a bare HMAC-MD5, unless somebody refuses."""
    script = Script(b"#CHALLENGE#" + b"1" * 20, b"#WELCOME#")
    answer_challenge(script, KEY)
    assert [16] == [len(each) for each in script.sent]

    refused = Script(b"#CHALLENGE#" + b"1" * 20, b"#WELCOME#")
    with pytest.raises(errors.AuthenticationError, match=r"HMAC-MD5.*PROCESSION_ACCEPT_MD5"):
        answer_challenge(refused, KEY, accept_md5=False)
    assert [] == refused.sent

    monkeypatch.setenv("PROCESSION_ACCEPT_MD5", "0")
    with pytest.raises(errors.AuthenticationError, match="HMAC-MD5"):
        answer_challenge(Script(b"#CHALLENGE#{md5}" + b"1" * 20), KEY)
    with pytest.raises(errors.AuthenticationError, match="HMAC-MD5"):
        deliver_challenge(Script(b"1" * 16), KEY)
    monkeypatch.setenv("PROCESSION_ACCEPT_MD5", "no")
    with pytest.raises(ValueError, match="it may be 0 or 1"):
        deliver_challenge(Script(), KEY)


def test_keys_are_bytes() -> None:
    """A text has no one meaning as a key."""
    for function in (deliver_challenge, answer_challenge):
        with pytest.raises(ValueError, match="Authkey must be bytes, not <class 'str'>"):
            function(Script(), "key")  # type: ignore[arg-type]


@given(st.binary(max_size=300))
def test_no_answer_but_the_right_one_is_good(answer: bytes) -> None:
    """Whatever a stranger answers is an `AuthenticationError`, and nothing else."""
    with pytest.raises(errors.AuthenticationError):
        deliver_challenge(Script(answer), KEY)


@given(st.binary(max_size=60), st.binary(max_size=60))
def test_no_challenge_crashes_us(challenge: bytes, verdict: bytes) -> None:
    """Whatever a stranger asks is answered, or is an `AuthenticationError`."""
    for message in (challenge, b"#CHALLENGE#" + challenge, b"#CHALLENGE#{sha256}" + challenge):
        try:
            answer_challenge(Script(message, verdict), KEY)
        except errors.AuthenticationError:
            continue
        assert verdict == b"#WELCOME#"


@given(st.binary(max_size=400))
def test_lengths_are_bounded(data: bytes) -> None:
    """Never is more asked for than a handshake's message, whatever length is announced."""
    received = b""
    try:
        while want := missing(received):
            assert 0 < want <= _handshake.LONGEST
            more, data = data[:want], data[want:]
            if not more:
                return
            received += more
    except errors.AuthenticationError:
        assert len(received) == 4
    assert len(received) <= 4 + _handshake.LONGEST


@pytest.fixture
def ends() -> Iterator[tuple[socket.socket, socket.socket]]:
    """Two connected sockets."""
    first, second = socket.socketpair()
    with first, second:
        yield first, second


def test_one_byte_at_a_time(ends: tuple[socket.socket, socket.socket]) -> None:
    """However the stream is cut, it is the same handshake."""
    ours = Handshake(Line(ends[0], 60.0), _handshake.accepting(KEY, md5=True), None)
    theirs, relay = socket.socketpair()
    with relay:
        client = Handshake(Line(theirs, 60.0), _handshake.connecting(KEY, md5=True), None)
        ends[1].setblocking(False)
        relay.setblocking(False)
        done = [False, False]
        deadline = monotonic() + 30
        while not all(done):
            assert monotonic() < deadline
            for number, each in enumerate((ours, client)):
                done[number] = done[number] or each.advance()
            for source, target in ((ends[1], relay), (relay, ends[1])):
                try:
                    target.send(source.recv(1))
                except BlockingIOError:
                    continue
    client.close()


@settings(deadline=None)
@given(st.binary(max_size=600), st.booleans())
def test_garbage_ends_in_a_named_error(data: bytes, hangs_up: bool) -> None:
    """A stranger's bytes end the handshake by name or leave it waiting, and nothing else."""
    first, second = socket.socketpair()
    with first, second:
        handshake = Handshake(Line(first, 60.0), _handshake.accepting(KEY, md5=True), None)
        second.sendall(data)
        if hangs_up:
            second.shutdown(socket.SHUT_WR)
        try:
            assert not handshake.advance()
        except (errors.AuthenticationError, errors.EndOfConnectionError):
            assert -1 == handshake.line.fileno()
            return
        assert not hangs_up
        handshake.deadline = 0.0
        with pytest.raises(errors.HandshakeTimeoutError) as caught:
            handshake.check(monotonic())
        assert isinstance(caught.value, TimeoutError)


def test_nothing_beyond_the_handshake_is_taken(ends: tuple[socket.socket, socket.socket]) -> None:
    """A message sent right behind the handshake is there for the connection."""
    line = Line(ends[0], 60.0)
    ends[1].sendall(b"\0\0\0\3abc" + b"\0\0\0\2de")
    assert b"abc" == line.receive()
    channel = line.channel()
    assert b"de" == bytes(channel.receive()[0])
    channel.close()
