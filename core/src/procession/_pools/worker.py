"""What a worker of a pool does: tasks, one after the other, until there are no more.

Imported in every worker. What the parent sends and what the worker answers is described by
`procession._pools.wire`.
"""

from __future__ import annotations

import marshal

from procession._channels.descriptor_channel import DescriptorChannel
from procession._ground.after_fork import in_forked_children
from procession._ground.waiting import asker, wait_readable
from procession._messages.lookout import Lookout
from procession._messages.pickling import dumper, dumps, explain, loads
from procession._pools import wire
from procession._pools.desk import BEGUN, CLAIMED, RECALLED, Desk
from procession.errors import MaybeEncodingError

TYPE_CHECKING = False  # importing typing would bring `re` and more into every child
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Any

    from procession._contracts.channel import Buffer, Channel
    from procession._ground.bell import Bell
    from procession._ground.encoder import Encoder
    from procession._memory.shared_map import SharedMap

_READY, _UNFIT, _DONE, _FAILED, _SKIPPED = (
    bytes((kind,)) for kind in (wire.READY, wire.UNFIT, wire.DONE, wire.FAILED, wire.SKIPPED)
)


def work(
    channel: Channel,
    shared: SharedMap,
    place: int,
    bells: tuple[Bell, Bell],
    initializer: Callable[..., object] | None,
    initargs: Sequence[Any],
    encoder: Encoder | None = None,
) -> None:
    """Be a worker: the target of its process. *encoder* is for its results.

    Returns when the parent says so or is gone, and when the initializer has failed. What is
    no `Exception`, such as SystemExit, ends the process in the middle of its task.
    """
    # Who has a copy of our end could keep the pool waiting for us when we are dead.
    in_forked_children(channel.close)
    desk = Desk(shared, place)
    try:
        if initializer is not None and not _initialize(channel, initializer, initargs):
            return
        channel.send(_READY)
        _serve(channel, desk, bells, encoder)
    except BrokenPipeError:
        return  # nobody waits for the rest
    finally:
        desk.release()


def _initialize(
    channel: Channel, initializer: Callable[..., object], initargs: Sequence[Any]
) -> bool:
    try:
        initializer(*initargs)
    except Exception as error:
        channel.send(_failure(error) + _UNFIT)
        return False
    return True


def _serve(channel: Channel, desk: Desk, bells: tuple[Bell, Bell], encoder: Encoder | None) -> None:
    pools_bell, callers_bell = bells
    functions: dict[int, Any] = {}
    words = desk.words
    number = 0
    bell = pools_bell
    # Other channels look by themselves, if that is of use.
    looks_itself = not isinstance(channel, DescriptorChannel)
    has_come = None if looks_itself else asker(channel.fileno())
    lookout = Lookout()
    while True:
        if bell is callers_bell:
            if has_come is not None:
                lookout.look(has_come)  # who waits for each call makes the next one soon
        elif looks_itself and number:
            _sleep(channel)
        try:
            body, buffers = channel.receive()
        except EOFError:
            return  # the parent is gone
        if not body:
            return
        tasks = marshal.loads(body)
        last = number + len(tasks)
        half = number + len(tasks) // 2
        for function_id, function, mode, arguments in tasks:
            number += 1
            bell = pools_bell
            if mode & wire.CALLER:
                mode -= wire.CALLER
                bell = callers_bell
            words[CLAIMED] = number
            # In this order: see `procession._pools.wire`.
            if 0 < words[RECALLED] <= number:
                if function is not None:
                    wire.remember(functions, function_id, function)
                answer = _SKIPPED
                answer_buffers: Sequence[Buffer] = ()
            else:
                words[BEGUN] = number
                answer, answer_buffers = _carry_out(
                    functions, function_id, function, mode, arguments, buffers, encoder
                )
            if answer_buffers or not desk.lay(number, answer):
                desk.announce(number, bool(answer_buffers) or len(answer) > wire.SHORT)
                channel.send(answer, answer_buffers)
            elif number in (half, last):
                bell.ring()
            # Nothing of a task is kept while the next one is waited for.
            del answer, answer_buffers
        del body, buffers, tasks, function, arguments


def _sleep(channel: Channel) -> None:
    """Wait for the pool's thread to send more, without looking for it.

    That thread has many tasks on its way, and is the slower of the two: to look for them on one of
    its processor's threads only makes it slower.
    """
    try:
        fd = channel.fileno()
    except OSError:
        return  # no descriptor is to be had for it: then to receive is to wait
    wait_readable(fd, None)


def _carry_out(
    functions: dict[int, Any],
    function_id: int,
    function: bytes | None,
    mode: int,
    arguments: bytes,
    buffers: Sequence[Buffer],
    encoder: Encoder | None,
) -> tuple[bytes, Sequence[Buffer]]:
    """Return the answer to one task."""
    try:
        if function is not None:
            wire.remember(functions, function_id, function)
        known = functions[function_id]
        if type(known) is bytes:  # not unpickled yet, or in vain: then it fails again
            known = functions[function_id] = loads(known)
        result = wire.call(known, mode, loads(arguments, buffers))
    except Exception as error:
        return _failure(error) + _FAILED, ()
    try:
        body, result_buffers = dumper(encoder)(result)
    except Exception as error:
        explain(error, [("result", result)], encoder)
        failure = MaybeEncodingError(error, _text(result))
        for note in getattr(error, "__notes__", ()):
            failure.add_note(note)
        return _failure(failure) + _FAILED, ()
    return body + _DONE, result_buffers


def _failure(error: Exception) -> bytes:
    """Return what the parent has to know of *error*, which is pickled apart if it can be."""
    text = "" if isinstance(error, MaybeEncodingError) else _traceback(error)
    kind = type(error)
    name = kind.__qualname__
    if kind.__module__ != "builtins":
        name = f"{kind.__module__}.{name}"
    pickled: bytes | None
    why = ""
    try:
        pickled, buffers = dumps(error.with_traceback(None))
        if buffers:  # large arrays in an exception
            from procession._messages.pickling import join

            pickled = join(pickled, buffers)
    except Exception as reason:
        pickled, why = None, _text(reason)
    return marshal.dumps((name, _text(error), text, pickled, why))


def _traceback(error: Exception) -> str:
    """Return the traceback of *error*: the lines alone where no file can be read."""
    try:
        import traceback

        return "".join(traceback.format_exception(error))
    except (ImportError, OSError):  # most likely the task has used up all descriptors
        lines = []
        at = error.__traceback__
        while at is not None:
            code = at.tb_frame.f_code
            lines.append(f'  File "{code.co_filename}", line {at.tb_lineno}, in {code.co_name}\n')
            at = at.tb_next
        what = f"{type(error).__name__}: {_text(error)}\n"
        return "Traceback (most recent call last):\n" + "".join(lines) + what


def _text(value: Any) -> str:
    """Return the repr of *value*, whatever its class does, as a plain string."""
    try:
        return "".join((repr(value),))
    except Exception as error:
        return f"<{type(value).__name__} whose repr raises {type(error).__name__}>"
