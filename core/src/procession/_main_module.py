"""The main module of a program, and how a fresh interpreter gets it again.

A fresh interpreter has a ``__main__`` of its own. What the parent's main module
defines is found there by importing that module a second time, under the name
``__mp_main__`` (so that its ``if __name__ == "__main__"`` part does not run).
"""

from __future__ import annotations

import os
import sys

TYPE_CHECKING = False  # importing typing would bring `re` and more into every child
if TYPE_CHECKING:
    from types import ModuleType

# Where relative paths of the main script lead, also after a later chdir.
first_directory = os.getcwd()

#: Whether this process is importing the parent's main module just now. A process
#: started by that import would import it in turn, and so on without end.
is_importing = False


def describe() -> tuple[str, str] | None:
    """Return how children find this program's main module.

    ``("name", module)`` when it was run with ``-m`` or from a directory or archive,
    ``("path", file)`` for a script, None when there is nothing to be imported (an
    interactive session, ``-c``, a program read from stdin).
    """
    main = sys.modules["__main__"]
    spec = getattr(main, "__spec__", None)
    if spec is not None and spec.name is not None:
        return "name", spec.name
    path = getattr(main, "__file__", None)
    if path is None or path.startswith("<"):
        return None  # "<stdin>" is what a program read from there has for a file
    return "path", os.path.normpath(os.path.join(first_directory, path))


def import_again(description: tuple[str, str] | None) -> None:
    """Import the parent's main module, unless this process has it already.

    Whatever the module raises, this raises.
    """
    global is_importing
    if description is None or _is_here(*description):
        return
    kind, where = description
    is_importing = True
    try:
        module = _run_named(where) if kind == "name" else _run_file(where)
    finally:
        is_importing = False
    module.__dict__["_procession_main"] = description
    sys.modules["__main__"] = sys.modules["__mp_main__"] = module


def _is_here(kind: str, where: str) -> bool:
    main = sys.modules["__main__"]
    if getattr(main, "_procession_main", None) == (kind, where):
        return True
    if kind == "name":
        # A package's __main__ is seldom guarded, and nothing can be imported from it
        # by a name that the parent would know.
        return where == "__main__" or where.endswith(".__main__")
    # IPython's own start script is no module of the user's.
    return os.path.splitext(os.path.basename(where))[0] == "ipython"


def _run_named(name: str) -> ModuleType:
    import runpy

    module = _new_module()
    module.__dict__.update(runpy.run_module(name, run_name="__mp_main__", alter_sys=True))
    return module


def _run_file(path: str) -> ModuleType:
    module = _new_module()
    if os.path.isdir(path) or not path.endswith((".py", ".pyw")):
        # Directories, archives, compiled files and files without an extension are for
        # runpy to tell apart. It costs a child 3 ms, hence not for every script.
        import runpy

        module.__dict__.update(runpy.run_path(path, run_name="__mp_main__"))
        return module
    with open(path, "rb") as file:
        code = compile(file.read(), path, "exec")
    module.__file__ = path
    sys.modules["__mp_main__"] = module
    exec(code, module.__dict__)
    return module


def _new_module() -> ModuleType:
    # The class itself is in the types module, which a child need not import for it.
    return type(sys)("__mp_main__")
