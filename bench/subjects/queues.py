"""Queues: small items at several numbers of producers and consumers, latency, arrays."""

from __future__ import annotations

import functools
import time
from statistics import median
from typing import TYPE_CHECKING

import payloads
from children import join, started
from payloads import READY
from subject import TRANSPORT, Case, Effort, Figure, Subject, board

if TYPE_CHECKING:
    from collections.abc import Mapping

    from contenders import Contender

MIB = 1 << 20
#: Between two puts when latency is measured: long enough for the consumer to fall asleep.
PAUSE_SECONDS = 0.002
#: Bytes that one measurement of array throughput moves.
ARRAY_BYTES = 512 * MIB


def small_items(
    producers: int, consumers: int, contender: Contender, effort: Effort
) -> Mapping[str, float]:
    """Put small tuples from *producers* processes, take them in *consumers* processes."""
    context = contender.context()
    count = effort.of(60_000, 2_000) // producers
    queue = context.Queue()
    # Slot 0 opens the gate; then two slots a producer, three a consumer.
    gate = 0
    put_slots = [(1 + 2 * k, 2 + 2 * k) for k in range(producers)]
    used = 1 + 2 * producers
    get_slots = [(used + 3 * k, used + 3 * k + 1, used + 3 * k + 2) for k in range(consumers)]
    with board(used + 3 * consumers) as (path, numbers):
        takers = [
            started(context, payloads.consume, queue, path, ready, ended, counted)
            for ready, ended, counted in get_slots
        ]
        putters = [
            started(context, payloads.produce, queue, path, gate, ready, began, count)
            for ready, began in put_slots
        ]
        for ready, *_ in [*put_slots, *get_slots]:
            numbers.wait(ready)
        numbers[gate] = READY
        join(putters)
        for _ in takers:
            queue.put(None)
        join(takers)
        taken = sum(numbers[counted] for _, _, counted in get_slots)
        if taken != producers * count:
            raise RuntimeError(f"{producers * count} items were put and {taken} taken")
        begin = min(numbers[began] for _, began in put_slots)
        end = max(numbers[ended] for _, ended, _ in get_slots)
    queue.close()
    queue.join_thread()
    return {"rate": taken / (end - begin) * 1e6}


def latency(contender: Contender, effort: Effort) -> Mapping[str, float]:
    """Put one time at a time to a consumer that sleeps meanwhile."""
    context = contender.context()
    warming = effort.of(20, 5)
    count = warming + effort.of(500, 20)
    queue = context.Queue()
    with board(count + 1) as (path, numbers):
        process = started(context, payloads.time_arrivals, queue, path, count, count)
        numbers.wait(count)
        for _ in range(count):
            time.sleep(PAUSE_SECONDS)
            queue.put(time.monotonic_ns())
        join([process])
        delays = [numbers[slot] / 1e3 for slot in range(warming, count)]
    queue.close()
    queue.join_thread()
    return {"put to get": median(delays)}


def arrays(size: int, contender: Contender, effort: Effort) -> Mapping[str, float]:
    """Put numpy arrays of *size* bytes, each dropped by the one consumer."""
    import numpy

    context = contender.context()
    count = effort.of(max(ARRAY_BYTES // size, 4), 2)
    array = numpy.ones(size // 8)
    queue = context.Queue()
    with board(2) as (path, numbers):
        process = started(context, payloads.take_arrays, queue, path, 0, 1, count)
        queue.put(array)
        numbers.wait(0)
        begin = time.monotonic_ns()
        for _ in range(count):
            queue.put(array)
        join([process])
        elapsed = numbers[1] - begin
    queue.close()
    queue.join_thread()
    return {"throughput": count * array.nbytes / elapsed}


def leased_arrays(size: int, contender: Contender, effort: Effort) -> Mapping[str, float]:
    """Put numpy arrays of *size* bytes, two of which may wait, looked at where they lie."""
    import numpy

    context = contender.context()
    count = effort.of(max(ARRAY_BYTES // size, 4), 2)
    array = numpy.ones(size // 8)
    queue = context.Queue(2)
    with board(2) as (path, numbers):
        process = started(context, payloads.take_leased_arrays, queue, path, 0, 1, count)
        for _ in range(payloads.WARMING):
            queue.put(array)
        numbers.wait(0)
        begin = time.monotonic_ns()
        for _ in range(count):
            queue.put(array)
        join([process])
        elapsed = numbers[1] - begin
    queue.close()
    queue.join_thread()
    return {"throughput": count * array.nbytes / elapsed}


RATE = (Figure("rate", "k/s", "more"),)
THROUGHPUT = (Figure("throughput", "GB/s", "more"),)
SUBJECT = Subject(
    name="queues",
    title="Queues",
    cases=(
        *(
            Case(
                f"small tuples {producers}:{consumers}",
                RATE,
                functools.partial(small_items, producers, consumers),
                TRANSPORT,
            )
            for producers, consumers in ((1, 1), (4, 1), (1, 4), (4, 4))
        ),
        Case("latency", (Figure("put to get", "us"),), latency, TRANSPORT),
        *(
            Case(f"numpy {mib} MiB", THROUGHPUT, functools.partial(arrays, mib * MIB), TRANSPORT)
            for mib in (1, 32)
        ),
        *(
            Case(
                f"leased numpy {mib} MiB",
                THROUGHPUT,
                functools.partial(leased_arrays, mib * MIB),
                TRANSPORT,
            )
            for mib in (32, 256)
        ),
    ),
)
