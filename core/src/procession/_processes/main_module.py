"""The main module of a program, and how a fresh interpreter gets it again.

A fresh interpreter has a ``__main__`` of its own. What the parent's main module
defines is found there by importing that module a second time, under the name
``__mp_main__`` (so that its ``if __name__ == "__main__"`` part does not run).
"""

from __future__ import annotations

import marshal
import os
import sys

TYPE_CHECKING = False  # importing typing would bring `re` and more into every child
if TYPE_CHECKING:
    from types import CodeType, FrameType, ModuleType
    from typing import TypeAlias

    #: The compiled main script, and by what kind of interpreter it was compiled.
    Compiled: TypeAlias = "tuple[tuple[int, int], bytes]"


def _directory() -> str:
    try:
        return os.getcwd()
    except FileNotFoundError:
        return ""  # it was removed: relative paths lead nowhere


# Where relative paths of the main script lead, also after a later chdir.
first_directory = _directory()

#: Whether this process is importing the parent's main module just now. A process
#: started by that import would import it in turn, and so on without end.
is_importing = False


def describe() -> tuple[str, str] | None:
    """Return how children find this program's main module.

    ``("name", module)`` for a module that was run with ``-m``, ``("path", file)`` for a script,
    None when there is nothing to be imported (an interactive session, ``-c``, a program read
    from stdin), or it is not for that: the ``__main__`` of a package, a directory or an archive
    is seldom guarded.
    """
    main = sys.modules["__main__"]
    spec = getattr(main, "__spec__", None)
    if spec is not None and spec.name is not None:
        if spec.name == "__main__" or spec.name.endswith(".__main__"):
            return None
        return "name", spec.name
    path = getattr(main, "__file__", None)
    if path is None or path.startswith("<"):
        return None  # "<stdin>" is what a program read from there has for a file
    return "path", os.path.normpath(os.path.join(first_directory, path))


def compiled() -> Compiled | None:
    """Return the main script as it was compiled for this process; None if that is not at hand.

    A thread that is running it still has its code, as nearly every program's first thread does.
    Children that get it run what this process runs, though the file has changed meanwhile, and
    save what compiling costs: more than a millisecond before the first line.
    """
    global _compiled
    main = sys.modules["__main__"]
    if _compiled is not None and _compiled[0] is main:
        return _compiled[1]
    description = describe()
    if description is None or description[0] != "path":
        return None
    for frame in (sys._getframe(), *sys._current_frames().values()):
        code = _code_below(frame, main.__dict__, description[1])
        if code is None:
            continue
        try:
            _compiled = main, (_this_kind(), marshal.dumps(code))
        except ValueError:
            return None  # a debugger has put something of its own into it
        return _compiled[1]
    return None


_compiled: tuple[ModuleType, Compiled] | None = None


def _code_below(frame: FrameType | None, names: dict[str, object], path: str) -> CodeType | None:
    """Return the code of the module with *names*, from *path*, if it called *frame*."""
    while frame is not None:
        code = frame.f_code
        if frame.f_globals is names and code.co_name == "<module>" and code.co_filename == path:
            return code
        frame = frame.f_back
    return None


def _this_kind() -> tuple[int, int]:
    """Return what compiled code depends on."""
    return sys.hexversion, sys.flags.optimize


def import_again(description: tuple[str, str] | None, compiled: Compiled | None = None) -> None:
    """Import the parent's main module, unless this process has it already.

    *compiled*: the parent's own, to be run instead of the file.

    Whatever the module raises, this raises.
    """
    global is_importing
    if description is None or _is_here(*description):
        return
    kind, where = description
    is_importing = True
    try:
        module = _run_named(where) if kind == "name" else _run_file(where, compiled)
    finally:
        is_importing = False
    module.__dict__["_procession_main"] = description
    sys.modules["__main__"] = sys.modules["__mp_main__"] = module


def _is_here(kind: str, where: str) -> bool:
    main = sys.modules["__main__"]
    if getattr(main, "_procession_main", None) == (kind, where):
        return True
    # IPython's own start script is no module of the user's.
    return kind == "path" and os.path.splitext(os.path.basename(where))[0] == "ipython"


def _run_named(name: str) -> ModuleType:
    import runpy

    module = _new_module()
    module.__dict__.update(runpy.run_module(name, run_name="__mp_main__", alter_sys=True))
    return module


def _run_file(path: str, compiled: Compiled | None) -> ModuleType:
    module = _new_module()
    if compiled is not None and compiled[0] == _this_kind():
        code = marshal.loads(compiled[1])
    elif os.path.isdir(path) or not path.endswith((".py", ".pyw")):
        # Directories, archives, compiled files and files without an extension are for
        # runpy to tell apart. It costs a child 3 ms, hence not for every script.
        import runpy

        module.__dict__.update(runpy.run_path(path, run_name="__mp_main__"))
        return module
    else:
        with open(path, "rb") as file:
            code = compile(file.read(), path, "exec")
    module.__file__ = path
    sys.modules["__mp_main__"] = module
    exec(code, module.__dict__)
    return module


def _new_module() -> ModuleType:
    # The class itself is in the types module, which a child need not import for it.
    return type(sys)("__mp_main__")
