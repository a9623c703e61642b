"""Clients and servers of managers, killed at random points.

``PROCESSION_KILLS`` is how many are killed, ``PROCESSION_SEED`` the seed of the moments.
"""

from __future__ import annotations

import functools
import os
import random
import sys
import time

import pytest

if sys.platform != "linux":
    pytest.skip("fork and pidfds", allow_module_level=True)

from procession import managers
from procession._remote import referents
from procession.errors import ServerDiedError
from procession.process import current_process
from procession.testing.forked import crew, until

pytestmark = pytest.mark.once

KILLS = int(os.environ.get("PROCESSION_KILLS", "12"))
SEED = int(os.environ.get("PROCESSION_SEED", "7"))


def busy(address: bytes) -> None:
    """Make, send on and drop objects without end."""
    manager = managers.SyncManager(address, current_process().authkey)
    manager.connect()
    shelf = manager.list()
    while True:
        mapping = manager.dict(a=1)
        shelf.append(mapping)
        shelf[-1]["b"] = [2] * 100
        shelf.pop()
        mapping["c"] = len(shelf)


def serve(writer: int) -> None:
    """Be a server of its own process, whose tickets lapse soon."""
    referents.TICKET_SECONDS = 1.0
    server = managers.SyncManager(None, current_process().authkey).get_server()
    assert isinstance(server.address, bytes)
    os.write(writer, server.address)
    server.serve_forever()


def test_killed_clients_leave_nothing_in_the_server() -> None:
    """Wherever they were: in a handshake, a call, with a proxy on its way."""
    random.seed(SEED)
    reader, writer = os.pipe()
    with crew() as fork:
        fork(lambda: serve(writer))
        address = os.read(reader, 200)
        manager = managers.SyncManager(address, current_process().authkey)
        manager.connect()
        kept = manager.dict(kept=True)
        for _ in range(KILLS):
            clients = [fork(lambda: busy(address)) for _ in range(2)]
            time.sleep(random.uniform(0.02, 0.25))  # the moment itself is what is tested
            for each in clients:
                each.kill()
            assert {"kept": True} == kept.copy()
        # What was on its way when they died is kept until its ticket has lapsed.
        until(lambda: manager._number_of_objects() == 1)
        assert {"kept": True} == kept.copy()
    os.close(reader)
    os.close(writer)


def test_killed_server_is_named_wherever_its_clients_were() -> None:
    """Every client ends with the one error, and in time."""
    random.seed(SEED)
    for _ in range(max(2, KILLS // 3)):
        reader, writer = os.pipe()
        with crew() as fork:
            server = fork(functools.partial(serve, writer))
            address = os.read(reader, 200)

            def client(address: bytes = address) -> None:
                with pytest.raises(ServerDiedError, match="has ended, or cannot be reached"):
                    busy(address)

            clients = [fork(client) for _ in range(3)]
            time.sleep(random.uniform(0.02, 0.3))  # the moment itself is what is tested
            server.kill()
            assert [0, 0, 0] == [each.join() for each in clients]
        os.close(reader)
        os.close(writer)
