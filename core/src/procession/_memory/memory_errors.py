"""Memory that cannot be had: errors that name what has run out, before the kernel kills.

Load this module early: when descriptors have run out no module can be loaded any more.
"""

from __future__ import annotations

import errno

from procession._ground.resource_limits import available_memory, limit, open_files_of_all, room_in
from procession.errors import ResourceError


def explain(error: OSError, doing: str, directory: str | None = None) -> OSError:
    """Return an error that says which resource *error* is about, or *error* itself.

    *doing* is what failed, *directory* where the memory has a name. The answer has the
    errno of *error*.
    """
    describe = _DESCRIPTIONS.get(error.errno or 0)
    if describe is None or isinstance(error, ResourceError):
        return error
    text = _full(directory) if error.errno == errno.ENOSPC and directory else describe()
    return ResourceError(error.errno, f"{doing}: {text}")


def refuse_more_than_there_is(size: int) -> None:
    """Raise `OSError` (ENOMEM) if *size* bytes are more than can be had just now.

    The kernel does not answer: it reserves page after page until the machine or the
    control group has none left, and then kills somebody. Others may take the memory
    between this look and the reservation, so this is a guard against the hopeless.
    """
    found = available_memory()
    if found is not None and size > found[0]:
        raise ResourceError(
            errno.ENOMEM,
            f"{size} bytes of memory are asked for and about {found[0]} can be had ({found[1]})",
        )


def _full(directory: str) -> str:
    return (
        f"{directory} is full ({room_in(directory)}); mount it larger "
        f"(docker run --shm-size), or use memory without a name, which is not limited by it"
    )


def _descriptors() -> str:
    return (
        f"too many open files (RLIMIT_NOFILE is {limit('RLIMIT_NOFILE')}); raise the limit with "
        f"ulimit -n, or let go of shared memory and connections that are done with"
    )


def _memory() -> str:
    limits = [f"RLIMIT_AS is {limit('RLIMIT_AS')}"]
    found = available_memory()
    if found is not None:
        limits.append(f"about {found[0]} bytes can be had: {found[1]}")
    return f"out of memory ({', '.join(limits)})"


def _space() -> str:
    return "no space left for files in memory"


def _file_size() -> str:
    return f"a file in memory may not be so long (RLIMIT_FSIZE is {limit('RLIMIT_FSIZE')})"


_DESCRIPTIONS = {
    errno.EMFILE: _descriptors,
    errno.ENFILE: open_files_of_all,
    errno.ENOMEM: _memory,
    errno.ENOSPC: _space,
    errno.EFBIG: _file_size,
}
