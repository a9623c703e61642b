"""The kit bites: of each broken plugin, the tests of the promise that it breaks do fail."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree

import pytest

if sys.platform != "linux":
    pytest.skip("the conformance kit looks into /proc", allow_module_level=True)

from tests.kit import broken_primitives as broken_primitives
from tests.kit import broken_serializers as broken_serializers
from tests.kit import broken_start_methods as broken_start_methods
from tests.kit import broken_transports as broken_transports
from tests.kit.breaking import HAS_TO_FAIL

pytestmark = pytest.mark.once

EXPECTED = [(plugin, test) for (_, plugin), tests in HAS_TO_FAIL.items() for test in tests]
CHOSEN = [
    f"{file}::Test{plugin}::{test}"
    for (file, plugin), tests in HAS_TO_FAIL.items()
    for test in tests
]


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory: pytest.TempPathFactory) -> dict[tuple[str, str], list[str]]:
    """What became of each test, by plugin and test: "passed", or what was wrong."""
    report = tmp_path_factory.mktemp("teeth") / "report.xml"
    options = ["--noconftest", "-p", "no:cacheprovider", f"--junitxml={report}", "-q", "--tb=line"]
    options += ["--timeout=20"]
    kept = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")}
    done = subprocess.run(
        [sys.executable, "-m", "pytest", *options, *CHOSEN],
        cwd=Path(__file__).parents[2],
        env={**kept, "PROCESSION_KILLS": "20"},  # so many that they find what is to be found
        capture_output=True,
        text=True,
        timeout=170,
    )
    assert done.returncode == 1, done.stdout + done.stderr
    found: dict[tuple[str, str], list[str]] = {}
    for case in ElementTree.parse(report).iter("testcase"):
        plugin = case.attrib["classname"].rpartition(".Test")[2]
        wrong = [each.attrib["message"] for each in case if each.tag in ("failure", "error")]
        found.setdefault((plugin, case.attrib["name"]), []).extend(wrong or ["passed"])
    return found


@pytest.mark.timeout(180)
@pytest.mark.parametrize(("plugin", "test"), EXPECTED)
def test_a_broken_promise_is_found(
    outcomes: dict[tuple[str, str], list[str]], plugin: str, test: str
) -> None:
    """By the test that is named after it."""
    assert outcomes[plugin, test] != ["passed"]
