"""What a pool and its workers say to each other.

The pool sends tasks: a marshalled list of ``(function id, pickled function or None, mode,
pickled arguments)``, with the buffers of its arguments when it is a single one. A function
comes with its first task; both sides remember it (`remember`). An empty message is the end.

A worker answers each task, in order, by bytes whose last one says what it is; the pickle of the
result, or the marshalled description of an exception, comes before it. A short answer is laid in
the worker's tray (`procession._pools.desk`), which both see; any other one is a message. The pool
takes what lies in the tray first: a message is the answer to the first task that has none there.
Before a worker sends one it says in the tray whether that is long: it is received elsewhere then
(`procession._pools.carrier`), as the worker may be stopped in the middle of it.

What lies in the tray makes no noise. The worker rings the pool's bell when it has done half of
the tasks that have come together, and all of them; that is before it waits for more. A task in
between may take long: so the pool looks by itself, every millisecond, at a worker that may have
gone on with what waits behind its first task.

Who has which task, and how far it is, must be known whenever a worker dies. At a worker a task
takes these steps, each of which is one message or one store into a word that both see:

=========  ==================================  ==========================================
step       made by                             a worker that dies in this state
=========  ==================================  ==========================================
given      the pool sends it                   it was not begun: another worker does it
claimed    `CLAIMED` becomes its number        the same: it is not known if it is recalled
skipped    the worker answers `SKIPPED`        the same
begun      `BEGUN` becomes its number          it ends with `WorkerDiedError`
answered   the answer lies in the tray, or     it is done
           all of it was sent
=========  ==================================  ==========================================

Steps are made in this order, for one task after the other. So what a dead worker leaves is what
it has said, then at most one task that it has begun and not answered, then what it has not
begun. This is only true when *all* that it has said was taken first, from its tray and up to the
end of its channel: that the pool could not send to it any more is no reason not to listen.

The pool can *recall* what is waiting, when the worker turns out to be busy for long:

- The worker writes `CLAIMED`, and then reads `RECALLED`: from which number on it is not to do
  any. It answers that it has skipped such a task.
- The pool writes `RECALLED`, lets `SETTLING_SECONDS` go by, and then reads `CLAIMED`. What is
  not claimed will be skipped, and is given to somebody else at once.

What is written is seen by the other processor long before that time is over. So either the
worker saw the recall, or the pool sees that the task was claimed; where both is true, the
worker's answer decides.
"""

from __future__ import annotations

TYPE_CHECKING = False  # importing typing would bring `re` and more into every child
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

#: How a task's arguments are given to its function.
APPLY, MAP, STARMAP = range(3)
#: Added to it: the worker is to ring for a caller (`procession._pools.errand`).
CALLER = 8

#: The last byte of an answer: ready for work; the initializer has failed; done; failed; skipped.
READY, UNFIT, DONE, FAILED, SKIPPED = b"rudfs"

#: No channel carries a message up to this length, in bytes, in parts.
SHORT = 3500
#: Far more than a processor needs to make a write visible.
SETTLING_SECONDS = 0.001

#: So many functions are remembered.
MOST_FUNCTIONS = 64


def remember(functions: dict[int, Any], function_id: int, function: Any) -> None:
    """Remember a function; forget all others when there are many.

    Both sides do this in the same order, and so remember the same ones.
    """
    if len(functions) >= MOST_FUNCTIONS:
        functions.clear()
    functions[function_id] = function


def call(function: Callable[..., Any], mode: int, arguments: Any) -> Any:
    """Do what a task is: call *function* with *arguments*, in the way of its *mode*."""
    if mode == APPLY:
        return function(*arguments[0], **arguments[1])
    # Written out, as `map` would take a StopIteration of the function's for the end of all.
    if mode == MAP:
        return [function(argument) for argument in arguments]
    return [function(*each) for each in arguments]
