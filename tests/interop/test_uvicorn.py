"""uvicorn: its supervisor starts workers, with sockets, and asks them whether they are well."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

import pytest

pytestmark = [
    pytest.mark.beyond("it takes the standard package's own contexts"),
    pytest.mark.one_pair_per("method"),
]

PROGRAM = """\
import sys
import procession
import uvicorn._subprocess
from uvicorn.supervisors import Multiprocess

if __name__ == "__main__":
    context = procession.get_context(sys.argv[1], transport=sys.argv[2])
    uvicorn._subprocess.spawn = context
    config = uvicorn.Config(
        "procession.testing.clients:application", port=0, workers=2, log_level="error"
    )
    sockets = [config.bind_socket()]
    print(sockets[0].getsockname()[1], flush=True)
    Multiprocess(config, sockets=sockets).run()
"""


def test_workers_serve_and_stay(serve: Callable[[str], Any]) -> None:
    """They get sockets and the standard pipe for being asked; who is deaf would be killed."""
    served = serve(PROGRAM)
    workers = served.ask(bool)
    (first,) = workers
    os.kill(first, 9)
    served.ask(lambda found: bool(found - workers))

    assert (0, "") == served.stop()
