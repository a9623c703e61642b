"""What runs in the children that the benchmarks start.

Children of `spawn` and `forkserver` import this module, so it stays slim: whatever is
imported here would be added to the start-up time of every contender alike, and blur the
ratio between them. Nothing here knows which library started it: results go back through a
`Board`, a small file in shared memory, so that no library's own channels carry the figures
that judge them.
"""

from __future__ import annotations

import os
import time

# Type checkers take this for `typing.TYPE_CHECKING`, whose module costs more milliseconds than
# all else that a slim child imports.
TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from contenders import AnyCondition, AnyConnection, AnyEvent, AnyLock, AnyQueue

#: How long an idle child sleeps if nobody ends it: a guard against orphans.
IDLE_SECONDS = 600
#: How often somebody who waits for a `Board` looks at it.
LOOK_SECONDS = 0.001
#: How many arrays are taken before it is measured how fast others come.
WARMING = 4
#: The value of a slot that only says "I am here".
READY = 1


class Board:
    """Whole numbers, one per slot, that any process which knows the path can read and write.

    Every slot starts as zero and has one writer. A slot is eight aligned bytes.
    """

    def __init__(self, path: str) -> None:
        """Map the file at *path*, which must exist and keep its size."""
        # Not at the top: a child that only stamps its start needs no mmap.
        from mmap import mmap

        descriptor = os.open(path, os.O_RDWR)
        try:
            self._memory = mmap(descriptor, 0)
        finally:
            os.close(descriptor)

    def __getitem__(self, slot: int) -> int:
        """Return the number in *slot*."""
        return int.from_bytes(self._memory[8 * slot : 8 * slot + 8], "little")

    def __setitem__(self, slot: int, number: int) -> None:
        """Write *number* into *slot*."""
        self._memory[8 * slot : 8 * slot + 8] = number.to_bytes(8, "little")

    def wait(self, slot: int, seconds: float = 60) -> int:
        """Return the number in *slot* as soon as it is not zero; `TimeoutError` after *seconds*."""
        deadline = time.monotonic() + seconds
        while not (number := self[slot]):
            if time.monotonic() > deadline:
                raise TimeoutError(f"slot {slot} of the board stayed empty for {seconds} s")
            time.sleep(LOOK_SECONDS)
        return number


def first_instruction(path: str) -> None:
    """Write the time at which the first line of this function ran to the file at *path*."""
    now = time.monotonic_ns()  # first of all: this is what is measured
    descriptor = os.open(path, os.O_WRONLY)
    os.write(descriptor, now.to_bytes(8, "little"))
    os.close(descriptor)


def idle(path: str) -> None:
    """Say that we are here, then do nothing until ended."""
    first_instruction(path)
    time.sleep(IDLE_SECONDS)


def idle_on_queue(requests: AnyQueue, answers: AnyQueue) -> None:
    """Answer once, then wait for a request, as a worker of a pool does."""
    answers.put("ready")
    requests.get()


def answer(answers: AnyQueue) -> None:
    """Put one small object: the first job of a program."""
    answers.put((os.getpid(), "answer"))


def produce(queue: AnyQueue, path: str, gate: int, ready: int, began: int, count: int) -> None:
    """Put *count* small tuples once slot *gate* is set; stamp when the first was put."""
    board = Board(path)
    board[ready] = READY
    board.wait(gate)
    put = queue.put
    board[began] = time.monotonic_ns()
    for index in range(count):
        put((index, "item", 2.5))


def consume(queue: AnyQueue, path: str, ready: int, ended: int, counted: int) -> None:
    """Take items until None comes; stamp when the last of them came, and how many there were."""
    board = Board(path)
    board[ready] = READY
    get = queue.get
    clock = time.monotonic_ns
    count = last = 0
    while get() is not None:
        # One look at the clock per item (about 40 ns, the same for everyone): None only comes
        # after the producers have ended, far too late to be the end of the measurement.
        last = clock()
        count += 1
    board[ended] = last
    board[counted] = count


def time_arrivals(queue: AnyQueue, path: str, ready: int, count: int) -> None:
    """Take *count* times of putting; slot *i* becomes the nanoseconds from put to get."""
    board = Board(path)
    board[ready] = READY
    for index in range(count):
        sent: int = queue.get()
        board[index] = time.monotonic_ns() - sent


def take_arrays(queue: AnyQueue, path: str, warm: int, ended: int, count: int) -> None:
    """Take one array for warming up and then *count* others from *queue*, dropping each."""
    board = Board(path)
    _check(queue.get())
    board[warm] = READY
    for _ in range(count):
        _check(queue.get())
    board[ended] = time.monotonic_ns()


def take_leased_arrays(queue: AnyQueue, path: str, warm: int, ended: int, count: int) -> None:
    """The same, looking at each where it lies in the queue, if it is one that lends."""
    board = Board(path)
    lends = hasattr(queue, "lease")
    for number in range(WARMING + count):
        if number == WARMING:
            board[warm] = READY
        _check(queue.get(lease=True) if lends else queue.get())
    board[ended] = time.monotonic_ns()


def receive_bytes(connection: AnyConnection, path: str, warm: int, ended: int, count: int) -> None:
    """Receive one message of bytes for warming up and then *count* others."""
    board = Board(path)
    receive = connection.recv_bytes
    receive()
    board[warm] = READY
    for _ in range(count):
        receive()
    board[ended] = time.monotonic_ns()


def receive_objects(
    connection: AnyConnection, path: str, warm: int, ended: int, count: int
) -> None:
    """Receive one object for warming up and then *count* others, dropping each."""
    board = Board(path)
    receive = connection.recv
    receive()
    board[warm] = READY
    for _ in range(count):
        receive()
    board[ended] = time.monotonic_ns()


def receive_arrays(
    connection: AnyConnection, path: str, warm: int, ended: int, count: int, keep: bool
) -> None:
    """Receive one array for warming up and then *count* others, dropping or keeping each."""
    board = Board(path)
    kept: list[object] = []
    _check(connection.recv())
    board[warm] = READY
    for _ in range(count):
        if keep:
            kept.append(_check(connection.recv()))
        else:
            _check(connection.recv())
    board[ended] = time.monotonic_ns()


def receive_leased_arrays(
    connection: Any, path: str, warm: int, ended: int, count: int, lends: bool
) -> None:
    """The same after some for warming up, looking at each where it lies, if *lends*."""
    board = Board(path)
    for number in range(WARMING + count):
        if number == WARMING:
            board[warm] = READY
        _check(connection.recv(lease=True) if lends else connection.recv())
    board[ended] = time.monotonic_ns()


def time_messages(connection: AnyConnection, path: str, ready: int, count: int) -> None:
    """Receive *count* times of sending; slot *i* becomes the nanoseconds until it was received."""
    board = Board(path)
    board[ready] = READY
    for index in range(count):
        sent = int.from_bytes(connection.recv_bytes(), "little")
        board[index] = time.monotonic_ns() - sent


def receive_first_array(connection: AnyConnection, path: str, warm: int, ended: int) -> None:
    """Receive one array and nothing before it; numpy itself is imported beforehand."""
    import numpy  # noqa: F401  # its import is not what is measured

    board = Board(path)
    board[warm] = READY
    _check(connection.recv())
    board[ended] = time.monotonic_ns()


def echo_bytes(receiving: AnyConnection, sending: AnyConnection, count: int) -> None:
    """Send back *count* messages of bytes."""
    for _ in range(count):
        sending.send_bytes(receiving.recv_bytes())


def echo_objects(receiving: AnyConnection, sending: AnyConnection, count: int) -> None:
    """Send back *count* objects."""
    for _ in range(count):
        sending.send(receiving.recv())


def want_lock(lock: AnyLock, path: str, gate: int, ready: int, ended: int, count: int) -> None:
    """Acquire and release *count* times once slot *gate* is set; stamp the end."""
    board = Board(path)
    board[ready] = READY
    board.wait(gate)
    acquire, release = lock.acquire, lock.release
    for _ in range(count):
        acquire()
        release()
    board[ended] = time.monotonic_ns()


def time_wakings(event: AnyEvent, back: AnyEvent, path: str, count: int) -> None:
    """Wait *count* times; stamp each waking, and say so by the other event."""
    board = Board(path)
    board[2 * count] = READY
    for index in range(count):
        event.wait()
        board[count + index] = time.monotonic_ns()
        event.clear()
        back.set()


def time_acquires(semaphore: AnyLock, back: AnyEvent, path: str, count: int) -> None:
    """As `time_wakings`, with a semaphore."""
    board = Board(path)
    board[2 * count] = READY
    for index in range(count):
        semaphore.acquire()
        board[count + index] = time.monotonic_ns()
        back.set()


def time_notices(condition: AnyCondition, back: AnyEvent, path: str, count: int) -> None:
    """As `time_wakings`, with a condition; what is waited for is the other side's stamp."""
    board = Board(path)
    board[2 * count] = READY
    for index in range(count):
        with condition:
            condition.wait_for(lambda slot=index: board[slot] != 0)  # type: ignore[misc]
            board[count + index] = time.monotonic_ns()
        back.set()


def _check(array: object) -> object:
    """Return *array* if it arrived whole; a quick wrong answer must not win a benchmark."""
    if array[0] != 1 or array[-1] != 1:  # type: ignore[index]  # an array, or this is the error
        raise ValueError("an array arrived damaged")
    return array


def look_at(memories: list[Any], connection: Any) -> None:
    """Read one byte of each memory, then say so."""
    connection.send(sum(memory.buf[0] for memory in memories))


def answer_in_memory(connection: Any) -> None:
    """Receive memories until None; write into each, and say so."""
    while (memory := connection.recv()) is not None:
        memory.buf[0] = 1
        connection.send(True)
        memory.close()


def length_of(array: Any) -> int:
    """Return how many items an array has."""
    return len(array)


def array_of(length: int) -> Any:
    """Return an array with *length* items."""
    import numpy

    return numpy.ones(length)


def _listener(module: str, path: str, port: int, how: str) -> Any:
    """Listen at loopback as *module* does, and say at which port."""
    import importlib

    options = {"tls": encryption(how)} if how else {}
    listener = importlib.import_module(f"{module}.connection").Listener(
        ("127.0.0.1", 0), backlog=16, authkey=AUTHKEY, **options
    )
    Board(path)[port] = listener.address[1]
    return listener


#: What both sides of a connection over TCP know.
AUTHKEY = b"a benchmark's"


def encryption(how: str) -> Any:
    """Return the `Tls` for *how*: "authkey", or a folder with certificates."""
    from procession.tls import Tls

    if how == "authkey":
        return Tls.from_authkey()
    names = ("certificate", "key", "authority")
    return Tls.from_certificates(*(os.path.join(how, f"{name}.pem") for name in names))


def receive_over_tcp(
    module: str, path: str, how: str, port: int, warm: int, ended: int, count: int
) -> None:
    """Accept a connection; receive one message for warming up and then *count* others."""
    with _listener(module, path, port, how) as listener, listener.accept() as connection:
        receive_bytes(connection, path, warm, ended, count)


def echo_over_tcp(module: str, path: str, how: str, port: int, count: int) -> None:
    """Accept a connection, and send back *count* messages."""
    with _listener(module, path, port, how) as listener, listener.accept() as connection:
        echo_bytes(connection, connection, count)


def accept_over_tcp(module: str, path: str, how: str, port: int, count: int) -> None:
    """Accept *count* connections, one after the other."""
    with _listener(module, path, port, how) as listener:
        for _ in range(count):
            listener.accept().close()
