"""What a child writes down about the exception that ended it.

Imported by parents, and in a child that fails. First comes what is certain to work, as plain
data: names, messages, tracebacks. The exceptions themselves follow as far as they can be pickled,
after all else, since pickling runs code of the program.
"""

from __future__ import annotations

import io
import marshal
import os
import sys

from procession._ground.handoff import PROTOCOL, Exportable
from procession._processes.report_file import DUMP_AT

try:
    from _pickle import Pickler
except ImportError:  # an interpreter without the C accelerator
    from pickle import Pickler

TYPE_CHECKING = False  # importing typing would bring `re` and more into every child
if TYPE_CHECKING:
    from typing import Any

MAGIC = b"PRF1"
#: The header: `MAGIC`, and the lengths of the text and of the objects, which follow it.
HEADER_SIZE = 12
#: How many exceptions are followed along causes and contexts.
LONGEST_CHAIN = 16
# How long one text may be; the later ones are tried when the record is longer than there is room.
_TEXT_LIMITS = (1 << 16, 1 << 13, 1 << 10, 1 << 7)


def header(text_length: int, objects_length: int) -> bytes:
    """Return the header of a record."""
    return MAGIC + text_length.to_bytes(4, "little") + objects_length.to_bytes(4, "little")


def lengths(data: bytes) -> tuple[int, int] | None:
    """Return the two lengths that a header says; None if it is none."""
    if len(data) < HEADER_SIZE or data[:4] != MAGIC:
        return None
    return int.from_bytes(data[4:8], "little"), int.from_bytes(data[8:12], "little")


class FailureRecord:
    """The record of one exception, printed as *text* (empty: it was not to be printed)."""

    def __init__(self, fd: int, error: BaseException, text: str) -> None:
        self._fd = fd
        self._chain = _chain(error)
        self._text = text
        self._room = _room() - HEADER_SIZE
        self._written = 0

    def write(self) -> None:
        """Write what is certain to work."""
        numbers = {id(error): number for number, error in enumerate(self._chain)}
        links = [
            (
                _type_name(error),
                _message(error),
                _traceback(error) if self._text else "",
                _notes(error),
                numbers.get(id(error.__cause__)),
                numbers.get(id(error.__context__)),
                error.__suppress_context__,
            )
            for error in self._chain
        ]
        data = b""
        for limit in _TEXT_LIMITS:
            data = marshal.dumps(_shortened((self._text, links), limit))
            if len(data) <= self._room:
                break
        if len(data) > self._room:
            return  # there is no room for anything
        self._write(HEADER_SIZE, data)
        self._write(0, header(len(data), 0))
        self._written = len(data)

    def add_objects(self) -> None:
        """Add the exceptions themselves, those that can be pickled and fit in. Never raises."""
        if not self._written:
            return
        try:
            room = self._room - self._written
            objects: list[bytes | None] = []
            for error in self._chain:
                objects.append(_pickled(error, room))
                room -= len(objects[-1] or b"")
            data = marshal.dumps(objects)
            if self._written + len(data) <= self._room:
                self._write(HEADER_SIZE + self._written, data)
                self._write(0, header(self._written, len(data)))
        except Exception:
            return  # the text is there, and says all

    def _write(self, offset: int, data: bytes) -> None:
        if sys.platform == "win32":
            raise OSError("Windows cannot write at an offset")
        left = memoryview(data)
        while left:
            written = os.pwrite(self._fd, left, offset)
            offset += written
            left = left[written:]


def _room() -> int:
    """Return how far this process may write: beyond its limit it would get a signal."""
    if sys.platform == "win32":
        return DUMP_AT
    import resource

    limit = resource.getrlimit(resource.RLIMIT_FSIZE)[0]
    return DUMP_AT if limit == resource.RLIM_INFINITY else min(limit, DUMP_AT)


def _chain(error: BaseException) -> list[BaseException]:
    """Return *error* and the exceptions that it comes from, each once."""
    found: list[BaseException] = []
    left: list[BaseException | None] = [error]
    while left and len(found) < LONGEST_CHAIN:
        each = left.pop(0)
        if each is not None and not any(each is other for other in found):
            found.append(each)
            left += [each.__cause__, each.__context__]
    return found


def _type_name(error: BaseException) -> str:
    kind = type(error)
    return (
        kind.__qualname__
        if kind.__module__ == "builtins"
        else f"{kind.__module__}.{kind.__qualname__}"
    )


def _message(error: BaseException) -> str:
    try:
        return str.__str__(str(error))
    except Exception:
        return "<its text cannot be had: str() failed>"


def _traceback(error: BaseException) -> str:
    try:
        import traceback

        return "".join(traceback.format_exception(error, chain=False))
    except Exception:
        return ""  # for want of memory, say


def _notes(error: BaseException) -> tuple[str, ...]:
    try:
        return tuple(str.__str__(note) for note in error.__notes__ if isinstance(note, str))
    except Exception:
        return ()  # most exceptions have none, and an attribute may be anything


def _shortened(value: Any, limit: int) -> Any:
    """Return plain data with no text longer than *limit* and a bit, saying so."""
    if isinstance(value, (tuple, list)):
        return type(value)(_shortened(each, limit) for each in value)
    if not isinstance(value, str) or len(value) <= limit:
        return value
    half = limit // 2
    left_out = len(value) - 2 * half
    return f"{value[:half]}\n... {left_out} characters are left out here ...\n{value[-half:]}"


class _Bounded(io.BytesIO):
    """Takes so many bytes and no more, so that a large array is not copied for nothing."""

    def __init__(self, room: int) -> None:
        super().__init__()
        self._room = room

    def write(self, data: Any, /) -> int:
        if self.tell() + len(memoryview(data).cast("B")) > self._room:
            raise OSError("too long")
        return super().write(data)


class _ReportPickler(Pickler):
    """Pickles an exception, but nothing that would have to be handed over."""

    def reducer_override(self, obj: Any, /) -> Any:
        """Refuse what has descriptors: its giver is about to end."""
        if isinstance(obj, Exportable):
            raise TypeError("what has descriptors cannot be reported")
        return NotImplemented


def _pickled(error: BaseException, room: int) -> bytes | None:
    file = _Bounded(room)
    try:
        _ReportPickler(file, PROTOCOL).dump(error)
    except Exception:
        return None  # most often: it holds something that cannot be pickled
    return file.getvalue()
