"""How the two sides of a connection prove to each other that they know one key.

Each side in turn *delivers a challenge*: it sends random bytes, and the other answers with
their HMAC under the key; the key itself never travels. It is multiprocessing's protocol, so
that either side may be the standard library: its challenges say since 3.12 which digest they
ask for (``{sha256}`` in front), and before that are answered with HMAC-MD5, as a whole.

There is no I/O here. A side is a generator of steps: it yields the bytes of a message to
send, or None to be sent the next message that was received, and raises
`AuthenticationError` when the other side has failed.
"""

from __future__ import annotations

import hmac
import os

from procession.errors import AuthenticationError

TYPE_CHECKING = False  # importing typing would bring `re` and more into every child
if TYPE_CHECKING:
    from collections.abc import Generator
    from typing import Protocol, TypeAlias

    class Messenger(Protocol):
        """What a challenge is carried out over: a connection, also multiprocessing's."""

        def send_bytes(self, buf: bytes, /) -> None:
            """Send a message."""
            ...

        def recv_bytes(self, maxlength: int, /) -> bytes:
            """Receive a message of at most *maxlength* bytes."""
            ...


#: What a side does: bytes to send, or None for the next message.
Steps: TypeAlias = "Generator[bytes | None, bytes | None, None]"

#: No message of a handshake is longer.
LONGEST = 256
#: The environment variable that refuses HMAC-MD5 where the program does not say.
MD5_VARIABLE = "PROCESSION_ACCEPT_MD5"

_CHALLENGE = b"#CHALLENGE#"
_WELCOME = b"#WELCOME#"
_FAILURE = b"#FAILURE#"
_DIGEST = b"sha256"
_NONCE = 40
#: The challenges of before 3.12 have no digest in front and one of these lengths.
_OLD_CHALLENGES = (16, 20)
_SHORTEST_CHALLENGE = 20
#: The digests that can be asked for, and how long they are.
_LENGTHS = {b"md5": 16, b"sha256": 32, b"sha384": 48, b"sha3_256": 32, b"sha3_384": 48}


def deliver(key: bytes, *, md5: bool) -> Steps:
    """Challenge the other side; *md5*: whether it may answer as before Python 3.12."""
    challenge = _new_challenge()
    yield _CHALLENGE + challenge
    yield from _judge(key, challenge, md5)


def answer(key: bytes, *, md5: bool) -> Steps:
    """Answer the other side's challenge; *md5*: also one of before Python 3.12."""
    yield _response(key, (yield None) or b"", md5)
    _expect_welcome((yield None))


def accepting(key: bytes, *, md5: bool) -> Steps:
    """Be the side that was connected to: challenge, then answer."""
    yield from deliver(key, md5=md5)
    yield from answer(key, md5=md5)


def connecting(key: bytes, *, md5: bool) -> Steps:
    """Be the side that has connected: answer, then challenge.

    The challenge, which depends on nothing, goes along with the answer. That saves waiting
    for one message, and the other side finds the same bytes in the same order.
    """
    yield _response(key, (yield None) or b"", md5)
    challenge = _new_challenge()
    yield _CHALLENGE + challenge
    _expect_welcome((yield None))
    yield from _judge(key, challenge, md5)


def welcoming() -> Steps:
    """Be the side that was connected to, and has checked the other by other means."""
    yield _WELCOME


def welcomed() -> Steps:
    """Be the side that has connected, and learn whether the other side's check has let it in."""
    message = yield None
    if message != _WELCOME:
        raise AuthenticationError(
            f"Protocol error, expected welcome: the other side has sent {(message or b'')[:40]!r}. "
            f"Does it have an authkey?"
        )


def carry_out(steps: Steps, connection: Messenger) -> None:
    """Take *steps* over *connection*, waiting as long as that does."""
    received = None
    while True:
        try:
            message = steps.send(received)
        except StopIteration:
            return
        received = None
        if message is None:
            received = connection.recv_bytes(LONGEST)
        else:
            connection.send_bytes(message)


def accepts_md5(choice: bool | None) -> bool:
    """Return *choice*, or what the environment says if it is None; True if nobody does."""
    if choice is not None:
        return choice
    setting = os.environ.get(MD5_VARIABLE, "1")
    if setting not in ("0", "1"):
        raise ValueError(f"{MD5_VARIABLE} is {setting!r} in the environment; it may be 0 or 1")
    return setting == "1"


def _new_challenge() -> bytes:
    return b"{" + _DIGEST + b"}" + os.urandom(_NONCE)


def _judge(key: bytes, challenge: bytes, md5: bool) -> Steps:
    """Receive the answer to *challenge*, and say whether it is right."""
    answer = yield None
    wrong = _wrong(key, challenge, answer or b"", md5)
    if wrong is not None:
        yield _FAILURE
        raise AuthenticationError(wrong)
    yield _WELCOME


def _response(key: bytes, message: bytes, md5: bool) -> bytes:
    """Return the answer to *message*, which has to be a challenge."""
    if not message.startswith(_CHALLENGE):
        raise AuthenticationError(
            f"Protocol error, expected challenge: the other side has sent {message[:40]!r}. "
            f"Does it have no authkey, or is it something else that listens there?"
        )
    challenge = message[len(_CHALLENGE) :]
    digest, nonce = _split(challenge)
    if digest is None:
        if len(challenge) not in _OLD_CHALLENGES:
            raise AuthenticationError(
                f"unsupported message length, missing digest prefix, or unsupported digest: the "
                f"challenge is {challenge[:40]!r}"
            )
        digest = b"md5"
    elif len(nonce) < _SHORTEST_CHALLENGE:
        raise AuthenticationError(f"challenge too short: {len(nonce)} bytes")
    if digest == b"md5" and not md5:
        raise AuthenticationError(
            f"the other side asks for HMAC-MD5, as Python before 3.12 does, and that is refused "
            f"here (accept_md5, or {MD5_VARIABLE} in the environment)"
        )
    signature = _sign(key, challenge, digest)
    return signature if challenge == nonce else b"{" + digest + b"}" + signature


def _expect_welcome(verdict: bytes | None) -> None:
    if verdict != _WELCOME:
        raise AuthenticationError("digest sent was rejected: the two sides differ in authkey")


def _split(text: bytes) -> tuple[bytes | None, bytes]:
    """Divide ``{digest}rest``; None for the digest if there is no known one in front."""
    name, brace, rest = text[1:].partition(b"}")
    if text.startswith(b"{") and brace and name in _LENGTHS:
        return name, rest
    return None, text


def _wrong(key: bytes, challenge: bytes, answer: bytes, md5: bool) -> str | None:
    """Return what is wrong with *answer*, or None."""
    digest, signature = _split(answer)
    if digest is None:
        if len(answer) != _LENGTHS[b"md5"]:
            return (
                f"digest received was wrong: unsupported message length, missing digest prefix, "
                f"or unsupported digest: {answer[:40]!r}"
            )
        digest = b"md5"
    if digest == b"md5" and not md5:
        return (
            f"digest received was wrong: it is HMAC-MD5, as of Python before 3.12, which is "
            f"refused here (accept_md5, or {MD5_VARIABLE} in the environment)"
        )
    if not hmac.compare_digest(_sign(key, challenge, digest), signature):
        return "digest received was wrong: the two sides differ in authkey"
    return None


def _sign(key: bytes, challenge: bytes, digest: bytes) -> bytes:
    try:
        return hmac.digest(key, challenge, digest.decode())
    except ValueError as error:
        raise AuthenticationError(
            f"this Python has no {digest.decode()}, which the other side asks for"
        ) from error
