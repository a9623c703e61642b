"""Running a program as the main module of this process, as the interpreter itself would.

What it does is seen by the program: its ``sys.argv``, ``sys.path``, ``__main__`` and tracebacks
are those that it would have under ``python``.
"""

from __future__ import annotations

import builtins
import os
import sys
from _frozen_importlib_external import (
    PathFinder,
    SourceFileLoader,
    SourcelessFileLoader,
)

TYPE_CHECKING = False  # importing typing would delay every program
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from importlib.machinery import ModuleSpec
    from types import CodeType, ModuleType, TracebackType
    from typing import Any

__all__ = ["CannotRunError", "run_module", "run_path"]


class CannotRunError(Exception):
    """There is no such program. *status* is what the interpreter would exit with."""

    def __init__(self, message: str, status: int) -> None:
        super().__init__(message)
        self.status = status


def run_path(path: str, arguments: Sequence[str]) -> None:
    """Run the script at *path*, or the ``__main__`` of a folder or an archive.

    Raises `CannotRunError`, and whatever the program raises.
    """
    sys.argv[:] = [path, *arguments]
    # As Python has it: absolute, but not simplified.
    file = os.path.join(os.getcwd(), path)
    if os.path.isdir(file) or (os.path.isfile(file) and _is_archive(file)):
        _set_first_path(file)
        spec = PathFinder.find_spec("__main__", [file])
        if spec is None:
            raise CannotRunError(f"can't find '__main__' module in {file!r}", 1)
        _run_spec(spec)
        return
    try:
        with open(file, "rb") as opened:
            source = opened.read()
    except OSError as error:
        message = f"can't open file {file!r}: [Errno {error.errno}] {error.strerror}"
        raise CannotRunError(message, 2) from error
    _set_first_path(os.path.dirname(os.path.realpath(file)))
    main = _new_main()
    main.__file__ = file
    if file.endswith(".pyc"):
        main.__loader__ = compiled = SourcelessFileLoader("__main__", file)
        _execute(main, lambda: compiled.get_code("__main__"))
    else:
        main.__loader__ = SourceFileLoader("__main__", file)
        _execute(main, lambda: compile(source, file, "exec", dont_inherit=True))


def run_module(name: str, arguments: Sequence[str]) -> None:
    """Run the module *name*, or the ``__main__`` of a package, as ``python -m`` does.

    Raises `CannotRunError`, and whatever the program raises.
    """
    sys.argv[:] = ["-m", *arguments]
    _set_first_path(os.getcwd())
    _new_main()  # what the packages above the module do is part of the program, too
    spec = _find_module(name)
    if spec is not None and spec.submodule_search_locations is not None:
        package, name = name, f"{name}.__main__"
        spec = _find_module(name)
        if spec is None:
            message = f"No module named {name}; {package!r} is a package and cannot be run"
            raise CannotRunError(message, 1)
    if spec is None:
        raise CannotRunError(f"No module named {name}", 1)
    sys.argv[0] = spec.origin or name
    _run_spec(spec)


def _find_module(name: str) -> ModuleSpec | None:
    """Return how to load *name*, after importing the packages that it is in."""
    parent = name.rpartition(".")[0]
    path = None
    if parent:
        try:
            with _ProgramsOwnTracebacks():
                __import__(parent)
        except ModuleNotFoundError as error:
            if error.name is not None and f"{parent}.".startswith(f"{error.name}."):
                message = f"Error while finding module specification for {name!r}"
                raise CannotRunError(f"{message} (ModuleNotFoundError: {error})", 1) from error
            raise
        path = getattr(sys.modules[parent], "__path__", None)
        if path is None:
            raise CannotRunError(f"No module named {name}; {parent!r} is not a package", 1)
    for finder in sys.meta_path:
        spec = finder.find_spec(name, path)
        if spec is not None:
            return spec
    return None


def _run_spec(spec: ModuleSpec) -> None:
    loader: Any = spec.loader
    if not hasattr(loader, "get_code"):
        raise CannotRunError(f"{spec.name} has no code that could be run", 1)
    main = _new_main()
    main.__spec__ = spec
    main.__loader__ = loader
    main.__package__ = spec.parent
    if spec.has_location:
        main.__file__ = spec.origin
        main.__cached__ = spec.cached  # type: ignore[attr-defined]

    def code() -> CodeType:
        found: CodeType | None = loader.get_code(spec.name)
        if found is None:
            raise CannotRunError(f"{spec.name} has no code that could be run", 1)
        return found

    _execute(main, code)


def _execute(main: ModuleType, load: Callable[[], Any]) -> None:
    with _ProgramsOwnTracebacks():
        exec(load(), main.__dict__)


def _new_main() -> ModuleType:
    """Put a new main module into the place of the one that has brought us here."""
    main = type(sys)("__main__")
    vars(main).update(__builtins__=builtins, __annotations__={}, __cached__=None)
    # Nothing but this may refer to the old one, whose functions we are still in.
    _replaced.append(sys.modules["__main__"])
    sys.modules["__main__"] = main
    return main


_replaced: list[ModuleType] = []


def _set_first_path(folder: str) -> None:
    if not sys.flags.safe_path:
        sys.path[0] = folder  # it was the folder of the command


def _is_archive(path: str) -> bool:
    if path.endswith((".py", ".pyc", ".pyw")):
        return False
    from zipimport import ZipImportError, zipimporter

    try:
        zipimporter(path)
    except ZipImportError:
        return False
    return True


class _ProgramsOwnTracebacks:
    """A block that runs the program. What it raises is shown without our frames."""

    def __enter__(self) -> None:
        """Return nothing."""

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Have `sys.excepthook`, by then the program's own or the usual one, see its frames."""
        if error is None or isinstance(error, SystemExit | CannotRunError):
            return
        own = _without_ours(traceback)
        show = sys.excepthook

        def show_own(kind: type[BaseException], raised: BaseException, traceback: Any) -> Any:
            if raised is error:
                traceback = own
                raised.__traceback__ = own
            return show(kind, raised, traceback)

        sys.excepthook = show_own


def _without_ours(traceback: TracebackType | None) -> TracebackType | None:
    """Return the traceback from where the program begins."""
    while traceback is not None:
        file = traceback.tb_frame.f_code.co_filename
        if file != __file__ and not file.startswith("<frozen importlib"):
            break
        traceback = traceback.tb_next
    return traceback
