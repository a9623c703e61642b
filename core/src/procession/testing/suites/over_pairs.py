"""A start method and a transport under test, and what a program makes with the two."""

from __future__ import annotations

import sys

assert sys.platform == "linux", "the conformance kit looks into /proc"

from collections.abc import Callable
from contextlib import ExitStack
from typing import Any, TypeAlias

import pytest

from procession._choosing.negotiation import obstacle
from procession._contracts.start_method import StartMethod
from procession._contracts.transport import Transport
from procession.errors import IncompatiblePluginsError, NothingToLendError
from procession.testing import payloads
from procession.testing.forked import DEADLINE
from procession.testing.suites.suite import Suite

Make: TypeAlias = Callable[..., Any]


class OverPairs(Suite):
    """Tests on a start method and a transport that are used together."""

    @pytest.fixture
    def start_method(self) -> type[StartMethod]:
        """The class of the start method under test. Override this."""
        raise NotImplementedError(
            f"{type(self).__name__} has to override the fixture `start_method`, with the class"
        )

    @pytest.fixture
    def transport(self) -> type[Transport]:
        """The class of the transport under test. Override this."""
        raise NotImplementedError(
            f"{type(self).__name__} has to override the fixture `transport`, with the class"
        )

    @pytest.fixture
    def spec(self, request: pytest.FixtureRequest) -> tuple[str, str, str]:
        """What `payloads.context` makes the context from: library, start method, transport."""
        # Asked for by name, so that who overrides this one need not have them.
        method: type[StartMethod] = request.getfixturevalue("start_method")
        transport: type[Transport] = request.getfixturevalue("transport")
        for each in (method, transport):
            reason = each.unavailable()
            if reason is not None:
                pytest.skip(f"NOT TESTED: {each.name} cannot work here: {reason}")
        return "procession", method.name, transport.name

    @pytest.fixture
    def refusal(self, request: pytest.FixtureRequest, spec: tuple[str, str, str]) -> str | None:
        """Why the two cannot work together, from what they declare; None if they can."""
        if spec[0] != "procession":
            return None
        return obstacle(
            request.getfixturevalue("start_method"), request.getfixturevalue("transport")
        )

    @pytest.fixture
    def warmed_up(self, spec: tuple[str, str, str], refusal: str | None) -> None:
        """Start one child, and send a connection: what serves both stays for good."""
        if refusal is None:
            use_once(payloads.context(spec))

    @pytest.fixture
    def ctx(self, spec: tuple[str, str, str], refusal: str | None, warmed_up: None) -> Any:
        """A context of the two."""
        if refusal is not None:
            pytest.skip(f"refused, which is tested: {refusal}")
        return payloads.context(spec)

    @pytest.fixture
    def beyond(self) -> None:
        """Taken by tests of what multiprocessing does not promise."""

    @pytest.fixture
    def start(self, ctx: Any, cleanup: ExitStack) -> Make:
        """Make and start a process; it is killed and closed after the test."""

        def start(target: Callable[..., object], *args: Any) -> Any:
            process = ctx.Process(target=target, args=args)
            process.start()
            cleanup.callback(_end, process)
            return process

        return start

    @pytest.fixture
    def pipe(self, ctx: Any, cleanup: ExitStack) -> Make:
        """Make the two ends of a pipe; both are closed after the test."""

        def pipe(duplex: bool = True) -> tuple[Any, Any]:
            try:
                first, second = ctx.Pipe(duplex)
            except IncompatiblePluginsError as refusal:
                pytest.skip(f"refused, which the transport's own suite tests: {refusal}")
            cleanup.callback(first.close)
            cleanup.callback(second.close)
            return first, second

        return pipe

    @pytest.fixture
    def lending_pipe(self, ctx: Any, cleanup: ExitStack) -> Make:
        """Make the two ends of a pipe that lends; both are closed after the test."""

        def lending_pipe(duplex: bool = True) -> tuple[Any, Any]:
            try:
                first, second = ctx.Pipe(duplex, leases=True)
            except (IncompatiblePluginsError, NothingToLendError) as refusal:
                pytest.skip(f"refused: {refusal}")
            cleanup.callback(first.close)
            cleanup.callback(second.close)
            return first, second

        return lending_pipe

    @pytest.fixture
    def queue(self, ctx: Any, cleanup: ExitStack) -> Make:
        """Make a queue, which the test empties; it is closed and its thread joined afterwards."""

        def queue(maxsize: int = 0, kind: str = "Queue") -> Any:
            made = getattr(ctx, kind)(maxsize) if kind != "SimpleQueue" else ctx.SimpleQueue()
            if kind != "SimpleQueue":
                cleanup.callback(made.join_thread)
            cleanup.callback(made.close)
            return made

        return queue


def _end(process: Any) -> None:
    process.kill()
    process.join(DEADLINE)
    process.close()


_used: set[Any] = set()


def use_once(ctx: Any) -> None:
    """Use what is kept on purpose once: helpers, sockets, and who hands descriptors over."""
    key = ctx.get_start_method(), type(ctx)
    if key in _used:
        return
    with ExitStack() as stack:
        receiver, sender = ctx.Pipe(duplex=False)
        here, there = ctx.Pipe(duplex=False)
        for end in (receiver, sender, here, there):
            stack.callback(end.close)
        process = ctx.Process(target=payloads.send_all, args=(sender, ["warm"]))
        process.start()
        stack.callback(_end, process)
        assert receiver.poll(DEADLINE)
        assert receiver.recv() == "warm"
        there.send(sender)
        with here.recv() as copy:
            copy.send("warm")
        assert receiver.recv() == "warm"
    _used.add(key)
