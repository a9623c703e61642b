"""Values and arrays of C types in memory that processes share.

`RawValue` and `RawArray` are plain ctypes objects; `Value` and `Array` come with a lock.
They are arguments of processes on every start method and, on the same host, can be sent
through connections and queues: it is the same memory everywhere. It lives as long as any
process has the object or a view of it, and no name in the file system stands for it.
"""

from __future__ import annotations

import copyreg
import ctypes
import sys
from weakref import WeakKeyDictionary

from procession._memory.heap import Block, heap

TYPE_CHECKING = False  # importing typing would bring `re` and more into every child
if TYPE_CHECKING:
    from typing import Any, Protocol, TypeAlias

    class Lock(Protocol):
        """What a lock has to have."""

        def acquire(self) -> Any:
            """Wait for the lock and take it."""

        def release(self) -> Any:
            """Give it back."""

        def __enter__(self) -> Any:
            """Wait for the lock and take it."""

        def __exit__(self, *error: Any) -> Any:
            """Give it back."""


# Any: what a ctypes object is like is decided by the caller's type, and types of C have a
# metaclass that the stubs do not show.
Shared: TypeAlias = "Any"
CType: TypeAlias = "Any"

__all__ = ["RawValue", "RawArray", "Value", "Array", "copy", "synchronized"]

#: The C type of each type code, as in the `array` module.
typecode_to_type: dict[str, CType] = {
    "c": ctypes.c_char,
    "u": ctypes.c_wchar,
    "b": ctypes.c_byte,
    "B": ctypes.c_ubyte,
    "h": ctypes.c_short,
    "H": ctypes.c_ushort,
    "i": ctypes.c_int,
    "I": ctypes.c_uint,
    "l": ctypes.c_long,
    "L": ctypes.c_ulong,
    "q": ctypes.c_longlong,
    "Q": ctypes.c_ulonglong,
    "f": ctypes.c_float,
    "d": ctypes.c_double,
}


# -- without a lock --------------------------------------------------------------------


def RawValue(typecode_or_type: str | CType, *args: Any) -> Shared:
    """Return a ctypes object in shared memory, made with *args*, zero without.

    Raises `TypeError` for what is neither a type code nor a ctypes type, and
    `procession.errors.ResourceError` (an `OSError`) when memory has run out.
    """
    value = _new(_type_of(typecode_or_type))
    value.__init__(*args)
    return value


def RawArray(typecode_or_type: str | CType, size_or_initializer: Any) -> Shared:
    """Return a ctypes array in shared memory.

    *size_or_initializer* is its length, and it is all zero then, or a sequence of what is
    in it. Raises `ValueError` for a negative length, and like `RawValue`.
    """
    type_ = _type_of(typecode_or_type)
    if isinstance(size_or_initializer, int):
        return _new(type_ * size_or_initializer)
    array = _new(type_ * len(size_or_initializer))
    array.__init__(*size_or_initializer)
    return array


def copy(obj: Shared) -> Shared:
    """Return a copy, in shared memory, of a ctypes object, which may lie anywhere."""
    made = _new(type(obj))
    ctypes.pointer(made)[0] = obj
    return made


def _type_of(typecode_or_type: CType) -> CType:
    type_: CType = typecode_or_type
    if isinstance(typecode_or_type, str):
        type_ = typecode_to_type.get(typecode_or_type)
    try:
        ctypes.sizeof(type_)
    except TypeError:
        codes = " ".join(typecode_to_type)
        raise TypeError(
            f"this type has no size: {typecode_or_type!r} is neither a ctypes type nor one of "
            f"the type codes {codes}"
        ) from None
    return type_


def _new(type_: CType) -> Shared:
    return _build(type_, heap.allocate(ctypes.sizeof(type_)))


def _build(type_: CType, block: Block) -> Shared:
    """Return the object of *type_* that lies in *block*, whatever is there."""
    obj = type_.from_buffer(block.view())
    # Whoever looks at the memory through this object (an array of numpy, a part of a
    # structure) holds the object, and it holds the block.
    # The name is the standard package's, whose pickler asks for it where it knows the type.
    obj._wrapper = block
    _teach_pickle(type_)
    return obj


def _teach_pickle(type_: CType) -> None:
    """Have shared objects of *type_* pickled as references, not as copies of what is in them."""
    if _is_nameless(type_):
        # The registry would keep the array types of all lengths for ever.
        if type_.__reduce__ is not reduce:
            type_.__reduce__ = reduce
    elif copyreg.dispatch_table.get(type_) is not reduce:
        copyreg.pickle(type_, reduce)


def is_shared(obj: Any) -> bool:
    """Return whether a ctypes object lies in shared memory of procession."""
    return isinstance(getattr(obj, "_wrapper", None), Block)


def reduce(obj: Shared) -> Any:
    """Pickle a shared object as a reference, and any other of its type as ever."""
    if is_shared(obj):
        block = obj._wrapper
        return _rebuild, (_describe(type(obj)), _Memory(block))
    kind: CType = type(obj)
    if kind.__reduce__ is reduce:
        return ctypes.Array.__reduce__(obj)
    return obj.__reduce__()


class _Memory:
    """Stands for a block where an object is pickled, which sends it, or copied, which does not.

    Only the module `copy` hands it on as it is: unpickled, it is the block.
    """

    __slots__ = ("block",)

    def __init__(self, block: Block) -> None:
        self.block = block

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle as the block."""
        return _itself, (self.block,)

    def __deepcopy__(self, memo: object, /) -> _Memory:
        """Return the object itself: what is in the memory, `_rebuild` copies."""
        return self


def _itself(block: Block) -> Block:
    return block


def _rebuild(type_: Any, memory: Block | _Memory) -> Shared:
    """Return the object in another process or, for the module `copy`, one with its content."""
    kind = _find(type_)
    if isinstance(memory, _Memory):
        return kind.from_buffer_copy(memory.block.view())
    return _build(kind, memory)


def _describe(type_: CType) -> Any:
    """Return the type; of an array type that no module has, the parts that it is made of."""
    if _is_nameless(type_):
        return _describe(type_._type_), type_._length_
    return type_


def _is_nameless(type_: CType) -> bool:
    """Return whether it is an array type that was made by multiplication."""
    if not issubclass(type_, ctypes.Array):
        return False
    return getattr(sys.modules.get(type_.__module__), type_.__qualname__, None) is not type_


def _find(description: Any) -> CType:
    if isinstance(description, tuple):
        element, length = description
        return _find(element) * length
    return description


# -- with a lock -----------------------------------------------------------------------


def Value(
    typecode_or_type: str | CType, *args: Any, lock: bool | Lock | None = True, ctx: Any = None
) -> Any:
    """Return a wrapper with a lock around a new `RawValue`, or that itself if *lock* is false.

    *lock* may be a lock to use; by default it is a new recursive one of *ctx*. Each access
    takes the lock, but ``value.value += 1`` is two of them: take ``value.get_lock()``.

    Raises `AttributeError` for a lock without ``acquire``, and like `RawValue`.
    """
    return _with_lock(RawValue(typecode_or_type, *args), lock, ctx)


def Array(
    typecode_or_type: str | CType,
    size_or_initializer: Any,
    *,
    lock: bool | Lock | None = True,
    ctx: Any = None,
) -> Any:
    """Return a wrapper with a lock around a new `RawArray`, or that itself if *lock* is false.

    See `Value` and `RawArray`.
    """
    return _with_lock(RawArray(typecode_or_type, size_or_initializer), lock, ctx)


def _with_lock(obj: Shared, lock: bool | Lock | None, ctx: Any) -> Any:
    if lock is False:
        return obj
    if lock is True or lock is None:
        return synchronized(obj, None, ctx)
    if not hasattr(lock, "acquire"):
        raise AttributeError(
            f"{lock!r} has no method 'acquire': lock is True, False or a lock object"
        )
    return synchronized(obj, lock, ctx)


def synchronized(obj: Shared, lock: Lock | None = None, ctx: Any = None) -> SynchronizedBase:
    """Return a wrapper with a lock around a ctypes object.

    Without *lock*, with a new recursive one of *ctx* (default: the package's context).
    A structure's wrapper has the structure's fields, a simple object's has ``value``.
    """
    if isinstance(obj, SynchronizedBase):
        raise AssertionError("object already synchronized")
    kind = _wrapper_class(type(obj))
    return kind(obj, lock, ctx)


def _wrapper_class(type_: CType) -> type[SynchronizedBase]:
    if issubclass(type_, ctypes._SimpleCData):
        return Synchronized
    if issubclass(type_, ctypes.Array):
        return SynchronizedString if type_._type_ is ctypes.c_char else SynchronizedArray
    found = _wrapper_classes.get(type_)
    if found is None:
        fields = getattr(type_, "_fields_", None)
        if fields is None:
            raise AttributeError(
                f"{type_.__name__} has no attribute '_fields_': only ctypes objects can be "
                f"synchronized"
            )
        properties = {field[0]: _locked(field[0]) for field in fields}
        found = type(f"Synchronized{type_.__name__}", (SynchronizedBase,), properties)
        _wrapper_classes[type_] = found
    return found


_wrapper_classes: WeakKeyDictionary[CType, type[SynchronizedBase]] = WeakKeyDictionary()


def _locked(name: str) -> Any:
    """Return a property that reads and writes *name* of the object with the lock held."""

    def read(self: SynchronizedBase) -> Any:
        self.acquire()
        try:
            return getattr(self._obj, name)
        finally:
            self.release()

    def write(self: SynchronizedBase, value: Any) -> None:
        self.acquire()
        try:
            setattr(self._obj, name, value)
        finally:
            self.release()

    return property(read, write)


class SynchronizedBase:
    """A ctypes object and the lock that guards it; the lock's context manager, too.

    Threads and processes: any number. Pickling hands both to another process.
    """

    def __init__(self, obj: Shared, lock: Lock | None = None, ctx: Any = None) -> None:
        self._obj = obj
        self._lock: Lock = _new_lock(ctx) if lock is None else lock
        self.acquire = self._lock.acquire
        self.release = self._lock.release

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle for another process of this host: the same memory, the same lock."""
        return synchronized, (self._obj, self._lock)

    def __enter__(self) -> Any:
        """Take the lock."""
        return self._lock.__enter__()

    def __exit__(self, *error: Any) -> Any:
        """Release the lock."""
        return self._lock.__exit__(*error)

    def get_obj(self) -> Shared:
        """Return the ctypes object, to be used without the lock, or with `get_lock` held."""
        return self._obj

    def get_lock(self) -> Any:
        """Return the lock."""
        return self._lock

    def __repr__(self) -> str:
        """Return the class and the object."""
        return f"<{type(self).__name__} wrapper for {self._obj}>"


def _new_lock(ctx: Any) -> Any:
    if ctx is None:
        from procession.context import default_context as ctx
    return ctx.RLock()


class Synchronized(SynchronizedBase):
    """A simple object, such as a number, and its lock."""

    value = _locked("value")


class SynchronizedArray(SynchronizedBase):
    """An array and its lock."""

    def __len__(self) -> int:
        """Return the number of elements."""
        return len(self._obj)

    def __getitem__(self, index: Any) -> Any:
        """Return an element, or a list (of an array of characters: a string) of several."""
        self.acquire()
        try:
            return self._obj[index]
        finally:
            self.release()

    def __setitem__(self, index: Any, value: Any) -> None:
        """Set an element, or several."""
        self.acquire()
        try:
            self._obj[index] = value
        finally:
            self.release()

    def __getslice__(self, start: int, stop: int) -> Any:
        """Return several elements."""
        return self[start:stop]

    def __setslice__(self, start: int, stop: int, values: Any) -> None:
        """Set several elements."""
        self[start:stop] = values


class SynchronizedString(SynchronizedArray):
    """An array of bytes and its lock."""

    value = _locked("value")
    raw = _locked("raw")
