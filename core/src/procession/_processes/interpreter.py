"""The command that starts a fresh interpreter which opens a parcel."""

from __future__ import annotations

import os
import sys

TYPE_CHECKING = False  # importing typing would bring `re` and more into every child
if TYPE_CHECKING:
    from collections.abc import Sequence

#: The argument by which a frozen program recognises that it is a child.
CHILD_ARGUMENT = "--procession-child"

# sys.flags fields and the letter that asks for each; repeated by its value.
_LETTERS = {
    "debug": "d",
    "optimize": "O",
    "dont_write_bytecode": "B",
    "no_user_site": "s",
    "no_site": "S",
    "ignore_environment": "E",
    "verbose": "v",
    "bytes_warning": "b",
    "quiet": "q",
}

_executable: str | None = None


def set_executable(path: str | bytes | os.PathLike[str] | os.PathLike[bytes]) -> None:
    """Use the interpreter at *path* for children of spawn and forkserver.

    Holds for the processes started, and the fork servers started, from now on.
    """
    global _executable
    _executable = os.fsdecode(path)


def get_executable() -> str:
    """Return the interpreter that children are started with.

    Raises `RuntimeError` in a program that does not know its own interpreter (some
    embedding programs) and never called `set_executable`.
    """
    executable = _executable or sys.executable
    if not executable:
        raise RuntimeError(
            "sys.executable is empty: this program does not know the path of its Python "
            "interpreter; name one with procession.set_executable(path)"
        )
    return executable


def interpreter_flags() -> list[str]:
    """Return the command line options under which this interpreter runs.

    Children get the same ones, as `subprocess` documents for its own helpers.
    """
    flags = sys.flags
    options = []
    for field, letter in _LETTERS.items():
        count = int(getattr(flags, field))
        implied_by_isolated = flags.isolated and field in ("no_user_site", "ignore_environment")
        if count and not implied_by_isolated:
            options.append("-" + letter * count)
    if flags.isolated:
        options.append("-I")
    elif flags.safe_path:
        options.append("-P")
    options += [f"-W{option}" for option in sys.warnoptions]
    for key, value in sys._xoptions.items():
        options += ["-X", key if value is True else f"{key}={value}"]
    return options


def child_command(parcel: int, descriptors: Sequence[int], opening: str = "") -> list[str]:
    """Return the command line of an interpreter that opens a parcel and runs it.

    *parcel* is the descriptor of the parcel's file and *descriptors* are the ones
    that came with it, both numbered as the child will see them. *opening*: lines of code that
    come before.
    """
    numbers = ",".join(map(str, (parcel, *descriptors)))
    if getattr(sys, "frozen", False):
        return [get_executable(), CHILD_ARGUMENT, numbers]
    return [
        get_executable(),
        *interpreter_flags(),
        "-c",
        _bootstrap(f"{opening}from procession.child import main; main({numbers})"),
        CHILD_ARGUMENT,
    ]


def helper_command(module: str, descriptors: Sequence[int]) -> list[str]:
    """Return the command line of an interpreter that calls ``main`` of *module*.

    For the helper process of a start method. ``main`` gets the *descriptors*, numbered as
    the helper will see them.
    """
    numbers = ",".join(map(str, descriptors))
    return [
        get_executable(),
        *interpreter_flags(),
        "-c",
        _bootstrap(f"from {module} import main; main({numbers})", module),
        CHILD_ARGUMENT,
    ]


def _bootstrap(statement: str, module: str = "procession") -> str:
    """Return code that imports from this very procession, wherever it was found.

    The folders are in front for the imports of *statement* only: the child's real path
    comes with its parcel.
    """
    folders: dict[str, None] = {}
    for name in ("procession", module.partition(".")[0]):
        origin = sys.modules[name].__file__
        if origin is not None:
            folders[os.path.dirname(os.path.dirname(os.path.abspath(origin)))] = None
    # Of a program run by ``procession run``, where the word multiprocessing means us.
    redirect = sys.modules.get("procession._commands.run.redirect")
    first = "" if redirect is None else redirect.bootstrap()
    return f"import sys; sys.path[:0] = {list(folders)!r}; {first}\n{statement}"
