"""Managers over TLS: proxies know how to encrypt, in whichever process they are."""

from __future__ import annotations

import pickle
import sys
from collections.abc import Callable
from contextlib import ExitStack
from typing import Any

import pytest

if sys.platform != "linux":
    pytest.skip("as the managers' own tests", allow_module_level=True)

import procession
from procession import errors
from procession.managers import SyncManager
from procession.testing import manager_payloads
from procession.tls import Tls

KEY = b"the key of this manager"


@pytest.fixture
def manager(tls: Tls, cleanup: ExitStack) -> Callable[[str], SyncManager]:
    """Start a manager by a method; it is shut down after the test."""

    def start(method: str) -> SyncManager:
        me = procession.current_process()
        cleanup.callback(setattr, me, "authkey", me.authkey)
        me.authkey = KEY
        ctx = procession.get_context(method)
        made = SyncManager(("127.0.0.1", 0), authkey=KEY, ctx=ctx, tls=tls)
        return cleanup.enter_context(made)

    return start


def test_proxies_in_children(manager: Callable[[str], SyncManager], method: str) -> None:
    """Forked or fresh, a child uses what it was given; so do proxies in what they stand for."""
    started = manager(method)
    shared = started.dict()
    shared["inner"] = started.dict()
    process = procession.get_context(method).Process(
        target=manager_payloads.fill, args=(shared["inner"], "key", [1, 2])
    )
    process.start()
    process.join()
    assert 0 == process.exitcode
    process.close()
    assert [1, 2] == shared["inner"]["key"]
    assert [1, 2] == pickle.loads(pickle.dumps(shared))["inner"]["key"]


def test_long_answers_and_exceptions(manager: Callable[[str], SyncManager]) -> None:
    """What is longer than a record arrives whole, and errors with their traceback."""
    shared = manager("spawn").dict()
    shared["long"] = bytes(3_000_000)
    assert 3_000_000 == len(shared["long"])
    with pytest.raises(KeyError) as caught:
        shared["missing"]
    assert "Traceback" in str(caught.value.__cause__)


def test_a_client_with_a_bad_certificate(
    manager: Callable[[str], SyncManager], certificates: Any
) -> None:
    """It is told why, and the server goes on."""
    started = manager("spawn")
    bad = certificates.tls(authority="theirs")
    stranger = SyncManager(started.address, authkey=b"another one", tls=bad)
    with pytest.raises(errors.TlsError, match="our certificate"):
        stranger.connect()
    assert {} == started.dict().copy()


def test_a_server_that_is_killed(manager: Callable[[str], SyncManager]) -> None:
    """The error names it."""
    started = manager("spawn")
    shared = started.dict(a=1)
    assert 1 == shared["a"]
    process = started._process
    assert process is not None
    process.kill()
    with pytest.raises(errors.ServerDiedError, match=r"SyncManager.*exit code -9"):
        shared["a"]
