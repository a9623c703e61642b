"""What runs first in a child.

Only the standard library is imported here, and little of it: attrs, pluggy and a walk
through the entry points would cost six times the start of the interpreter itself. What
a child needs was looked up by its parent and lies in the parcel.

For authors of start methods: a fresh interpreter is started with the command of
`Parcel.command` and ends up in `main`; a helper process that forks children calls
`run_parcel` in each of them.
"""

from __future__ import annotations

import io
import itertools
import os
import sys
from atexit import _clear as _clear_exit_handlers
from sys import modules

from procession import process
from procession._ground import standard as _standard
from procession._ground.handoff import LaunchTakeover, ParcelUnpickler
from procession._processes import inheritance, main_module
from procession._processes import sigint as _sigint
from procession._processes.end_with_parent import end_with_parent
from procession._processes.family import authenticate_as, become
from procession._processes.report_file import Dump, report_file
from procession._processes.variables import variable

TYPE_CHECKING = False  # importing typing would bring `re` and more into every child
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import Any, NoReturn, TextIO

    from procession._processes.child_hooks import ChildHooks

__all__ = [
    "begin_forked",
    "carry_out",
    "end_forked",
    "end_with_parent",
    "exit_code_of",
    "flush_streams",
    "import_main",
    "main",
    "run_parcel",
]

#: The variable that asks for stacks on a signal; see `procession._processes.stack_file`.
DUMP_SIGNAL = "PROCESSION_DUMP_SIGNAL"

import_main = main_module.import_again


def main(parcel: int, *descriptors: int) -> NoReturn:
    """Open a parcel, do what it says, and end this interpreter with the exit code.

    *parcel* is the descriptor of the parcel's file, *descriptors* those that came with
    it, in their order. Every other descriptor but the standard three is closed: they
    were left open for this process by mistake.
    """
    _close_all_but({0, 1, 2, parcel, *descriptors})
    code = run_parcel(parcel, descriptors)
    _drop_broken_streams()
    sys.exit(code)


def run_parcel(
    parcel: int,
    descriptors: Sequence[int],
    *,
    shares_process: bool = False,
    environ: dict[str, str] | None = None,
) -> int:
    """Open a parcel in this process, do what it says, and return the exit code.

    Takes over all the descriptors. What goes wrong while the parcel is opened (a
    module that cannot be imported) is reported on stderr like an error of the target.

    *shares_process*: this is an interpreter beside others in its parent's process. What belongs
    to the process is left alone then: signals, its directory, its standard input, its crash
    dumps, and its end with the parent. The method has refused all options that need these.
    Descriptors are closed after the exit handlers, when the interpreter is closed.

    *environ*: the variables that this process has, if that is known. Most often those of the
    parent are the same, and each that is set costs a child some microseconds, and pages.
    """
    if shares_process:
        import atexit

        from procession._processes.interpreter_end import give_back

        atexit.register(give_back)  # the first, which comes last
    try:
        child, lifeline, keeps_stdin = _open(parcel, descriptors, shares_process, environ)
    except SystemExit as error:
        code = _exit(error)
    except KeyboardInterrupt as error:
        report_file.begin(error, "")  # it had not begun, so there is nothing to print about it
        code = 1
    except BaseException as error:
        _report(inheritance.process_name, error)
        code = 1
    else:
        return carry_out(child, lifeline, keeps_stdin=keeps_stdin or shares_process)
    _end_hooks()
    return code


def carry_out(child: process.Process, lifeline: int, *, keeps_stdin: bool = False) -> int:
    """Be *child*: call its ``run`` in this process and return the exit code.

    *lifeline* is the reading end of the parent's lifeline; it is taken over. *keeps_stdin*: an
    option has said already what the child reads from.
    """
    parent = process.ParentProcess(child._parent_name, child._parent_pid, lifeline)
    become(child, parent, itertools.count(1))
    arm_dump_signal()
    if not keeps_stdin:
        detach_stdin()
    return work(child)


def work(
    child: process.Process,
    options: Mapping[str, Any] | None = None,
    hooks: Sequence[ChildHooks] = (),
) -> int:
    """Call the ``run`` of *child*, which this process is by now; return the exit code.

    *options* are those that a forked child has yet to apply, *hooks* those of its plugins.
    """
    try:
        try:
            if options is not None:
                from procession._starting import apply_options

                apply_options.apply(options)
            if hooks:
                from procession._processes import child_hooks

                child_hooks.start(hooks)
            child.run()
        finally:
            _end_own_children()
        code = 0
    except SystemExit as error:
        code = _exit(error)
    except KeyboardInterrupt as error:
        if child.sigint == _sigint.QUIET:
            report_file.begin(error, "")
        else:
            _report(child.name, error)
        code = 1
    except BaseException as error:
        _report(child.name, error)
        code = 1
    for finish in (_finish_threads, _end_hooks):
        try:
            finish()
        except KeyboardInterrupt:
            code = 1  # it came after the work: there is no traceback worth showing
    flush_streams()
    return code


def exit_code_of(error: SystemExit) -> int:
    """Return the exit code that a SystemExit asks for, as the interpreter has it."""
    if error.code is None:
        return 0
    if isinstance(error.code, int):
        return error.code
    _write(f"{error.code}\n")
    return 1


def end_forked(code: int) -> NoReturn:
    """End a forked process: exit handlers of its own, then nothing of its parent's."""
    import atexit

    try:
        atexit._run_exitfuncs()
        flush_streams()
    finally:
        os._exit(code & 0xFF)


def begin_forked() -> None:
    """Forget, in a process just forked, what its parent wanted done at its own end."""
    _clear_exit_handlers()
    if "threading" in modules:
        _renew_native_id()
    # Each attribute that is looked up, and not a global, costs a forked child two pages.
    if "procession._processes.child_hooks" in modules:
        modules["procession._processes.child_hooks"].forget()
    if _standard.followed or "multiprocessing.util" in modules:
        from procession._standard import state

        state.forget_parent()


def _renew_native_id() -> None:
    # The interpreter leaves the main thread with the number that it had in the parent.
    main_thread: Any = modules["threading"].main_thread()
    if hasattr(main_thread, "_set_native_id"):
        main_thread._set_native_id()


def _open(
    parcel: int,
    descriptors: Sequence[int],
    shares_process: bool,
    present: dict[str, str] | None,
) -> tuple[process.Process, int, bool]:
    takeover = LaunchTakeover(_own(descriptors))
    try:
        with open(parcel, "rb") as file:
            preparation = ParcelUnpickler(file, takeover).load()
            if preparation["report"] is not None:
                _adopt_report(takeover.take(preparation["report"]), dumps=not shares_process)
            lifeline = takeover.take(preparation["lifeline"])
            if not shares_process:
                if preparation["daemon"]:
                    # Before anything else, as the main module may take its time.
                    end_with_parent(lifeline, preparation["parent"])
                _sigint.apply(preparation["sigint"])
                _sigint.unblock()
            else:
                preparation["directory"] = None  # it is there already
            for token in preparation["keep"]:
                takeover.take(token)
            options = preparation["options"]
            if options is not None:
                from procession._starting import apply_options

                inheritance.adopt(preparation)  # so that a failure is reported by name
                apply_options.apply(options, takeover.take)
            told = preparation["standard"]
            if told is not None and told["tracker"] is not None:
                told["tracker"] = takeover.take(told["tracker"])
            if preparation["environ"] == present:
                preparation["environ"] = None
            _prepare(preparation)
            if preparation["hooks"]:
                from procession._processes import child_hooks

                child_hooks.start(ParcelUnpickler(file, takeover).load())
            main_module.import_again(preparation["main"], preparation["compiled"])
            child = ParcelUnpickler(file, takeover).load()
    finally:
        takeover.close()
    return child, lifeline, options is not None and "stdin" in options["streams"]


def _adopt_report(fd: int, *, dumps: bool) -> None:
    if dumps:
        import faulthandler  # not at the top: a subinterpreter cannot have it

        report_file.adopt(fd, faulthandler, Dump(fd))
    else:
        report_file.adopt(fd)


def _own(descriptors: Sequence[int]) -> list[int]:
    """Return *descriptors*, each its own and none inheritable."""
    seen = set()
    owned = []
    for fd in descriptors:
        if fd in seen:
            fd = os.dup(fd)
        seen.add(fd)
        os.set_inheritable(fd, False)
        owned.append(fd)
    return owned


def _prepare(preparation: dict[str, Any]) -> None:
    """Make this process resemble the one that started it."""
    inheritance.adopt(preparation)
    authenticate_as(preparation["authkey"])
    _standard.adopt(preparation["standard"])
    options = preparation["options"] or ()
    environ = preparation["environ"]
    if environ is not None and "env" not in options:
        os.environ.clear()
        os.environ.update(environ)
    sys.path[:] = preparation["path"]
    sys.argv[:] = preparation["argv"]
    if preparation["directory"] is not None and "cwd" not in options:
        os.chdir(preparation["directory"])
    if preparation["log"] is not None:
        from procession._starting.logging import adopt

        adopt(preparation["log"])


def arm_dump_signal() -> None:
    """Have this process write its stacks on a signal, if the variable asks for it."""
    dump_signal = variable(DUMP_SIGNAL)
    if dump_signal is not None:
        from procession._processes.stack_file import arm

        arm(dump_signal)


def detach_stdin(stream: TextIO | None = None) -> None:
    """Give the child the null device to read from; the terminal is the parent's.

    *stream* reads from it, if there is one already.
    """
    if sys.stdin is not None:
        try:
            sys.stdin.close()
        except (AttributeError, OSError, ValueError):
            # Closed or broken already, which is all that was wanted, or no file at all.
            os.closerange(0, 1)
    if stream is None:
        fd = os.open(os.devnull, os.O_RDONLY)
        stream = open(fd, encoding="utf-8", closefd=False)  # noqa: SIM115 - for the whole run
    sys.stdin = stream


def _end_own_children() -> None:
    launching = sys.modules.get("procession._starting.launch")
    if launching is not None:
        launching.end_children()


def _end_hooks() -> None:
    hooks = sys.modules.get("procession._processes.child_hooks")
    if hooks is not None:
        hooks.end()


def _finish_threads() -> None:
    threading = sys.modules.get("threading")
    if threading is not None:
        threading._shutdown()


def _report(name: str, error: BaseException) -> None:
    """Print *error*, the current exception, as multiprocessing does; tell the parent, too."""
    _have_a_descriptor()
    import traceback

    file = io.StringIO()
    traceback.print_exc(file=file)
    text = file.getvalue()
    # What is certain comes first: nobody may read our stderr, and pickling may take long.
    record = report_file.begin(error, text)
    _write(f"Process {name}:\n{text}")
    if record is not None:
        record.add_objects()


def _have_a_descriptor() -> None:
    """Give up standard input if there is no descriptor left, which may be what has gone wrong.

    What tells of the end has to be imported from files.
    """
    try:
        os.close(os.open(os.devnull, os.O_RDONLY))
    except OSError:
        os.closerange(0, 1)


def _exit(error: SystemExit) -> int:
    """Return the exit code that *error* asks for; tell the parent if it is one of failure."""
    code = exit_code_of(error)
    if code:
        _have_a_descriptor()
        report_file.begin(error, "")
    return code


def _write(text: str) -> None:
    """Write to stderr, if there is one that can be written to."""
    if sys.stderr is None:
        return
    try:
        sys.stderr.write(text)
        sys.stderr.flush()
    except (AttributeError, OSError, ValueError):
        # A report that cannot be shown must not change the exit code.
        return


def flush_streams() -> None:
    """Write out what waits in stdout and stderr, as far as somebody will have it."""
    for stream in (sys.stdout, sys.stderr):
        if stream is not None:
            try:
                stream.flush()
            except (AttributeError, OSError, ValueError):
                continue  # closed, or nobody reads it any more, or no file at all


def _drop_broken_streams() -> None:
    """Let go of streams that cannot be written to: for them, the exit code would be 120."""
    for name in ("stdout", "stderr"):
        try:
            getattr(sys, name).flush()
        except (AttributeError, OSError, ValueError):
            setattr(sys, name, None)


def _close_all_but(kept: set[int]) -> None:
    try:
        names = os.listdir("/dev/fd")  # Linux, macOS and the BSDs have it
    except OSError:
        return
    for name in names:
        fd = int(name)
        if fd not in kept:
            try:
                os.close(fd)
            except OSError:
                continue  # the descriptor that listed the folder
