"""Connections: small messages one way and both ways, what one is made of, arrays in bulk.

Arrays are measured warm, as the first message there ever is (cold), all kept by the receiver, and
looked at where they lie in memory that the connection lends (leased).

Each transport is compared with the standard library on the same kernel object: `pipe` with
`Pipe(duplex=False)`, which is an `os.pipe`; everything else with `Pipe(duplex=True)`, a
socketpair.
"""

from __future__ import annotations

import functools
import os
import sys
import time
from statistics import median
from typing import TYPE_CHECKING

import payloads
from children import join, started
from contenders import LIBRARIES
from subject import KERNEL_OBJECT, Case, Effort, Figure, Subject, board

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from contenders import AnyConnection, Contender, Context

MIB = 1 << 20
MESSAGE = bytes(64)
SMALL_DICT = {"id": 7, "name": "item", "weight": 2.5, "tags": ("a", "b")}
#: Bytes that one measurement of array throughput moves.
ARRAY_BYTES = 768 * MIB
#: What the copying of a message is measured with: it fits a pipe, so that one process suffices.
COPIED = bytes(48 << 10)
#: Between two messages when waking is measured: long enough for the receiver to fall asleep.
PAUSE_SECONDS = 0.002
#: Slots of the board.
WARM, ENDED = 0, 1


def bytes_one_way(contender: Contender, effort: Effort) -> Mapping[str, float]:
    """Send messages of 64 bytes to a child."""
    count = effort.of(100_000, 2_000)

    def send(sending: AnyConnection) -> None:
        sending.send_bytes(MESSAGE)

    return {"rate": count / _one_way(contender, payloads.receive_bytes, send, count) * 1e6}


def dict_one_way(contender: Contender, effort: Effort) -> Mapping[str, float]:
    """Send small dictionaries to a child."""
    count = effort.of(60_000, 2_000)

    def send(sending: AnyConnection) -> None:
        sending.send(SMALL_DICT)

    return {"rate": count / _one_way(contender, payloads.receive_objects, send, count) * 1e6}


def arrays(size: int, keep: bool, contender: Contender, effort: Effort) -> Mapping[str, float]:
    """Send numpy arrays of *size* bytes to a child that drops or keeps each, after one other."""
    import numpy

    count = effort.of(max(ARRAY_BYTES // size, 3), 2)
    array = numpy.ones(size // 8)

    def send(sending: AnyConnection) -> None:
        sending.send(array)

    elapsed = _one_way(contender, payloads.receive_arrays, send, count, keep)
    return {"throughput": count * array.nbytes / elapsed}


def leased_arrays(size: int, contender: Contender, effort: Effort) -> Mapping[str, float]:
    """Send numpy arrays of *size* bytes, each looked at where it lies, if the library lends."""
    import numpy

    count = effort.of(max(ARRAY_BYTES // size, 3), 2)
    array = numpy.ones(size // 8)
    context = contender.context()
    lends = LIBRARIES[contender.library].lends
    receiving, sending = _one_way_pipe(contender, context, **({"leases": True} if lends else {}))
    with board(2) as (path, numbers):
        process = started(
            context, payloads.receive_leased_arrays, receiving, path, WARM, ENDED, count, lends
        )
        receiving.close()
        for _ in range(payloads.WARMING):
            sending.send(array)
        numbers.wait(WARM)
        begin = time.monotonic_ns()
        for _ in range(count):
            sending.send(array)
        join([process])
        elapsed = numbers[ENDED] - begin
    sending.close()
    return {"throughput": count * array.nbytes / elapsed}


def first_array(size: int, contender: Contender, effort: Effort) -> Mapping[str, float]:
    """Send one array of *size* bytes as the first message there ever is, to several children."""
    import numpy

    context = contender.context()
    array = numpy.ones(size // 8)
    elapsed = []
    for _ in range(effort.of(3, 1)):
        receiving, sending = _one_way_pipe(contender, context)
        with board(2) as (path, numbers):
            process = started(context, payloads.receive_first_array, receiving, path, WARM, ENDED)
            receiving.close()
            numbers.wait(WARM)
            begin = time.monotonic_ns()
            sending.send(array)
            join([process])
            elapsed.append(numbers[ENDED] - begin)
        sending.close()
    return {"throughput": array.nbytes / median(elapsed)}


def bytes_round_trip(contender: Contender, effort: Effort) -> Mapping[str, float]:
    """Send 64 bytes to a child and wait until it has sent them back."""

    def trip(sending: AnyConnection, receiving: AnyConnection) -> None:
        sending.send_bytes(MESSAGE)
        receiving.recv_bytes()

    return {"round trip": _round_trip(contender, payloads.echo_bytes, trip, effort)}


def trip_on_one_core(contender: Contender, effort: Effort) -> Mapping[str, float]:
    """The same, where both sides have to share a processor."""
    if sys.platform == "linux":  # nothing else is measured: this is for type checkers
        os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    return bytes_round_trip(contender, effort)


def steps(contender: Contender, effort: Effort) -> Mapping[str, float]:
    """Take the time of a small message apart.

    *call*: sending and receiving no bytes, in one process that has both ends. *pickle*: what a
    small dictionary takes longer, and *copy* what 48 KiB take longer. *wake*: from sending until a
    receiver runs that slept meanwhile, without half of the call.
    """
    context = contender.context()
    receiving, sending = _one_way_pipe(contender, context)
    count = effort.of(3_000, 100)

    def time_of(send: Callable[[], None], receive: Callable[[], object]) -> float:
        """Return the microseconds of both, the median."""
        clock, times = time.monotonic_ns, []
        for _ in range(count):
            begin = clock()
            send()
            receive()
            times.append(clock() - begin)
        return median(times) / 1e3

    # The first ones find out who else is there.
    time_of(lambda: sending.send_bytes(b""), receiving.recv_bytes)
    call = time_of(lambda: sending.send_bytes(b""), receiving.recv_bytes)
    copied = time_of(lambda: sending.send_bytes(COPIED), receiving.recv_bytes)
    pickled = time_of(lambda: sending.send(SMALL_DICT), receiving.recv)
    receiving.close()
    sending.close()
    wake = _wake(contender, context, effort) - call / 2
    return {
        "call": call, "pickle": pickled - call, "copy": copied - call, "wake": wake,
    }  # fmt: skip


def _wake(contender: Contender, context: Context, effort: Effort) -> float:
    """Return the microseconds from sending until a child that slept has received, the median."""
    receiving, sending = _one_way_pipe(contender, context)
    count = effort.of(400, 20)
    with board(count + 1) as (path, numbers):
        process = started(context, payloads.time_messages, receiving, path, count, count)
        receiving.close()
        numbers.wait(count)
        for _ in range(count):
            time.sleep(PAUSE_SECONDS)
            sending.send_bytes(time.monotonic_ns().to_bytes(8, "little"))
        join([process])
        times = [numbers[slot] / 1e3 for slot in range(count)]
    sending.close()
    return median(times)


def dict_round_trip(contender: Contender, effort: Effort) -> Mapping[str, float]:
    """Send a small dictionary to a child and wait until it has sent it back."""

    def trip(sending: AnyConnection, receiving: AnyConnection) -> None:
        sending.send(SMALL_DICT)
        receiving.recv()

    return {"round trip": _round_trip(contender, payloads.echo_objects, trip, effort)}


def _one_way(
    contender: Contender,
    target: Callable[..., object],
    send: Callable[[AnyConnection], None],
    count: int,
    *options: object,
) -> int:
    """Return the nanoseconds from the first send of *count* until the last one was received."""
    context = contender.context()
    receiving, sending = _one_way_pipe(contender, context)
    with board(2) as (path, numbers):
        process = started(context, target, receiving, path, WARM, ENDED, count, *options)
        # Ours goes, so that a child that dies breaks the pipe and does not let us wait for ever.
        receiving.close()
        send(sending)
        numbers.wait(WARM)
        begin = time.monotonic_ns()
        for _ in range(count):
            send(sending)
        join([process])
        elapsed = numbers[ENDED] - begin
    sending.close()
    return elapsed


def _round_trip(
    contender: Contender,
    target: Callable[..., object],
    trip: Callable[[AnyConnection, AnyConnection], None],
    effort: Effort,
) -> float:
    """Return the median of a round trip in microseconds."""
    context = contender.context()
    warming = effort.of(200, 20)
    count = warming + effort.of(5_000, 200)
    # On os.pipe, two of them; a duplex connection is one object for both ways.
    if contender.transport == "pipe":
        child_receiving, sending = context.Pipe(duplex=False)
        receiving, child_sending = context.Pipe(duplex=False)
    else:
        sending, child_receiving = context.Pipe(duplex=True)
        receiving, child_sending = sending, child_receiving
    process = started(context, target, child_receiving, child_sending, count)
    child_receiving.close()
    child_sending.close()
    clock = time.monotonic_ns
    times = []
    for _ in range(count):
        begin = clock()
        trip(sending, receiving)
        times.append(clock() - begin)
    join([process])
    sending.close()
    receiving.close()
    return median(times[warming:]) / 1e3


def _one_way_pipe(
    contender: Contender, context: Context, **options: bool
) -> tuple[AnyConnection, AnyConnection]:
    """Return a receiving and a sending end, on the kernel object to compare on."""
    return context.Pipe(duplex=contender.transport != "pipe", **options)


RATE = (Figure("rate", "k/s", "more"),)
ROUND_TRIP = (Figure("round trip", "us"),)
STEPS = tuple(Figure(step, "us") for step in ("call", "pickle", "copy", "wake"))
THROUGHPUT = (Figure("throughput", "GB/s", "more"),)
SIZES = (1, 16, 256)
SUBJECT = Subject(
    name="connections",
    title="Connections",
    cases=(
        Case("64 bytes one way", RATE, bytes_one_way, KERNEL_OBJECT),
        Case("small dict one way", RATE, dict_one_way, KERNEL_OBJECT),
        Case("64 bytes there and back", ROUND_TRIP, bytes_round_trip, KERNEL_OBJECT),
        Case("small dict there and back", ROUND_TRIP, dict_round_trip, KERNEL_OBJECT),
        Case("64 bytes there and back, one core", ROUND_TRIP, trip_on_one_core, KERNEL_OBJECT),
        Case("steps of a message", STEPS, steps, KERNEL_OBJECT),
        *(
            Case(
                f"numpy {mib} MiB",
                THROUGHPUT,
                functools.partial(arrays, mib * MIB, False),
                KERNEL_OBJECT,
            )
            for mib in SIZES
        ),
        *(
            Case(
                f"numpy {mib} MiB, cold",
                THROUGHPUT,
                functools.partial(first_array, mib * MIB),
                KERNEL_OBJECT,
            )
            for mib in SIZES
        ),
        *(
            Case(
                f"numpy {mib} MiB, kept",
                THROUGHPUT,
                functools.partial(arrays, mib * MIB, True),
                KERNEL_OBJECT,
            )
            for mib in SIZES
        ),
        *(
            Case(
                f"leased numpy {mib} MiB",
                THROUGHPUT,
                functools.partial(leased_arrays, mib * MIB),
                KERNEL_OBJECT,
            )
            for mib in SIZES
        ),
    ),
)
