"""Encrypted connections between hosts: network namespaces with a cable that can be cut."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path
from typing import Any

import pytest

if sys.platform != "linux":
    pytest.skip("network namespaces", allow_module_level=True)

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
PROGRAM = HERE / "programs" / "hosts.py"
PYTHONS = [sys.executable, *filter(None, os.environ.get("PROCESSION_OTHER_PYTHONS", "").split(":"))]
#: What another interpreter imports procession, and what that needs, from.
PATH = [ROOT / "core" / "src", ROOT / "transports" / "tcp" / "src", sysconfig.get_path("purelib")]
SEED = os.environ.get("PROCESSION_SEED", "7")


def _obstacle() -> str | None:
    """Why hosts cannot be made here, or None."""
    for tool in ("unshare", "ip"):
        if shutil.which(tool) is None:
            return f"no {tool}: install util-linux and iproute2"
    probe = "ip tuntap add dev probe mode tun"
    made = subprocess.run(
        ["unshare", "-rn", "sh", "-c", probe], capture_output=True, text=True, timeout=30
    )
    return made.stderr.strip() or None


OBSTACLE = _obstacle()
pytestmark = [
    pytest.mark.skipif(
        OBSTACLE is not None, reason=f"no network namespaces with TUN devices here: {OBSTACLE}"
    ),
    pytest.mark.once,
]


@pytest.fixture(scope="module")
def files(certificates: Any) -> list[str]:
    """A certificate that is good for both hosts."""
    return list(map(str, certificates.files("10.77.0.1", "10.77.0.2")))


def start(scenario: str, files: list[str], python: str = sys.executable) -> subprocess.Popen[str]:
    """Begin a scenario, with *python* as the far host's interpreter."""
    env = {name: value for name, value in os.environ.items() if "PROCESSION_T" not in name}
    return subprocess.Popen(
        [
            *("unshare", "-rn", sys.executable, str(PROGRAM), scenario, *files),
            *(python, SEED),
        ],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env={**env, "PYTHONPATH": os.pathsep.join(map(str, PATH))},
    )


def finish(process: subprocess.Popen[str]) -> tuple[int, str]:
    """Wait for a scenario; what has gone wrong on either host is in its output."""
    try:
        output, _ = process.communicate(timeout=50)
    except subprocess.TimeoutExpired:
        process.kill()
        output, _ = process.communicate()
        output += "it did not end"
    return process.returncode, output


@pytest.fixture(scope="module")
def results(files: list[str], warm: None) -> dict[str, tuple[int, str]]:
    """What became of all scenarios: they wait for most of their time, so they run at once."""
    names = ("slow", "sent", "vanished", "pulled", "killed", "manager", "waits")
    under_way = {name: start(name, files) for name in names}
    plain = ("slow", "vanished", "pulled", "waits")
    under_way |= {f"{name} plain": start(name, ["plain"] * 3) for name in plain}
    return {name: finish(process) for name, process in under_way.items()}


FINE = (0, "")
#: A host that vanishes is noticed whether or not anything is encrypted.
both_ways = pytest.mark.parametrize("how", ["", " plain"], ids=["tls", "plain"])


@pytest.mark.parametrize("python", PYTHONS, ids=lambda path: path.replace("/", "_"))
def test_traffic_over_a_bad_cable(files: list[str], python: str) -> None:
    """One packet in a hundred is lost, and no message is; the peer may be of another version."""
    assert FINE == finish(start("traffic", files, python))


def test_ends_and_queues_that_were_sent(results: Any) -> None:
    """They work on the other host, and end with an error that names the host that vanished."""
    pytest.importorskip("procession_tcp")
    assert FINE == results["sent"]


@both_ways
def test_a_link_that_is_pulled(results: Any, how: str) -> None:
    """In the middle of a message: sender and receiver notice, in bounded time, for good."""
    assert FINE == results[f"pulled{how}"]


@both_ways
def test_a_host_that_disappears(results: Any, how: str) -> None:
    """Who waits for it notices, whether or not something is on its way to it."""
    assert FINE == results[f"vanished{how}"]


@both_ways
def test_a_receiver_that_takes_its_time(results: Any, how: str) -> None:
    """It is not taken for one that has vanished, although the sender cannot go on."""
    assert FINE == results[f"slow{how}"]


@both_ways
def test_waiting_in_other_ways(results: Any, how: str) -> None:
    """A call to a manager, `connection.wait` and asyncio hear of it, too."""
    assert FINE == results[f"waits{how}"]


def test_a_peer_that_is_killed(results: Any) -> None:
    """At random moments of its traffic: each time it is an error, and never a proper end."""
    assert FINE == results["killed"]


def test_a_manager_of_another_host(results: Any) -> None:
    """Its objects are used over TLS."""
    assert FINE == results["manager"]
