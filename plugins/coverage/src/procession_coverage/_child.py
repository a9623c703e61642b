"""What is done in a child: it is measured, and what was measured is saved."""

from __future__ import annotations

import os

TYPE_CHECKING = False  # importing typing would bring `re` and more into every child
if TYPE_CHECKING:
    from types import FrameType
    from typing import TypeAlias

    from coverage import Coverage

    # The configuration as coverage writes it down, and the path of the parent's data file.
    Baggage: TypeAlias = tuple[str, str]

# Of a child it is no news that it has run little: its parent may have done the rest.
_EXPECTED = ["module-not-imported", "module-not-measured", "no-data-collected"]


class Measurement:
    """The measuring of this process, to its end, also by SIGTERM. Threads: the main one."""

    def __init__(self, coverage: Coverage) -> None:
        self._coverage = coverage
        self._is_saving = False
        self._is_terminated = False

    def begin(self) -> None:
        """Measure from now on; save on SIGTERM, too, unless the program handles that itself."""
        import signal

        if self._may_handle(signal.getsignal(signal.SIGTERM)):
            signal.signal(signal.SIGTERM, self._on_sigterm)
        self._coverage.start()

    def _may_handle(self, handler: object) -> bool:
        """Return whether *handler* is none of the program's."""
        import signal

        # A forked child has its parent's: that of this plugin, or of coverage itself.
        owner = getattr(handler, "__self__", None)
        return handler is signal.SIG_DFL or isinstance(owner, Measurement | type(self._coverage))

    def end(self) -> None:
        """Save what was measured."""
        self._is_saving = True
        try:
            self._coverage.stop()
            self._coverage.save()
        finally:
            self._is_saving = False
            if self._is_terminated:
                _end_by_sigterm()

    def _on_sigterm(self, number: int, frame: FrameType | None) -> None:
        # While it is saving already it is to go on first: half a file is none.
        already, self._is_terminated = self._is_saving, True
        if not already:
            self.end()


def _end_by_sigterm() -> None:
    import signal

    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    os.kill(os.getpid(), signal.SIGTERM)


_measurement: Measurement | None = None


def starting(baggage: Baggage | None) -> None:
    """Measure this process as its parent is, or not at all."""
    global _measurement
    _measurement = None
    if baggage is None:
        return
    from coverage import Coverage

    inherited = Coverage.current()
    if inherited is not None:
        inherited.stop()  # a copy of the parent's; or it was begun before we knew what to measure
    config, data_file = baggage
    coverage = Coverage(config_file=f":data:{config}", data_suffix=True)
    coverage.set_option("run:data_file", data_file)
    coverage.set_option("run:sigterm", False)
    expected = coverage.get_option("run:disable_warnings")
    coverage.set_option(
        "run:disable_warnings", [*(expected if isinstance(expected, list) else ()), *_EXPECTED]
    )
    _measurement = Measurement(coverage)
    _measurement.begin()


def ending(baggage: Baggage | None) -> None:
    """Save what was measured."""
    if _measurement is not None:
        _measurement.end()
