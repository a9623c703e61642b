"""Shared memory: making it, having it in another process, and using what is in it.

The standard library has only memory with a name, and is compared by that; ours has none.
"""

from __future__ import annotations

import functools
import importlib
import time
from typing import TYPE_CHECKING, Any

import payloads
from children import join, started
from subject import METHOD, NOTHING, TRANSPORT, Case, Effort, Figure, Subject

if TYPE_CHECKING:
    from collections.abc import Mapping

    from contenders import Contender

KIB = 1 << 10
MIB = 1 << 20


def _make(library: str, size: int) -> Any:
    module = importlib.import_module(f"{library}.shared_memory")
    if library == "multiprocessing":
        return module.SharedMemory(create=True, size=size)
    return module.AnonymousMemory(size)


def _drop(library: str, memory: Any) -> None:
    memory.close()
    if library == "multiprocessing":
        memory.unlink()


def create(size: int, contender: Contender, effort: Effort) -> Mapping[str, float]:
    """Create memory of *size* bytes, write all of it, close it, and have it removed."""
    count = effort.of(max(20, 2000 * KIB * 4 // size), 5)
    library = contender.library
    content = bytes(size)
    for _ in range(2):
        _drop(library, _make(library, size))
    begin = time.perf_counter_ns()
    for _ in range(count):
        memory = _make(library, size)
        memory.buf[:] = content
        _drop(library, memory)
    return {"time": (time.perf_counter_ns() - begin) / count / 1e3}


def attach(contender: Contender, effort: Effort) -> Mapping[str, float]:
    """Start a child that is given 200 segments of 4 KiB, and let it see all of them.

    It is not the first child: what that one costs is measured elsewhere, and would hide what
    the segments do.
    """
    context = contender.context()
    library = contender.library
    memories = [_make(library, 4 * KIB) for _ in range(effort.of(200, 5))]
    receiver, sender = context.Pipe(duplex=False)
    first = started(context, payloads.look_at, [], sender)
    receiver.recv()
    join([first])
    begin = time.perf_counter_ns()
    process = started(context, payloads.look_at, memories, sender)
    receiver.recv()
    elapsed = time.perf_counter_ns() - begin
    join([process])
    for memory in memories:
        _drop(library, memory)
    return {"start": elapsed / 1e6}


def send(contender: Contender, effort: Effort) -> Mapping[str, float]:
    """Send a segment of 4 KiB to a running child, which answers from within it."""
    context = contender.context()
    library = contender.library
    count = effort.of(300, 5)
    here, there = context.Pipe()
    process = started(context, payloads.answer_in_memory, there)
    memory = _make(library, 4 * KIB)
    here.send(memory)
    here.recv()
    begin = time.perf_counter_ns()
    for _ in range(count):
        here.send(memory)
        here.recv()
    elapsed = time.perf_counter_ns() - begin
    here.send(None)
    join([process])
    _drop(library, memory)
    return {"round trip": elapsed / count / 1e3}


def raw_value(contender: Contender, effort: Effort) -> Mapping[str, float]:
    """Read and write a number without a lock."""
    value = importlib.import_module(contender.library).RawValue("i", 0)
    count = effort.of(1_000_000, 1000)
    begin = time.perf_counter_ns()
    for _ in range(count):
        value.value += 1
    return {"increment": (time.perf_counter_ns() - begin) / count}


def value_made(contender: Contender, effort: Effort) -> Mapping[str, float]:
    """Make numbers without a lock, keep a thousand at a time."""
    library = importlib.import_module(contender.library)
    count = effort.of(50, 2)
    begin = time.perf_counter_ns()
    for _ in range(count):
        kept = [library.RawValue("d", 1.5) for _ in range(1000)]
        del kept
    return {"make": (time.perf_counter_ns() - begin) / count / 1e6}


def value(contender: Contender, effort: Effort) -> Mapping[str, float]:
    """Increment a number under its lock."""
    shared = importlib.import_module(contender.library).Value("i", 0)
    lock = shared.get_lock()
    count = effort.of(50_000, 100)
    begin = time.perf_counter_ns()
    for _ in range(count):
        with lock:
            shared.value += 1
    return {"increment": (time.perf_counter_ns() - begin) / count}


SUBJECT = Subject(
    name="shared",
    title="Shared memory",
    cases=(
        *(
            Case(
                f"create, fill and drop {label}",
                (Figure("time", "us"),),
                functools.partial(create, size),
                NOTHING,
            )
            for label, size in (("4 KiB", 4 * KIB), ("1 MiB", MIB), ("32 MiB", 32 * MIB))
        ),
        Case("200 segments as arguments", (Figure("start", "ms"),), attach, METHOD),
        Case("send a segment", (Figure("round trip", "us"),), send, TRANSPORT),
        Case("RawValue", (Figure("increment", "ns"),), raw_value, NOTHING),
        Case("make a RawValue", (Figure("make", "us"),), value_made, NOTHING),
        Case("Value with its lock", (Figure("increment", "ns"),), value, NOTHING),
    ),
)
