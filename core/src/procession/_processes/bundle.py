"""The modules of every fresh interpreter, sent along so that it need not look for them.

To find a module, to read it and to see that its compiled file is not out of date takes an
interpreter three times as long as to run it. The parent has done so already.
"""

from __future__ import annotations

import marshal
import sys

from procession._processes.interpreter import get_executable

TYPE_CHECKING = False  # every module of the parent makes a fork dearer
if TYPE_CHECKING:
    from types import CodeType

#: What `procession.child` imports from files, in a process that has nothing yet, each module
#: behind those that it imports. What is missing here is merely found more slowly.
MODULES = (
    "__future__",
    "procession",
    "procession._processes",
    "procession._processes.inheritance",
    "procession._processes.main_module",
    "procession._processes.sigint",
    "procession._ground",
    "procession._ground.standard",
    "procession.abc",
    "procession._processes.authentication_string",
    "procession._processes.family",
    "procession._processes.base_process",
    "procession.process",
    "procession._processes.end_with_parent",
    "copyreg",
    "_compat_pickle",
    "procession._ground.pickle_accelerator",
    "procession._ground.handoff",
    "procession._processes.report_file",
    "procession._processes.variables",
    "procession.child",
)
_OPENER = "procession._processes.bundled"

_packed: bytes | None = None


def bundle() -> bytes:
    """Return the modules, packed for an interpreter like this one; nothing if that cannot be.

    Read once, when they are first asked for. Threads: any.
    """
    global _packed
    if get_executable() != sys.executable or sys.implementation.name != "cpython":
        return b""
    if _packed is None:
        opener = _code_of(_OPENER)
        modules = [(name, *found) for name in MODULES if (found := _code_of(name)) is not None]
        _packed = b"" if opener is None else marshal.dumps((opener[1], modules))
    return _packed


def opening(descriptor: int, offset: int) -> str:
    """Return lines of code that load the modules from *offset* of the file *descriptor*.

    They do nothing in an interpreter of another kind, which has other compiled code, nor when
    the file ends there.
    """
    length = len(bundle())
    if not length:
        return ""
    return (
        "import marshal, os\n"
        f"if (sys.hexversion, sys.flags.optimize) == {(sys.hexversion, sys.flags.optimize)}:\n"
        f" packed = os.pread({descriptor}, {length}, {offset})\n"
        f" if len(packed) == {length}:\n"
        "  code, modules = marshal.loads(packed)\n"
        f"  exec(code, opener := {{'__name__': {_OPENER!r}}})\n"
        "  opener['load'](modules)\n"
        "  del code, modules, opener\n"
        " del packed\n"
    )


def _code_of(name: str) -> tuple[str, CodeType] | None:
    """Return the file and the code of a module that lies in a file of its own, else None."""
    __import__(name)
    spec = sys.modules[name].__spec__
    if spec is None or type(spec.loader).__name__ != "SourceFileLoader" or spec.origin is None:
        return None
    code = spec.loader.get_code(name)  # type: ignore[union-attr]
    return None if code is None else (spec.origin, code)
