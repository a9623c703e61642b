"""The network: connections of listeners and clients over TCP, encrypted and not.

The standard library does not encrypt, so that its side of each case is plain.
"""

from __future__ import annotations

import functools
import importlib
import ssl
import time
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import payloads
from children import join, started
from contenders import LIBRARIES
from subject import NOTHING, Case, Figure, Subject, board

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from contenders import Contender
    from subject import Effort

MIB = 1 << 20
#: Slots of the board.
PORT, WARM, ENDED = 0, 1, 2


def throughput(how: str, contender: Contender, effort: Effort) -> Mapping[str, float]:
    """Send messages of 8 MiB to a child."""
    message = bytes(8 * MIB)
    count = effort.of(60, 3)
    with (
        _child(how, contender, payloads.receive_over_tcp, WARM, ENDED, count) as (dial, numbers),
        dial() as connection,
    ):
        connection.send_bytes(message)
        numbers.wait(WARM)
        begin = time.monotonic_ns()
        for _ in range(count):
            connection.send_bytes(message)
        numbers.wait(ENDED)
        elapsed = numbers[ENDED] - begin
    return {"throughput": count * len(message) / elapsed}


def round_trip(how: str, contender: Contender, effort: Effort) -> Mapping[str, float]:
    """Send 20 kB to a child and wait until it has sent them back."""
    message = bytes(20_000)
    count = effort.of(200, 20)
    times = []
    with (
        _child(how, contender, payloads.echo_over_tcp, count) as (dial, _),
        dial() as connection,
    ):
        for _ in range(count):
            begin = time.monotonic_ns()
            connection.send_bytes(message)
            connection.recv_bytes()
            times.append(time.monotonic_ns() - begin)
    return {"round trip": median(times[count // 10 :]) / 1e3}


def handshake(how: str, contender: Contender, effort: Effort) -> Mapping[str, float]:
    """Connect to a child, until both know that the other has the key."""
    count = effort.of(100, 10)
    times = []
    with _child(how, contender, payloads.accept_over_tcp, count) as (dial, _):
        for _ in range(count):
            begin = time.monotonic_ns()
            connection = dial()
            times.append(time.monotonic_ns() - begin)
            connection.close()
    return {"handshake": median(times[count // 10 :]) / 1e6}


@contextmanager
def _child(
    how: str, contender: Contender, target: Callable[..., object], *args: object
) -> Iterator[tuple[Callable[[], Any], payloads.Board]]:
    """Run *target* in a child that listens; yield what connects to it, and the board."""
    module = LIBRARIES[contender.library].module
    client = importlib.import_module(f"{module}.connection").Client
    with board(3) as (path, numbers), TemporaryDirectory() as folder:
        options = {}
        if module != "procession":
            how = ""  # it cannot encrypt
        if how == "certificates":
            _make_certificates(Path(folder))
            how = folder
        if how:
            options["tls"] = payloads.encryption(how)
        process = started(contender.context(), target, module, path, how, PORT, *args)
        numbers.wait(PORT)
        address = "127.0.0.1", int(numbers[PORT])
        yield functools.partial(client, address, authkey=payloads.AUTHKEY, **options), numbers
        join([process])


def _make_certificates(folder: Path) -> None:
    import trustme

    authority = trustme.CA()
    made = authority.issue_cert("127.0.0.1")
    made.cert_chain_pems[0].write_to_path(folder / "certificate.pem")
    made.private_key_pem.write_to_path(folder / "key.pem")
    authority.cert_pem.write_to_path(folder / "authority.pem")


#: How a case is called, and how it encrypts.
HOWS = {"": "", ", certificates": "certificates"}
if getattr(ssl, "HAS_PSK", False):
    HOWS[", authkey"] = "authkey"
KINDS: tuple[tuple[str, Figure, Any], ...] = (
    ("8 MiB", Figure("throughput", "GB/s", "more"), throughput),
    ("20 kB there and back", Figure("round trip", "us"), round_trip),
    ("handshake", Figure("handshake", "ms"), handshake),
)
SUBJECT = Subject(
    name="network",
    title="Network",
    cases=tuple(
        Case(f"{name}{suffix}", (figure,), functools.partial(measure, how), NOTHING)
        for name, figure, measure in KINDS
        for suffix, how in HOWS.items()
    ),
)
