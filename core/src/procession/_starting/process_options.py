"""What a process can be given apart from its work: surroundings and limits.

Only parents import this; what a child does about it is in `procession._starting.apply_options`.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, NoReturn, TypedDict

import attrs

from procession._starting.apply_options import LIMITS
from procession.errors import ProcessOptionError, UnknownOptionError

if TYPE_CHECKING:
    from typing import Protocol, Self

    class HasDescriptor(Protocol):
        """A file, a socket, a pipe: whatever has a descriptor."""

        def fileno(self) -> int:
            """Return the descriptor."""

    Stream = str | int | os.PathLike[str] | HasDescriptor

__all__ = ["OptionKeywords", "ProcessOptions"]


class OptionKeywords(TypedDict, total=False):
    """The options as keyword arguments of `Process` and `with_options`."""

    env: Mapping[str, str | None] | None
    clear_env: bool
    interpreter_env: Mapping[str, str | None] | None
    cwd: str | os.PathLike[str] | None
    stdin: Stream | None
    stdout: Stream | None
    stderr: Stream | None
    umask: int | None
    nice: int | None
    affinity: Iterable[int] | None
    limits: Mapping[str, int | None] | None
    max_seconds: float | None
    max_rss: int | None
    faulthandler: bool
    title: str | bool


_LARGEST_UMASK = 0o777
_NICE = range(-40, 41)
_WORDS: dict[str, tuple[str, ...]] = {
    "stdin": ("parent", "null"),
    "stdout": ("parent", "null"),
    "stderr": ("parent", "null", "stdout"),
}
_MERGED = ("env", "interpreter_env", "limits")


def _refuse(option: str, value: object, problem: str) -> NoReturn:
    shown = dict(value) if isinstance(value, Mapping) else value
    raise ProcessOptionError(f"{option}={shown!r}: {problem}", option=option)


def _near(word: str, words: Iterable[str]) -> str:
    from difflib import get_close_matches

    near = get_close_matches(word.lower(), list(words), n=1, cutoff=0.5)
    return f"; did you mean {near[0]!r}?" if near else ""


def _environment(_: ProcessOptions, field: attrs.Attribute[Any], value: Any) -> None:
    if not isinstance(value, Mapping):
        _refuse(field.name, value, "a mapping of names to strings is needed")
    for name, text in value.items():
        # Only the name is shown: values of variables are often secrets, and errors end in logs.
        if not isinstance(name, str) or not name or "=" in name or "\0" in name:
            raise ProcessOptionError(
                f"{field.name}: {name!r} is no name of a variable", option=field.name
            )
        if text is not None and (not isinstance(text, str) or "\0" in text):
            raise ProcessOptionError(
                f"{field.name}[{name!r}]: the value must be a str without null characters, or "
                f"None to remove the variable, not {type(text).__name__}",
                option=field.name,
            )


def _directory(_: ProcessOptions, field: attrs.Attribute[Any], value: Any) -> None:
    if value is not None and (not isinstance(value, str) or not value or "\0" in value):
        _refuse(field.name, value, "the path of a directory is needed")


def _stream(_: ProcessOptions, field: attrs.Attribute[Any], value: Any) -> None:
    words = _WORDS[field.name]
    if isinstance(value, str):
        if value not in words:
            _refuse(
                field.name,
                value,
                f"the words are {', '.join(map(repr, words))}{_near(value, words)}; "
                f"a file is given as pathlib.Path({value!r})",
            )
    elif isinstance(value, bool) or not (
        value is None
        or isinstance(value, (int, os.PathLike))
        or callable(getattr(value, "fileno", None))
    ):
        _refuse(
            field.name,
            value,
            f"{', '.join(map(repr, words))}, a pathlib.Path, a descriptor or an object with "
            f"a fileno method is needed",
        )
    elif isinstance(value, int) and value < 0:
        _refuse(field.name, value, "a descriptor is not negative")


def _is_int(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _umask(_: ProcessOptions, field: attrs.Attribute[Any], value: Any) -> None:
    if value is not None and not (_is_int(value) and 0 <= value <= _LARGEST_UMASK):
        shown = oct(value) if _is_int(value) else repr(value)
        _refuse(field.name, value, f"a mask from 0 to 0o777 is needed, not {shown}")


def _nice(_: ProcessOptions, field: attrs.Attribute[Any], value: Any) -> None:
    if value is not None and not (_is_int(value) and value in _NICE):
        _refuse(field.name, value, "a number from -40 to 40 is needed, added to the parent's")
    if value is not None and not hasattr(os, "nice"):
        _refuse(field.name, value, f"{sys.platform} has no nice values")


def _affinity(_: ProcessOptions, field: attrs.Attribute[Any], value: Any) -> None:
    if value is None:
        return
    if not value or not all(_is_int(cpu) and cpu >= 0 for cpu in value):
        _refuse(field.name, value, "the numbers of one CPU or more are needed, such as {0, 1}")
    if not hasattr(os, "sched_setaffinity"):
        _refuse(field.name, value, f"{sys.platform} has no sched_setaffinity")


def _limits(_: ProcessOptions, field: attrs.Attribute[Any], value: Any) -> None:
    if not isinstance(value, Mapping):
        _refuse(field.name, value, "a mapping of names to numbers is needed")
    if value and sys.platform == "win32":
        _refuse(field.name, value, "Windows has no resource limits")
    for name, amount in value.items():
        if name not in LIMITS:
            _refuse(
                field.name,
                value,
                f"there is no limit {name!r}{_near(str(name), LIMITS)}; "
                f"there are {', '.join(LIMITS)}",
            )
        if amount is not None and not (_is_int(amount) and amount >= 0):
            _refuse(
                field.name,
                value,
                f"{name} must be a whole number from 0 on, or None for as much as allowed",
            )


def _max_seconds(_: ProcessOptions, field: attrs.Attribute[Any], value: Any) -> None:
    if value is None:
        return
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not value > 0:
        _refuse(field.name, value, "a number of seconds greater than 0 is needed")


def _max_rss(_: ProcessOptions, field: attrs.Attribute[Any], value: Any) -> None:
    if value is None:
        return
    if not _is_int(value) or value <= 0:
        _refuse(field.name, value, "a number of bytes greater than 0 is needed, such as 256 << 20")
    if sys.platform != "linux":
        _refuse(field.name, value, f"the memory of a process cannot be watched on {sys.platform}")


def _flag(_: ProcessOptions, field: attrs.Attribute[Any], value: Any) -> None:
    if not isinstance(value, bool):
        _refuse(field.name, value, "True or False is needed")


def _title(_: ProcessOptions, field: attrs.Attribute[Any], value: Any) -> None:
    if not isinstance(value, bool) and (not isinstance(value, str) or not value or "\0" in value):
        _refuse(field.name, value, "a text, or True for the name of the process, is needed")


def _frozen_mapping(value: Any) -> Any:
    if value is None:
        return MappingProxyType({})
    return MappingProxyType(dict(value)) if isinstance(value, Mapping) else value


def _path(value: Any) -> Any:
    return os.fsdecode(value) if isinstance(value, os.PathLike) else value


def _cpus(value: Any) -> Any:
    if isinstance(value, Iterable) and not isinstance(value, (str, bytes)):
        return frozenset(value)
    return value if value is None else frozenset([value])


@attrs.frozen(kw_only=True)
class ProcessOptions:
    """What a process is given apart from its work. Everything may be left out.

    A value that cannot be right raises `procession.errors.ProcessOptionError` (a
    `ValueError`) here; what turns out to be wrong only in the child (a directory that is
    not there) ends that child with the same error, before any module of the program is
    imported in it.
    """

    env: Mapping[str, str | None] = attrs.field(
        default=None, converter=_frozen_mapping, validator=_environment
    )
    """Variables to set, or, where the value is None, to remove. The others are those that
    the parent has at the start."""

    clear_env: bool = attrs.field(default=False, validator=_flag)
    """Begin without the parent's variables: `env` is then all that the child has."""

    interpreter_env: Mapping[str, str | None] = attrs.field(
        default=None, converter=_frozen_mapping, validator=_environment
    )
    """Like `env`, for variables that do nothing unless they are there when the interpreter
    starts (``LD_PRELOAD``, ``PYTHONHASHSEED``, ``MALLOC_ARENA_MAX``). Start methods whose
    children do not begin with an interpreter refuse it."""

    cwd: str | None = attrs.field(default=None, converter=_path, validator=_directory)
    """The working directory; a relative one begins at the parent's."""

    stdin: Stream | None = attrs.field(default=None, validator=_stream)
    """``"null"`` (as without it), ``"parent"``, a path, a descriptor, or a file object."""

    stdout: Stream | None = attrs.field(default=None, validator=_stream)
    """``"null"``, ``"parent"``, a path (which is appended to), a descriptor, or a file
    object. The object is not closed and the descriptor stays the caller's."""

    stderr: Stream | None = attrs.field(default=None, validator=_stream)
    """Like `stdout`; ``"stdout"`` is wherever the child's stdout goes."""

    umask: int | None = attrs.field(default=None, validator=_umask)
    """The permissions that new files do not get."""

    nice: int | None = attrs.field(default=None, validator=_nice)
    """What is added to the parent's nice value."""

    affinity: frozenset[int] | None = attrs.field(
        default=None, converter=_cpus, validator=_affinity
    )
    """The CPUs that the child may run on, all of them."""

    limits: Mapping[str, int | None] = attrs.field(
        default=None, converter=_frozen_mapping, validator=_limits
    )
    """Resource limits by name, soft and hard; None is as much as the hard limit allows."""

    max_seconds: float | None = attrs.field(default=None, validator=_max_seconds)
    """The child is killed when it lives longer than that, by the clock on the wall."""

    max_rss: int | None = attrs.field(default=None, validator=_max_rss)
    """The child is killed when more than so many bytes of its memory are resident."""

    faulthandler: bool = attrs.field(default=False, validator=_flag)
    """Print the Python stack on stderr when a fatal signal (SIGSEGV, SIGABRT) comes."""

    title: str | bool = attrs.field(default=False, validator=_title)
    """The name that ps and top show; True for that of the process."""

    def replace(self, **changes: Any) -> Self:
        """Return these options with *changes*.

        `env`, `interpreter_env` and `limits` are added to what is there, name by name;
        every other option takes the place of the former. Raises
        `procession.errors.UnknownOptionError` (a `TypeError`) for a name that is none.
        """
        for name, value in changes.items():
            if name not in _NAMES:
                raise UnknownOptionError(
                    f"unexpected keyword argument {name!r}{_near(name, _NAMES)}; "
                    f"the options of a process are {', '.join(_NAMES)}"
                )
            if name in _MERGED and isinstance(value, Mapping):
                changes[name] = {**getattr(self, name), **value}
        return attrs.evolve(self, **changes)

    def given(self) -> tuple[str, ...]:
        """Return the names of the options that are not left out."""
        values = {name: getattr(self, name) for name in _NAMES}
        return tuple(
            name
            for name, value in values.items()
            if value is not None and value is not False and value != {}
        )

    def __getstate__(self) -> dict[str, Any]:
        """Return the fields; views of mappings cannot be pickled, dictionaries can."""
        state = {name: getattr(self, name) for name in _NAMES}
        return {**state, **{name: dict(state[name]) for name in _MERGED}}

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Take the fields over."""
        self.__init__(**state)  # type: ignore[misc]


_NAMES = tuple(field.name for field in attrs.fields(ProcessOptions))


def combine(
    default: ProcessOptions | None, given: ProcessOptions | None, keywords: Mapping[str, Any]
) -> ProcessOptions:
    """Return the options of a process, of its class, of the caller, and of its keywords."""
    if given is not None and not isinstance(given, ProcessOptions):
        raise ProcessOptionError(
            f"options={given!r}: a procession.ProcessOptions is needed", option="options"
        )
    found = default or ProcessOptions()
    if given is not None:
        found = found.replace(**{name: getattr(given, name) for name in given.given()})
    return found.replace(**keywords) if keywords else found
