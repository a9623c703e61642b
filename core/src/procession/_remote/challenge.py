"""The handshake of a connection's two sides, for programs that carry it out themselves."""

from __future__ import annotations

from procession._remote.handshake import accepts_md5, answer, carry_out, deliver

TYPE_CHECKING = False  # importing typing would bring `re` and more into every child
if TYPE_CHECKING:
    from procession._remote.handshake import Messenger


def deliver_challenge(
    connection: Messenger, authkey: bytes, *, accept_md5: bool | None = None
) -> None:
    """Find out whether the other side of *connection* knows *authkey*; it must answer.

    `Listener` and `Client` do so by themselves. *accept_md5* as for `Listener`. Raises
    `procession.AuthenticationError` when it does not, `ValueError` for a key that is not
    bytes, and what receiving raises. Waits as long as the connection does.
    """
    _check_key(authkey)
    md5 = accepts_md5(accept_md5)
    carry_out(deliver(bytes(authkey), md5=md5), connection)


def answer_challenge(
    connection: Messenger, authkey: bytes, *, accept_md5: bool | None = None
) -> None:
    """Prove to the other side of *connection*, which delivers a challenge, to know *authkey*.

    Raises like `deliver_challenge`.
    """
    _check_key(authkey)
    md5 = accepts_md5(accept_md5)
    carry_out(answer(bytes(authkey), md5=md5), connection)


def _check_key(authkey: object) -> None:
    if not isinstance(authkey, bytes):
        raise ValueError(f"Authkey must be bytes, not {type(authkey)}")
