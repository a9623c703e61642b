"""A process that is no relative of the tests: ``python guest.py FUNCTION PORT``."""

from __future__ import annotations

import sys
from typing import Any

import procession
from procession.connection import Client

KEY = b"the family's key"


def send_and_end(control: Any) -> None:
    """Send, and end without having closed anything."""
    end = control.recv()
    end.send_bytes(bytes(4_000_000))
    end.send("last words")


def send_for_ever(control: Any) -> None:
    """Send until this process is killed."""
    end = control.recv()
    while True:
        end.send(bytes(100_000))


def make_pipe(control: Any) -> None:
    """Send an end away, and wait."""
    here, there = procession.get_context(transport="tcp").Pipe()
    control.send(there)
    there.close()
    here.send("hello")
    here.recv()


def work(control: Any) -> None:
    """Do what is in one queue, and put what comes of it into another."""
    tasks, results = control.recv()
    while (task := tasks.get()) is not None:
        results.put(task)


def get_once(control: Any) -> None:
    """Wait for something that never comes."""
    queue = control.recv()
    queue.qsize()
    control.send("waiting")
    queue.get()


def make_queue(control: Any) -> None:
    """Send a queue away, and wait."""
    queue = procession.get_context(transport="tcp").Queue()
    queue.put("hello")
    control.send(queue)
    control.recv()


if __name__ == "__main__":
    procession.current_process().authkey = KEY
    with Client(("127.0.0.1", int(sys.argv[2])), authkey=KEY) as control:
        globals()[sys.argv[1]](control)
