"""What the kernel does at the end of a process, for an interpreter that ends without one."""

from __future__ import annotations

import gc
import os

from procession import process
from procession._contracts.channel import Channel
from procession._contracts.mailbox import Mailbox
from procession._ground.handoff import Exportable
from procession._processes.report_file import report_file

TYPE_CHECKING = False  # importing typing would bring `re` and more into every child
if TYPE_CHECKING:
    from typing import Any


def give_back() -> None:
    """Close what procession has open in this interpreter.

    Call it last, when nobody uses any of it any more: the modules are torn down next, without
    which objects cannot close themselves, and nobody else does it in a process that goes on.
    """
    owners: list[Any] = [found for found in gc.get_objects() if _owns_descriptors(type(found))]
    # Who is made of others closes them, too, and may have to do something with them before.
    for kind in (Mailbox, Channel, object):
        for owner in owners:
            if isinstance(owner, kind):
                _close(owner)
    report_file.give_back()
    parent = process.parent_process()
    if parent is not None:
        os.close(parent.sentinel)


def _close(owner: Any) -> None:
    """Close what has a `close`, or only the method that closes it when it is collected."""
    if hasattr(owner, "close"):
        owner.close()
    else:
        owner.__del__()


def _owns_descriptors(kind: type) -> bool:
    if not hasattr(kind, "__del__"):
        return False
    return issubclass(kind, Exportable) or (
        kind.__module__.startswith("procession.") and hasattr(kind, "close")
    )
