"""The interpreter's own tests of multiprocessing, run on procession by ``procession run``.

They take a minute or two for each start method: `tox -e stdlib-tests`, which sets
``PROCESSION_CPYTHON``. Without it they are not collected.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

if not os.environ.get("PROCESSION_CPYTHON"):
    pytest.skip("asked for by PROCESSION_CPYTHON", allow_module_level=True)

from tests.cpython import adapting
from tests.cpython.deviations import DEVIATIONS

DEADLINE = 600.0
NAMES = {name for names in DEVIATIONS.values() for name in names}


def _deviates(test: str) -> bool:
    return test in NAMES or test.partition(".")[0] in NAMES


@pytest.mark.timeout(DEADLINE + 60)
def test_no_other_deviations(tmp_path: Path, method: str) -> None:
    """What programs can rely on with multiprocessing, they can with procession."""
    if adapting.source() is None:
        pytest.skip("the interpreter was installed without the package test")
    results, log = tmp_path / "results.json", tmp_path / "log"
    command = [sys.executable, "-m", "procession", "run", "--start-method", method]
    with log.open("w") as file:
        process = subprocess.Popen(
            [*command, str(adapting.write(tmp_path)), method, str(results)],
            cwd=tmp_path,
            stdin=subprocess.DEVNULL,
            stdout=file,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        try:
            process.wait(DEADLINE)
        except BaseException:
            if sys.platform != "win32":
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            raise
    assert results.exists(), log.read_text()[-5000:]
    outcomes = json.loads(results.read_text())

    failed = {test for test, outcome in outcomes.items() if outcome == "failed"}
    unexpected = sorted(test for test in failed if not _deviates(test))
    assert not unexpected, f"{unexpected}\n{log.read_text()[-50000:]}"
    assert len(outcomes) - len(failed) > 300
