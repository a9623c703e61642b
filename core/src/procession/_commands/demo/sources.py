"""Finding the Python sources below a directory."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from typing import Final

import attrs

__all__ = ["SourceTree", "find_sources"]

_BATCH_SIZE: Final = 64 * 1024
_BATCH_FILES: Final = 16

_OTHERS_CODE: Final = frozenset({"site-packages", "dist-packages"})


@attrs.frozen
class SourceTree:
    """The sources below a directory, the largest first."""

    root: str
    paths: tuple[str, ...]
    sizes: tuple[int, ...]
    skipped: dict[str, str]
    """What could not even be looked at, and why."""

    @property
    def size(self) -> int:
        """The bytes of all of them together."""
        return sum(self.sizes)

    def batches(self) -> Iterator[list[str]]:
        """Divide the paths into lists for one message each.

        They are small, so that there is much traffic; the large files come first, so that
        nobody is left alone with one of them at the end.
        """
        batch: list[str] = []
        filled = 0
        for path, size in zip(self.paths, self.sizes, strict=True):
            if batch and (filled + size > _BATCH_SIZE or len(batch) == _BATCH_FILES):
                yield batch
                batch, filled = [], 0
            batch.append(path)
            filled += size
        if batch:
            yield batch

    def relative(self, path: str) -> str:
        """Return *path* as it is called in this tree, fit for being shown."""
        return os.fsencode(os.path.relpath(path, self.root)).decode(errors="replace")


def find_sources(root: str, *, installed_packages: bool = True) -> SourceTree:
    """Find every ``.py`` file below *root*, following no links to directories.

    Without *installed_packages*, ``site-packages`` is left out. Raises nothing for what
    cannot be looked at: it is among the `skipped`.
    """
    found: list[tuple[int, str]] = []
    skipped: dict[str, str] = {}

    def unreadable(error: OSError) -> None:
        skipped[error.filename] = error.strerror or str(error)

    for directory, subdirectories, files in os.walk(root, onerror=unreadable):
        if not installed_packages:
            subdirectories[:] = [name for name in subdirectories if name not in _OTHERS_CODE]
        for name in files:
            if not name.endswith(".py"):
                continue
            path = os.path.join(directory, name)
            try:
                status = os.stat(path)
            except OSError as error:
                unreadable(error)
                continue
            if stat.S_ISREG(status.st_mode):
                found.append((status.st_size, path))
            else:  # opening a named pipe would wait for somebody to write into it
                skipped[path] = "not a regular file"
    found.sort(key=lambda source: (-source[0], source[1]))
    return SourceTree(
        root, tuple(path for _, path in found), tuple(size for size, _ in found), skipped
    )
