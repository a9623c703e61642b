"""Two hosts of our own: network namespaces, and between them a cable that can be cut.

``python hosts.py SCENARIO CERTIFICATE KEY AUTHORITY [PYTHON]`` runs one scenario of
`scenarios` as root of a new user and network namespace (``unshare -rn``): this process is the
near host, and starts another interpreter, in a network namespace of its own, as the far one.

The cable is a thread that carries packets between two TUN devices. So it can lose packets,
take its time, and be cut without either host's kernel being told, as when a host vanishes.
"""

from __future__ import annotations

import fcntl
import os
import random
import select
import socket
import struct
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

if sys.platform != "linux":
    raise SystemExit("network namespaces are a Linux thing")

NEAR, FAR = "10.77.0.1", "10.77.0.2"
_TUNSETIFF = 0x400454CA
_TUN_WITHOUT_HEADER = 0x0001 | 0x1000
_LONGEST_PACKET = 65536


def open_device(address: str, other: str) -> int:
    """Make a device with *address* in this network namespace, and return its descriptor."""
    fd = os.open("/dev/net/tun", os.O_RDWR)
    fcntl.ioctl(fd, _TUNSETIFF, struct.pack("16sH", b"cable", _TUN_WITHOUT_HEADER))
    for command in (
        f"ip addr add {address} peer {other} dev cable",
        "ip link set dev cable up mtu 9000",
        "ip link set dev lo up",
    ):
        subprocess.run(command.split(), check=True)
    return fd


class Cable:
    """What carries packets between the devices of two hosts."""

    def __init__(self, near: int, far: int, seed: int) -> None:
        self._ends = {near: far, far: near}
        self._random = random.Random(seed)
        #: The share of packets that is lost.
        self.loss = 0.0
        #: After how many more bytes it is cut; None for never.
        self.cut_after: int | None = None
        self.cut = threading.Event()
        threading.Thread(target=self._carry, daemon=True).start()

    def _carry(self) -> None:
        while True:
            for end in select.select(list(self._ends), [], [])[0]:
                packet = os.read(end, _LONGEST_PACKET)
                if self.cut_after is not None:
                    self.cut_after -= len(packet)
                    if self.cut_after < 0:
                        self.cut.set()
                if self.cut.is_set() or self._random.random() < self.loss:
                    continue
                os.write(self._ends[end], packet)


def far_host(scenario: str, python: str, files: list[str]) -> tuple[subprocess.Popen[bytes], int]:
    """Start the far host; return its process, and the descriptor of its device."""
    here, there = socket.socketpair()
    with here, there:
        process = subprocess.Popen(
            ["unshare", "-n", python, __file__, "far", scenario, str(there.fileno()), *files],
            pass_fds=[there.fileno()],
        )
        there.close()
        _, (fd,), _, _ = socket.recv_fds(here, 1, 1)
    return process, fd


def run_near(scenario: str, files: list[str], python: str, seed: int) -> None:
    """Be the near host in *scenario*."""
    from tests.network.programs import scenarios

    device = open_device(NEAR, FAR)
    process, far_device = far_host(scenario, python, files)
    cable = Cable(device, far_device, seed)
    try:
        getattr(scenarios, f"{scenario}_near")(cable, files, process)
    finally:
        process.kill()
        process.wait()


def run_far(scenario: str, fd: int, files: list[str]) -> None:
    """Be the far host in *scenario*; its device goes through the socket *fd*."""
    device = open_device(FAR, NEAR)
    with socket.socket(fileno=fd) as there:
        socket.send_fds(there, [b"x"], [device])
    from tests.network.programs import scenarios

    getattr(scenarios, f"{scenario}_far")(files)


def within(seconds: float, function: Any, *args: Any) -> BaseException:
    """Return what *function* raises, which has to come within *seconds*."""
    begun = time.monotonic()
    try:
        value = function(*args)
    except Exception as error:
        raised = error
    else:
        raise AssertionError(f"it has returned {value!r:.100}")
    taken = time.monotonic() - begun
    assert taken < seconds, f"{raised!r} took {taken:.1f} seconds"
    return raised


if __name__ == "__main__":
    sys.path[0] = str(Path(__file__).parents[3])
    if sys.argv[1] == "far":
        run_far(sys.argv[2], int(sys.argv[3]), sys.argv[4:7])
    else:
        run_near(sys.argv[1], sys.argv[2:5], sys.argv[5], int(sys.argv[6]))
