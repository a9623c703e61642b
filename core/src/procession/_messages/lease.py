"""Blocks of a program in which an object is looked at, or filled, where it lies in memory
that a queue or a connection lends."""

from __future__ import annotations

from math import prod
from weakref import ref

from procession._messages.pickling import SHORTEST_BUFFER, loads

TYPE_CHECKING = False  # importing typing would bring `re` and more into every child
if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType
    from typing import Any, Self, TypeAlias

    from procession._contracts.channel import Message

    #: Returns memory of so many bytes, or None if there is none to lend.
    Reserve: TypeAlias = "Callable[[int], memoryview | None]"
    #: Puts, or sends, an array which was filled where it lies in this memory, if it lies there.
    PutFilled: TypeAlias = "Callable[[Any, memoryview | None], object]"


class Lease:
    """An object that was got, or received, for as long as it is needed: a context manager.

    `Queue.lease` and `Connection.lease` make it. The end of the block is the end of the lease,
    and an error if something still looks at the memory. Without a block the lease ends when it
    and its object are gone.

    Threads: any. Fork: the child looks at the memory, too, and the lease ends when both have
    let go of it.
    """

    __slots__ = ("_exporters", "_object", "_released")

    def __init__(self, message: Message) -> None:
        body, buffers = message
        exporters = {id(view.obj): view.obj for view in buffers if isinstance(view, memoryview)}
        self._exporters = [ref(each) for each in exporters.values() if hasattr(each, "hold")]
        self._object = loads(body, buffers)
        self._released = False

    @property
    def object(self) -> Any:
        """What was got. Raises `ValueError` after `release`."""
        if self._released:
            raise ValueError("the lease was released, and its object with it")
        return self._object

    @property
    def in_place(self) -> bool:
        """Whether the object lies in memory that was lent, and is no copy."""
        return bool(self._exporters)

    def release(self) -> None:
        """Let go of the object, so that its memory can be used again. Idempotent.

        Raises `BufferError` if something else still looks at the memory (an array or a view of
        one that was kept): the lease ends when that is gone.
        """
        self._released = True
        self._object = None
        if any(exporter() is not None for exporter in self._exporters):
            raise BufferError(
                "the lease cannot end yet: something still looks at the memory of its object. It "
                "ends when that is gone: del the names of arrays, and of views of them, before "
                "the end of the block, or copy what is to be kept"
            )

    def __enter__(self) -> Self:
        """Return the lease itself."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Release it. After an exception, what its traceback looks at is no error."""
        try:
            self.release()
        except BufferError:
            if error is None:
                raise

    def __repr__(self) -> str:
        """Return what it is a lease of."""
        if self._released:
            return f"<{type(self).__name__} released>"
        where = "in place" if self._exporters else "a copy"
        return f"<{type(self).__name__} of a {type(self._object).__name__}, {where}>"


class EmptyArray:
    """An array to be filled, and put or sent at the end of the block: a context manager.

    `Queue.put_empty` and `Connection.send_empty` make it.
    """

    __slots__ = ("_array", "_memory", "_put", "_reserve", "_shape", "_type")

    def __init__(self, reserve: Reserve, put: PutFilled, shape: Any, dtype: Any) -> None:
        import numpy

        self._reserve = reserve
        self._put = put
        self._type = numpy.dtype(dtype)
        if self._type.hasobject:
            raise TypeError(f"an array of {self._type} cannot be filled in place: its items are "
                            f"references")  # fmt: skip
        self._shape = (shape,) if isinstance(shape, int) else tuple(shape)
        if any(length < 0 for length in self._shape):
            raise ValueError(f"negative dimensions are not allowed: {shape}")
        self._memory: memoryview | None = None
        self._array: Any = None

    def __enter__(self) -> Any:
        """Return the array, of any content."""
        import numpy

        size = prod(self._shape) * self._type.itemsize
        if size >= SHORTEST_BUFFER:
            self._memory = self._reserve(size)
        if self._memory is None:
            self._array = numpy.empty(self._shape, self._type)
        else:
            self._array = numpy.ndarray(self._shape, self._type, self._memory)
        return self._array

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Put or send the array, if nothing was raised. It cannot be written to any more."""
        array, self._array = self._array, None
        memory, self._memory = self._memory, None
        if error is None:
            self._put(array, memory)
        array.flags.writeable = False
