"""What goes wrong with a connection: the final shape of its errors, and who says it."""

from __future__ import annotations

import errno

from procession.errors import (
    BrokenConnectionError,
    ConnectionClosedError,
    ConnectionDirectionError,
    EndOfConnectionError,
    MessageTooLongError,
    PeerDiedError,
)

TYPE_CHECKING = False  # importing typing would bring `re` and more into every child
if TYPE_CHECKING:
    from typing import NoReturn

    from procession._channels.twin import Twin
    from procession.connection import Connection


def refuse(connection: Connection, state: str) -> NoReturn:
    """Say why an operation is impossible: this end is closed, or of the other kind."""
    if connection.channel.closed:
        raise ConnectionClosedError(_why_closed(connection))
    raise ConnectionDirectionError(f"connection is {state}: {connection!r}")


def fail(
    connection: Connection, twin: Twin | None, error: OSError | EOFError, source: str
) -> NoReturn:
    """Give what the channel of *connection* has raised its final shape. Called while handling it.

    *source*: where the longest message that was asked for is from, if that is its `recv_limit`.
    """
    channel = connection.channel
    if isinstance(error, PeerDiedError):
        raise error
    if isinstance(error, EOFError | BrokenPipeError | ConnectionResetError):
        from procession._channels.twin import raise_for_dead

        raise_for_dead(twin, error)
    if isinstance(error, EOFError):
        raise EndOfConnectionError(
            f"the other end of {connection!r} was closed, and everything was received"
        ) from error
    if source and isinstance(error, MessageTooLongError):
        raise MessageTooLongError(f"{error}; {_how_to_raise(connection, source)}") from error
    if isinstance(error, BrokenConnectionError | MessageTooLongError):
        raise error
    if isinstance(error, BrokenPipeError | ConnectionResetError):
        raise BrokenConnectionError(
            error.errno, f"nobody can receive any more what {connection!r} sends"
        ) from error
    if channel.closed and error.errno == errno.EBADF:
        raise ConnectionClosedError(_why_closed(connection)) from error
    from procession._ground.resource_errors import explain

    explained = explain(error, f"cannot go on with {connection!r}")
    if explained is not None:
        raise explained from error
    raise error


def check_total(
    connection: Connection, source: str, length: int, maxlength: int | None = None
) -> None:
    """Raise `MessageTooLongError` for a message of *length* bytes in all that has come.

    At most *maxlength* were asked for. *source*: where the `recv_limit` of *connection* is from.
    """
    limit = connection.recv_limit
    if limit is not None and length > limit:
        raise MessageTooLongError(
            f"bad message length: {length} bytes have come and at most {limit} were asked "
            f"for; {_how_to_raise(connection, source)}"
        )
    if maxlength is not None and length > maxlength:
        raise MessageTooLongError(
            f"bad message length: {length} bytes have come and at most {maxlength} were asked for"
        )


def _how_to_raise(connection: Connection, source: str) -> str:
    return (
        f"recv_limit is {connection.recv_limit} ({source}); for longer ones set the "
        f"connection's recv_limit, give its listener or client one, or set "
        f"PROCESSION_RECV_LIMIT or recv-limit in [tool.procession]"
    )


def _why_closed(connection: Connection) -> str:
    if connection.channel.torn:
        return (
            f"handle is closed: its stream ended, or a signal handler raised in the middle "
            f"of a message through "
            f"{connection!r}, and nothing can follow a part of a message; make a new connection"
        )
    return f"handle is closed: {connection!r} was closed in this process"
