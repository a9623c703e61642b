# ruff: noqa: E402 - the type checkers must see the platform first
"""The fork server: a small process without threads that forks children on request.

It is started afresh, imports what was asked for, and from then on does one thing: it
waits, without any signal handler, for requests of its parent and for the ends of its
children. It ends when its parent has gone.
"""

from __future__ import annotations

import gc
import os
import select
import sys

assert sys.platform == "linux", "ask ForkServer.unavailable() first"

from _signal import (  # type: ignore[import-not-found]  # `signal` would bring `enum`
    SIG_IGN,
    SIGINT,
    default_int_handler,
    signal,
)
from _socket import AF_UNIX, SOCK_SEQPACKET, socket

from procession.child import begin_forked, end_forked, end_with_parent, import_main, run_parcel
from procession_forkserver import _protocol

TYPE_CHECKING = False  # importing typing would bring `re` and more into every child
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any, NoReturn


def main(requests: int) -> None:
    """Serve until the parent has gone. *requests*: the descriptor of the request socket."""
    # Ctrl-C goes to the whole group; the children are the parent's to end, not ours.
    signal(SIGINT, SIG_IGN)
    os.set_inheritable(requests, False)
    _detach_stdin()
    request_socket = socket(AF_UNIX, SOCK_SEQPACKET, 0, requests)
    try:
        # The end of the requests says the same, but nobody reads them during an import.
        preparation, lifeline = _receive_preparation(request_socket)
        end_with_parent(lifeline)
        _prepare(preparation)
        # Objects made up to now are in every child; the collector would only dirty them.
        gc.collect()
        gc.freeze()
        _Server(request_socket, preparation).serve()
    except _protocol.Ended:
        # There is nothing here to be finalised, and nobody left to wait for it.
        os._exit(0)


# A request names modules only when they are new, and there are few of them.
_LONGEST_REQUEST = 1 << 16


class _Server:
    """The children of this server that have not been collected."""

    def __init__(self, requests: socket, preparation: dict[str, Any]) -> None:
        self._requests = requests
        self._preparation = preparation
        # What children need not be told again; imports may have changed it.
        self._environ = os.environ.copy()
        self._poll = select.poll()
        self._poll.register(requests.fileno(), select.POLLIN)
        # By pidfd: the process id, and the line on which its exit code is awaited.
        self._children: dict[int, tuple[int, socket]] = {}

    def serve(self) -> None:
        """Fork and collect children. Raises `_protocol.Ended` when the parent has gone."""
        while True:
            for fd, _ in self._poll.poll():
                if fd in self._children:
                    self._collect(fd)
                else:
                    self._fork()

    def _fork(self) -> None:
        request, (descriptor,) = _protocol.receive(self._requests, _LONGEST_REQUEST)
        modules = request.decode().split()[1:]
        if modules:
            _import(modules, self._preparation)
            self._environ = os.environ.copy()
        line = socket(AF_UNIX, SOCK_SEQPACKET, 0, descriptor)
        server = os.getpid()
        try:
            # Keeps the place of the pidfd: a child that exists must not be lost because
            # descriptors have run out.
            place = os.dup(descriptor)
            try:
                pid = os.fork()
            finally:
                os.close(place)
        except OSError as error:
            _refuse(line, error)
            line.close()
            return
        if pid == 0:
            self._abandon()
            _be_child(line, server, self._environ)
        pidfd = os.pidfd_open(pid)
        self._children[pidfd] = pid, line
        self._poll.register(pidfd, select.POLLIN)

    def _collect(self, pidfd: int) -> None:
        pid, line = self._children.pop(pidfd)
        self._poll.unregister(pidfd)
        os.close(pidfd)
        _say_exit_code(line, os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
        line.close()

    def _abandon(self) -> None:
        """Close, in a forked child, everything that is the server's."""
        self._requests.close()
        for pidfd, (_, line) in self._children.items():
            os.close(pidfd)
            line.close()
        self._children.clear()


def _be_child(line: socket, server: int, environ: dict[str, str]) -> NoReturn:
    """Be one child, from the fork to the exit."""
    code, child = 1, os.getpid()
    try:
        signal(SIGINT, default_int_handler)
        begin_forked()
        try:
            parcel, *descriptors = _protocol.receive_descriptors(line)
            pidfd = os.pidfd_open(os.getpid())
        except OSError as error:
            _refuse(line, error)
            os._exit(code)
        _protocol.send_report(line, _protocol.STARTED, os.getpid(), (pidfd,))
        os.close(pidfd)
        code = run_parcel(parcel, descriptors, environ=environ)
    except _protocol.Ended:
        # start() was interrupted in the parent: for it, this process does not exist.
        os._exit(0)
    finally:
        # Also after a signal that came before the parcel was opened.
        if os.getpid() == child and os.getppid() != server:
            # The server was killed; nobody else is left who could report the code. A copy that
            # this process has made of itself, and that came here, too, has nothing to report.
            _say_exit_code(line, code & 0xFF)
        end_forked(code)


def _refuse(line: socket, error: OSError) -> None:
    try:
        _protocol.refuse(line, error.errno or 0)
    except _protocol.Ended:
        return  # the parent has gone: nobody wants to know


def _say_exit_code(line: socket, code: int) -> None:
    try:
        _protocol.send_report(line, _protocol.ENDED, code)
    except _protocol.Ended:
        return  # the parent closed the process object, or has gone: nobody wants to know


def _receive_preparation(requests: socket) -> tuple[dict[str, Any], int]:
    """Return the preparation and the reading end of the parent's lifeline."""
    # Not at the top: `procession.child` has loaded it without functools, collections and others,
    # which it imports for one name, and which all children would have.
    from _pickle import load

    _, (file, lifeline) = _protocol.receive(requests)
    with open(file, "rb") as stream:
        preparation: dict[str, Any] = load(stream)
    return preparation, lifeline


def _prepare(preparation: dict[str, Any]) -> None:
    sys.path[:] = preparation["path"]
    sys.argv[:] = preparation["argv"]
    # For all children whose parent wants to know how they failed. Not at the top, where it would
    # be in whoever looks at this module.
    import faulthandler  # noqa: F401

    _import(preparation["modules"], preparation)


def _import(modules: Sequence[str], preparation: dict[str, Any]) -> None:
    """Import *modules* for all children to come; say which cannot be imported."""
    for module in modules:
        try:
            if module == "__main__":
                import_main(preparation["main"], preparation["compiled"])
            else:
                __import__(module)
        except (Exception, SystemExit) as error:
            # The child that needs it will say so itself, with a traceback.
            print(
                f"procession: the fork server could not preload {module}: "
                f"{type(error).__name__}: {error}",
                file=sys.stderr,
            )
    for stream in (sys.stdout, sys.stderr):
        if stream is not None:
            stream.flush()


def _detach_stdin() -> None:
    """Read from the null device; the terminal is the parent's."""
    null = os.open(os.devnull, os.O_RDONLY)
    if null != 0:
        os.dup2(null, 0)
        os.close(null)
