"""The options of one start, made definite: files open, paths absolute, variables looked up."""

from __future__ import annotations

import os
from contextlib import ExitStack

from procession.errors import UnsupportedOptionError

TYPE_CHECKING = False  # every module of the parent makes a fork dearer
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from types import TracebackType
    from typing import Any, Self

    from procession._contracts.start_method import StartMethod
    from procession._starting.process_options import ProcessOptions

#: The options that a start method must declare, because no child can do them by itself, and
#: why it cannot.
NEED_THE_METHOD = {
    "interpreter_env": "its children do not begin with an interpreter of their own; use 'spawn', "
    "or env for variables that need not be there so early",
}

_PARENTS = {"stdin": 0, "stdout": 1, "stderr": 2}
_NEW_FILE_MODE = 0o666


class Surroundings:
    """The options of one start. The files that it opened are closed with its block.

    Raises `OSError` when a file cannot be opened, and `FileNotFoundError` for a relative
    directory when the parent's own was removed.
    """

    def __init__(self, options: ProcessOptions, name: str) -> None:
        self.options = options
        self._opened = ExitStack()
        self._streams: dict[str, int | str | None] = {}
        #: The whole environment of the child, or None when it is the parent's.
        self.environment = _environment(options)
        #: The directory in which the child begins, or None when it is the parent's.
        self.directory = None if options.cwd is None else os.path.abspath(options.cwd)
        self._title = name if options.title is True else options.title
        try:
            for stream in _PARENTS:
                policy = getattr(options, stream)
                if policy is not None:
                    self._streams[stream] = self._open(stream, policy)
        except BaseException:
            self._opened.close()
            raise

    def _open(self, name: str, policy: Any) -> int | str | None:
        """Return a descriptor, None for the null device, or ``"stdout"``."""
        if policy == "null":
            return None
        if policy == "stdout":
            return "stdout"
        if policy == "parent":
            return _PARENTS[name]
        if isinstance(policy, int):
            return policy
        if isinstance(policy, os.PathLike):
            # Appended to, so that several processes can write to one file.
            flags = os.O_RDONLY if name == "stdin" else os.O_WRONLY | os.O_CREAT | os.O_APPEND
            fd = os.open(policy, flags, _NEW_FILE_MODE)
            self._opened.callback(os.close, fd)
            return fd
        fd = policy.fileno()
        if name != "stdin" and hasattr(policy, "flush"):
            policy.flush()  # what was written before the start comes before
        return int(fd)

    def data(self, give: Callable[[int], Any] = int) -> dict[str, Any] | None:
        """Return what `procession._starting.apply_options.apply` does, as plain data.

        None when the child has nothing to do, since its parent does it all. *give* hands a
        descriptor over and returns what stands for it.
        """
        options = self.options
        # In the order in which they are done: the streams before anything can print, the
        # limits last, so that what the others need does not count.
        found: dict[str, Any] = {
            "streams": {
                name: give(fd) if isinstance(fd, int) else fd for name, fd in self._streams.items()
            },
            "env": self.environment,
            "cwd": self.directory,
            "umask": options.umask,
            "nice": options.nice,
            "affinity": None if options.affinity is None else sorted(options.affinity),
            "faulthandler": options.faulthandler or None,
            "title": self._title or None,
            "limits": dict(options.limits) or None,
        }
        found = {name: value for name, value in found.items() if value is not None}
        if found == {"streams": {}}:
            return None
        # Values of variables are often secrets, and errors end in logs.
        found["shown"] = {"cwd": options.cwd, "env": sorted(options.env)}
        return found

    def __enter__(self) -> Self:
        """Return this."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Close the files that were opened for the start; the child has its own."""
        self._opened.close()


def check(options: ProcessOptions, method: type[StartMethod]) -> None:
    """Raise `UnsupportedOptionError` when *method* cannot do one of *options*."""
    features = method.features
    for option in options.given():
        if features.shares_memory:
            reason = "its children are threads of this process, with which they have all in common"
        elif option in NEED_THE_METHOD and option not in features.options:
            reason = NEED_THE_METHOD[option]
        elif option == "max_rss" and not features.same_host:
            reason = "its children run on another machine, where their memory cannot be seen"
        else:
            continue
        raise UnsupportedOptionError(
            f"start method {method.name!r} cannot do {option}: {reason}", option=option
        )


def _environment(options: ProcessOptions) -> dict[str, str] | None:
    changes: Mapping[str, str | None] = {**options.env, **options.interpreter_env}
    if not changes and not options.clear_env:
        return None
    found = {} if options.clear_env else dict(os.environ)
    for name, value in changes.items():
        if value is None:
            found.pop(name, None)
        else:
            found[name] = value
    return found
