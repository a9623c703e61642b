"""Connections: small messages one way and both ways, arrays in bulk, cold, and kept.

Each transport is compared with the standard library on the same kernel object: `pipe` with
`Pipe(duplex=False)`, which is an `os.pipe`; everything else with `Pipe(duplex=True)`, a
socketpair.
"""

from __future__ import annotations

import functools
import time
from statistics import median
from typing import TYPE_CHECKING

import payloads
from children import join, started
from subject import KERNEL_OBJECT, Case, Effort, Figure, Subject, board

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from contenders import AnyConnection, Contender, Context

MIB = 1 << 20
MESSAGE = bytes(64)
SMALL_DICT = {"id": 7, "name": "item", "weight": 2.5, "tags": ("a", "b")}
#: Bytes that one measurement of array throughput moves.
ARRAY_BYTES = 768 * MIB
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


def _one_way_pipe(contender: Contender, context: Context) -> tuple[AnyConnection, AnyConnection]:
    """Return a receiving and a sending end, on the kernel object to compare on."""
    return context.Pipe(duplex=contender.transport != "pipe")


RATE = (Figure("rate", "k/s", "more"),)
ROUND_TRIP = (Figure("round trip", "us"),)
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
    ),
)
