"""Python's multiprocessing, taken apart into contracts and plugins.

The names are multiprocessing's, and so is what they do; how a child is started and how
messages travel is chosen by name, in code, by environment variable or configuration file,
among the plugins that are installed.

Importing this package imports next to nothing: each name is looked up on first use.
"""

from __future__ import annotations

import sys

__version__ = "0.1.0"

TYPE_CHECKING = False  # importing typing would bring `re` and more into every child
if TYPE_CHECKING:
    from typing import Any

    from procession._choosing.selection import get_all_serializers as get_all_serializers
    from procession._choosing.selection import get_all_start_methods as get_all_start_methods
    from procession._choosing.selection import get_all_transports as get_all_transports
    from procession._choosing.selection import get_plugins as get_plugins
    from procession._choosing.selection import get_serializer as get_serializer
    from procession._choosing.selection import get_start_method as get_start_method
    from procession._choosing.selection import get_transport as get_transport
    from procession._choosing.selection import selection as selection
    from procession._choosing.selection import set_plugins as set_plugins
    from procession._choosing.selection import set_serializer as set_serializer
    from procession._choosing.selection import set_start_method as set_start_method
    from procession._choosing.selection import set_transport as set_transport
    from procession._choosing.selection import use as use
    from procession._starting.available_cpus import available_cpus as available_cpus
    from procession._starting.daemon_policy import get_daemon_policy as get_daemon_policy
    from procession._starting.daemon_policy import set_daemon_policy as set_daemon_policy
    from procession._starting.failure import ExceptionReport as ExceptionReport
    from procession._starting.failure import FailureReport as FailureReport
    from procession._starting.process_options import ProcessOptions as ProcessOptions
    from procession._starting.stop import StopStage as StopStage
    from procession.context import DefaultContext
    from procession.context import get_context as get_context
    from procession.errors import AuthenticationError as AuthenticationError
    from procession.errors import BufferTooShort as BufferTooShort
    from procession.errors import ProcessError as ProcessError
    from procession.errors import ProcessFailedError as ProcessFailedError
    from procession.errors import ShutDown as ShutDown
    from procession.errors import TimeoutError as TimeoutError
    from procession.process import Process as Process
    from procession.process import active_children as active_children
    from procession.process import current_process as current_process
    from procession.process import parent_process as parent_process
    from procession.shared_memory import shared_array as shared_array

    _default = DefaultContext()
    Pipe = _default.Pipe
    Pool = _default.Pool
    Queue = _default.Queue
    SimpleQueue = _default.SimpleQueue
    JoinableQueue = _default.JoinableQueue
    Lock = _default.Lock
    RLock = _default.RLock
    Semaphore = _default.Semaphore
    BoundedSemaphore = _default.BoundedSemaphore
    Event = _default.Event
    Condition = _default.Condition
    Barrier = _default.Barrier
    Value = _default.Value
    Array = _default.Array
    RawValue = _default.RawValue
    RawArray = _default.RawArray
    Manager = _default.Manager
    cpu_count = _default.cpu_count
    freeze_support = _default.freeze_support
    set_executable = _default.set_executable
    set_forkserver_preload = _default.set_forkserver_preload
    get_logger = _default.get_logger
    log_to_stderr = _default.log_to_stderr

# The module of each public name; those without one are methods of the default context.
_HOMES = {
    "Array": "",
    "AuthenticationError": "errors",
    "Barrier": "",
    "BoundedSemaphore": "",
    "BufferTooShort": "errors",
    "Condition": "",
    "Event": "",
    "ExceptionReport": "_starting.failure",
    "FailureReport": "_starting.failure",
    "JoinableQueue": "",
    "Lock": "",
    "Manager": "",
    "Pipe": "",
    "Pool": "",
    "Process": "process",
    "ProcessError": "errors",
    "ProcessFailedError": "errors",
    "ProcessOptions": "_starting.process_options",
    "Queue": "",
    "RLock": "",
    "Semaphore": "",
    "RawArray": "",
    "RawValue": "",
    "ShutDown": "errors",
    "SimpleQueue": "",
    "StopStage": "_starting.stop",
    "TimeoutError": "errors",
    "Value": "",
    "active_children": "process",
    "available_cpus": "_starting.available_cpus",
    "cpu_count": "",
    "current_process": "process",
    "freeze_support": "",
    "get_all_serializers": "_choosing.selection",
    "get_all_start_methods": "_choosing.selection",
    "get_all_transports": "_choosing.selection",
    "get_context": "context",
    "get_daemon_policy": "_starting.daemon_policy",
    "get_logger": "",
    "get_plugins": "_choosing.selection",
    "get_serializer": "_choosing.selection",
    "get_start_method": "_choosing.selection",
    "get_transport": "_choosing.selection",
    "log_to_stderr": "",
    "parent_process": "process",
    "selection": "_choosing.selection",
    "set_daemon_policy": "_starting.daemon_policy",
    "set_executable": "",
    "set_forkserver_preload": "",
    "set_plugins": "_choosing.selection",
    "set_serializer": "_choosing.selection",
    "set_start_method": "_choosing.selection",
    "set_transport": "_choosing.selection",
    "shared_array": "shared_memory",
    "use": "_choosing.selection",
}

__all__ = sorted(_HOMES)  # from the table, so that the two cannot differ


def __getattr__(name: str) -> Any:
    """Import *name* from the module where it is defined."""
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    # importlib would be one more module for every child.
    module = f"procession.{home or 'context'}"
    __import__(module)
    value = getattr(sys.modules[module] if home else sys.modules[module].default_context, name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    """Return the public names, imported or not."""
    return sorted({*globals(), *__all__})
