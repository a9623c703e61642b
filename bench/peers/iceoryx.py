"""iceoryx2: what is published lies in shared memory, and subscribers look at it there.

Its arrays are not the receiver's own, as those of pipes are: compare them with leases, too.
"""

from __future__ import annotations

import ctypes
import time
import uuid
from importlib import import_module
from typing import Any

from peers import ForkContext, get_all_start_methods

__all__ = ["get_all_start_methods", "get_context"]

#: How often the first sender looks whether anybody has subscribed, in seconds.
LOOK_SECONDS = 0.001
#: Messages that may wait.
DEPTH = 2


class Connection:
    """One end of a service; made in the process that uses it. Carries arrays of float64."""

    def __init__(self, name: str) -> None:
        """Make an end of the service called *name*."""
        self._name = name
        # Nodes and services live as long as what was made by them.
        self._parts: list[Any] = []
        self._publisher: Any = None
        self._notifier: Any = None
        self._subscriber: Any = None
        self._listener: Any = None

    def _services(self) -> tuple[Any, Any]:
        iox: Any = import_module("iceoryx2")
        iox.set_log_level(iox.LogLevel.Error)
        node = iox.NodeBuilder.new().create(iox.ServiceType.Ipc)
        name = iox.ServiceName.new(self._name)
        messages = (
            node.service_builder(name)
            .publish_subscribe(iox.Slice[ctypes.c_uint8])
            .subscriber_max_buffer_size(DEPTH)
            .enable_safe_overflow(False)
            .payload_alignment(iox.Alignment.new(64))
            .open_or_create()
        )
        events = node.service_builder(name).event().open_or_create()
        self._parts += [node, messages, events]
        return messages, events

    def send(self, array: Any, /) -> None:
        """Send an array."""
        size = array.nbytes
        if self._publisher is None:
            self._publish(size)
        sample = self._publisher.loan_slice_uninit(size)
        ctypes.memmove(sample.payload_ptr, array.ctypes.data, size)
        sample.assume_init().send()
        self._notifier.notify()

    def _publish(self, size: int) -> None:
        iox: Any = import_module("iceoryx2")
        messages, events = self._services()
        self._publisher = (
            messages.publisher_builder()
            .initial_max_slice_len(size)
            .backpressure_strategy(iox.BackpressureStrategy.RetryUntilDelivered)
            .create()
        )
        while messages.dynamic_config.number_of_subscribers == 0:
            time.sleep(LOOK_SECONDS)
        while events.dynamic_config.number_of_listeners == 0:
            time.sleep(LOOK_SECONDS)
        self._notifier = events.notifier_builder().create()

    def recv(self) -> Any:
        """Receive an array, which lies in the publisher's memory."""
        import numpy

        if self._subscriber is None:
            messages, events = self._services()
            self._listener = events.listener_builder().create()
            self._subscriber = messages.subscriber_builder().create()
        while (sample := self._subscriber.receive()) is None:
            self._listener.blocking_wait()
        # The array keeps the view, which keeps the sample: it goes back when the array goes.
        return numpy.frombuffer(sample.payload().as_memory_view(), dtype=numpy.float64)

    def close(self) -> None:
        """Leave it to the end of the process."""


class Context(ForkContext):
    """Pipes of iceoryx2."""

    def Pipe(self, duplex: bool = True) -> tuple[Connection, Connection]:
        """Make a pipe."""
        name = f"procession-bench-{uuid.uuid4().hex}"
        return Connection(name), Connection(name)


def get_context(method: str | None) -> Context:
    """Return the context."""
    return Context()
