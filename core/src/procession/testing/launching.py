"""What runs in children of the suite of start methods. As `payloads`, importable and cheap."""

from __future__ import annotations

import os
import sys

from procession._ground.handoff import Exportable

TYPE_CHECKING = False  # importing typing would bring `re` and more into every child
if TYPE_CHECKING:
    from typing import Any, Self

    from procession._ground.handoff import Handoff, Recipe, Takeover


class Descriptors(Exportable):
    """Open descriptors as an argument of a process. They stay who made this."""

    def __init__(self, *numbers: int) -> None:
        self.numbers = numbers

    def export(self, handoff: Handoff, /) -> Recipe:
        """See `Exportable.export`."""
        return tuple(map(handoff.give, self.numbers))

    @classmethod
    def attach(cls, recipe: Recipe, takeover: Takeover, /) -> Self:
        """See `Exportable.attach`."""
        return cls(*map(takeover.take, recipe))


def write_each(descriptors: Descriptors, data: list[bytes]) -> None:
    """Write into each descriptor what is meant for it."""
    for fd, text in zip(descriptors.numbers, data, strict=True):
        os.write(fd, text)


def leave_a_forked_child(connection: Any) -> None:
    """End while a child that was forked in the plain way goes on, with all that is open here."""
    if sys.platform == "win32":
        raise OSError("no fork on Windows")
    pid = os.fork()
    if pid == 0:
        from procession.testing.payloads import hold_for_ever

        hold_for_ever()
    connection.send(pid)


def start_by(method: str, target: Any, *args: Any, **options: Any) -> Any:
    """Start a process by the start method *method*, whatever transports there are."""
    from procession.process import process_class

    process = process_class(method, "Process")(target=target, args=args, **options)
    process.start()
    return process


def host() -> str:
    """What tells this host, as it has been started, from every other."""
    with open("/proc/sys/kernel/random/boot_id", encoding="ascii") as file:
        return file.read()


#: The exit code of a child on another host than that of its parent.
ELSEWHERE = 8


def end_by_host(parent: str) -> None:
    """Say by the exit code, which needs no descriptor, whether this is the host of *parent*."""
    sys.exit(0 if host() == parent else ELSEWHERE)


#: What `leave_a_note` has been called with in this memory.
notes: list[str] = []


def leave_a_note(text: str) -> None:
    """Change the memory of whoever runs this."""
    notes.append(text)


def be_known() -> dict[str, Any]:
    """What a process knows of itself and of its parent."""
    from procession.process import current_process, parent_process

    me, parent = current_process(), parent_process()
    assert parent is not None
    return {
        "name": me.name,
        "daemon": me.daemon,
        "authkey": bytes(me.authkey),
        "pid": me.pid,
        "parent": (parent.name, parent.pid, parent.is_alive()),
    }


def be_surrounded(variable: str) -> tuple[str | None, str, int]:
    """What the options of a process have changed: a variable, the directory, the umask."""
    mask = os.umask(0)
    os.umask(mask)
    return os.environ.get(variable), os.getcwd(), mask
