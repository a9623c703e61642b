"""Start a child in a subinterpreter of this process."""

from __future__ import annotations

import importlib
import os
import sys
from typing import Any, ClassVar

from procession.errors import UnsupportedOptionError
from procession.plugin import Child, LaunchPlan, StartFeatures, StartMethod

from ._child import SubinterpreterChild


class Subinterpreter(StartMethod):
    """Interpreters of this process, each with modules and a lock of its own.

    What the child gets is pickled, and the main module is imported again, as by `spawn`.
    Refused by name: daemonic children, signals, and all options of a process.
    """

    name: ClassVar[str] = "subinterpreter"
    features: ClassVar[StartFeatures] = StartFeatures(carries_descriptors=True)

    @classmethod
    def unavailable(cls) -> str | None:
        """Return why this method cannot work here, or None."""
        try:
            _interpreters()
        except ImportError:
            version = ".".join(map(str, sys.version_info[:2]))
            return f"no module concurrent.interpreters (Python 3.14 has it, and this is {version})"
        return None

    def launch(self, plan: LaunchPlan, /) -> Child:
        """See `StartMethod.launch`. Raises `UnsupportedOptionError` for what it cannot do."""
        _check(plan)
        parcel = plan.pack()
        descriptors: list[int] = []
        try:
            descriptors.append(parcel.open())
            for fd in parcel.descriptors:
                descriptors.append(os.dup(fd))
            interpreter = _interpreters().create()
            try:
                return SubinterpreterChild(plan.name, interpreter, descriptors)
            except BaseException:
                interpreter.close()
                raise
        except BaseException:
            for fd in descriptors:
                os.close(fd)
            raise


def _interpreters() -> Any:
    # By its name, since type checkers look for it in the oldest Python that we support.
    return importlib.import_module("concurrent.interpreters")


def _check(plan: LaunchPlan) -> None:
    """Refuse what only a process could do."""
    option = why = ""
    if plan.daemon:
        option, why = "daemon", "an interpreter cannot be ended from outside"
    elif plan.process.process_options is not None:
        option = ", ".join(plan.process.process_options.given())
        why = "its children are interpreters of this process, with which they have all in common"
    if option:
        raise UnsupportedOptionError(
            f"start method 'subinterpreter' cannot do {option}: {why}", option=option
        )
