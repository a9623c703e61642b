"""The plugins: what their metadata says, and whether they really work."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import procession
from procession._choosing.installed import take_inventory
from procession._choosing.registry import KINDS, NOUNS
from procession._commands.doctor.finding import Finding, Level
from procession._commands.doctor.probe_child import send_back
from procession.errors import PluginUnavailableError, ProcessError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from procession._choosing.installed import InstalledPlugin
    from procession._choosing.registry import Registry
    from procession.connection import Connection
    from procession.context import BaseContext

__all__ = ["installed", "selection", "working"]

#: Seconds that one child may take from its start to its answer, and to its end.
PATIENCE = 15.0

_MESSAGE = [42, None, "hello"]
_SLOW = 2.0


def installed(registry: Registry) -> Iterator[Finding]:
    """Load every installed plugin, and compare its version with core's."""
    for broken in take_inventory().unreadable:
        yield Finding(
            Level.PROBLEM, "plugin metadata", f"of {broken} cannot be read", "install it again"
        )
    for kind in KINDS:
        found = registry.installed(kind)
        if not registry.names(kind):
            yield Finding(
                Level.PROBLEM,
                f"{NOUNS[kind]}s",
                "none is installed",
                'pip install "procession[all]"',
            )
        for plugin in found:
            yield _one(registry, plugin)


def _one(registry: Registry, plugin: InstalledPlugin) -> Finding:
    subject = f"{NOUNS[plugin.kind]} {plugin.name}"
    problem = registry.problem(plugin.kind, plugin.name)
    if isinstance(problem, PluginUnavailableError):
        return Finding(Level.NOTE, subject, str(problem), "use another one here")
    if problem is not None:
        return Finding(
            Level.PROBLEM,
            subject,
            str(problem),
            f"pip install --force-reinstall or uninstall {plugin.distribution}",
        )
    ours = plugin.distribution == f"procession-{plugin.name}"
    if ours and _series(plugin.version) != _series(procession.__version__):
        return Finding(
            Level.PROBLEM,
            subject,
            f"{plugin.distribution} is {plugin.version}, and procession is "
            f"{procession.__version__}",
            f"pip install --upgrade procession {plugin.distribution}",
        )
    return Finding(Level.OK, subject, f"{plugin.distribution} {plugin.version}")


def _series(version: str) -> list[str]:
    """Return the part of a version in which distributions that go together agree."""
    return version.split(".")[:2]


def selection() -> Iterator[Finding]:
    """See what a program that says nothing would use."""
    try:
        chosen = procession.selection()
    except ProcessError as error:
        yield Finding(Level.PROBLEM, "selection", str(error), "correct the choice, or take it away")
        return
    text = ", ".join(
        f"{choice.name} (by {choice.source}: {choice.detail})"
        for choice in (chosen.start_method, chosen.transport)
    )
    yield Finding(Level.OK, "selection", text)


def working(methods: list[str], transports: list[str]) -> Iterator[Finding]:
    """Start one child by each method, and send a message through each transport."""
    tried: set[str] = set()
    proven: str | None = None
    for method in methods:
        for transport in transports:
            try:
                context = procession.get_context(method, transport=transport)
            except ProcessError:
                continue  # they do not go together, which is no fault of theirs
            finding = _converse(context, f"child by {method} over {transport}")
            yield finding
            if finding.level in (Level.OK, Level.NOTE):
                tried.add(transport)
                proven = proven or method
            break
        else:
            yield Finding(
                Level.WARNING,
                f"child by {method}",
                "no transport here works with it",
                "install one that does: pip install procession-pipe",
            )
    for transport in transports:
        if transport not in tried and proven is not None:
            try:
                context = procession.get_context(proven, transport=transport)
            except ProcessError as error:
                yield Finding(Level.NOTE, f"transport {transport}", str(error))
                continue
            yield _converse(context, f"child by {proven} over {transport}")


def _answer(receiver: Connection) -> object:
    try:
        return receiver.recv() if receiver.poll(PATIENCE) else "nothing"
    except EOFError:
        return "nothing"  # the exit code says more


def _converse(context: BaseContext, subject: str) -> Finding:
    """Start a child, send it a message through a queue, and get it back through a pipe."""
    begun = time.perf_counter()
    try:
        receiver, sender = context.Pipe(duplex=False)
        with receiver, sender:
            queue = context.Queue()
            child = context.Process(target=send_back, args=(sender, queue), daemon=True)
            child.start()
            sender.close()
            started = time.perf_counter()
            queue.put(_MESSAGE)
            answer = _answer(receiver)
            answered = time.perf_counter()
            child.join(PATIENCE)
            if child.exitcode is None:
                child.kill()
                child.join()
            code = child.exitcode
            child.close()
            queue.close()
    except (ProcessError, OSError, EOFError) as error:
        return Finding(
            Level.PROBLEM,
            subject,
            f"failed: {type(error).__name__}: {error}",
            "see the other findings, and what the child wrote above; then report it with the "
            "output of procession doctor --json",
        )
    if answer != _MESSAGE or code != 0:
        return Finding(
            Level.PROBLEM,
            subject,
            f"answered {answer!r} and ended with exit code {code}",
            "look at what it wrote on stderr",
        )
    found = f"started in {(started - begun) * 1e3:.0f} ms, answered after {answered - begun:.3f} s"
    if answered - begun > _SLOW:
        return Finding(
            Level.WARNING,
            subject,
            found,
            "see what the children import at their start: python -X importtime",
        )
    return Finding(Level.OK, subject, found)
