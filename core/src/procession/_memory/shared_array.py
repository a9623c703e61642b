"""Arrays of numpy in shared memory. The only module that imports numpy."""

from __future__ import annotations

import ctypes
from math import prod
from typing import TYPE_CHECKING, Any

import numpy

from procession._memory.heap import heap

if TYPE_CHECKING:
    from procession._memory.heap import Block


class SharedArray(numpy.ndarray[Any, Any]):
    """An array in a block of shared memory, or a view of a part of one.

    It is an array like any other. Pickled, it is a reference to the memory: the block and
    the place in it. An array that was computed from it is none (where numpy makes it one
    all the same, as ``copy`` does, it lies in memory of its own and is pickled as what it
    is), and neither is one that was made by ``numpy.asarray``.
    """

    #: The block that this array lies in, None for one that lies elsewhere.
    _shared_block: Block | None

    def __array_finalize__(self, made_from: Any, /) -> None:
        """Keep the block for a view; called by numpy for every new array of this class."""
        block = getattr(made_from, "_shared_block", None)
        self._shared_block = block if block is not None and _lies_in(self, block) else None

    def __array_wrap__(self, array: Any, context: Any = None, return_scalar: bool = False) -> Any:
        """Return what a function of numpy has computed as an ordinary array."""
        if array is self:  # it was the ``out`` argument
            return array
        plain = array.view(numpy.ndarray)
        return plain[()] if return_scalar and not plain.ndim else plain

    def __reduce_ex__(self, protocol: Any) -> Any:
        """Pickle as a reference to the memory that the array lies in."""
        block = self._shared_block
        if block is None:
            return self.view(numpy.ndarray).__reduce_ex__(protocol)
        offset = self.__array_interface__["data"][0] - _address(block)
        return _rebuild, (block, self.shape, self.dtype, self.strides, offset, self.flags.writeable)


def new(shape: int | tuple[int, ...], dtype: Any) -> SharedArray:
    """See `procession.shared_memory.shared_array`."""
    kind = numpy.dtype(dtype)
    if kind.hasobject:
        raise TypeError(f"an array of {kind} cannot be shared: its items are references")
    lengths = (shape,) if isinstance(shape, int) else tuple(shape)
    if any(length < 0 for length in lengths):
        raise ValueError(f"negative dimensions are not allowed: {shape}")
    return _build(heap.allocate(prod(lengths) * kind.itemsize), lengths, kind)


def _build(
    block: Block, shape: Any, dtype: Any, strides: Any = None, offset: int = 0
) -> SharedArray:
    # Any: numpy's stubs do not know that it takes whatever exports a buffer.
    exporter: Any = (ctypes.c_char * block.size).from_buffer(block.view())
    # Whatever numpy makes of it, a plain view included, has this at the end of its bases.
    exporter._shared_block = block
    array = SharedArray(shape, dtype, exporter, offset, strides)
    array._shared_block = block
    return array


def _rebuild(
    block: Block, shape: Any, dtype: Any, strides: Any, offset: int, writable: bool
) -> SharedArray:
    array = _build(block, shape, dtype, strides, offset)
    array.flags.writeable = writable
    return array


def _address(block: Block) -> int:
    return ctypes.addressof(ctypes.c_char.from_buffer(block.map.memory, block.start))


def _lies_in(array: SharedArray, block: Block) -> bool:
    start = array.__array_interface__["data"][0] - _address(block)
    return bool(0 <= start <= block.size)
