"""Every name of multiprocessing, and what becomes of it.

``docs/write_migration.py`` makes the documentation's page of it. A test compares it with what
there is: a name that has been built moves from `_MISSING` to `_SAME` or `_DIFFERENT`.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Final

import attrs

from procession._commands.port.moved import MOVED

__all__ = ["CLASSES", "NAMES", "WHOLE_MODULE", "Name", "Verdict"]

WHOLE_MODULE: Final = ".*"
"""The end of an entry that speaks of every name of a module."""


class Verdict(StrEnum):
    """What a program finds that uses procession's name instead."""

    #: It does the same.
    SAME = "same"
    #: The same, in another place.
    MOVED = "moved"
    #: It does something else in some situation, and the note says in which.
    DIFFERS = "differs"
    #: There is none, and the note says what to do.
    MISSING = "missing"


@attrs.frozen
class Name:
    """One name of multiprocessing."""

    #: The whole dotted name; a method has that of its class before it.
    theirs: str
    #: The whole dotted name to use instead, most often one of procession's; None if there is none.
    ours: str | None
    verdict: Verdict
    #: What differs, or what to do.
    note: str = ""


_SAME: Final = [
    "AuthenticationError",
    "BufferTooShort",
    "ProcessError",
    "TimeoutError",
    "active_children",
    "cpu_count",
    "current_process",
    "freeze_support",
    "parent_process",
    "set_executable",
    "set_forkserver_preload",
    "connection.Connection",
    "connection.answer_challenge",
    "connection.deliver_challenge",
    "connection.wait",
    "context.BaseContext",
    "context.DefaultContext",
    "managers.AcquirerProxy",
    "managers.Array",
    "managers.ArrayProxy",
    "managers.AutoProxy",
    "managers.BarrierProxy",
    "managers.BaseProxy",
    "managers.ConditionProxy",
    "managers.DictProxy",
    "managers.EventProxy",
    "managers.IteratorProxy",
    "managers.ListProxy",
    "managers.MakeProxyType",
    "managers.Namespace",
    "managers.PoolProxy",
    "managers.SyncManager.Pool",
    "managers.NamespaceProxy",
    "managers.RebuildProxy",
    "managers.RemoteError",
    "managers.Token",
    "managers.Value",
    "managers.ValueProxy",
    "pool.ApplyResult",
    "pool.AsyncResult",
    "pool.IMapIterator",
    "pool.IMapUnorderedIterator",
    "pool.MapResult",
    "pool.MaybeEncodingError",
    "pool.RemoteTraceback",
    "pool.ThreadPool",
    "process.AuthenticationString",
    "process.BaseProcess",
    "process.active_children",
    "process.current_process",
    "process.parent_process",
    "sharedctypes.copy",
    "sharedctypes.synchronized",
]

_ENDS_WITH_PARENT = "The server is a daemonic process and ends with the process that started it"
_NO_FEEDER = "`put` itself raises what cannot be pickled; there is no thread behind it"
_POOL = "A dead worker is replaced, and its task raises `WorkerDiedError`"
_OWNER_DIED = "When its holder was killed, the next `acquire` raises `OwnerDiedError`"
_SHARED = "Can be sent through connections and queues; `copy.deepcopy` makes memory of its own"

_DIFFERENT: Final = {
    "Array": _SHARED,
    "Barrier": "No subclass of `threading.Barrier`; it breaks when one who waits is killed",
    "BoundedSemaphore": _OWNER_DIED,
    "Condition": "Needs a lock of procession; dead processes swallow no notification",
    "Event": "`wait` returns True also when the event was set and cleared again meanwhile",
    "JoinableQueue": _NO_FEEDER,
    "queues.JoinableQueue.join": "Raises `PeerDiedError` when who has the rest was killed",
    "Lock": _OWNER_DIED,
    "Manager": _ENDS_WITH_PARENT,
    "Pool": _POOL,
    "pool.Pool.imap": "Reads its input a bounded way ahead of the results that were taken out",
    "pool.Pool.imap_unordered": "Reads its input a bounded way ahead of the results taken out",
    "Pipe": "Where the counterpart was killed, the error is a `PeerDiedError` (an `EOFError`)",
    "Process": "By default children are started by `forkserver`; daemonic ones end with their "
    "parent, however it ends, and may have children",
    "Queue": _NO_FEEDER,
    "queues.Queue.cancel_join_thread": "Does nothing: what was put is in the queue",
    "queues.Queue.get": "Raises `PeerDiedError` (an `EOFError`) when all who could put were killed",
    "queues.Queue.join_thread": "Returns at once",
    "queues.Queue.put": "Raises what cannot be pickled",
    "queues.Queue.qsize": "Works on every platform; refused after `close`",
    "RLock": _OWNER_DIED,
    "RawArray": _SHARED,
    "RawValue": _SHARED,
    "Semaphore": _OWNER_DIED,
    "SimpleQueue": "`get` raises `PeerDiedError` when all who could put were killed",
    "Value": _SHARED,
    "get_all_start_methods": "What is installed and works here, plugins of others included",
    "get_context": "Decides nothing about the default; takes a `transport`, too",
    "get_logger": "The logger is called `procession`",
    "get_start_method": "Decides nothing; the default is `forkserver`, then `spawn`, then `fork`",
    "log_to_stderr": "The logger is called `procession`",
    "set_start_method": "A second call needs `force=True`; that something was made is no obstacle",
    "connection.Client": "Raises `AuthenticationError` whatever nonsense the other side sends",
    "connection.Listener": "Without an address, takes an abstract Unix name; `accept` gives a "
    "stalled client ten seconds",
    "managers.BaseManager": _ENDS_WITH_PARENT,
    "managers.SharedMemoryManager": "The memory is made by the server, and all of it goes with it",
    "managers.SyncManager": _ENDS_WITH_PARENT,
    "sharedctypes.Array": _SHARED,
    "sharedctypes.RawArray": _SHARED,
    "sharedctypes.RawValue": _SHARED,
    "sharedctypes.Value": _SHARED,
    "shared_memory.ShareableList": "A position before the beginning is an `IndexError`",
    "shared_memory.SharedMemory": "Reserved when it is made: a full `/dev/shm` is a "
    "`ResourceError`; no tracker process and no warning",
    "shared_memory.SharedMemory.close": "With views open, raises `BufferError` and changes nothing",
}

_THREADS = "Threads, not processes: keep the standard library's"
_INTERNAL = "How the standard library starts processes; write a start method instead"
_LOGGER = "Call the method of `procession.get_logger()`"
_NO_TRACKER = "There is no tracker process, and nothing to register"
_PICKLE = "Any object with `__reduce__`, or registered by `copyreg.pickle`, can be sent"
_SEND_FDS = "`socket.send_fds`, `socket.recv_fds`; connections and queues can be sent as they are"
_FINALIZE = "`weakref.finalize`, or `atexit.register`, which works in all children"

_MISSING: Final = {
    "allow_connection_pickling": "Leave it out: connections can always be sent",
    "reducer": _PICKLE,
    "context.ForkContext": '`procession.get_context("fork")`',
    "context.ForkProcess": '`procession.get_context("fork").Process`',
    "context.ForkServerContext": '`procession.get_context("forkserver")`',
    "context.ForkServerProcess": '`procession.get_context("forkserver").Process`',
    "context.SpawnContext": '`procession.get_context("spawn")`',
    "context.SpawnProcess": '`procession.get_context("spawn").Process`',
    "context.assert_spawning": "Leave it out: what can be an argument can also be sent",
    "context.get_spawning_popen": "There is no such state; see `procession.plugin.Exportable`",
    "context.set_spawning_popen": "There is no such state; see `procession.plugin.Exportable`",
    "connection.SocketClient": "`procession.connection.Client`",
    "connection.SocketListener": "`procession.connection.Listener`",
    "connection.XmlClient": '`BaseManager(serializer="xmlrpclib")`',
    "connection.XmlListener": '`BaseManager(serializer="xmlrpclib")`',
    "dummy.*": _THREADS,
    "dummy.connection.*": _THREADS,
    "forkserver.*": _INTERNAL,
    "heap.*": "`procession.shared_memory.AnonymousMemory`",
    "popen_fork.*": _INTERNAL,
    "popen_forkserver.*": _INTERNAL,
    "popen_spawn_posix.*": _INTERNAL,
    "popen_spawn_win32.*": _INTERNAL,
    "process.ORIGINAL_DIR": "Children begin in the directory that their parent has at the start",
    "reduction.*": "Nothing of the kind is needed",
    "reduction.DupFd": _SEND_FDS,
    "reduction.ForkingPickler": _PICKLE,
    "reduction.dump": "`pickle.dump`",
    "reduction.recv_handle": _SEND_FDS,
    "reduction.recvfds": _SEND_FDS,
    "reduction.register": _PICKLE,
    "reduction.send_handle": _SEND_FDS,
    "reduction.sendfds": _SEND_FDS,
    "resource_sharer.*": _SEND_FDS,
    "resource_tracker.*": _NO_TRACKER,
    "spawn.*": _INTERNAL,
    "synchronize.SEM_VALUE_MAX": "No semaphore is made of the system's",
    "synchronize.SemLock": "Use the class that is meant: `Lock`, `Semaphore`, ...",
    "util.*": "Nothing of the kind is needed",
    "util.Finalize": _FINALIZE,
    "util.debug": _LOGGER,
    "util.get_temp_dir": "`tempfile.mkdtemp`",
    "util.info": _LOGGER,
    "util.register_after_fork": "`os.register_at_fork`",
    "util.sub_debug": _LOGGER,
    "util.sub_warning": _LOGGER,
}

CLASSES: Final = {
    "Barrier": "synchronize.Barrier",
    "BoundedSemaphore": "synchronize.BoundedSemaphore",
    "Condition": "synchronize.Condition",
    "Event": "synchronize.Event",
    "JoinableQueue": "queues.JoinableQueue",
    "Lock": "synchronize.Lock",
    "Pool": "pool.Pool",
    "Queue": "queues.Queue",
    "RLock": "synchronize.RLock",
    "Semaphore": "synchronize.Semaphore",
    "SimpleQueue": "queues.SimpleQueue",
}
"""The class of what a function of the package makes."""


def _names() -> dict[str, Name]:
    rows: list[tuple[str, str | None, Verdict, str]] = [
        *((path, f"procession.{path}", Verdict.SAME, "") for path in _SAME),
        *((path, ours, Verdict.MOVED, f"`{ours}`") for path, ours in MOVED.items()),
        *((path, f"procession.{path}", Verdict.DIFFERS, n) for path, n in _DIFFERENT.items()),
        *(
            (path, f"procession.{path}", Verdict.DIFFERS, _DIFFERENT[name])
            for name, path in CLASSES.items()
        ),
        *((path, None, Verdict.MISSING, note) for path, note in _MISSING.items()),
    ]
    return {
        path: Name(f"multiprocessing.{path}", ours, verdict, note)
        for path, ours, verdict, note in sorted(rows, key=_by_module)
    }


def _by_module(row: tuple[str, str | None, Verdict, str]) -> tuple[bool, str]:
    return "." in row[0], row[0]


NAMES: Final = _names()
"""All of them, by their names without ``multiprocessing.``: the package's first."""
