"""A child beside others in one process: what of the process it leaves alone, and gives back."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

PROGRAM = """\
import atexit
import faulthandler
import os
import signal
import sys

from procession import child, process
from procession._starting import launch_plan
from procession._starting.lifeline import lifeline
from procession.connection import Connection
from procession.plugin import anonymous_file

kept = []


def keep_open(connection):
    kept.append(connection)  # in a module, which is torn down while the process goes on
    connection.send("begun")


def main():
    report = anonymous_file("report")
    reader, writer = os.pipe()
    target = process.Process(
        target=keep_open,
        args=(Connection(writer, readable=False),),
        daemon=True,
        sigint="ignore",
    )
    plan = launch_plan.LaunchPlan(
        process=target,
        lifeline=lifeline.reading_end(),
        bequest={"names": {}, "roster": {}, "plugins": ()},
        preload=(),
        log=None,
        given=set(),
        report=report,
    )
    parcel = plan.pack()
    descriptors = [parcel.open(), *map(os.dup, parcel.descriptors)]
    target._args = ()
    os.chdir("/")
    before = (os.getcwd(), signal.getsignal(signal.SIGINT), os.fstat(0), faulthandler.is_enabled())

    code = child.run_parcel(descriptors[0], descriptors[1:], shares_process=True)

    after = (os.getcwd(), signal.getsignal(signal.SIGINT), os.fstat(0), faulthandler.is_enabled())
    print(code, before == after, Connection(reader, writable=False).recv())
    print(len(sys.modules["__main__"].kept))
    atexit._run_exitfuncs()  # as when an interpreter is closed
    still_open = []
    for fd in descriptors:
        try:
            os.fstat(fd)
        except OSError:
            continue
        still_open.append(fd)
    print(still_open)


if __name__ == "__main__":
    main()
"""


def test_it_leaves_the_process_alone_and_closes_what_it_had(tmp_path: Path) -> None:
    """The kernel closes nothing at the end of an interpreter, and the rest is the parent's."""
    program = tmp_path / "program.py"
    program.write_text(PROGRAM)
    done = subprocess.run(
        [sys.executable, "-W", "error", program],
        capture_output=True,
        text=True,
        stdin=subprocess.PIPE,
        env={name: value for name, value in os.environ.items() if name != "PYTHONFAULTHANDLER"},
        check=False,
    )

    assert ("0 True begun\n1\n[]\n", "") == (done.stdout, done.stderr)
