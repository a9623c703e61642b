"""A start method and a transport without operating system processes.

They keep the contracts with threads and lists, so that core's own work can be tested
alone and a test can look at everything that a plugin is given.
"""

from __future__ import annotations

import os
import threading
from collections import deque
from typing import Any, ClassVar

from procession.plugin import (
    Channel,
    Child,
    LaunchPlan,
    StartFeatures,
    StartMethod,
    Transport,
    TransportFeatures,
    hookimpl,
    wait_readable,
)


class ReferenceChild(Child):
    """A thread in the place of a process."""

    def __init__(self, plan: LaunchPlan) -> None:
        self.pid = 1_000_000 + plan.process._identity[-1]
        self.sentinel, self._end = os.pipe()
        self.signals: list[int] = []
        self._code: int | None = None
        self._closed = False
        self._thread = threading.Thread(target=self._work, args=(plan,))
        self._thread.start()

    def _work(self, plan: LaunchPlan) -> None:
        try:
            Reference.body(plan)
            self._code = 0
        except SystemExit as error:
            self._code = int(error.code or 0)
        os.close(self._end)

    def poll(self) -> int | None:
        return self._code if wait_readable(self.sentinel, 0) else None

    def signal(self, number: int, /) -> None:
        self.signals.append(number)

    def close(self) -> None:
        if not self._closed:
            self._closed = True
            self._thread.join()
            os.close(self.sentinel)


class Reference(StartMethod):
    """Carries a plan out in a thread, and records what it was asked."""

    name: ClassVar[str] = "reference"
    features: ClassVar[StartFeatures] = StartFeatures(inherits_memory=True)

    #: What a child does; tests replace it.
    body: ClassVar[Any] = staticmethod(lambda plan: plan.process.run())
    #: What the next launch raises instead of launching.
    refusal: ClassVar[Exception | None] = None
    plans: ClassVar[list[LaunchPlan]] = []
    closed: ClassVar[int] = 0

    def launch(self, plan: LaunchPlan, /) -> Child:
        refusal = type(self).refusal
        if refusal is not None:
            raise refusal
        self.plans.append(plan)
        return ReferenceChild(plan)

    def close(self) -> None:
        type(self).closed += 1


class MemoryChannel(Channel):
    """One end of a pair of lists; a pipe makes it readable for select."""

    def __init__(self, inbox: deque[Any] | None, outbox: deque[Any] | None) -> None:
        self._inbox = inbox
        self._outbox = outbox
        self.readable = inbox is not None
        self.writable = outbox is not None
        self.closed = False
        self._reader, self._writer = os.pipe()
        self.peer: MemoryChannel | None = None

    def send(self, body: Any, buffers: Any = (), /) -> None:
        assert self.peer is not None
        assert self._outbox is not None
        if self.peer.closed:
            raise BrokenPipeError("the peer has closed")
        self._outbox.append((bytes(body), [bytearray(buffer) for buffer in buffers]))
        os.write(self.peer._writer, b"m")

    def receive(self, into: memoryview | None = None, limit: int | None = None, /) -> Any:
        assert self.peer is not None
        assert self._inbox is not None
        if not self._inbox and self.peer.closed:
            raise EOFError
        os.read(self._reader, 1)
        if not self._inbox:
            raise EOFError
        return self._inbox.popleft()

    def wait(self, timeout: float | None = None, /) -> bool:
        return wait_readable(self._reader, timeout)

    def fileno(self) -> int:
        return self._reader

    def close(self) -> None:
        if not self.closed:
            self.closed = True
            if self.peer is not None and not self.peer.closed:
                os.write(self.peer._writer, b"e")
            os.close(self._reader)
            os.close(self._writer)

    def export(self, handoff: Any, /) -> Any:
        raise TypeError("memory does not cross into another process")

    @classmethod
    def attach(cls, recipe: Any, takeover: Any, /) -> Any:
        raise TypeError("memory does not cross into another process")


class Memory(Transport):
    """Carries messages in the memory of one process."""

    name: ClassVar[str] = "memory"
    features: ClassVar[TransportFeatures] = TransportFeatures(needs_descriptors=False)

    def pair(self, *, duplex: bool = True) -> tuple[Channel, Channel]:
        there: deque[Any] = deque()
        back: deque[Any] | None = deque() if duplex else None
        first, second = MemoryChannel(there, back), MemoryChannel(back, there)
        first.peer, second.peer = second, first
        return first, second


@hookimpl
def procession_start_method() -> type[StartMethod]:
    return Reference


@hookimpl
def procession_transport() -> type[Transport]:
    return Memory
