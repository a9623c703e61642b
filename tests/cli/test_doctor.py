"""``procession doctor``: the command as its users run it."""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import procession

pytestmark = pytest.mark.once

if sys.platform != "linux":
    pytest.skip("needs /proc", allow_module_level=True)


def test_this_environment_is_well(run: Any) -> None:
    """Every method and transport is proven, nothing is a problem, and the status is 0."""
    result = run("doctor")

    assert result.returncode == 0, result.stdout + result.stderr
    for method in procession.get_all_start_methods():
        assert f"child by {method} over" in result.stdout
    assert ", 0 problems" in result.stdout


def test_json(run: Any) -> None:
    """The same, for programs."""
    result = run("doctor", "--json", "--no-start")
    found = json.loads(result.stdout)["findings"]

    assert {"level", "subject", "found", "advice"} == set(found[0])
    assert not any(each["subject"].startswith("child by") for each in found)


def test_too_few_descriptors(environment: dict[str, str], tmp_path: Path) -> None:
    """With a real limit, the limit is the finding, it has advice, and the status is 1."""
    result = subprocess.run(
        [sys.executable, "-m", "procession", "doctor", "--json"],
        env=environment,
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_NOFILE, (20, 20)),
    )
    found = {each["subject"]: each for each in json.loads(result.stdout)["findings"]}

    assert result.returncode == 1
    assert found["open files"]["level"] == "problem"
    assert found["open files"]["found"].startswith("20 (hard limit 20)")
    assert "ulimit -n" in found["open files"]["advice"]


# It loads what it needs as root: the interpreter's files may be root's alone.
CROWDED_USER = """\
import os, resource
from procession.cli import main

main(["doctor"])
os.setgid(61234)
os.setuid(61234)
resource.setrlimit(resource.RLIMIT_NPROC, (1, 1))
print("as a user:", main(["doctor", "--json"]))
"""


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become a user without processes")
def test_no_more_processes(environment: dict[str, str], tmp_path: Path) -> None:
    """With a real limit, it is the finding, and named again by each child that cannot start."""
    result = subprocess.run(
        [sys.executable, "-c", CROWDED_USER],
        env=environment,
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=True,
    )
    text, _, status = result.stdout[result.stdout.index("\n{") :].partition("as a user:")
    found = {each["subject"]: each for each in json.loads(text)["findings"]}

    assert 1 == int(status)
    assert found["processes"]["level"] == "problem"
    assert "room for 0 more, threads included: RLIMIT_NPROC 1" in found["processes"]["found"]
    for name, each in found.items():
        # The fork server's own limit is root's: it was started before.
        if name.startswith(("child by fork over", "child by spawn over")):
            assert "RLIMIT_NPROC is 1 for user 61234" in each["found"]


def test_a_thread_of_a_site_hook(run: Any, tmp_path: Path) -> None:
    """What starts a thread in every Python program is found, and the file is named."""
    site = tmp_path / "site"
    site.mkdir()
    (site / "sitecustomize.py").write_text(
        "import threading\n"
        "threading.Thread(target=threading.Event().wait, daemon=True, name='spy').start()\n"
    )
    result = run("doctor", "--json", "--no-start", PYTHONPATH=str(site))
    found = {each["subject"]: each for each in json.loads(result.stdout)["findings"]}

    assert found["threads at start"]["level"] == "warning"
    assert "spy" in found["threads at start"]["found"]
    assert str(site / "sitecustomize.py") in found["threads at start"]["found"]


def test_a_broken_plugin(run: Any, tmp_path: Path) -> None:
    """It is a problem of its own, and the others are still proven to work."""
    site = tmp_path / "site"
    metadata = site / "wrecks-1.2.dist-info"
    metadata.mkdir(parents=True)
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: wrecks\nVersion: 1.2\n")
    (metadata / "entry_points.txt").write_text("[procession.transports]\nwreck = no_such_thing\n")
    result = run("doctor", "--json", PYTHONPATH=str(site))
    found = {each["subject"]: each for each in json.loads(result.stdout)["findings"]}

    assert result.returncode == 1
    assert found["transport wreck"]["level"] == "problem"
    assert "wrecks" in found["transport wreck"]["advice"]
    for name in procession.get_all_transports():
        assert found[f"transport {name}"]["level"] == "ok"


def test_bad_arguments(run: Any) -> None:
    """One line and status 2."""
    result = run("doctor", "--cure")

    assert (result.returncode, result.stderr.count("\n")) == (2, 1)
