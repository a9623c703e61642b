"""What managers and their proxies say to each other.

It is multiprocessing's protocol, so that either side may be the standard library's. A
connection begins with one request ``(ignored, function, args, kwds)``. Most functions are
answered once, and the connection ends. After ``accept_connection`` it carries calls,
``(ident, method, args, kwds)``, each of which is answered by ``(kind, result)``.

The standard library ignores the first field of the request. Ours has `MARK` there: both
sides know then that the other is procession. A `session` can be opened, a connection that
the references of one process are tied to, and answers carry *tickets* (see
`procession._remote.referents`) and tracebacks.
"""

from __future__ import annotations

from functools import partial

import procession._ground.pickle_accelerator  # noqa: F401 - makes the next import a cheap one
from procession.errors import RemoteError

try:
    from _pickle import dumps as _dumps
    from _pickle import loads as _loads
except ImportError:  # an interpreter without the C accelerator
    from pickle import dumps as _dumps
    from pickle import loads as _loads

TYPE_CHECKING = False  # importing typing would bring `re` and more into every child
if TYPE_CHECKING:
    from typing import Any

    from procession._remote.address import Address

MARK = "procession 1"
PROTOCOL = 5

RETURN = "#RETURN"
ERROR = "#ERROR"
TRACEBACK = "#TRACEBACK"
UNSERIALIZABLE = "#UNSERIALIZABLE"
PROXY = "#PROXY"
#: Ours only: the pickle of an exception (or None) and its traceback as text.
RAISED = "#RAISED"


class Token:
    """Names one referent: its type, the address of its server, and which one it is there.

    *ticket* is good for one more reference, or None.
    """

    __slots__ = ("address", "id", "ticket", "typeid")

    def __init__(self, typeid: str, address: Address, id: str, ticket: str | None = None) -> None:
        self.typeid = typeid
        self.address = address
        self.id = id
        self.ticket = ticket

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle by its fields."""
        return Token, (self.typeid, self.address, self.id, self.ticket)

    def __repr__(self) -> str:
        """Return all but the ticket."""
        return f"Token(typeid={self.typeid!r}, address={self.address!r}, id={self.id!r})"


class PickleCodec:
    """Objects as pickles."""

    name = "pickle"
    #: The answer of a call that returns None, as every other call does: neither side makes
    #: it anew. A peer that pickles it otherwise is understood as well.
    nothing: bytes | None = _dumps((RETURN, None), PROTOCOL)

    #: Returns the pickle of an object, and the object of a pickle: no step in between.
    dumps = staticmethod(partial(_dumps, protocol=PROTOCOL))
    loads = staticmethod(_loads)


class XmlCodec:
    """Objects as XML-RPC values: no code of theirs runs, and few types can be had."""

    name = "xmlrpclib"
    nothing: bytes | None = None

    @staticmethod
    def dumps(obj: Any) -> bytes:
        """Return *obj* as the one parameter of a call; tuples become lists."""
        from xmlrpc import client

        return client.dumps((obj,), None, None, None, True).encode("utf-8")

    @staticmethod
    def loads(data: bytes | memoryview) -> Any:
        """Return what `dumps` was given."""
        from xmlrpc import client

        (obj,), _ = client.loads(bytes(data).decode("utf-8"))
        return obj


CODECS: dict[str, type[PickleCodec] | type[XmlCodec]] = {
    codec.name: codec for codec in (PickleCodec, XmlCodec)
}


class RemoteTraceback(Exception):
    """The cause of an exception that was raised in a server: its traceback there."""

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self.text = text

    def __str__(self) -> str:
        """Return the traceback, set off from the one around it."""
        return f'\n"""\n{self.text}"""'


def to_exception(kind: str, result: Any) -> BaseException:
    """Return the exception that an answer which is no result stands for."""
    if kind == ERROR and isinstance(result, BaseException):
        return result
    if kind == RAISED:
        return _raised(*result)
    if kind in (TRACEBACK, ERROR):
        return RemoteError(_framed(str(result)))
    if kind == UNSERIALIZABLE:
        return RemoteError(_framed(f"Unserializable message: {result}\n"))
    return ValueError(f"Unrecognized message type {kind!r}")


def _raised(pickled: bytes | None, text: str) -> BaseException:
    if pickled is None:
        return RemoteError(_framed(text))
    try:
        error: BaseException = _loads(pickled)
    except Exception as failure:
        # Its class is not importable here, or cannot be built from its own pickle.
        lost = RemoteError(_framed(text))
        lost.__cause__ = failure
        return lost
    error.__cause__ = RemoteTraceback(text)
    return error


def _framed(text: str) -> str:
    line = "-" * 75
    return f"\n{line}\n{text}{line}"
