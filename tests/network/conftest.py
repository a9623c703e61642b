"""Certificates for tests, made anew for each run, and threads that give back what happened."""

from __future__ import annotations

import datetime
import threading
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
import trustme

from procession.connection import Client, Connection, Listener
from procession.tls import Tls

KEY = b"the key"
LOOPBACK = ("127.0.0.1", 0)


class Certificates:
    """Files of two authorities and of certificates that they have signed."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self._authorities = {"ours": trustme.CA(), "theirs": trustme.CA()}
        for name, authority in self._authorities.items():
            authority.cert_pem.write_to_path(directory / f"{name}.authority")

    def files(
        self,
        *names: str,
        authority: str = "ours",
        trusts: str = "ours",
        expires: datetime.datetime | None = None,
    ) -> tuple[Path, Path, Path]:
        """A new certificate for *names*, its key, and the authority that its owner trusts."""
        made = self._authorities[authority].issue_cert(
            *(names or ("127.0.0.1", "::1", "localhost")), not_after=expires
        )
        stem = self.directory / f"{len(list(self.directory.iterdir()))}"
        certificate, key = stem.with_suffix(".pem"), stem.with_suffix(".key")
        made.cert_chain_pems[0].write_to_path(certificate)
        made.private_key_pem.write_to_path(key)
        return certificate, key, self.directory / f"{trusts}.authority"

    def tls(self, *names: str, silence: float = 60.0, **options: Any) -> Tls:
        """What a side with a new certificate uses."""
        return Tls.from_certificates(*self.files(*names, **options), silence=silence)


@pytest.fixture(scope="session")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    """Authorities of this run."""
    return Certificates(tmp_path_factory.mktemp("certificates"))


@pytest.fixture(scope="session")
def tls(certificates: Certificates) -> Tls:
    """What both sides use when all is well."""
    return certificates.tls()


class Outcome:
    """What a function has returned or raised in a thread."""

    def __init__(self, function: Callable[..., Any], *args: Any, **kwargs: Any) -> None:
        self.value: Any = None
        self.error: BaseException | None = None

        def work() -> None:
            try:
                self.value = function(*args, **kwargs)
            except BaseException as error:
                self.error = error

        self._thread = threading.Thread(target=work, daemon=True)
        self._thread.start()

    def wait(self) -> None:
        """Wait until the function has returned or raised."""
        self._thread.join(40)
        assert not self._thread.is_alive(), "it does not end"

    def result(self) -> Any:
        """Wait; return what was returned, or raise what was raised."""
        self.wait()
        if self.error is not None:
            raise self.error
        return self.value

    def failure(self) -> BaseException:
        """Wait; return what was raised."""
        self.wait()
        assert self.error is not None, f"it has returned {self.value!r}"
        return self.error


@pytest.fixture
def in_thread(cleanup: ExitStack) -> Callable[..., Outcome]:
    """Call a function in a thread that is over when the test is."""

    def in_thread(function: Callable[..., Any], *args: Any, **kwargs: Any) -> Outcome:
        outcome = Outcome(function, *args, **kwargs)

        def end() -> None:
            outcome.wait()
            if hasattr(outcome.value, "close"):
                outcome.value.close()

        cleanup.callback(end)
        return outcome

    return in_thread


@pytest.fixture
def listen(cleanup: ExitStack, tls: Tls) -> Callable[..., Listener]:
    """Make a listener that is closed after the test."""

    def listen(address: Any = LOOPBACK, tls: Tls | None = tls, **options: Any) -> Listener:
        options.setdefault("authkey", KEY)
        return cleanup.enter_context(Listener(address, tls=tls, **options))

    return listen


@pytest.fixture
def ends(
    listen: Callable[..., Listener], tls: Tls, in_thread: Callable[..., Any], cleanup: ExitStack
) -> tuple[Connection, Connection]:
    """The two ends of an encrypted connection."""
    listener = listen()
    there = in_thread(Client, listener.address, authkey=KEY, tls=tls)
    here = cleanup.enter_context(listener.accept())
    return here, there.result()
