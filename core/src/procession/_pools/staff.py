"""The workers that a pool has: hired, listened to, replaced and buried."""

from __future__ import annotations

import os
import select
import sys
import time

from procession._ground.encoder import PICKLE
from procession._memory.shared_map import SharedMap
from procession._pools import desk
from procession._pools.desk import Desk
from procession._pools.forks import starting
from procession._pools.member import Member
from procession._pools.worker import work

TYPE_CHECKING = False  # every module of the parent makes a fork dearer
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Any

    from procession._contracts.channel import Channel
    from procession._ground.bell import Bell
    from procession._ground.encoder import Encoder

#: So many workers in a row may end before they are ready, and so many beyond one each.
_MOST_FALSE_STARTS = 4
#: The first pause before another try, in seconds, and the longest.
_SHORTEST_PAUSE, _LONGEST_PAUSE = 0.02, 1.0
_READABLE = 1  # POLLIN


class Recipe:
    """How the workers of a pool are made, and when they are replaced."""

    def __init__(
        self,
        context: Any,
        initializer: Callable[..., object] | None,
        initargs: Sequence[Any],
        max_tasks: int | None,
        max_age: float | None,
        max_rss: int | None,
    ) -> None:
        self.context = context
        #: What pickles, on both sides, for as long as there is the pool.
        self.encoder: Encoder | None = context._encoder()
        self.initializer = initializer
        self.initargs = tuple(initargs)
        self.max_tasks = max_tasks
        self.max_age = max_age
        self.max_rss = max_rss
        self.has_limits = not (max_tasks is max_age is max_rss is None)
        if max_rss is not None:
            # Now, while there are descriptors; where memory cannot be watched, it raises.
            from procession._starting.limit_watch import resident

            resident(os.getpid(), max_rss)

    @property
    def serializer_name(self) -> str:
        """The name of the serializer that its workers are started with."""
        return PICKLE if self.encoder is None else self.encoder.name

    def has_served(self, member: Member) -> bool:
        """Return whether *member* is to be replaced before it does more."""
        if not member.given:
            return False  # a new one would be no better
        if self.max_tasks is not None and member.given >= self.max_tasks:
            return True
        if self.max_age is not None and member.age() >= self.max_age:
            return True
        if self.max_rss is None:
            return False
        try:
            return member.resident(self.max_rss) > self.max_rss
        except OSError:
            return False  # no descriptor is to be had: it is looked at before the next task, too


class Staff:
    """The workers of one pool, each at a place of its own. Belongs to the pool's own thread.

    A ring of the bell, which is for everybody, ends a `wait`.
    """

    def __init__(self, recipe: Recipe, size: int, bell: Bell, callers_bell: Bell) -> None:
        """Ringing *bell* ends a `wait`; the other one is for workers that have a caller."""
        self._poller = _new_poller()
        self._recipe = recipe
        self.members: list[Member] = []
        self._bells: tuple[Bell, Bell] | None = bell, callers_bell
        self._shared: SharedMap | None = SharedMap(size * desk.BYTES, "procession-pool")
        self._desks = [Desk(self._shared, place) for place in range(size)]
        self._free_places = list(range(size - 1, -1, -1))
        self._most_false_starts = size + _MOST_FALSE_STARTS
        self.false_starts = 0
        #: When the next worker may be hired, if one is missing; None for at once.
        self.hire_at: float | None = None
        # Our end of the channel of the one who is just started: a copy is not for him, either.
        self._end_to_come: Channel | None = None
        self._channels: dict[int, Member] = {}
        self._sentinels: dict[int, Member] = {}
        self._poller.register(bell.fileno(), _READABLE)

    def wait(self, milliseconds: float | None) -> tuple[list[Member], list[Member], bool]:
        """Return who has said something, who has ended, and whether the bell rings."""
        speaking, ended, is_rung = [], [], False
        for fd, _ in self._poller.poll(milliseconds):
            if fd in self._channels:
                speaking.append(self._channels[fd])
            elif fd in self._sentinels:
                ended.append(self._sentinels[fd])
            else:
                is_rung = True
        return speaking, ended, is_rung

    @property
    def is_complete(self) -> bool:
        """Whether there is no place free."""
        return not self._free_places

    def hire(self) -> None:
        """Start one more worker. Raises what starting a process raises."""
        assert self._shared is not None
        recipe = self._recipe
        place = self._free_places.pop()
        try:
            self._desks[place].clear()
            # A fork in this moment would copy the worker's end of the channel, and its death
            # would not be seen there.
            with starting():
                ours, theirs = recipe.context._transport().pair(duplex=True)
                self._end_to_come = ours
                try:
                    process = recipe.context.Process(
                        target=work,
                        args=(
                            theirs,
                            self._shared,
                            place,
                            self._bells,
                            recipe.initializer,
                            recipe.initargs,
                            recipe.encoder,
                        ),
                        daemon=True,
                        sigint="ignore",
                    )
                    process.name = process.name.replace("Process", "PoolWorker")
                    process._tolerates_threads = True
                    process._serializer_name = recipe.serializer_name
                    process.start()
                    try:
                        member = Member(process, ours, self._desks[place], place)
                    except BaseException:
                        process.kill()
                        process.join()
                        process.close()
                        raise
                except BaseException:
                    ours.close()
                    raise
                finally:
                    self._end_to_come = None
                    theirs.close()
        except BaseException:
            self._free_places.append(place)
            raise
        self.members.append(member)
        self.look_again(member)
        self._sentinels[member.sentinel] = member
        self._poller.register(member.sentinel, _READABLE)

    def note_false_start(self) -> bool:
        """Note that a worker could not be had, or ended before it was ready; rest a while.

        Returns whether that has happened too often to go on.
        """
        self.false_starts += 1
        pause = min(_LONGEST_PAUSE, _SHORTEST_PAUSE * 2 ** min(self.false_starts, 10))
        self.hire_at = time.monotonic() + pause
        working = any(member.ready and not member.retiring for member in self.members)
        return self.false_starts >= self._most_false_starts and not working

    def retire(self, member: Member) -> None:
        """Have *member*, which owes nothing, end; its place is free at once."""
        member.retire()
        self._leave(member)

    def look_away(self, member: Member) -> None:
        """Do not wait for what *member* says, for now. Idempotent."""
        if self._channels.pop(member.channel_fd, None) is not None:
            self._poller.unregister(member.channel_fd)

    def look_again(self, member: Member) -> None:
        """Wait for what *member* says, if anything can come. Idempotent."""
        if not member.is_silent:
            self._channels[member.channel_fd] = member
            self._poller.register(member.channel_fd, _READABLE)

    def stop_listening(self, member: Member) -> None:
        """Note that nothing more will come from *member*. Idempotent."""
        member.is_silent = True
        self.look_away(member)

    def note_end(self, member: Member) -> None:
        """Do not wait for the end of *member* any more: it has ended. Idempotent."""
        if self._sentinels.pop(member.sentinel, None) is not None:
            self._poller.unregister(member.sentinel)

    def bury(self, member: Member) -> None:
        """Take leave of a worker that has ended; its place is free."""
        self.stop_listening(member)
        self.note_end(member)
        member.bury()
        self.members.remove(member)
        self._leave(member)

    def _leave(self, member: Member) -> None:
        if member.place >= 0:
            self._free_places.append(member.place)
            member.place = -1

    def disband(self) -> None:
        """Bury everybody, who was killed, and give the memory back."""
        for member in list(self.members):
            self.bury(member)
        for each in self._desks:
            each.release()
        self._shared = self._bells = None

    def abandon(self) -> None:
        """Forget the workers in a forked child: they are its siblings."""
        for member in self.members:
            member.abandon()
        if self._end_to_come is not None:
            self._end_to_come.close()


def _new_poller() -> Any:  # of a class that has no public name
    if sys.platform == "win32":
        raise OSError("a pool waits by poll(), which Windows does not have")
    return select.poll()
