"""ZeroMQ, by pyzmq, over Unix sockets.

Large buffers travel beside the pickle and are not copied by the library where it can help it.
Whoever takes from a queue binds, so that there can be one consumer.
"""

from __future__ import annotations

import os
import pickle
import uuid
from importlib import import_module
from multiprocessing import util
from typing import Any

from peers import ForkContext, get_all_start_methods

__all__ = ["get_all_start_methods", "get_context"]


class _Socket:
    """A socket that is made in the process that uses it: they do not survive a fork."""

    def __init__(self, address: str, kind: str, binds: bool) -> None:
        self._address = address
        self._kind = kind
        self._binds = binds
        self._socket: Any = None
        self._owner = 0

    def get(self) -> Any:
        """Return the socket of this process."""
        if self._owner != os.getpid():
            zmq: Any = import_module("zmq")
            # The instance of the parent's is of no use here.
            context = zmq.Context()
            self._socket = context.socket(getattr(zmq, self._kind))
            self._socket.linger = -1
            (self._socket.bind if self._binds else self._socket.connect)(self._address)
            self._owner = os.getpid()
            # Ends when everything has left; processes of multiprocessing know no atexit.
            util.Finalize(None, context.destroy, exitpriority=10)
        return self._socket


def _send(socket: Any, obj: object) -> None:
    buffers: list[pickle.PickleBuffer] = []
    data = pickle.dumps(obj, 5, buffer_callback=buffers.append)
    if buffers:
        socket.send_multipart([data, *(buffer.raw() for buffer in buffers)], copy=False)
    else:
        socket.send(data)


def _receive(socket: Any) -> Any:
    frame = socket.recv(copy=False)
    if not frame.more:
        return pickle.loads(frame.buffer)
    buffers = [part.buffer for part in socket.recv_multipart(copy=False)]
    return pickle.loads(frame.buffer, buffers=buffers)


class Queue:
    """Sockets of the kinds PUSH and PULL."""

    def __init__(self) -> None:
        """Make it."""
        address = _new_address()
        self._pushing = _Socket(address, "PUSH", binds=False)
        self._pulling = _Socket(address, "PULL", binds=True)

    def put(self, obj: object, /) -> None:
        """Put an object."""
        _send(self._pushing.get(), obj)

    def get(self) -> Any:
        """Take an object."""
        return _receive(self._pulling.get())

    def close(self) -> None:
        """Leave it to the end of the process."""

    def join_thread(self) -> None:
        """Leave it to the end of the process."""


class Connection:
    """One end of a pair."""

    def __init__(self, address: str, binds: bool) -> None:
        """Make the end that binds, or the one that connects."""
        self._socket = _Socket(address, "PAIR", binds)

    def send(self, obj: object, /) -> None:
        """Send an object."""
        _send(self._socket.get(), obj)

    def recv(self) -> Any:
        """Receive an object."""
        return _receive(self._socket.get())

    def send_bytes(self, data: bytes, /) -> None:
        """Send one message of bytes."""
        self._socket.get().send(data)

    def recv_bytes(self) -> bytes:
        """Receive one message of bytes."""
        data: bytes = self._socket.get().recv()
        return data

    def close(self) -> None:
        """Leave it to the end of the process."""


class Context(ForkContext):
    """Queues and pipes of ZeroMQ."""

    def Queue(self) -> Queue:
        """Make a queue."""
        return Queue()

    def Pipe(self, duplex: bool = True) -> tuple[Connection, Connection]:
        """Make a pipe."""
        address = _new_address()
        return Connection(address, binds=True), Connection(address, binds=False)


def _new_address() -> str:
    return f"ipc://@procession-bench-{uuid.uuid4().hex}"


def get_context(method: str | None) -> Context:
    """Return the context."""
    return Context()
