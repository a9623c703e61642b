"""The serializer is chosen as the transport is, and what nobody chooses is `pickle`."""

from __future__ import annotations

import pickle
from typing import Any

import pytest

import procession
from procession.errors import SelectionError, UnknownPluginError
from procession.testing import serialized

pytest.importorskip("procession_cloudpickle")


def test_nobody_has_chosen() -> None:
    """`pickle` is built in."""
    choice = procession.selection().serializer

    assert ("pickle", "default", "built in") == (choice.name, choice.source, choice.detail)
    assert procession.get_serializer(allow_none=True) is None
    assert ["pickle", "cloudpickle"] == procession.get_all_serializers()


def test_a_scope() -> None:
    """What is made in the block keeps its serializer after it."""
    with procession.use(serializer="cloudpickle"):
        queue = procession.Queue()
        assert "scope" == procession.selection().serializer.source
    other = procession.Queue()

    queue.put(serialized.adder(1))
    with pytest.raises(AttributeError):
        other.put(serialized.adder(1))
    assert 2 == queue.get()(1)
    queue.close()
    other.close()


def test_setting() -> None:
    """It is set once, and set again with force."""
    procession.set_serializer("cloudpickle")
    try:
        assert "cloudpickle" == procession.get_serializer()
        with pytest.raises(SelectionError, match="set_serializer"):
            procession.set_serializer("pickle")
        procession.set_serializer("pickle", force=True)
        assert "pickle" == procession.get_serializer()
    finally:
        procession.set_serializer(None, force=True)


def test_the_environment_and_a_file(monkeypatch: pytest.MonkeyPatch, tmp_path: Any) -> None:
    """A deployment chooses."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "pyproject.toml").write_text('[tool.procession]\nserializer = "cloudpickle"\n')
    choice = procession.selection().serializer
    assert ("cloudpickle", "configuration") == (choice.name, choice.source)

    monkeypatch.setenv("PROCESSION_SERIALIZER", "pickle")
    choice = procession.selection().serializer
    assert ("pickle", "environment") == (choice.name, choice.source)


def test_a_name_that_nobody_has(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is said who has chosen it, and what there is."""
    monkeypatch.setenv("PROCESSION_SERIALIZER", "cloudpickel")

    with pytest.raises(UnknownPluginError, match=r"PROCESSION_SERIALIZER.*mean 'cloudpickle'"):
        procession.Queue()


def test_a_context() -> None:
    """A context has it for good, says so, and is the same one each time."""
    ctx = procession.get_context("spawn", serializer="cloudpickle")

    assert ctx is procession.get_context("spawn", serializer="cloudpickle")
    assert ctx is not procession.get_context("spawn")
    assert "cloudpickle" == ctx.get_serializer()
    assert "pickle" == procession.get_context("spawn").get_serializer()
    assert "serializer='cloudpickle'" in repr(ctx)
    assert ctx is pickle.loads(pickle.dumps(ctx))
    with pytest.raises(ValueError, match="concrete context"):
        ctx.set_serializer("pickle")


def test_children_inherit(method: str) -> None:
    """A child's own choices begin with its parent's, without loading anything."""
    ctx = procession.get_context(method)
    receiver, sender = ctx.Pipe(duplex=False)
    with procession.use(serializer="cloudpickle"):
        process = ctx.Process(target=serialized.tell_selection, args=(sender,))
        process.start()
    name, source, loaded = receiver.recv()
    process.join(check=True)
    process.close()
    receiver.close()
    sender.close()

    assert ("cloudpickle", "inherited") == (name, source)
    assert method == "fork" or not loaded
