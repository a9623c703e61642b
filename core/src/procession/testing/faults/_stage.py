"""The block in which children are threads, and in which scripts are played."""

from __future__ import annotations

import sys
import threading
import time
import traceback
from typing import TYPE_CHECKING

from procession import process
from procession._choosing import selection
from procession._ground.after_fork import in_forked_children
from procession.testing.faults import _life
from procession.testing.faults._channel import MemoryChannel
from procession.testing.faults._home import homes
from procession.testing.faults._life import SIGKILL, Life, changed, current
from procession.testing.faults._mailbox import MemoryMailbox
from procession.testing.faults._script import Cut, Delay, FaultScript, Kill, KillIn, Reorder

if TYPE_CHECKING:
    from types import TracebackType
    from typing import Any, Self

    from procession._choosing.registry import Kind
    from procession.testing.faults._flow import Flow
    from procession.testing.faults._script import Rule

#: How long the thread of a process that was killed may take to touch a message or end.
_LEAVING_SECONDS = 5.0
_PLUGINS: dict[tuple[Kind, str], str] = {
    ("start_method", "thread"): "procession.testing.faults:Thread",
    ("transport", "memory"): "procession.testing.faults:Memory",
}


class Faults:
    """A block in which this process has one start method and one transport, for tests.

    Inside, `thread` and `memory` are selected for the whole process, whatever was selected
    outside, and can be chosen by name. At the end everything is as before; children that
    still run are killed. One block at a time.

    Raises `RuntimeError` at the end when a thread whose process was killed does not come to
    an end: it waits for something else than a message, or computes without any call.
    """

    def __init__(self) -> None:
        self._rules: list[Kill | KillIn | Cut | Delay] = []

    def play(self, script: FaultScript) -> None:
        """Put *script* into force, beside those that are in force already.

        Processes that run already count among those that a name stands for; messages that
        they have sent count as well, and what is past happens no more.

        Raises TypeError for a connection or queue that is not of the transport `memory`.
        """
        with changed:
            for rule in script.rules:
                self._add(rule)

    def release(self, timeout: float = 10.0) -> None:
        """Have all delayed messages arrive; wait until there is one, if there is none yet.

        Raises `TimeoutError` when none was sent within *timeout* seconds.
        """
        deadline = time.monotonic() + timeout
        with changed:
            while not _release_all():
                left = deadline - time.monotonic()
                if left <= 0:
                    raise TimeoutError(
                        f"no message was delayed within {timeout:g} seconds: the script delays "
                        f"none, or it was not sent"
                    )
                changed.wait(left)

    def __enter__(self) -> Self:
        """Have children be threads and messages stay in memory from now on."""
        global _current, _watches_forks
        if not _watches_forks:
            _watches_forks = True
            in_forked_children(_life.begin_anew)
        if _current is not None:
            raise RuntimeError("another block of Faults is open in this process: close it first")
        _current = self
        self._restore = selection.begin_anew(
            {
                "names": {"start_method": "thread", "transport": "memory"},
                "roster": _PLUGINS,
                "plugins": selection.get_plugins(),
            }
        )
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        tb: TracebackType | None,
    ) -> None:
        """End all children, and have everything as it was."""
        self._leave(_LEAVING_SECONDS)

    def _leave(self, seconds: float) -> None:
        global _current
        with changed:
            for life in _life.lives:
                life.end(-SIGKILL)
        try:
            _wait_for_threads(seconds)
        finally:
            self._restore()
            process.active_children()  # collects them
            _life.lives.clear()
            _life.MAIN.children.clear()
            _life.threads.clear()
            _current = None
            with changed:
                for home in homes():
                    home.abandon()

    def _add(self, rule: Rule) -> None:
        if isinstance(rule, Reorder):
            _flow_of(rule.queue).order.extend(rule.producers)
        elif isinstance(rule, Kill | KillIn) or isinstance(rule.of, str):
            self._rules.append(rule)
        elif isinstance(rule, Cut):
            _flow_of(rule.of).cuts.append(rule)
        else:
            _flow_of(rule.of).delays.append(rule)
        self._bind()

    def _bind(self) -> None:
        """Tell processes of the rules that are for them."""
        for rule in list(self._rules):
            matching = [life for life in _life.lives if life.matches(str(rule.of))]
            if len(matching) >= rule.start:
                self._rules.remove(rule)
                matching[rule.start - 1].obey(rule)

    def admit(self, life: Life) -> None:
        """Let *life* begin, and have what the script says about it happen to it."""
        _life.lives.append(life)
        try:
            self._bind()
        except ValueError:
            _life.lives.remove(life)
            raise
        current().children.append(life)


_current: Faults | None = None
_watches_forks = False


def enter(life: Life, thread: threading.Thread) -> None:
    """Let *life* begin in *thread*, which is about to be started."""
    if _current is None:
        raise RuntimeError(
            "start method 'thread' is for blocks of procession.testing.faults.Faults"
        )
    with changed:
        _current.admit(life)
        _life.threads.append(thread)


def _wait_for_threads(seconds: float) -> None:
    deadline = time.monotonic() + seconds
    for thread in _life.threads:
        thread.join(max(0.0, deadline - time.monotonic()))
        if thread.is_alive():
            raise RuntimeError(
                f"the thread of process {thread.name!r}, which has ended, is still at work. A "
                f"thread can be ended only where it touches a message or calls a function; it is "
                f"at\n{_where(thread)}"
            )


def _release_all() -> bool:
    """Have every delayed message arrive; return whether there was one."""
    released = False
    for home in homes():
        if home.flow is not None and home.flow.release():
            home.refresh()
            released = True
    changed.notify_all()
    return released


def _flow_of(target: Any) -> Flow:
    """Return the messages that come to an end of a connection, or into a queue."""
    inner = getattr(target, "_channel", None) or getattr(target, "_mailbox", None)
    if not isinstance(inner, MemoryChannel | MemoryMailbox):
        raise TypeError(
            f"a script names processes, and connections and queues of transport 'memory', and "
            f"not {target!r}; make it inside the block of Faults"
        )
    if inner.flow is None:
        raise TypeError(f"nothing comes to {target!r}, which only sends: name the other end")
    return inner.flow


def _where(thread: threading.Thread) -> str:
    frame = sys._current_frames().get(thread.ident or 0)
    return "".join(traceback.format_stack(frame)) if frame is not None else "its very end"
