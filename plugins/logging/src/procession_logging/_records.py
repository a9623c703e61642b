"""Log records as bytes, without pickling: nothing of the child's is needed to read them."""

from __future__ import annotations

import logging
import marshal
import os

import procession

TYPE_CHECKING = False  # importing typing would bring `re` and more into every child
if TYPE_CHECKING:
    from typing import Any

_formatter = logging.Formatter()


def pack(record: logging.LogRecord) -> bytes:
    """Return *record* as bytes: its message made, its exception rendered.

    Attributes of the program's own go along as they are if they are plain data, and else as
    their repr. Raises what making the message raises.
    """
    fields = dict(record.__dict__)
    fields["msg"] = record.getMessage()
    fields["args"] = None
    if record.exc_info and not record.exc_text:
        fields["exc_text"] = _formatter.formatException(record.exc_info)
    fields["exc_info"] = None
    if record.process == os.getpid():  # not one that was relayed to this process
        fields["processName"] = procession.current_process().name
    try:
        return marshal.dumps(fields)
    except ValueError:
        return marshal.dumps({name: _plain(value) for name, value in fields.items()})


def _plain(value: Any) -> Any:
    try:
        marshal.dumps(value)
    except ValueError:
        # Also a subclass of a plain type: what is asked for is its value.
        if isinstance(value, str):
            return str.__str__(value)
        if isinstance(value, int):
            return int.__int__(value)
        return repr(value)
    return value


def unpack(data: bytes) -> logging.LogRecord:
    """Return the record that *data* was made of."""
    # Not made the usual way, which would look at the present thread and process.
    record = logging.LogRecord.__new__(logging.LogRecord)
    record.__dict__.update(marshal.loads(data))
    return record


def note(level: int, text: str) -> logging.LogRecord:
    """Return a record of the plugin itself."""
    return logging.LogRecord("procession_logging", level, __file__, 0, text, None, None)
