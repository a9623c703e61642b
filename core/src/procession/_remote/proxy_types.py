"""The proxies of `SyncManager`'s types, and the types that exist only in its server."""

from __future__ import annotations

import time
from array import array

from procession._remote.proxy import BaseProxy, MakeProxyType

TYPE_CHECKING = False  # importing typing would bring `re` and more into every child
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from types import TracebackType
    from typing import Any, ClassVar, Self


class Namespace:
    """A bag of attributes."""

    def __init__(self, /, **kwds: Any) -> None:
        self.__dict__.update(kwds)

    def __repr__(self) -> str:
        """Return the public attributes, in order of their names."""
        public = sorted((k, v) for k, v in self.__dict__.items() if not k.startswith("_"))
        return f"{type(self).__name__}({', '.join(f'{k}={v!r}' for k, v in public)})"


class Value:
    """One value. The type code is there for those who ask; nothing checks it."""

    def __init__(self, typecode: str, value: Any, lock: bool = True) -> None:
        self._typecode = typecode
        self._value = value

    def get(self) -> Any:
        """Return the value."""
        return self._value

    def set(self, value: Any) -> None:
        """Replace the value."""
        self._value = value

    def __repr__(self) -> str:
        """Return type code and value."""
        return f"{type(self).__name__}({self._typecode!r}, {self._value!r})"

    value = property(get, set)


def Array(typecode: str, sequence: Iterable[Any], lock: bool = True) -> array[Any]:
    """Return an array of *typecode* with the items of *sequence*."""
    return array(typecode, sequence)


class IteratorProxy(BaseProxy):
    """Stands for an iterator or a generator."""

    _exposed_ = ("__next__", "send", "throw", "close")

    def __iter__(self) -> Self:
        """Return itself."""
        return self

    def __next__(self, *args: Any) -> Any:
        """Return the next item."""
        return self._callmethod("__next__", args)

    def send(self, *args: Any) -> Any:
        """Send a value into the generator."""
        return self._callmethod("send", args)

    def throw(self, *args: Any) -> Any:
        """Raise an exception in the generator."""
        return self._callmethod("throw", args)

    def close(self, *args: Any) -> Any:
        """End the generator."""
        return self._callmethod("close", args)


class AcquirerProxy(BaseProxy):
    """Stands for a lock or a semaphore."""

    _exposed_: ClassVar[tuple[str, ...] | None] = ("acquire", "release")

    def acquire(self, blocking: bool = True, timeout: float | None = None) -> bool:
        """Wait until it is free, up to *timeout* seconds; return whether it is ours now."""
        args = (blocking,) if timeout is None else (blocking, timeout)
        return bool(self._callmethod("acquire", args))

    def release(self) -> None:
        """Set it free. Raises `RuntimeError` or `ValueError` if it was."""
        self._callmethod("release")

    def __enter__(self) -> Any:
        """Acquire it."""
        return self._callmethod("acquire")

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Release it."""
        self._callmethod("release")


class ConditionProxy(AcquirerProxy):
    """Stands for a condition."""

    _exposed_ = ("acquire", "release", "wait", "notify", "notify_all")

    def wait(self, timeout: float | None = None) -> bool:
        """Wait for a notification, up to *timeout* seconds; return whether one came."""
        return bool(self._callmethod("wait", (timeout,)))

    def notify(self, n: int = 1) -> None:
        """Wake *n* of those who wait."""
        self._callmethod("notify", (n,))

    def notify_all(self) -> None:
        """Wake all who wait."""
        self._callmethod("notify_all")

    def wait_for(self, predicate: Callable[[], Any], timeout: float | None = None) -> Any:
        """Wait until *predicate*, called here, is true; return what it returned last."""
        result = predicate()
        end = None if timeout is None else time.monotonic() + timeout
        while not result:
            left = None if end is None else end - time.monotonic()
            if left is not None and left <= 0:
                break
            self.wait(left)
            result = predicate()
        return result


class EventProxy(BaseProxy):
    """Stands for an event."""

    _exposed_ = ("is_set", "set", "clear", "wait")

    def is_set(self) -> bool:
        """Return whether it is set."""
        return bool(self._callmethod("is_set"))

    def set(self) -> None:
        """Set it, and wake who waits."""
        self._callmethod("set")

    def clear(self) -> None:
        """Take it back."""
        self._callmethod("clear")

    def wait(self, timeout: float | None = None) -> bool:
        """Wait until it is set, up to *timeout* seconds; return whether it is."""
        return bool(self._callmethod("wait", (timeout,)))


class BarrierProxy(BaseProxy):
    """Stands for a barrier."""

    _exposed_ = ("__getattribute__", "wait", "abort", "reset")

    def wait(self, timeout: float | None = None) -> int:
        """Wait for the others; return our position."""
        return int(self._callmethod("wait", (timeout,)))

    def abort(self) -> None:
        """Break the barrier."""
        self._callmethod("abort")

    def reset(self) -> None:
        """Make the barrier as new."""
        self._callmethod("reset")

    @property
    def parties(self) -> int:
        """How many have to come."""
        return int(self._callmethod("__getattribute__", ("parties",)))

    @property
    def n_waiting(self) -> int:
        """How many have come."""
        return int(self._callmethod("__getattribute__", ("n_waiting",)))

    @property
    def broken(self) -> bool:
        """Whether it is broken."""
        return bool(self._callmethod("__getattribute__", ("broken",)))


class NamespaceProxy(BaseProxy):
    """Stands for a `Namespace`. Names that begin with ``_`` are the proxy's own."""

    _exposed_ = ("__getattribute__", "__setattr__", "__delattr__")

    def __getattr__(self, key: str) -> Any:
        """Return an attribute of the namespace."""
        if key[:1] == "_":
            return object.__getattribute__(self, key)
        return self._callmethod("__getattribute__", (key,))

    def __setattr__(self, key: str, value: Any) -> None:
        """Set an attribute of the namespace."""
        if key[:1] == "_":
            object.__setattr__(self, key, value)
        else:
            self._callmethod("__setattr__", (key, value))

    def __delattr__(self, key: str) -> None:
        """Delete an attribute of the namespace."""
        if key[:1] == "_":
            object.__delattr__(self, key)
        else:
            self._callmethod("__delattr__", (key,))


class ValueProxy(BaseProxy):
    """Stands for a `Value`."""

    _exposed_ = ("get", "set")

    def get(self) -> Any:
        """Return the value."""
        return self._callmethod("get")

    def set(self, value: Any) -> None:
        """Replace the value."""
        self._callmethod("set", (value,))

    value = property(get, set)

    __class_getitem__: Any = classmethod(type(list[int]))


_BaseListProxy = MakeProxyType(
    "BaseListProxy",
    (
        *("__add__", "__contains__", "__delitem__", "__getitem__", "__imul__", "__len__"),
        *("__mul__", "__reversed__", "__rmul__", "__setitem__", "append", "clear", "copy"),
        *("count", "extend", "index", "insert", "pop", "remove", "reverse", "sort"),
    ),
)


class ListProxy(_BaseListProxy):  # type: ignore[misc,valid-type]
    """Stands for a list."""

    def __iadd__(self, value: Iterable[Any]) -> Self:
        """Extend the list."""
        self._callmethod("extend", (value,))
        return self

    def __imul__(self, value: int) -> Self:
        """Repeat the list."""
        self._callmethod("__imul__", (value,))
        return self

    __class_getitem__: Any = classmethod(type(list[int]))


_BaseDictProxy = MakeProxyType(
    "DictProxy",
    (
        *("__contains__", "__delitem__", "__getitem__", "__ior__", "__iter__", "__len__"),
        *("__or__", "__reversed__", "__ror__", "__setitem__", "clear", "copy", "fromkeys"),
        *("get", "items", "keys", "pop", "popitem", "setdefault", "update", "values"),
    ),
)


class DictProxy(_BaseDictProxy):  # type: ignore[misc,valid-type]
    """Stands for a dictionary; `keys`, `values` and `items` are lists of this moment."""

    _method_to_typeid_: ClassVar[dict[str, str] | None] = {
        "__iter__": "Iterator",
        "__reversed__": "Iterator",
    }

    def __ior__(self, value: Any) -> Self:
        """Update the dictionary."""
        self._callmethod("__ior__", (value,))
        return self

    __class_getitem__: Any = classmethod(type(list[int]))


_BaseSetProxy = MakeProxyType(
    "SetProxy",
    (
        *("__and__", "__contains__", "__ge__", "__gt__", "__iand__", "__ior__", "__isub__"),
        *("__iter__", "__ixor__", "__le__", "__len__", "__lt__", "__or__", "__rand__"),
        *("__ror__", "__rsub__", "__rxor__", "__sub__", "__xor__", "add", "clear", "copy"),
        *("difference", "difference_update", "discard", "intersection"),
        *("intersection_update", "isdisjoint", "issubset", "issuperset", "pop", "remove"),
        *("symmetric_difference", "symmetric_difference_update", "union", "update"),
    ),
)


class SetProxy(_BaseSetProxy):  # type: ignore[misc,valid-type]
    """Stands for a set."""

    _method_to_typeid_: ClassVar[dict[str, str] | None] = {"__iter__": "Iterator"}

    def __ior__(self, value: Any) -> Self:
        """Add the items of *value*."""
        self._callmethod("__ior__", (value,))
        return self

    def __iand__(self, value: Any) -> Self:
        """Keep what *value* has as well."""
        self._callmethod("__iand__", (value,))
        return self

    def __ixor__(self, value: Any) -> Self:
        """Keep what only one of both has."""
        self._callmethod("__ixor__", (value,))
        return self

    def __isub__(self, value: Any) -> Self:
        """Remove the items of *value*."""
        self._callmethod("__isub__", (value,))
        return self

    __class_getitem__: Any = classmethod(type(list[int]))


_BaseArrayProxy = MakeProxyType("BaseArrayProxy", ("__len__", "__getitem__", "__setitem__"))


class ArrayProxy(_BaseArrayProxy):  # type: ignore[misc,valid-type]
    """Stands for an `Array`."""


_PoolMethods = MakeProxyType(
    "_PoolMethods",
    (
        "apply",
        "apply_async",
        "close",
        "imap",
        "imap_unordered",
        "join",
        "map",
        "map_async",
        "starmap",
        "starmap_async",
        "terminate",
    ),
)


class PoolProxy(_PoolMethods):  # type: ignore[misc, valid-type]  # a class made at run time
    """Stands for a pool of worker processes, which are children of the server."""

    _method_to_typeid_: ClassVar[dict[str, str] | None] = {
        "apply_async": "AsyncResult",
        "map_async": "AsyncResult",
        "starmap_async": "AsyncResult",
        "imap": "Iterator",
        "imap_unordered": "Iterator",
    }

    def __enter__(self) -> Self:
        """Return itself."""
        return self

    def __exit__(self, *exc_info: object) -> None:
        """Terminate the pool."""
        self._callmethod("terminate")
