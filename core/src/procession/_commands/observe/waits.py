"""Who waits for what, from what threads sleep on and who has the other end of it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import attrs

if TYPE_CHECKING:
    from collections.abc import Mapping

    from procession._commands.observe.descriptors import Descriptor
    from procession._commands.observe.queues import QueueView
    from procession._commands.observe.sleeps import Sleep

__all__ = ["Objects", "Wait"]


@attrs.frozen
class Wait:
    """What one thread does: running, or waiting for something, or for somebody."""

    #: In words.
    what: str
    #: The pids of the processes that can end the wait, as far as that is known.
    who: tuple[int, ...] = ()


@attrs.frozen
class Objects:
    """The kernel objects of a program: who has them, and what they are for."""

    #: The descriptors of each process.
    held: Mapping[int, Mapping[int, Descriptor]]
    queues: Mapping[str, QueueView]
    #: The two ends of Unix sockets.
    peers: Mapping[str, str]
    #: How the processes are called.
    names: Mapping[int, str]

    def explain(self, pid: int, sleep: Sleep) -> Wait:
        """Return in words what a thread of *pid* does."""
        if not sleep.call:
            return Wait(f"sleeps in the kernel ({sleep.where})" if sleep.where else "?")
        if sleep.call == "running":
            return Wait("runs")
        if sleep.call in ("fcntl", "flock"):
            return self._lock(pid, sleep)
        if sleep.call in ("wait4", "waitid"):
            if sleep.pid:
                return Wait(f"waits for the end of {self._name(sleep.pid)}", (sleep.pid,))
            return Wait("waits for the end of any child")
        if sleep.call == "futex":
            return Wait("waits for a lock or condition of its own threads")
        if sleep.call == "restart_syscall":
            # Once stopped and continued, the kernel no longer says what a wait is for.
            return Wait(f"waits on, having been stopped ({sleep.where})")
        if "nanosleep" in sleep.call:
            return Wait("sleeps for some time")
        reasons = [self._reason(pid, number, sleep.call) for number in sleep.descriptors]
        if not reasons:
            return Wait(f"waits in {sleep.call}")
        words = list(dict.fromkeys(each.what for each in reasons))
        who = dict.fromkeys(pid for each in reasons for pid in each.who)
        return Wait("waits for " + " or ".join(words), tuple(who))

    def _reason(self, pid: int, number: int, call: str) -> Wait:
        """Return what it means that *pid* waits for descriptor *number*."""
        descriptor = self.held[pid].get(number)
        if descriptor is None:
            return Wait(f"descriptor {number}")
        if descriptor.kind == "pidfd":
            ended = int(descriptor.field("Pid") or "0")
            # -1 when it has ended already, 0 when it is outside of our namespace.
            return Wait(f"the end of {self._name(ended)}", (ended,) if ended > 0 else ())
        queue = self._queue(descriptor.identity)
        if queue is not None:
            others = tuple(other for other in queue[0].holders if other != pid)
            return Wait(f"{queue[1]} {queue[0].name}", others)
        if descriptor.kind == "pipe":
            sends = call in ("write", "sendto", "sendmsg")
            others = self._others(pid, descriptor.identity, reads=sends)
            return Wait("room in a pipe" if sends else "data, or the end, of a pipe", others)
        if descriptor.kind == "socket":
            other_end = self.peers.get(descriptor.identity, "")
            others = self._others(pid, other_end) if other_end else ()
            return Wait("a socket", others)
        return Wait(f"an {descriptor.kind}" if descriptor.kind[0] == "e" else descriptor.kind)

    def _queue(self, identity: str) -> tuple[QueueView, str] | None:
        if identity:
            for queue in self.queues.values():
                for role, meaning in _MEANINGS.items():
                    if queue.parts.get(role) == identity:
                        return queue, meaning
        return None

    def _others(self, pid: int, identity: str, *, reads: bool | None = None) -> tuple[int, ...]:
        """Return who else has an object; for pipes, who has it to read or to write."""
        return tuple(
            other
            for other, descriptors in self.held.items()
            if other != pid
            and any(
                each.identity == identity
                and each.kind in ("pipe", "socket")
                and (reads is None or (each.reads if reads else each.writes))
                for each in descriptors.values()
            )
        )

    def _lock(self, pid: int, sleep: Sleep) -> Wait:
        """Return who holds the lock that a thread waits for."""
        descriptor = self.held[pid].get(next(iter(sleep.descriptors), -1))
        if descriptor is None:
            return Wait("waits for a file lock" if sleep.descriptors else f"is in {sleep.call}")
        # The kernel lists a lock with the open file through which it was taken.
        holders = tuple(
            other
            for other, descriptors in self.held.items()
            if any(
                each.identity == descriptor.identity
                and each.kind == descriptor.kind
                and each.field("lock") is not None
                and "->" not in (each.field("lock") or "")
                for each in descriptors.values()
            )
        )
        queue = self.queues.get(descriptor.identity)
        what = f"the lock of {queue.name}" if queue else f"a lock of {descriptor.label}"
        return Wait(f"waits for {what}", holders)

    def _name(self, pid: int) -> str:
        if pid <= 0:
            return "a process that has ended"
        return f"{self.names.get(pid, 'process')} ({pid})"


_MEANINGS = {
    "wake": "an item of",
    "lane": "an item of",
    "room": "room in",
    "settled": "task_done() for all of",
}
