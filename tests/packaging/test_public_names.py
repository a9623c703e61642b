"""The public names, exactly: a name that slips in is a promise, one that slips out breaks code."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path

import pytest

import procession

NAMES = {
    # processes
    "Process",
    "ProcessOptions",
    "active_children",
    "available_cpus",
    "cpu_count",
    "ExceptionReport",
    "FailureReport",
    "current_process",
    "freeze_support",
    "parent_process",
    "set_executable",
    "set_forkserver_preload",
    "StopStage",
    "get_daemon_policy",
    "set_daemon_policy",
    # connections and queues
    "Barrier",
    "BoundedSemaphore",
    "Condition",
    "Event",
    "JoinableQueue",
    "Lock",
    "RLock",
    "Semaphore",
    "Manager",
    "Pipe",
    "Pool",
    "Queue",
    "SimpleQueue",
    # shared memory
    "Array",
    "RawArray",
    "RawValue",
    "Value",
    "shared_array",
    # logging
    "get_logger",
    "log_to_stderr",
    # selection
    "get_all_serializers",
    "get_all_start_methods",
    "get_all_transports",
    "get_context",
    "get_plugins",
    "get_serializer",
    "get_start_method",
    "get_transport",
    "selection",
    "set_plugins",
    "set_serializer",
    "set_start_method",
    "set_transport",
    "use",
    # errors
    "AuthenticationError",
    "BufferTooShort",
    "ProcessError",
    "ProcessFailedError",
    "ShutDown",
    "TimeoutError",
}
MODULES = {
    "abc",
    "aio",
    "child",
    "cli",
    "connection",
    "context",
    "errors",
    "framing",
    "futures",
    "managers",
    "plugin",
    "pool",
    "process",
    "queues",
    "shared_memory",
    "sharedctypes",
    "synchronize",
    "testing",
    "tls",
}
PLUGIN_NAMES = {
    "Channel",
    "Child",
    "Exportable",
    "Handoff",
    "LaunchPlan",
    "Mailbox",
    "Parcel",
    "PidChild",
    "Recipe",
    "StartFeatures",
    "StartMethod",
    "Takeover",
    "Transport",
    "TransportFeatures",
    "hookimpl",
}


def test_the_names_of_the_package() -> None:
    """The list above is the promise; `__all__` keeps it."""
    assert sorted(procession.__all__) == sorted(NAMES)


@pytest.mark.parametrize("name", sorted(NAMES))
def test_every_name_is_there(name: str) -> None:
    """The front door is lazy, so that a wrong entry of its table shows only when it is used."""
    assert getattr(procession, name) is not None
    assert name in dir(procession)


def test_an_unknown_name_is_an_attribute_error() -> None:
    """`hasattr` and `from procession import ...` depend on it."""
    with pytest.raises(AttributeError, match="Proces"):
        procession.Proces  # noqa: B018


def test_the_public_modules() -> None:
    """Everything else in the package is private and says so by an underscore."""
    folder = Path(procession.__file__).parent
    found = {path.stem for path in folder.glob("[!_]*.py")}
    found |= {path.parent.name for path in folder.glob("[!_]*/__init__.py")}
    assert found == MODULES


def test_the_plugin_author_s_names() -> None:
    """The contracts are all behind one door, and the whole table of that door is right."""
    plugin = import_module("procession.plugin")
    assert set(plugin.__all__) >= PLUGIN_NAMES
    assert [name for name in plugin.__all__ if not hasattr(plugin, name)] == []
