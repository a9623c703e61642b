"""What a child does about its `ProcessOptions`, before any module of the program runs.

Nothing here is imported in a process without options; the options come as plain data.
"""

from __future__ import annotations

import io
import os
import sys

from procession.errors import ProcessOptionError

TYPE_CHECKING = False  # importing typing would bring `re` and more into every child
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from typing import Any, TextIO

#: The names of resource limits, and those of the constants in the resource module.
LIMITS = {
    "address_space": "RLIMIT_AS",
    "core": "RLIMIT_CORE",
    "cpu_seconds": "RLIMIT_CPU",
    "data": "RLIMIT_DATA",
    "file_size": "RLIMIT_FSIZE",
    "locked_memory": "RLIMIT_MEMLOCK",
    "open_files": "RLIMIT_NOFILE",
    "processes": "RLIMIT_NPROC",
    "stack": "RLIMIT_STACK",
}

_STREAMS = {"stdin": 0, "stdout": 1, "stderr": 2}
# The kernel keeps 16 bytes, one of them for the end.
_LONGEST_COMMAND = 15

# Replaced stream objects live on: one that owned its descriptor would close ours.
_replaced: list[object] = []


def apply(options: Mapping[str, Any], take: Callable[[Any], int] | None = None) -> None:
    """Do what *options* say, in their order.

    *take* turns what stands for a descriptor into one that is the child's own; without
    it, they are numbers of the process that this one is a copy of. Raises
    `ProcessOptionError`, naming option and value, for the first one that cannot be.
    """
    for name, value in options.items():
        try:
            if name == "streams":
                _redirect(value, take)
            elif name in _ACTS:
                _ACTS[name](value)
        except (OSError, ValueError, OverflowError) as error:
            shown = options["shown"].get(name, value)
            raise ProcessOptionError(
                f"{name}={shown!r} cannot be had: {error}", option=name
            ) from error


def _redirect(streams: Mapping[str, Any], take: Callable[[Any], int] | None) -> None:
    """Put the standard streams where they are to go.

    All are taken before the first is put: one may be another's present place.
    """
    places: dict[str, int] = {}
    try:
        for name, token in streams.items():
            if token is None:
                places[name] = os.open(os.devnull, os.O_RDWR)
            elif token != "stdout":
                places[name] = os.dup(token) if take is None else take(token)
            if places.get(name, 3) < 3:
                # Also where standard streams are closed, a place is none of them.
                places[name] = _above_standard(places[name])
        for name in streams:
            _put(name, places.get(name, 1))
    finally:
        for fd in places.values():
            os.close(fd)


def _above_standard(fd: int) -> int:
    from procession._ground.anonymous_file import above_standard

    return above_standard(fd)


def _put(name: str, place: int) -> None:
    number = _STREAMS[name]
    old = getattr(sys, name)
    _replaced.append(old)
    if old is not None and number:
        try:
            old.flush()
        except (OSError, ValueError):
            pass  # closed, or nobody reads it any more
    os.dup2(place, number)
    new = _text_stream(number, old)
    setattr(sys, name, new)
    setattr(sys, f"__{name}__", new)


def _text_stream(number: int, old: Any) -> TextIO:
    """Return a text stream on a standard descriptor, encoded as *old* was."""
    encoding = getattr(old, "encoding", None) or "utf-8"
    errors = "backslashreplace" if number == 2 else getattr(old, "errors", None) or "strict"
    if number == 0:
        return open(0, encoding=encoding, errors=errors, closefd=False)
    raw = io.FileIO(number, "w", closefd=False)
    return io.TextIOWrapper(
        io.BufferedWriter(raw),
        encoding=encoding,
        errors=errors,
        line_buffering=number == 2 or raw.isatty(),
    )


def _set_environment(environment: Mapping[str, str]) -> None:
    # Only what differs: each assignment reaches the C library as well.
    for name in set(os.environ) - set(environment):
        del os.environ[name]
    for name, value in environment.items():
        if os.environ.get(name) != value:
            os.environ[name] = value


def _set_umask(mask: int) -> None:
    os.umask(mask)


def _be_nice(increment: int) -> None:
    if sys.platform == "win32":
        raise OSError("Windows has no nice values")
    os.nice(increment)


def _bind(cpus: list[int]) -> None:
    if sys.platform != "linux":
        raise OSError(f"{sys.platform} has no sched_setaffinity")
    before = sorted(os.sched_getaffinity(0))
    try:
        os.sched_setaffinity(0, cpus)
    except OSError as error:
        raise OSError(error.errno, f"{error.strerror}; allowed are {before}") from error
    # The kernel leaves out what is not allowed, without a word.
    missing = sorted(set(cpus) - os.sched_getaffinity(0))
    if missing:
        os.sched_setaffinity(0, before)
        raise OSError(f"not allowed: {missing}; allowed are {before}")


def _limit(limits: Mapping[str, int | None]) -> None:
    if sys.platform == "win32":
        raise OSError("Windows has no resource limits")
    import resource

    for name, amount in limits.items():
        constant = getattr(resource, LIMITS[name], None)
        if constant is None:
            raise OSError(f"{sys.platform} has no limit {name}")
        hard = resource.getrlimit(constant)[1]
        soft = hard if amount is None else amount
        if amount is not None:
            ceiling = amount
            if name == "cpu_seconds":
                # Where both are the same the kernel kills at once; SIGXCPU would have said why.
                ceiling = amount + 1
            hard = ceiling if hard == resource.RLIM_INFINITY else min(hard, ceiling)
        if amount is not None and hard < amount:
            raise ValueError(f"{name}: no more than {hard} is allowed here")
        resource.setrlimit(constant, (soft, hard))


def _watch_faults(_: bool) -> None:
    import faulthandler

    faulthandler.enable(2)


def _show(title: str) -> None:
    """Show *title* in ps and top: whole with setproctitle, else the first 15 bytes."""
    try:
        setproctitle = __import__("setproctitle").setproctitle  # optional
    except ImportError:
        if sys.platform == "linux":
            with open("/proc/self/comm", "wb", buffering=0) as file:
                file.write(os.fsencode(title)[:_LONGEST_COMMAND])
    else:
        setproctitle(title)


_ACTS: dict[str, Callable[[Any], None]] = {
    "env": _set_environment,
    "cwd": os.chdir,
    "umask": _set_umask,
    "nice": _be_nice,
    "affinity": _bind,
    "faulthandler": _watch_faults,
    "title": _show,
    "limits": _limit,
}
