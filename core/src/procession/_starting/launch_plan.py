"""What a start method is given: everything that one start needs."""

from __future__ import annotations

import io
import os
import sys
from types import FunctionType

from procession._ground import standard as _standard
from procession._ground.anonymous_file import anonymous_file
from procession._ground.handoff import LaunchHandoff, ParcelPickler, parcel_pickler
from procession._ground.holders import identity
from procession._ground.value import Value
from procession._processes import inheritance
from procession._processes import interpreter as _interpreter
from procession._processes import main_module as _main_module
from procession._processes import sigint as _sigint
from procession._processes.authentication_string import (
    AuthenticationString,
    FamilyKey,
    reduce_family_key,
    reduce_for_child,
)
from procession._starting.forked import begin
from procession._starting.outfit import Outfit
from procession.child import begin_forked, end_forked
from procession.errors import UnguardedMainError

if sys.platform == "linux":
    # For `end_with_parent`: imported in a forked child, it would copy a hundred pages there.
    import fcntl  # noqa: F401

TYPE_CHECKING = False  # every module of the parent makes a fork dearer
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Any

    from procession._choosing.selector import Bequest
    from procession._ground.encoder import Encoder
    from procession._ground.unpicklable import Part
    from procession._processes.child_hooks import ChildHooks
    from procession._starting.surroundings import Surroundings
    from procession.process import Process


class Parcel(Value):
    """A plan, packed for an interpreter without this memory: bytes and descriptors.

    The descriptors stay their owners'; duplicates of them must reach the child in this
    order, under whatever numbers.
    """

    #: What `procession.child.run_parcel` reads.
    data: bytes
    #: The descriptors that the data refers to by position.
    descriptors: tuple[int, ...]
    #: The modules of procession and its plugins that the child will import: a helper that
    #: forks children may import them once for all.
    modules: frozenset[str]

    def open(self) -> int:
        """Return a descriptor of an anonymous file that holds the data, at its start.

        The caller owns it. A file, unlike a pipe, takes any amount without a reader,
        so that a start never waits for its child. Behind the data comes what `command` tells
        an interpreter to look for there. Raises `OSError` when memory is out.
        """
        from procession._processes import bundle

        try:
            return anonymous_file("procession-parcel", self.data + bundle.bundle())
        except OSError:  # a limit on the size of files, perhaps; the data alone is enough
            return anonymous_file("procession-parcel", self.data)

    def command(self, parcel: int, descriptors: Sequence[int]) -> list[str]:
        """Return the command line of an interpreter that carries the plan out.

        *parcel* and *descriptors* are the numbers that the file of `open` and the
        parcel's descriptors have in the child.
        """
        from procession._processes import bundle

        opening = bundle.opening(parcel, len(self.data))
        return _interpreter.child_command(parcel, descriptors, opening)


class LaunchPlan(Value):
    """Everything that one start needs. Made by core, read by a start method."""

    #: The object whose ``start`` was called; its ``run`` is what the child does.
    process: Process
    #: Readable when this parent has died; the descriptor stays the parent's.
    lifeline: int
    #: The selection and the known plugins that the child inherits.
    bequest: Bequest
    #: The modules that a fork server should import before its first child.
    preload: tuple[str, ...]
    #: The logger's level and whether it writes to stderr, if it was ever asked for.
    log: tuple[int, bool] | None
    #: What tells the files that were packed from others, for those who wait for the child:
    #: `pack` adds them.
    given: set[tuple[int, int]]
    #: The options of the process, made definite for this start; None if it has none.
    surroundings: Surroundings | None = None
    #: The file in which the child leaves word of how it failed; the descriptor stays the
    #: parent's.
    report: int | None = None
    #: What the child does for plugins that are switched on.
    hooks: tuple[ChildHooks, ...] = ()
    #: What pickles the process; None for `pickle` itself.
    encoder: Encoder | None = None

    @property
    def environment(self) -> dict[str, str] | None:
        """The environment that the child is to have, or None when it is this process's.

        A method that starts an interpreter for the child starts it with this one, and
        declares the option ``interpreter_env``; the others need not look at it.
        """
        return None if self.surroundings is None else self.surroundings.environment

    @property
    def name(self) -> str:
        """The name of the process."""
        return self.process.name

    @property
    def daemon(self) -> bool:
        """Whether the child must not outlive its parent."""
        return self.process.daemon

    @property
    def tolerates_threads(self) -> bool:
        """Whether a fork need not warn of other threads: who starts the child knows of them."""
        return self.process._tolerates_threads

    @property
    def main_module(self) -> tuple[str, str] | None:
        """How a child finds the main module: by name, by path, or not at all."""
        return _main_module.describe()

    @property
    def compiled_main(self) -> tuple[tuple[int, int], bytes] | None:
        """The main script as it was compiled for this process, for `procession.child.import_main`.

        None where a child has to compile it, if there is one.
        """
        return _main_module.compiled()

    def fork(self) -> int:
        """Fork this process, and return the pid of the child, which carries the plan out.

        In the child this does not return: it ends with the plan. Raises `OSError`.
        """
        if sys.platform == "win32":
            raise OSError("there is no fork on Windows")
        outfit = Outfit(self)
        parent = os.getpid()
        code = None
        try:
            pid = os.fork()
            if pid == 0:
                begin_forked()
                code = 1
                code = begin(*outfit.arguments)
        finally:
            # Whatever happened, the child must not return into its parent's program.
            if os.getpid() != parent:
                if code is None:
                    os._exit(
                        1
                    )  # interrupted so early that the exit handlers are still the parent's
                end_forked(code)
            outfit.close()
        return pid

    def run(self) -> int:
        """Carry the plan out in this process, which is a fork of the parent.

        Returns the exit code; end the process with `procession.child.end_forked`. Where `fork`
        can be called instead, it is quicker.
        """
        begin_forked()
        return begin(*Outfit(self).arguments)

    def pack(self, *, environ: bool = False, keep: Sequence[int] = ()) -> Parcel:
        """Return the plan as a parcel for an interpreter without this memory.

        *environ*: whether the parcel sets the environment variables, for methods whose
        children would have others than this process. *keep*: descriptors that the child
        holds open until it ends.

        Raises what pickling raises (`pickle.PicklingError`, `TypeError`,
        `AttributeError`), and `UnguardedMainError` (a `RuntimeError`) in a child that is
        still importing the main module.
        """
        if _main_module.is_importing:
            raise UnguardedMainError(_STILL_IMPORTING)
        if _standard.is_loaded():
            from procession._standard.descriptors import Spawning

            with Spawning():
                return self._packed(environ, keep)
        return self._packed(environ, keep)

    def _packed(self, environ: bool, keep: Sequence[int]) -> Parcel:
        handoff = LaunchHandoff()
        file = io.BytesIO()
        preparation = self._preparation(handoff, environ, keep)
        ParcelPickler(file, handoff).dump(preparation)
        modules: set[str] = set()
        if self.hooks:
            pickler = self._pickler(file, handoff)
            pickler.dump(self.hooks)
            modules |= {
                "procession._processes.child_hooks",
                *pickler.modules,
                *_modules_of(self.hooks),
            }
        pickler = self._pickler(file, handoff)
        try:
            pickler.dump(self.process)
        except Exception as error:
            from procession._ground.unpicklable import explain

            explain(error, self._parts(), self.encoder, self._reducers())
            raise
        modules |= pickler.modules
        if preparation["options"] is not None:
            modules.add("procession._starting.apply_options")
        self.given.update(map(identity, handoff.descriptors))
        return Parcel(
            # Not getbuffer(), which costs no copy either: collected in a reference cycle, as after
            # a start that failed, such a view crashes Python 3.12.
            data=file.getvalue(),
            descriptors=tuple(handoff.descriptors),
            modules=frozenset(modules),
        )

    def _pickler(self, file: io.BytesIO, handoff: LaunchHandoff) -> ParcelPickler:
        kind = ParcelPickler
        if self.encoder is not None:
            kind = parcel_pickler(self.encoder.serializer.pickler())
        return kind(file, handoff, self._reducers())

    def _parts(self) -> list[Part]:
        """Return what the child is given, by the names that the user knows."""
        process = self.process
        given = {"target": process._target, "args": process._args, "kwargs": process._kwargs}
        return [*given.items(), ("self", process)]

    def _preparation(
        self, handoff: LaunchHandoff, environ: bool, keep: Sequence[int]
    ) -> dict[str, Any]:
        """Return what the child does to resemble this process, as plain data."""
        return {
            "name": self.process.name,
            "lifeline": handoff.give(self.lifeline),
            "daemon": self.daemon,
            "parent": os.getpid(),
            "sigint": _sigint.inherited(self.process.sigint),
            "report": None if self.report is None else handoff.give(self.report),
            "keep": [handoff.give(fd) for fd in keep],
            "authkey": bytes(self.process.authkey),
            "environ": dict(os.environ) if environ else None,
            "path": [entry or _main_module.first_directory for entry in sys.path],
            "argv": list(getattr(sys, "argv", ())),
            "directory": _current_directory(),
            "options": None if self.surroundings is None else self.surroundings.data(handoff.give),
            "log": self.log,
            "hooks": bool(self.hooks),
            "main": self.main_module,
            "compiled": self.compiled_main,
            "bequest": self.bequest,
            "root": inheritance.family_root(),
            "standard": _bequest_of_standard(handoff),
        }

    def _reducers(self) -> dict[type, Callable[[Any], Any]]:
        reducers: dict[type, Callable[[Any], Any]] = {
            AuthenticationString: reduce_for_child,
            FamilyKey: reduce_family_key,
        }
        if self.main_module is None and not self._pickles_by_value():
            reducers[FunctionType] = reducers[type] = _refuse_interactive
        if _standard.is_loaded() or "socket" in sys.modules:
            from procession._messages import reducers as _reducers

            return {**_reducers.reducers(), **reducers}
        return reducers

    def _pickles_by_value(self) -> bool:
        return self.encoder is not None and self.encoder.serializer.features.by_value


def _bequest_of_standard(handoff: LaunchHandoff) -> dict[str, Any] | None:
    """Return what the child is told of the standard package, if this process knows anything."""
    if not _standard.is_loaded() and _standard.bequest is None:
        return None
    from procession._standard import state

    return state.bequest(handoff.give)


def _modules_of(hooks: Sequence[ChildHooks]) -> set[str]:
    """Return the modules of our own plugins; of others, nobody knows what they do when imported."""
    return {
        location.partition(":")[0]
        for _, starting, ending, _ in hooks
        for location in (starting, ending)
        if location is not None and location.startswith("procession")
    }


def _refuse_interactive(definition: Any) -> Any:
    """Refuse a function or class that a fresh interpreter has no module to import from."""
    if definition.__module__ != "__main__":
        return NotImplemented
    from pickle import PicklingError

    raise PicklingError(
        f"{definition.__qualname__} is defined in {_where_main_is()}, which a fresh interpreter "
        f"cannot import; put it into a module of its own, or use the start method 'fork'"
    )


def _where_main_is() -> str:
    spec = getattr(sys.modules["__main__"], "__spec__", None)
    if spec is None or spec.origin is None:
        return "an interactive session (or a program given by -c or through stdin)"
    return f"{spec.origin}, the main program of a package, a directory or an archive"


def _current_directory() -> str | None:
    try:
        return os.getcwd()
    except FileNotFoundError:
        return None  # the directory was removed; the child starts where it is


_STILL_IMPORTING = """\
A process was started while this one, a child itself, is still in its bootstrapping phase:
it is importing the main module, which the child would import in turn, and so on for ever.

Start processes only when the main module is run as a program, not when it is imported:

    if __name__ == "__main__":
        main()

(A program that is frozen to an executable calls procession.freeze_support() first there.)
"""
