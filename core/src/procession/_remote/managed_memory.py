"""Shared memory that goes with a manager: what the server does for it, and what its clients do.

The server itself creates the segments, and marks each with its own process before the name
is there (see `procession._memory.abandoned_memory`). So there is no moment at which somebody who
is killed leaves one that nobody knows.

It unlinks them when it ends. A server that was started by a manager also has a *guardian*,
a process forked from it that does nothing but wait for its death and unlink them then. A
server that is served by the program's own process has none: after a SIGKILL, that is done
as for all abandoned memory.
"""

from __future__ import annotations

import os
import sys
import threading

from procession._memory import abandoned_memory
from procession._remote.manager_server import Server
from procession.errors import ProcessError

TYPE_CHECKING = False  # importing typing would bring `re` and more into every child
if TYPE_CHECKING:
    from collections import Counter
    from collections.abc import Callable
    from typing import Any, NoReturn

    from procession._remote.manager_session import Session
    from procession.shared_memory import SharedMemory

# Written out because the signal module costs a child more than a quarter of its own start.
_SIGKILL = 9
_STANDARD_STREAMS = 3
_HIGHEST_FD = (1 << 31) - 1


class _Gate:
    """Lets threads make segments until it is closed, any number at once."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._inside = 0
        self._closed = False

    def __enter__(self) -> None:
        with self._changed:
            if self._closed:
                raise ProcessError("the manager ends, and makes no more shared memory")
            self._inside += 1

    def __exit__(self, *error: object) -> None:
        with self._changed:
            self._inside -= 1
            self._changed.notify_all()

    def close(self) -> None:
        """Let nobody in any more, and wait until all are out."""
        with self._changed:
            self._closed = True
            while self._inside:
                self._changed.wait()


class MemoryServer(Server):
    """The server of a `SharedMemoryManager`."""

    _guardian: int | None = None

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self._mark = abandoned_memory.managed_mark()
        self._gate = _Gate()
        # Those that have been unlinked by others, too.
        self._names: set[str] = set()

    @classmethod
    def prepare(cls) -> None:
        """Start the guardian, while there are no other threads. Raises `OSError`."""
        cls._guardian = _start_guardian(abandoned_memory.managed_mark())

    def serve_forever(self) -> None:
        """See `Server.serve_forever`; unlink the segments afterwards."""
        try:
            super().serve_forever()
        finally:
            self._gate.close()
            self._unlink_all()
            if self._guardian is not None:
                _end_guardian(self._guardian)

    def _unlink_all(self) -> None:
        from procession._memory import named_memory

        for name in self._segments():
            try:
                named_memory.unlink(name)
            except FileNotFoundError:
                continue  # a user has done it just now

    def _functions(self, held: Counter[str] | None) -> dict[str, Callable[..., Any]]:
        return super()._functions(held) | {
            "create_segment": self._create_segment,
            "list_segments": self._segments,
            "release_segment": self._release_segment,
            "track_segment": self._track_segment,
        }

    def _create_segment(self, size: int) -> str:
        """Create a segment, and return its name."""
        from procession.shared_memory import create_segment

        with self._gate:
            name, fd, lease = create_segment(None, size, True, self._mark)
            self._names.add(name[1:])
        os.close(fd)
        if lease is not None:
            lease.end()  # needed by nobody: these segments are not kept by leases
        return name[1:]

    def _segments(self) -> list[str]:
        """Return the names of this server's segments."""
        return [name for name in list(self._names) if abandoned_memory.is_marked(name, self._mark)]

    def _track_segment(self, name: str) -> None:
        """Answer for a segment that a client of the standard library has created."""
        from procession._memory import named_memory

        with self._gate:
            fd, _ = named_memory.attach(name, track=False)
            try:
                abandoned_memory.mark(fd, self._mark)
                self._names.add(name.lstrip("/"))
            finally:
                os.close(fd)

    def _release_segment(self, name: str) -> None:
        """Unlink a segment of this server."""
        from procession._memory import named_memory

        file = name.lstrip("/")
        if file not in self._names or not abandoned_memory.is_marked(file, self._mark):
            raise ValueError(f"{name!r} is no shared memory of this manager")
        self._names.discard(file)
        named_memory.unlink(file)


def managed_memory(session: Session, size: int) -> SharedMemory:
    """Return new shared memory of *size* bytes that goes with the server of *session*.

    Raises like `procession.managers.SharedMemoryManager.SharedMemory`.
    """
    from procession.shared_memory import SharedMemory, check_new_size

    check_new_size(size)
    if not session.knows_sessions():
        return _tracked_by_standard_library(session, size)
    name = session.ask("create_segment", size)
    try:
        return SharedMemory(name)
    except FileNotFoundError as error:
        session.ask("dummy")  # raises if the server has ended, and its segments with it
        raise FileNotFoundError(
            error.errno,
            f"the manager at {session.address!r} has created shared memory {name!r}, but it is not "
            f"here: a SharedMemoryManager is of use only where its server's /dev/shm is",
        ) from error
    except BaseException:
        session.ask("release_segment", name)
        raise


def _tracked_by_standard_library(session: Session, size: int) -> SharedMemory:
    """Create memory, and tell its name to a server that only keeps names."""
    from procession.shared_memory import SharedMemory

    memory = SharedMemory(create=True, size=size)
    try:
        session.ask("track_segment", memory.name)
    except BaseException:
        memory.close()
        memory.unlink()
        raise
    return memory


def _start_guardian(mark: int) -> int:
    """Fork a process that unlinks what *mark* marks when this one dies; return its pid."""
    if sys.platform == "win32":
        raise OSError("shared memory with a name needs a POSIX system")
    from procession._starting.lifeline import lifeline

    end = lifeline.reading_end()
    pid = os.fork()
    if pid == 0:
        _guard(end, mark)
    return pid


def _guard(end: int, mark: int) -> NoReturn:
    """Be the guardian: wait until *end*, of the server's lifeline, is readable."""
    try:
        if sys.platform != "win32":
            import signal

            from procession._ground.waiting import wait_readable

            # What ends the server, or everybody in front of the terminal, must not end it.
            signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
            os.setsid()
            _close_all_but(end)
            wait_readable(end, None)
            abandoned_memory.remove_managed(mark)
    finally:
        os._exit(0)


def _close_all_but(kept: int) -> None:
    """Close what was inherited, for others may wait for its end."""
    null = os.open(os.devnull, os.O_RDWR)
    for stream in range(_STANDARD_STREAMS):
        os.dup2(null, stream)
    os.closerange(_STANDARD_STREAMS, kept)
    os.closerange(kept + 1, _HIGHEST_FD)


def _end_guardian(pid: int) -> None:
    """End the guardian: there is nothing left for it to do."""
    os.kill(pid, _SIGKILL)
    try:
        os.waitpid(pid, 0)
    except ChildProcessError:
        return  # where SIGCHLD is ignored, nobody has to be waited for
