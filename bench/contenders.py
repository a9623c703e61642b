"""Who takes part: libraries that offer contexts like multiprocessing's, and how to reach them.

A further library takes part by one entry in `LIBRARIES`. One that has no contexts like
multiprocessing's gets them from a module of `peers`.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any, Protocol, cast


class AnyProcess(Protocol):
    """What the benchmarks ask of a process."""

    @property
    def pid(self) -> int | None:
        """The child's process id once it is started."""

    @property
    def exitcode(self) -> int | None:
        """None while it runs."""

    def start(self) -> None:
        """Start it."""

    def join(self, timeout: float | None = None) -> None:
        """Wait for its end."""

    def terminate(self) -> None:
        """Ask it to end."""


class AnyConnection(Protocol):
    """What the benchmarks ask of one end of a pipe."""

    def send(self, obj: object, /) -> None:
        """Send an object."""

    # Any: whatever the other side sent.
    def recv(self) -> Any:
        """Receive an object."""

    def send_bytes(self, data: bytes, /) -> None:
        """Send bytes as one message."""

    def recv_bytes(self) -> bytes:
        """Receive one message of bytes."""

    def close(self) -> None:
        """Close this end."""


class AnyQueue(Protocol):
    """What the benchmarks ask of a queue."""

    def put(self, obj: object, /) -> None:
        """Put an object."""

    # Any: whatever another process put. What an option is taken for, the candidate says.
    def get(self, **options: Any) -> Any:
        """Take an object."""

    def close(self) -> None:
        """Say that this process puts nothing more."""

    def join_thread(self) -> None:
        """Wait until what was put has left this process."""


class AnyLock(Protocol):
    """What the benchmarks ask of a lock or semaphore."""

    def acquire(self, block: bool = True, timeout: float | None = None) -> bool:
        """Take it."""

    def release(self) -> None:
        """Give it back."""


class AnyEvent(Protocol):
    """What the benchmarks ask of an event."""

    def set(self) -> None:
        """Set it."""

    def clear(self) -> None:
        """Clear it."""

    def wait(self, timeout: float | None = None) -> bool:
        """Wait until it is set."""


class AnyCondition(Protocol):
    """What the benchmarks ask of a condition."""

    def __enter__(self) -> bool:
        """Take its lock."""

    def __exit__(self, *_: object) -> None:
        """Give its lock back."""

    def wait_for(self, predicate: Callable[[], bool]) -> bool:
        """Wait until *predicate* holds."""

    def notify(self) -> None:
        """Wake one that waits."""


class Context(Protocol):
    """What the benchmarks ask of a context; the names are multiprocessing's."""

    def Process(
        self, *, target: Callable[..., object], args: Sequence[object], daemon: bool
    ) -> AnyProcess:
        """Make a process."""

    def Pipe(self, duplex: bool = True, **options: bool) -> tuple[AnyConnection, AnyConnection]:
        """Make a pipe. What an option is taken for, the candidate says."""

    def Queue(self, maxsize: int = 0) -> AnyQueue:
        """Make a queue."""

    def Lock(self) -> AnyLock:
        """Make a lock."""

    def Semaphore(self, value: int) -> AnyLock:
        """Make a semaphore."""

    def Condition(self) -> AnyCondition:
        """Make a condition."""

    def Event(self) -> AnyEvent:
        """Make an event."""

    def Pool(self, processes: int) -> Any:
        """Make a pool."""

    # Any: managers have a method for each type that somebody has registered.
    def Manager(self) -> Any:
        """Start a manager."""


@dataclass(frozen=True)
class Library:
    """One library that takes part."""

    module: str
    #: Whether `get_context` takes a transport by name.
    has_transports: bool = False
    #: What to compare on where the kernel object matters, if there are no transports.
    kernel_objects: tuple[str, ...] = ("pipe", "socketpair")
    #: Whether its pipes can be made with ``leases=True``.
    lends: bool = False
    #: Patterns of the cases that it takes part in, as shells have them.
    takes: tuple[str, ...] = ("*",)

    def takes_part(self, case: str) -> bool:
        """Return whether it can do *case*: `queues/latency`."""
        return any(fnmatchcase(case, pattern) for pattern in self.takes)

    def context(self, method: str | None, transport: str | None) -> Context:
        """Return the library's context; errors of the library are not caught."""
        library = importlib.import_module(self.module)
        options = {"transport": transport} if self.has_transports and transport else {}
        return cast("Context", library.get_context(method, **options))

    def methods(self) -> list[str]:
        """Return the names of the start methods that can be used here."""
        return list(importlib.import_module(self.module).get_all_start_methods())

    def transports(self) -> list[str]:
        """Return the names of the transports that can be used here; none for most libraries."""
        if not self.has_transports:
            return []
        return list(importlib.import_module(self.module).get_all_transports())


LIBRARIES: Mapping[str, Library] = {
    "multiprocessing": Library("multiprocessing"),
    "procession": Library("procession", has_transports=True, lends=True),
    # Drop-in replacements. Both import what multiprocessing has, and more.
    "billiard": Library("billiard"),
    "multiprocess": Library("multiprocess"),
    # Queues and connections. ZeroMQ keeps no order between producers, so that the end of what
    # several have put cannot be told by one more item, as `small tuples` does it.
    "faster-fifo": Library(
        "peers.fifo", takes=("queues/small *", "queues/latency", "queues/numpy *")
    ),
    "pyzmq": Library(
        "peers.zeromq",
        kernel_objects=("socketpair",),
        takes=("queues/latency", "queues/numpy *", "connections/*"),
    ),
    "iceoryx2": Library(
        "peers.iceoryx",
        kernel_objects=("socketpair",),
        takes=("connections/numpy * MiB", "connections/leased *"),
    ),
    # Pools.
    "concurrent.futures": Library("peers.futures", takes=("pools/*",)),
    "loky": Library("peers.loky", takes=("pools/*",)),
    "pebble": Library("peers.pebble", takes=("pools/*",)),
    "mpire": Library("peers.mpire", takes=("pools/*",)),
}

#: The library that all others are compared with.
BASELINE = "multiprocessing"


@dataclass(frozen=True)
class Contender:
    """A library on one start method and transport; None leaves that choice to the library.

    For a library without transports, `transport` names the kernel object to compare on:
    `"pipe"` asks for `Pipe(duplex=False)`, which is an `os.pipe`, and `"socketpair"` for
    `Pipe(duplex=True)`.
    """

    library: str
    method: str | None = None
    transport: str | None = None

    @property
    def label(self) -> str:
        """A name for people: `procession fork x pipe`."""
        pair = " x ".join(part for part in (self.method, self.transport) if part)
        return f"{self.library} {pair}".rstrip()

    @property
    def pair(self) -> str:
        """The start method and transport alone, or "default"."""
        return " x ".join(part for part in (self.method, self.transport) if part) or "default"

    def context(self) -> Context:
        """Return the context to measure."""
        return LIBRARIES[self.library].context(self.method, self.transport)

    def to_text(self) -> str:
        """Return one word for a command line, the opposite of `from_text`."""
        return ":".join((self.library, self.method or "", self.transport or ""))

    @classmethod
    def from_text(cls, text: str) -> Contender:
        """Return the contender that `to_text` wrote."""
        library, method, transport = text.split(":")
        return cls(library, method or None, transport or None)


def contenders_for(
    library: str, varies: frozenset[str], every_pair: bool = False
) -> Iterator[tuple[Contender, Contender]]:
    """Yield (baseline, candidate) for each pair of *library* that a case is measured on.

    *varies* holds "method", "transport" or neither, as the case depends on them. Where the
    start method does not matter, `fork` is taken (or the first there is), since it costs least;
    where the transport does not matter, the library's default is. With *every_pair*, a case
    that depends on anything is measured on the whole product.
    """
    offered = LIBRARIES[library]
    if not varies:
        yield Contender(BASELINE), Contender(library)
        return
    known = LIBRARIES[BASELINE].methods()
    methods = [method for method in offered.methods() if method in known]
    transports: list[str | None] = [*offered.transports()]
    if not offered.has_transports:
        transports = [*offered.kernel_objects] if "kernel object" in varies else [None]
    if not every_pair:
        if "method" not in varies:
            methods = ["fork"] if "fork" in methods else methods[:1]
        if "transport" not in varies:
            transports = [None]
    for method in methods:
        for transport in transports:
            yield _baseline(method, transport, varies), Contender(library, method, transport)


def _baseline(method: str, transport: str | None, varies: frozenset[str]) -> Contender:
    """Return what to compare with: on the same kernel object if the case depends on that."""
    if "kernel object" not in varies:
        return Contender(BASELINE, method)
    return Contender(BASELINE, method, "pipe" if transport == "pipe" else "socketpair")
