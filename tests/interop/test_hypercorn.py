"""hypercorn: workers with sockets, ended by an event of ours."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

pytestmark = [
    pytest.mark.beyond("it takes the standard package's own contexts"),
    pytest.mark.one_pair_per("method"),
]

PROGRAM = """\
import socket
import sys
import procession
import hypercorn.run
from hypercorn.config import Config

if __name__ == "__main__":
    context = procession.get_context(sys.argv[1], transport=sys.argv[2])
    hypercorn.run.get_context = lambda method: context
    listener = socket.create_server(("127.0.0.1", 0))
    print(listener.getsockname()[1], flush=True)
    config = Config()
    config.application_path = "procession.testing.clients:application"
    config.bind = [f"fd://{listener.detach()}"]
    config.workers = 2
    config.loglevel = "ERROR"
    sys.exit(hypercorn.run.run(config))
"""


def test_workers_serve_until_they_are_told(serve: Callable[[str], Any]) -> None:
    """Each gets the sockets, and ends when the event is set."""
    served = serve(PROGRAM)
    assert served.ask(bool)

    assert (0, "") == served.stop()
