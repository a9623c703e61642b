"""How encrypted connections end: closed, cut in the middle, tampered with, or by a death."""

from __future__ import annotations

import select
import socket
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any

import pytest

if sys.platform != "linux":
    pytest.skip("/proc and fork", allow_module_level=True)

from tests.network.conftest import KEY, LOOPBACK

from procession import errors
from procession.connection import Client, Connection, Listener
from procession.tls import Tls


class Middle:
    """Somebody between the two sides who can cut and change what they say."""

    def __init__(self, target: tuple[Any, ...]) -> None:
        self._server = socket.create_server(LOOPBACK)
        self.address = self._server.getsockname()
        self._target = target
        self.change: Callable[[bytes], bytes] = lambda data: data
        self.cutting = threading.Event()
        self._ends: list[socket.socket] = []
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        client, _ = self._server.accept()
        server = socket.create_connection(self._target[:2])
        self._ends = [client, server]
        while True:
            for end in select.select(self._ends, [], [], 30)[0]:
                other = server if end is client else client
                try:
                    data = end.recv(1 << 16)
                    if not data:
                        return
                    other.sendall(self.change(data) if end is client else data)
                except OSError:
                    return

    def first(self, count: int) -> Callable[[bytes], bytes]:
        """A change: so many bytes are let through, and then nothing is taken any more."""

        def change(data: bytes) -> bytes:
            if len(data) < count:
                return data
            self._ends[1].sendall(data[:count])
            assert self.cutting.wait(30)
            raise OSError("cut")

        return change

    def cut(self) -> None:
        """End both connections without a word of TLS."""
        self.close()

    def close(self) -> None:
        """Close everything. Idempotent."""
        self.cutting.set()
        for end in self._ends:
            try:
                end.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass
        self._thread.join(30)
        for end in (*self._ends, self._server):
            end.close()


@pytest.fixture
def middle_ends(
    listen: Callable[..., Listener], tls: Tls, in_thread: Callable[..., Any], cleanup: ExitStack
) -> Iterator[tuple[Middle, Connection, Connection]]:
    """Somebody in the middle, and the listener's and the client's end."""
    listener = listen()
    assert isinstance(listener.address, tuple)
    with closing(Middle(listener.address)) as middle:
        there = in_thread(Client, middle.address, authkey=KEY, tls=tls)
        with listener.accept() as here:
            yield middle, here, there.result()


def test_a_cut_between_messages(middle_ends: tuple[Middle, Connection, Connection]) -> None:
    """It is no proper end: messages may be missing. And it stays cut."""
    middle, here, there = middle_ends
    there.send("all is well")
    assert "all is well" == here.recv()
    middle.cut()
    for end in (here, there):
        for _ in range(2):
            with pytest.raises(errors.BrokenConnectionError, match=r"127\.0\.0\.1:\d+ was cut"):
                end.recv()
            assert end.poll(0)
    with pytest.raises(errors.BrokenConnectionError):
        here.send("anybody?")


def test_a_cut_in_a_message(
    middle_ends: tuple[Middle, Connection, Connection], in_thread: Callable[..., Any]
) -> None:
    """Half a message is none."""
    middle, here, there = middle_ends
    middle.change = middle.first(1000)
    sending = in_thread(there.send_bytes, bytes(10_000_000))
    assert here.poll(30)
    middle.cut()
    with pytest.raises(errors.BrokenConnectionError, match="was cut"):
        here.recv_bytes()
    assert isinstance(sending.failure(), errors.BrokenConnectionError)


def test_what_was_changed_on_its_way(middle_ends: tuple[Middle, Connection, Connection]) -> None:
    """A single bit is noticed, and nothing of the message is used."""
    middle, here, there = middle_ends
    middle.change = lambda data: data[:-1] + bytes([data[-1] ^ 1])
    there.send("pay 10")
    with pytest.raises(errors.BrokenConnectionError, match="not what was sent"):
        here.recv()


def test_what_was_sent_twice(middle_ends: tuple[Middle, Connection, Connection]) -> None:
    """Repeating a record is noticed, too."""
    middle, here, there = middle_ends
    middle.change = lambda data: data + data
    there.send("pay 10")
    assert "pay 10" == here.recv()
    with pytest.raises(errors.BrokenConnectionError, match="not what was sent"):
        here.recv()


PROGRAM = """
import os, sys
from procession.connection import Client
from procession.tls import Tls
tls = Tls.from_certificates(*sys.argv[2:5])
end = Client(("127.0.0.1", int(sys.argv[1])), authkey=b"the key", tls=tls)
end.send_bytes(b"x" * 3_000_000)
if sys.argv[5] == "kill":
    end.recv()
    os.kill(os.getpid(), 9)
"""


@pytest.mark.parametrize("how", ["exit", "kill"])
def test_the_end_of_a_process(
    how: str, certificates: Any, tmp_path: Path, listen: Callable[..., Listener]
) -> None:
    """One that ends has closed all it had open; one that is killed has not, and that shows."""
    import subprocess

    program = tmp_path / "program.py"
    program.write_text(PROGRAM)
    listener = listen()
    port = str(listener.address[1])
    line = [sys.executable, str(program), port, *map(str, certificates.files()), how]
    with subprocess.Popen(line) as process, listener.accept() as here:
        assert 3_000_000 == len(here.recv_bytes())
        if how == "exit":
            with pytest.raises(errors.EndOfConnectionError):
                here.recv()
        else:
            here.send("now")
            with pytest.raises(errors.BrokenConnectionError, match="was cut"):
                here.recv()
    assert {"exit": 0, "kill": -9}[how] == process.returncode
