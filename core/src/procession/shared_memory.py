"""Shared memory, with a name or without, and what is made of it: lists and arrays.

*With a name* it is as in the standard library, and the same memory: either side attaches
what the other has created. *Without a name* (`AnonymousMemory`, `shared_array`) it is sent
to other processes, and gone with the last of them that has it, however they end.
"""

from __future__ import annotations

import os
from binascii import hexlify
from operator import index as to_index

from procession._ground import standard as _standard
from procession._memory import list_layout, named_memory
from procession._memory.abandoned_memory import remove_abandoned
from procession._memory.memory_errors import explain
from procession._memory.shared_map import SharedMap, map_file

TYPE_CHECKING = False  # importing typing would bring `re` and more into every child
if TYPE_CHECKING:
    import mmap
    from collections.abc import Callable, Iterable, Iterator
    from types import GenericAlias
    from typing import Any, Self

    from procession._memory.abandoned_memory import Lease
    from procession._memory.list_layout import Item
    from procession._memory.shared_array import SharedArray

__all__ = ["SharedMemory", "ShareableList", "AnonymousMemory", "shared_array", "remove_abandoned"]

_PREFIX = "psm_"
_RANDOM_BYTES = 4


class SharedMemory:
    """Memory with a name, by which any process of the host finds it.

    It is created (``create=True``, of *size* bytes, all zero) or attached. Without *name*
    it is created under a name of its own. All its pages are reserved then: a full
    ``/dev/shm`` is a `procession.errors.ResourceError` (an `OSError`) that says so, and
    never a SIGBUS later.

    `close` ends this use of it, `unlink` removes the name, once for all. With *track* the
    name is removed also when everybody who could do so was killed, but not while a
    process that has tracked it uses it; see docs/explanation/shared-memory. Without
    *track*, it stays until it is unlinked.

    Threads: any. Fork: the child has it open, too. Pickling sends the name.

    Raises `ValueError` for a name that is missing and a size that cannot be,
    `FileExistsError` and `FileNotFoundError`.
    """

    _memory: mmap.mmap | None = None
    _buf: memoryview | None = None
    _lease: Lease | None = None

    def __init__(
        self, name: str | None = None, create: bool = False, size: int = 0, *, track: bool = True
    ) -> None:
        if create:
            check_new_size(size)
        elif not size >= 0:
            raise ValueError("'size' must be a positive integer")
        if name is None and not create:
            raise ValueError("'name' can only be None if create=True")
        self._track = track
        if create:
            self._name, fd, self._lease = create_segment(name, size, track)
        else:
            self._name = "/" + (name or "")
            fd, self._lease = named_memory.attach(self.name, track=track)
        try:
            self._size = os.fstat(fd).st_size
            self._memory = map_file(fd, self._size)
        except BaseException as error:
            self.close()
            if create:
                self.unlink()
            if isinstance(error, OSError):
                raise explain(error, f"cannot map shared memory {self.name!r}") from error
            raise
        finally:
            os.close(fd)
        self._buf = memoryview(self._memory)

    @property
    def buf(self) -> memoryview | None:
        """The memory; None after `close`."""
        return self._buf

    @property
    def name(self) -> str:
        """The name, by which others attach it."""
        return self._name[1:]

    @property
    def size(self) -> int:
        """The size in bytes."""
        return self._size

    def close(self) -> None:
        """End this use of the memory. Idempotent; the name stays.

        Raises `BufferError` while views of `buf` exist; nothing has changed then.
        """
        memory, view = self._memory, self._buf
        if view is not None:
            self._buf = None
            view.release()
        if memory is not None:
            try:
                memory.close()
            except BufferError:
                self._buf = memoryview(memory)
                raise
            self._memory = None
        if self._lease is not None:
            self._lease.end()

    def unlink(self) -> None:
        """Remove the name; who has the memory keeps it. Raises `FileNotFoundError`."""
        named_memory.unlink(self.name)
        if _standard.is_loaded():
            from procession._standard import state as _standard_state

            _standard_state.forget_segment(self.name)

    def __del__(self) -> None:
        """End this use. What views there are stay valid: they keep the mapping."""
        if self._lease is not None:
            self._lease.end()

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle as the name."""
        return _reattach, (type(self), self.name, self._track)

    def __repr__(self) -> str:
        """Return the class, the name and the size."""
        return f"{type(self).__name__}({self.name!r}, size={self.size})"


def check_new_size(size: int) -> None:
    """Raise `ValueError` if no memory of *size* bytes can be made, as the standard library."""
    if not size >= 0:
        raise ValueError("'size' must be a positive integer")
    if size == 0:
        raise ValueError("'size' must be a positive number different from zero")


def create_segment(
    name: str | None, size: int, track: bool, mark: int | None = None
) -> tuple[str, int, Lease | None]:
    """Create a segment; return its name behind a ``/``, and as `named_memory.create`."""
    if name is not None:
        return "/" + name, *named_memory.create(name, size, track=track, mark=mark)
    while True:
        name = _PREFIX + hexlify(os.urandom(_RANDOM_BYTES)).decode()
        try:
            return f"/{name}", *named_memory.create(name, size, track=track, mark=mark)
        except FileExistsError:
            continue


def _reattach(kind: type[SharedMemory], name: str, track: bool) -> SharedMemory:
    return kind(name, track=track)


class AnonymousMemory:
    """Memory without a name: processes have it by being sent it.

    It is *size* bytes long, all zero and all reserved. As an argument of a process, on
    every start method, or sent through a connection or queue of the same host, it is the
    same memory there. It goes when nobody has it any more, whoever was killed; there is
    nothing to unlink, and the size of ``/dev/shm`` does not limit it.

    Threads: any. Fork: the child has it, too. A context manager, which closes it.

    Raises `ValueError` for a size below one and `procession.errors.ResourceError` (an
    `OSError`) when memory or descriptors have run out.
    """

    def __init__(self, size: int) -> None:
        size = to_index(size)
        if size < 1:
            raise ValueError(f"size must be a positive number of bytes, not {size}")
        self._set(SharedMap(size))

    @classmethod
    def _over(cls, map: SharedMap) -> Self:
        self = cls.__new__(cls)
        self._set(map)
        return self

    def _set(self, map: SharedMap) -> None:
        self._size = map.size
        self._map: SharedMap | None = map
        self._buf: memoryview | None = memoryview(map.memory)

    @property
    def buf(self) -> memoryview | None:
        """The memory; None after `close`."""
        return self._buf

    @property
    def size(self) -> int:
        """The size in bytes."""
        return self._size

    def close(self) -> None:
        """Let go of the memory here. Idempotent; views of `buf` stay valid, and keep it."""
        self._map = self._buf = None

    def __enter__(self) -> Self:
        """Return the object itself."""
        return self

    def __exit__(self, *error: object) -> None:
        """Close it."""
        self.close()

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle for another process of this host. Raises `ValueError` when closed."""
        if self._map is None:
            raise ValueError(f"{self!r} cannot be sent any more")
        return _have, (self._map,) if type(self) is AnonymousMemory else (self._map, type(self))

    def __repr__(self) -> str:
        """Return the class, the size and whether it was closed."""
        state = " closed" if self._map is None else ""
        return f"<{type(self).__name__} size={self._size}{state}>"


def _have(map: SharedMap, kind: type[AnonymousMemory] | None = None) -> AnonymousMemory:
    return (kind or AnonymousMemory)._over(map)


class ShareableList:
    """A list of fixed length in named shared memory: numbers, strings, bytes and None.

    ``ShareableList(sequence)`` makes one, under *name* if given; ``ShareableList(name=...)``
    attaches the one of that name, also the standard library's. Items can be replaced, by
    items of other types, too; a string or bytes by one that fits into the room of the
    first. Zero bytes at the end of strings and bytes are lost. Nothing is locked.

    `shm` is its memory: close that, and unlink it when nobody needs it any more. Pickling
    sends the name.

    Raises `KeyError` for an item of another type, `struct.error` for a number of more than
    64 bits, and like `SharedMemory`.
    """

    def __init__(self, sequence: Iterable[Item] | None = None, *, name: str | None = None) -> None:
        if sequence is None and name is not None:
            self.shm = SharedMemory(name)
            return
        content = list_layout.pack([] if sequence is None else list(sequence))
        self._fill(SharedMemory(name, create=True, size=len(content)), content)

    @classmethod
    def _made_by(
        cls, create_memory: Callable[[int], SharedMemory], sequence: Iterable[Item]
    ) -> Self:
        """Return a list in memory that *create_memory* makes, given the size."""
        self = cls.__new__(cls)
        content = list_layout.pack(list(sequence))
        self._fill(create_memory(len(content)), content)
        return self

    def _fill(self, memory: SharedMemory, content: bytes | bytearray) -> None:
        self.shm = memory
        self._view()[: len(content)] = content

    def _view(self) -> memoryview:
        view = self.shm.buf
        if view is None:
            raise ValueError(f"the memory of this list, {self.shm!r}, is closed")
        return view

    def _position(self, position: int, failure: str) -> int:
        length = len(self)
        place = to_index(position)
        if place < 0:
            place += length
        if not 0 <= place < length:
            raise IndexError(failure)
        return place

    def __len__(self) -> int:
        """Return the number of items."""
        return list_layout.count(self._view())

    def __getitem__(self, position: int) -> Item:
        """Return the item at *position*. Raises `IndexError`."""
        place = self._position(position, "index out of range")
        return list_layout.get(self._view(), place)

    def __setitem__(self, position: int, value: Item) -> None:
        """Replace the item at *position*.

        Raises `IndexError`, `ValueError` for a string that is longer than the place, and
        like the constructor.
        """
        place = self._position(position, "assignment index out of range")
        list_layout.set(self._view(), place, value)

    def __iter__(self) -> Iterator[Item]:
        """Yield the items."""
        for position in range(len(self)):
            yield self[position]

    def count(self, value: object) -> int:
        """Return how many items are equal to *value*."""
        return sum(value == item for item in self)

    def index(self, value: object) -> int:
        """Return the position of the first item that is equal to *value*; `ValueError`."""
        for position, item in enumerate(self):
            if value == item:
                return position
        raise ValueError(f"{value!r} not in this container")

    @property
    def format(self) -> str:
        """The formats of the items in `struct`, one after the other."""
        view = self._view()
        return "".join(list_layout.get_format(view, place) for place in range(len(self)))

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle as the name."""
        return _reattach_list, (type(self), self.shm.name)

    def __repr__(self) -> str:
        """Return the class, the items and the name."""
        return f"{type(self).__name__}({list(self)}, name={self.shm.name!r})"

    @classmethod
    def __class_getitem__(cls, item: Any, /) -> GenericAlias:
        """Return ``ShareableList[item]``, for annotations."""
        from types import GenericAlias

        return GenericAlias(cls, item)


def _reattach_list(kind: type[ShareableList], name: str) -> ShareableList:
    return kind(name=name)


def shared_array(shape: int | tuple[int, ...], dtype: Any = float) -> SharedArray:
    """Return a new numpy array in shared memory, all zero.

    Sent to another process, as an argument or through a connection or queue of the same
    host, it is the same memory there, and so is every view of it, such as a slice. Nothing
    has to be closed: the memory goes when nobody looks at it any more, whoever was killed.
    What is computed from it is an ordinary array.

    Raises `ImportError` without numpy, `TypeError` for a *dtype* of Python objects, which
    cannot be shared, `ValueError` for a negative length, and
    `procession.errors.ResourceError` (an `OSError`) when memory has run out.
    """
    try:
        from procession._memory import shared_array as _shared_array
    except ImportError as error:
        raise ImportError(
            f"shared arrays are numpy's, and it cannot be imported: {error}; pip install numpy, "
            f"or use procession.RawArray"
        ) from error
    return _shared_array.new(shape, dtype)
