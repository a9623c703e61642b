"""Every test of the ring runs on both implementations."""

from __future__ import annotations

import sys

import pytest

if sys.platform != "linux":
    pytest.skip("rings are a Linux thing", allow_module_level=True)

from procession_ring._implementation import NATIVE, PYTHON, VARIABLE


@pytest.fixture(params=[NATIVE, PYTHON], autouse=True)
def implementation(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Use one implementation in this process and in its children."""
    if request.param == NATIVE:
        pytest.importorskip("procession_ring._native")
    monkeypatch.setenv(VARIABLE, request.param)
    return str(request.param)
