"""A plugin project: its names, and its files."""

from __future__ import annotations

import keyword
import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.resources import files
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Final

import procession
from procession import plugin

_SUFFIX: Final = ".template"
_NAME: Final = re.compile(r"[a-z][a-z0-9]*(-[a-z0-9]+)*")
_LONGEST: Final = 40

#: What can be made, by the name of its folder of templates.
KINDS: Final = ("start_method", "transport")


@dataclass(frozen=True)
class Project:
    """What is to be made. *kind* is one of `KINDS`; *name* is what users will choose."""

    kind: str
    name: str

    def complaint(self) -> str | None:
        """Return why the name will not do, and which would, or None."""
        if not _NAME.fullmatch(self.name) or len(self.name) > _LONGEST:
            return (
                f"{self.name!r} is no name for a plugin: at most {_LONGEST} lowercase letters, "
                f"digits and single dashes, and a letter first, such as 'my-{_noun(self.kind)}'"
            )
        if keyword.iskeyword(self.class_name) or self.class_name in plugin.__all__:
            return (
                f"a class {self.class_name!r} for {self.name!r} would hide what has this name "
                f"already; choose another, such as 'my-{self.name}'"
            )
        return None

    @property
    def class_name(self) -> str:
        """The name of the class: that of the plugin, as classes are written."""
        return "".join(part.capitalize() for part in self.name.split("-"))

    @property
    def distribution(self) -> str:
        """The name of the distribution, and of its folder."""
        return f"procession-{self.name}"

    @property
    def package(self) -> str:
        """The name that is imported."""
        return self.distribution.replace("-", "_")

    def contents(self) -> Iterator[tuple[str, str]]:
        """Yield the path and the text of each file."""
        for folder in ("common", self.kind):
            for path, template in _templates(files(__package__) / folder):
                yield self._filled(path), self._filled(template)

    def _filled(self, text: str) -> str:
        series = ".".join(procession.__version__.split(".")[:2])
        for word, value in (
            ("@name@", self.name),
            ("@Class@", self.class_name),
            ("@package@", self.package),
            ("@project@", self.distribution),
            ("@noun@", _noun(self.kind).replace("-", " ")),
            ("@kind@", self.kind),
            ("@Contract@", _noun(self.kind).title().replace("-", "")),
            ("@series@", f"{series}.0"),
        ):
            text = text.replace(word, value)
        return text

    def write(self, into: Path) -> Path:
        """Write the project's folder into the directory *into*; return its path.

        Raises `FileExistsError` when there is something of that name, and other kinds of
        `OSError` when it cannot be written: then nothing of it is there.
        """
        target = into / self.distribution
        if os.path.lexists(target):
            raise FileExistsError(f"{target} exists already")
        made = Path(tempfile.mkdtemp(prefix=f".{self.distribution}-", dir=into))
        try:
            for path, text in self.contents():
                file = made / path
                file.parent.mkdir(parents=True, exist_ok=True)
                file.write_text(text, encoding="utf-8")
            made.chmod(0o777 & ~_umask())
            made.rename(target)  # which refuses to take the place of what is not empty
        except BaseException:
            shutil.rmtree(made, ignore_errors=True)
            raise
        return target


def _templates(folder: Traversable, path: str = "") -> Iterator[tuple[str, str]]:
    for each in sorted(folder.iterdir(), key=lambda found: found.name):
        if each.is_dir():
            yield from _templates(each, f"{path}{each.name}/")
        elif each.name.endswith(_SUFFIX):
            yield path + each.name.removesuffix(_SUFFIX), each.read_text(encoding="utf-8")


def _noun(kind: str) -> str:
    return kind.replace("_", "-")


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
