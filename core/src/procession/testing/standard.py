"""What runs in children of the tests of what we have to do with the standard `multiprocessing`.

Both packages start them. Like `payloads`, this module imports almost nothing: some tests are
about what a child has loaded.
"""

from __future__ import annotations

import os
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


def say(connection: Any, function: Any, *args: Any) -> None:
    """Send what ``function(*args)`` returns, then wait until a message comes."""
    connection.send(function(*args))
    connection.recv()


def who_am_i() -> dict[str, Any]:
    """Return what the standard package and procession say about this process."""
    import multiprocessing

    import procession

    me, parent = multiprocessing.current_process(), multiprocessing.parent_process()
    assert parent is not None
    return {
        "name": (me.name, procession.current_process().name),
        "daemon": (me.daemon, procession.current_process().daemon),
        "pid": (me.pid, os.getpid()),
        "alive": (me.is_alive(), parent.is_alive()),
        "parent": (parent.name, parent.pid),
        "authkey": bytes(me.authkey),
        "is a standard process": isinstance(me, multiprocessing.process.BaseProcess),
        "children": len(multiprocessing.active_children()),
        "method": multiprocessing.get_start_method(allow_none=True),
    }


def rename(name: str, other: str) -> list[tuple[str, str]]:
    """Change the name of this process on either side; return what both say after each."""
    import multiprocessing

    import procession

    ours, standard = procession.current_process(), multiprocessing.current_process()
    answers = []
    for side, new in ((ours, name), (standard, other)):
        side.name = new
        answers.append((ours.name, standard.name))
    return answers


def loaded(*words: str) -> list[str]:
    """Return the loaded modules whose names contain one of *words*."""
    return sorted(name for name in sys.modules if any(word in name for word in words))


def standard_authkey() -> bytes:
    """Return the key that the standard package has for this process."""
    import multiprocessing

    return bytes(multiprocessing.current_process().authkey)


def log(queue: Any) -> None:
    """Log one record to *queue*."""
    import logging
    import logging.handlers
    import multiprocessing  # noqa: F401 - logging asks it for the name, if it is loaded

    logger = logging.getLogger("interop")
    logger.addHandler(logging.handlers.QueueHandler(queue))
    logger.error("written in %s", "a child")


def family(spec: Any, connection: Any) -> None:
    """Start a child, which says who it is, and say what the standard package lists here."""
    import multiprocessing

    from procession.testing.payloads import context

    ctx = context(spec)
    here, there = ctx.Pipe()
    child = ctx.Process(target=say, args=(there, who_am_i), name="grandchild")
    child.start()
    there.close()
    answer = here.recv()
    before = [each.name for each in multiprocessing.active_children()]
    here.send("go")
    child.join()
    after = [each.name for each in multiprocessing.active_children()]
    connection.send((answer, before, after))


def finalize(connection: Any) -> None:
    """Send a word when the standard package's exit function runs here."""
    from multiprocessing import util

    util.Finalize(None, connection.send, args=("finalized",), exitpriority=0)
    connection.send("working")


def use_queue(queue: Any, lock: Any) -> None:
    """Put this process's number into *queue*, with *lock* held."""
    with lock:
        queue.put(os.getpid())


def use_all(given: dict[str, Any], connection: Any) -> None:
    """Use one of everything that the standard package shares between processes."""
    with given["lock"], given["rlock"]:
        given["value"].value += 1
        given["array"][1] += 1
    with given["condition"]:
        given["condition"].notify_all()
    given["queue"].put("queue")
    given["simple"].put("simple")
    given["joinable"].get()
    given["joinable"].task_done()
    given["semaphore"].release()
    given["event"].set()
    given["connection"].send("connection")
    given["connection"].close()
    given["socket"].sendall(b"socket")
    given["socket"].close()
    connection.send("used")


def use_ours(given: dict[str, Any], connection: Any) -> None:
    """Use one of everything of procession, and receive what is sent by a ticket."""
    with given["lock"], given["condition"]:
        given["value"].value += 1
        given["array"][1] += 1
    given["queue"].put("queue")
    given["simple"].put("simple")
    given["event"].set()
    connection.send("used")
    late = connection.recv()
    late.send("late")
    late.close()
    given["queue"].close()


def echo(connection: Any) -> None:
    """Receive a socket and send through it what came with it."""
    end, text = connection.recv()
    end.sendall(text)
    end.close()
    connection.send("done")


def send_text(end: Any, text: bytes) -> None:
    """Send *text* through a socket."""
    end.sendall(text)


def answer_through(connection: Any) -> None:
    """Receive a connection of the standard package and send through it; send another one back."""
    import multiprocessing

    other = connection.recv()
    other.send("through theirs")
    other.close()
    mine, theirs = multiprocessing.Pipe()
    connection.send(theirs)
    theirs.close()
    connection.recv()  # it was fetched
    mine.send("back")
    mine.close()


def put_then_hold(queue: Any, connection: Any) -> None:
    """Put something, say so once it has been written, and never end."""
    queue.put("before")
    queue.close()
    queue.join_thread()
    connection.send("put")
    connection.recv()


def share_memory(connection: Any) -> None:
    """Make a standard segment, send its name and end."""
    from multiprocessing import shared_memory

    segment: Any = shared_memory.SharedMemory(create=True, size=8)
    segment.buf[0] = 7
    segment.close()
    connection.send(segment.name)


def tracker_line() -> str:
    """Return what this process writes to the standard package's tracker through."""
    from multiprocessing import resource_tracker

    tracker: Any = resource_tracker._resource_tracker
    return os.readlink(f"/proc/self/fd/{tracker._fd}")


def append(proxy: Any) -> None:
    """Append this process's number to a list in a manager."""
    proxy.append(os.getpid())


def standard_pool(method: str) -> list[int]:
    """Return what a pool of the standard package computes here."""
    import multiprocessing

    with multiprocessing.get_context(method).Pool(2) as pool:
        return pool.map(abs, [-1, 2, -3])


def our_pool(spec: Any, connection: Any) -> None:
    """Send what a pool of procession computes here."""
    from procession.testing.payloads import context

    with context(spec).Pool(2) as pool:
        connection.send(pool.map(abs, [-1, 2, -3]))


# -- tasks of an executor


def pid_and_name() -> tuple[int, str]:
    """Return this process's number and its name by the standard package."""
    import multiprocessing

    return os.getpid(), multiprocessing.current_process().name


def meet(barrier: Any) -> None:
    """Wait for the other worker."""
    barrier.wait()


def kill_me() -> None:
    """Be killed in the middle of a task."""
    os.kill(os.getpid(), 9)


def raise_error(text: str) -> None:
    """Fail."""
    raise ArithmeticError(text)


initialized: list[Any] = []


def initialize(lock: Any, text: str) -> None:
    """Remember *text* in this worker, with *lock* held."""
    with lock:
        initialized.append(text)


def what_was_initialized(number: int) -> tuple[int, list[Any]]:
    """Return *number* and what this worker was initialized with."""
    return number, initialized
