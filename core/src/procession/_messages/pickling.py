"""Pickles as messages: a body, and the large buffers that stay where they are.

A buffer (of a numpy array, say) of some size is not copied into the pickle: it is
written from the memory it lies in, and received into memory of its own (pickle
protocol 5). A short one is cheaper inside.
"""

from __future__ import annotations

import sys

import procession._ground.pickle_accelerator  # noqa: F401 - makes the next import a cheap one
from procession._ground import standard as _standard
from procession._ground.handoff import Mark

try:
    from _pickle import PickleBuffer
    from _pickle import dumps as _dumps
    from _pickle import loads as _loads
except ImportError:  # an interpreter without the C accelerator
    from pickle import PickleBuffer
    from pickle import dumps as _dumps
    from pickle import loads as _loads

TYPE_CHECKING = False  # importing typing would bring `re` and more into every child
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Any, TypeAlias

    from procession._contracts.channel import Buffer
    from procession._ground.encoder import Encoder
    from procession._ground.unpicklable import Part
    from procession._messages.luggage import Departure

    #: A pickle and its buffers.
    Pickled: TypeAlias = tuple[bytes, list[memoryview]]

PROTOCOL = 5
#: A buffer shorter than this is copied into the body: below it that is cheaper (measured).
SHORTEST_BUFFER = 64 << 10

# What a pickle by `procession._messages.array_codec` has behind its protocol, and no other.
_ARRAY = b"("


class Buffers(list[memoryview]):
    """Collects the buffers of one pickle; calling it decides about one buffer.

    It is the ``buffer_callback`` of pickle's own ``dumps``.
    """

    __slots__ = ()

    def __call__(self, buffer: PickleBuffer) -> bool:
        """Take *buffer*, or answer True to have it copied into the pickle."""
        if _pack_array is None:
            _look_for_numpy()
        view = buffer.raw()
        if len(view) < SHORTEST_BUFFER:
            return True
        self.append(view)
        return False


class Watching(Buffers):
    """Looks for descriptors, too, which a message through this channel can take along."""

    __slots__ = ("departure",)

    def __init__(self) -> None:
        super().__init__()
        #: Those that there are, or None.
        self.departure: Departure | None = None

    def __call__(self, buffer: PickleBuffer) -> bool:
        """Take *buffer*, or answer True. Raises what packing an exportable raises."""
        mark = buffer.raw().obj
        if type(mark) is not Mark:
            return super().__call__(buffer)
        departure = self.departure
        if departure is None:
            from procession._messages.luggage import Departure

            departure = Departure()
        if not departure.pack(mark):
            return True
        self.departure = departure
        self.append(_LUGGAGE)
        return False

    def clear(self) -> None:
        """Begin anew."""
        super().clear()
        departure, self.departure = self.departure, None
        if departure is not None:
            departure.close()


# What stands between the buffers of a message where its luggage is.
_LUGGAGE = memoryview(b"")

# numpy's type of arrays, and `procession._messages.array_codec.pack`, once an array was seen.
_ndarray: type | None = None
_pack_array: Callable[[Any], Pickled | None] | None = None


def _look_for_numpy() -> None:
    """Learn what a numpy array is, if somebody has imported numpy."""
    global _ndarray, _pack_array
    ndarray = getattr(sys.modules.get("numpy"), "ndarray", None)
    if ndarray is not None:
        from procession._messages.array_codec import pack

        _ndarray, _pack_array = ndarray, pack


def _unpack_first_array(body: Buffer, buffers: Sequence[Buffer]) -> Any:
    global _unpack_array
    from procession._messages.array_codec import unpack

    _unpack_array = unpack
    return unpack(body, buffers)


_unpack_array: Callable[[Buffer, Sequence[Buffer]], Any] = _unpack_first_array


# What pickles one object; replaced once more is needed than the pickle module knows.
_encode: Callable[..., bytes] = _dumps


def follow_standard() -> None:
    """Use the reducers of `_messages.reducers` from now on: the standard package is loaded."""
    global _encode
    from procession._messages import reducers as _reducers

    _encode = _reducers.encode


def with_sockets(
    error: TypeError, obj: Any, buffers: Buffers, encoder: Encoder | None = None
) -> bytes:
    """Return the pickle of *obj*, if it was sockets in it that could not be pickled.

    Raises *error* if it was not. Only the first socket of a program comes this way, so that
    who sends none pays nothing.
    """
    buffers.clear()
    if _encode is not _dumps or "socket" not in sys.modules:
        raise error
    from procession._messages import reducers as _reducers

    try:
        body = _reducers.encode(obj, PROTOCOL, buffer_callback=buffers, encoder=encoder)
    except Exception:
        buffers.clear()
        raise error from None  # which has said it already
    follow_standard()
    return body


def _dumper_into(kind: type[Buffers]) -> Callable[[Any], Pickled]:
    """Return what pickles an object, with its buffers collected by a *kind*."""
    # Collectors that have collected nothing: most objects have no buffers, and to make a
    # collector for each is a tenth of a put. Taking one out is one step, so threads share them.
    idle: list[Buffers] = []

    def dumps(obj: Any) -> Pickled:
        if type(obj) is _ndarray and _pack_array is not None:
            packed = _pack_array(obj)
            if packed is not None:
                return packed
        buffers = idle.pop() if idle else kind()
        try:
            body = _encode(obj, PROTOCOL, buffer_callback=buffers)
        except TypeError as error:
            body = with_sockets(error, obj, buffers)
        except BaseException:
            buffers.clear()
            raise
        if buffers:
            return body, buffers
        idle.append(buffers)
        return body, []

    return dumps


#: Return the pickle of an object and its buffers, which are views of its own memory.
dumps = _dumper_into(Buffers)
#: As `dumps`; if there are descriptors in the object, the buffers are a `Watching` with them.
dumps_watching = _dumper_into(Watching)


def dumper(encoder: Encoder | None, carries: bool = False) -> Callable[[Any], Pickled]:
    """Return what pickles as `dumps` does, by *encoder* where that is not None.

    As `dumps_watching` does for a channel that *carries* descriptors.
    """
    if encoder is None:
        return dumps_watching if carries else dumps
    collector = Watching if carries else Buffers

    def dumps_by_encoder(obj: Any) -> Pickled:
        buffers = collector()
        try:
            if _encode is _dumps:
                body = encoder(obj, PROTOCOL, buffer_callback=buffers)
            else:
                body = _encode(obj, PROTOCOL, buffer_callback=buffers, encoder=encoder)
        except TypeError as error:
            body = with_sockets(error, obj, buffers, encoder)
        except BaseException:
            buffers.clear()
            raise
        return body, buffers

    return dumps_by_encoder


def explain(error: Exception, parts: Sequence[Part], encoder: Encoder | None) -> None:
    """Add to *error*, which pickling has raised, where in *parts* the culprit is."""
    try:
        from procession._ground import unpicklable
        from procession._messages import reducers as _reducers
    except (ImportError, OSError):  # no descriptor is to be had: the error alone must do
        return
    unpicklable.explain(error, parts, encoder, _reducers.reducers())


def loads(body: Buffer, buffers: Sequence[Buffer] = ()) -> Any:
    """Return the object; it is built on the memory of *buffers*, not on copies of it."""
    if body[2:3] == _ARRAY:
        return _unpack_array(body, buffers)
    if buffers:
        if type(buffers) is not list and hasattr(buffers, "unpickle"):
            return buffers.unpickle(body)
        return _loads(body, buffers=buffers)
    return _loads(body)


class _Joined:
    """Pickles as what `loads` makes of a body and its buffers."""

    __slots__ = ("_parts",)

    def __init__(self, body: Buffer, buffers: Sequence[Buffer]) -> None:
        # A bytearray each: the array built on it can be written to, as if it had been
        # received with its buffers.
        self._parts = bytes(body), [bytearray(buffer) for buffer in buffers]

    def __reduce__(self) -> tuple[Any, ...]:
        return loads, self._parts


def join(body: Buffer, buffers: Sequence[Buffer]) -> bytes:
    """Return one pickle of the same object, with its buffers inside.

    Nothing is unpickled for it: no code of the object runs, and its classes need not
    be importable here. Any unpickler can load it where procession is installed.
    """
    if hasattr(buffers, "join"):
        return _dumps(buffers.join(body), PROTOCOL)
    return _dumps(_Joined(body, buffers), PROTOCOL)


if _standard.followed:
    follow_standard()
