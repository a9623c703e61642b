# ruff: noqa: E402 - the type checkers must see the platform first
"""The relay: hands the records of children to the handlers of this process."""

from __future__ import annotations

import _thread
import atexit
import logging
import os
import select
import sys
import threading
import time
import weakref
from typing import TYPE_CHECKING

assert sys.platform == "linux", "the hooks look first"

import procession

from . import _records
from ._line import line

if TYPE_CHECKING:
    from procession.process import Process

    from ._line import Line, Outlet

# So many records of one child are handled before it is the next one's turn.
_BATCH = 16
# Who forks waits so long for a handler that is at work, and who joins for one of the child's
# records. Both go on without it then: it may be waiting for them.
_PATIENCE = 5.0


class _Receiver:
    """The records of one child and of its descendants. Threads: any."""

    def __init__(self, outlet: Outlet) -> None:
        self.outlet = outlet
        # Held while a record is handled, so that they are handled in order.
        self._lock = threading.RLock()

    def drain_all(self) -> bool:
        """Handle what is there now, though others go on writing; return as `drain`."""
        return self.outlet.fileno() < 0 or self.drain(self.outlet.capacity)

    def drain(self, most: int) -> bool:
        """Handle what is there, up to *most* records; return whether this was the end."""
        if not self._lock.acquire(timeout=_PATIENCE):
            return False
        try:
            for _ in range(most):
                try:
                    packet = self.outlet.receive()
                    if packet is None:
                        return False
                    record = _records.unpack(packet)
                except EOFError:
                    return True
                except OSError as error:
                    text = f"a log record of a child is lost: {error}"
                    record = _records.note(logging.WARNING, text)
                _handle(record)
            return False
        finally:
            self._lock.release()

    def close(self) -> None:
        """Close the outlet, once nobody reads from it."""
        if self._lock.acquire(timeout=_PATIENCE):
            try:
                self.outlet.close()
            finally:
                self._lock.release()


def _handle(record: logging.LogRecord) -> None:
    """Hand *record* to the logger of its name; the child has looked at the level."""
    try:
        logging.getLogger(record.name).handle(record)
    except Exception:
        procession.get_logger().exception("a log record of %s failed", record.processName)


def _leave_no_stand_in() -> None:
    """Take this thread off the list of `threading`, where it should not be.

    A handler that asks for the current thread, as one that logs does, has put a stand-in there.
    Before Python 3.13 it stays for ever, and every fork would warn of it.
    """
    vars(threading).get("_active", {}).pop(_thread.get_ident(), None)


class _Run:
    """One run of the relay's thread. All but `wait` with the relay's lock."""

    def __init__(self, relay: Relay) -> None:
        self.stopping = False
        self._thread_id = 0
        self._bell = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        self._ended = _thread.allocate_lock()
        self._ended.acquire()
        try:
            # Not a `threading.Thread`: it is stopped before every fork, and need not be
            # warned of.
            self._ident = _thread.start_new_thread(self._run, (relay,))
        except BaseException:
            os.close(self._bell)
            raise

    def _run(self, relay: Relay) -> None:
        self._thread_id = _thread.get_native_id()
        try:
            relay.serve(self)
        finally:
            self._ended.release()

    def is_here(self) -> bool:
        """Return whether this is the thread."""
        return not self.is_over() and self._ident == _thread.get_ident()

    def is_over(self) -> bool:
        """Return whether the thread reads no more: it has ended or is just about to."""
        return self._bell < 0

    def ring(self) -> None:
        """Let `wait` return, if the thread still reads."""
        if not self.is_over():
            os.eventfd_write(self._bell, 1)

    def close(self) -> None:
        """Close the bell, in the thread or in a forked child. Twice is harmless."""
        bell, self._bell = self._bell, -1
        if bell >= 0:
            os.close(bell)

    def wait(self, receivers: list[_Receiver]) -> list[_Receiver]:
        """Wait until there is something to read; return where."""
        by_fd = {fd: each for each in receivers if (fd := each.outlet.fileno()) >= 0}
        poll = select.poll()
        for fd in (self._bell, *by_fd):
            poll.register(fd, select.POLLIN)
        ready = [fd for fd, _ in poll.poll()]
        if self._bell in ready:
            os.eventfd_read(self._bell)
        return [by_fd[fd] for fd in ready if fd in by_fd]

    def await_end(self) -> None:
        """Wait until the thread, which is over, has ended."""
        deadline = time.monotonic() + _PATIENCE
        if not self._ended.acquire(timeout=_PATIENCE):
            return
        self._ended.release()
        # The interpreter warns of threads that the kernel counts at a fork.
        while os.path.exists(f"/proc/self/task/{self._thread_id}"):
            if time.monotonic() > deadline:
                return
            os.sched_yield()


class Relay:
    """The lines to the children of this process, and the thread that reads from them.

    The thread runs while there are lines, and not during a fork. Threads: any. Fork: the child
    begins anew.
    """

    def __init__(self) -> None:
        self._watches = False
        self._forget()

    def _forget(self) -> None:
        self._lock = threading.RLock()
        self._changed = threading.Condition(self._lock)  # the run is over, or goes on
        self._new: weakref.WeakKeyDictionary[Process, tuple[_Receiver, Line]]
        self._new = weakref.WeakKeyDictionary()
        self._by_process: weakref.WeakKeyDictionary[Process, _Receiver]
        self._by_process = weakref.WeakKeyDictionary()
        self._receivers: set[_Receiver] = set()
        self._run: _Run | None = None
        self._forks = 0
        self._ends_at_exit = False

    def new_line(self, process: Process) -> Line:
        """Return the writing end of a new line, for *process*, which is about to be started."""
        if not self._watches:
            self._watches = True
            os.register_at_fork(
                before=self._before_fork,
                after_in_parent=self._after_fork,
                after_in_child=self._in_forked_child,
            )
        if not self._ends_at_exit:
            self._ends_at_exit = True
            atexit.register(self.end)
        outlet, writing_end = line()
        self._new[process] = _Receiver(outlet), writing_end
        return writing_end

    def started(self, process: Process) -> None:
        """Read from the line of *process*, which was started."""
        receiver, writing_end = self._new.pop(process, (None, None))
        if receiver is None or writing_end is None:
            return
        writing_end.close()  # the child has it now, and only its end is the line's
        with self._lock:
            self._by_process[process] = receiver
            self._receivers.add(receiver)
            self._go_on()

    def ended(self, process: Process) -> None:
        """Handle what *process*, which has ended, has left."""
        receiver = self._by_process.pop(process, None)
        if receiver is not None and receiver.drain_all():
            self._discard(receiver)

    def end(self) -> None:
        """Handle what is there, at the end of this process."""
        for receiver in list(self._receivers):
            receiver.drain_all()
            self._discard(receiver)

    def serve(self, run: _Run) -> None:
        """Read from all the lines until there is none or *run* is to stop. In the thread."""
        while True:
            with self._lock:
                receivers = list(self._receivers)
                if run.stopping or not receivers:
                    run.close()
                    self._changed.notify_all()
                    return
            for receiver in run.wait(receivers):
                over = receiver.drain(_BATCH)
                _leave_no_stand_in()
                if over:
                    self._discard(receiver)
                if run.stopping:
                    break

    def _discard(self, receiver: _Receiver) -> None:
        with self._lock:
            self._receivers.discard(receiver)
            is_last = not self._receivers
            if self._run is not None:
                self._run.ring()
        receiver.close()
        if is_last:
            self._stop()

    def _go_on(self) -> None:
        """Have the thread run, if there is something to do for it; the lock is held."""
        if not self._receivers or self._forks:
            return
        if self._run is not None and not self._run.is_over():
            self._run.stopping = False
            self._run.ring()
            self._changed.notify_all()
            return
        if self._run is not None:
            self._run.await_end()  # so that there is never more than one to wait for
        self._run = _Run(self)

    def _stop(self) -> None:
        with self._lock:
            run = self._run
            if run is None or run.is_here():
                return
            run.stopping = True
            run.ring()
            # Another thread may start a child meanwhile, for which the run goes on.
            self._changed.wait_for(lambda: run.is_over() or not run.stopping, _PATIENCE)
            if run.is_over():
                run.await_end()
            self._go_on()

    # -- forks

    def _before_fork(self) -> None:
        with self._lock:
            self._forks += 1
        self._stop()

    def _after_fork(self) -> None:
        with self._lock:
            self._forks -= 1
            self._go_on()

    def _in_forked_child(self) -> None:
        if self._run is not None:
            self._run.close()  # it could not be stopped in time
        for receiver, _ in self._new.values():
            receiver.outlet.close()
        for receiver in self._receivers:
            receiver.outlet.close()
        self._forget()


#: That of this process.
relay = Relay()
