"""Unit tests of how a program behaves when its processes, and what is between them, fail.

`Faults` is a block in which children are threads (start method `thread`) and messages stay in
memory (transport `memory`), behind the contracts that every plugin keeps, so that the program
is not changed for it. `FaultScript` says what goes wrong, and exactly where::

    with Faults() as faults:
        faults.play(FaultScript().kill("worker-1", after_messages=3))
        ...  # the program: it sees what it would see of a process that was killed there

With pytest, ``pytest_plugins = ["procession.testing.faults.fixture"]`` in the outermost
``conftest.py`` gives tests the fixture `faults`, which is such a block.

The two plugins have no entry points: outside of such a block nobody can choose them, and no
list shows them.
"""

from __future__ import annotations

from procession.testing.faults._channel import MemoryChannel
from procession.testing.faults._mailbox import MemoryMailbox
from procession.testing.faults._script import FaultScript
from procession.testing.faults._stage import Faults
from procession.testing.faults._thread import Thread, ThreadChild
from procession.testing.faults._transport import Memory

__all__ = [
    "FaultScript",
    "Faults",
    "Memory",
    "MemoryChannel",
    "MemoryMailbox",
    "Thread",
    "ThreadChild",
]
