"""Encryption of connections to other hosts: `Tls` says how, and whom to trust."""

from __future__ import annotations

import hmac
import os
import ssl
import sys

from procession._choosing.limits import check_silence
from procession._remote.tls_engine import TlsEngine
from procession._remote.tls_line import TlsLine
from procession.errors import ConfigurationError

TYPE_CHECKING = False  # importing typing would bring `re` and more into every child
if TYPE_CHECKING:
    import socket
    from typing import Any, Self

    from procession._remote.address import Address

__all__ = ["Tls"]

#: The variables that `Tls.from_environment` reads.
_VARIABLES = ("PROCESSION_TLS_CERTIFICATE", "PROCESSION_TLS_KEY", "PROCESSION_TLS_AUTHORITY")
_KEY_SIZE = 32
_LONGEST_JOB = 128


class Tls:
    """How a `Listener` and a `Client` encrypt what they say, and how they know each other.

    Make one by `from_certificates`, `from_authkey` or `from_environment`, and give it to both
    sides, as ``tls``. It is always TLS 1.3, and both sides prove who they are. With an
    authkey, each proves that it knows that, too.

    *silence*: that of a `Listener` or `Client` which is not told otherwise, in seconds; None
    leaves it to the configuration.

    It holds no secrets but names of files, and can be pickled. Threads: any.
    """

    def __init__(
        self,
        *,
        files: tuple[str, str, str] | None,
        check_name: bool,
        job: str,
        silence: float | None,
    ) -> None:
        self._files = files
        self._check_name = check_name
        self._job = job
        #: How long the other host may owe an answer, in seconds, or None.
        self.silence = None if silence is None else check_silence(silence)
        # Made on first use, one for each role (and key).
        self._contexts: dict[Any, ssl.SSLContext] = {}

    @classmethod
    def from_certificates(
        cls,
        certificate: str | os.PathLike[str],
        private_key: str | os.PathLike[str],
        authority: str | os.PathLike[str],
        *,
        check_name: bool = True,
        silence: float | None = None,
    ) -> Self:
        """Know each other by certificates: each side shows one that *authority* has signed.

        All three are names of PEM files: this side's certificate (with those between it and
        the authority after it), its private key, not encrypted, and the authority's own
        certificate. With *check_name*, a client also wants the host name or address that it
        connects to in the listener's certificate.

        Raises `OSError` when a file cannot be read, and `procession.errors.ConfigurationError`
        when it is not what it should be.
        """
        files = os.fspath(certificate), os.fspath(private_key), os.fspath(authority)
        self = cls(files=files, check_name=check_name, job="", silence=silence)
        self._context(server=True, authkey=None)  # what is wrong with the files is said here
        return self

    @classmethod
    def from_authkey(cls, *, job: str = "procession", silence: float | None = None) -> Self:
        """Know each other by the authkey, from which the key of the encryption is derived.

        Both sides must belong to the same *job*, a name. Who knows the authkey can connect,
        and nobody else can listen in; there are no certificates. Needs Python 3.13 on both sides.

        Raises `procession.errors.ConfigurationError` before that, and `ValueError` for a
        job that is not 1 to 128 bytes long.
        """
        if not 0 < len(job.encode()) <= _LONGEST_JOB:
            raise ValueError(f"a job has 1 to {_LONGEST_JOB} bytes, and {job!r} has not")
        if not getattr(ssl, "HAS_PSK", False):
            raise ConfigurationError(
                "encryption by the authkey needs Python 3.13 with an OpenSSL that has pre-shared "
                "keys; use Tls.from_certificates"
            )
        return cls(files=None, check_name=False, job=job, silence=silence)

    @classmethod
    def from_environment(cls) -> Self | None:
        """Return what the environment says, or None if it says nothing.

        ``PROCESSION_TLS_CERTIFICATE``, ``PROCESSION_TLS_KEY`` and ``PROCESSION_TLS_AUTHORITY``
        are the files of `from_certificates`.
        Raises `procession.errors.ConfigurationError` when some are there and some are missing.
        """
        files = [os.environ.get(name, "") for name in _VARIABLES]
        if not any(files):
            return None
        if not all(files):
            missing = ", ".join(
                name for name, file in zip(_VARIABLES, files, strict=True) if not file
            )
            raise ConfigurationError(
                f"certificates need all of {', '.join(_VARIABLES)} in the environment; "
                f"missing: {missing}"
            )
        return cls.from_certificates(*files)

    def line(
        self,
        peer: socket.socket,
        address: Address,
        silence: float,
        *,
        server: bool,
        authkey: bytes | None,
    ) -> TlsLine:
        """Return the line over *peer*, which is connected to *address* and is taken over.

        *silence* is the channel's. *server*: whether the other side has connected to this one.
        Call `check` before.
        """
        context = self._context(server=server, authkey=authkey)
        host = str(address[0])
        engine = TlsEngine(
            context,
            server=server,
            name=host if context.check_hostname else None,
            peer=f"[{host}]:{address[1]}" if ":" in host else f"{host}:{address[1]}",
        )
        return TlsLine(peer, engine, silence)

    def check(self, family: str, *, server: bool, authkey: bytes | None) -> None:
        """Make ready for `line`; raise for what cannot be encrypted in this way.

        That is `ValueError` for a *family* without hosts and, if the sides know each other by
        the authkey, without one; for bad files as `from_certificates`.
        """
        if family not in ("AF_INET", "AF_INET6"):
            raise ValueError(f"tls is for TCP, ('host', port), and not for {family}")
        if self._files is None and authkey is None:
            raise ValueError("encryption by the authkey needs an authkey, and there is none")
        self._context(server=server, authkey=authkey)

    def _context(self, *, server: bool, authkey: bytes | None) -> ssl.SSLContext:
        which = (server, authkey if self._files is None else None)
        context = self._contexts.get(which)
        if context is None:
            context = self._contexts[which] = self._make_context(server, authkey)
        return context

    def _make_context(self, server: bool, authkey: bytes | None) -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER if server else ssl.PROTOCOL_TLS_CLIENT)
        context.minimum_version = ssl.TLSVersion.TLSv1_3
        context.check_hostname = self._check_name and not server
        # Without certificates, too: an empty store trusts nobody, so that a server cannot
        # leave the key aside and show a certificate. A server asks for one if it has its own.
        context.verify_mode = ssl.CERT_REQUIRED
        if server:
            context.num_tickets = 0  # they would come when no message is expected
        if self._files is None:
            assert authkey is not None
            self._use_key(context, server, derive(authkey, self._job))
        else:
            self._use_files(context, *self._files)
        return context

    def _use_key(self, context: ssl.SSLContext, server: bool, key: bytes) -> None:
        job = self._job
        if sys.version_info < (3, 13):
            raise ConfigurationError("encryption by the authkey needs Python 3.13")
        if server:
            context.verify_mode = ssl.CERT_NONE  # the key is what a client is asked for
            context.set_psk_server_callback(lambda identity: key if identity == job else b"")
        else:
            context.set_psk_client_callback(lambda hint: (job, key))

    def _use_files(
        self, context: ssl.SSLContext, certificate: str, private_key: str, authority: str
    ) -> None:
        try:
            context.load_cert_chain(certificate, private_key, password=_no_password)
        except ssl.SSLError as error:
            raise ConfigurationError(
                f"{certificate!r} and {private_key!r} are not a certificate and its private key, "
                f"in PEM and not encrypted ({error.reason or error})",
                file=certificate,
            ) from error
        try:
            context.load_verify_locations(authority)
        except ssl.SSLError as error:
            raise ConfigurationError(
                f"{authority!r} has no certificate of an authority, in PEM "
                f"({error.reason or error})",
                file=authority,
            ) from error

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle without what was made for this process; the files are read anew."""
        return _rebuild, (type(self), self._files, self._check_name, self._job, self.silence)

    def __repr__(self) -> str:
        """Return how the two sides know each other."""
        if self._files is None:
            return f"<{type(self).__name__} by the authkey, for the job {self._job!r}>"
        return f"<{type(self).__name__} by {self._files[0]!r} and {self._files[2]!r}>"


def _rebuild(
    kind: type[Tls],
    files: tuple[str, str, str] | None,
    check_name: bool,
    job: str,
    silence: float | None,
) -> Tls:
    return kind(files=files, check_name=check_name, job=job, silence=silence)


def derive(authkey: bytes, job: str) -> bytes:
    """Return the key of the encryption, by HKDF (RFC 5869) with SHA-256."""
    secret = hmac.digest(b"procession tls 1", bytes(authkey), "sha256")
    key = hmac.digest(secret, b"psk " + job.encode() + b"\x01", "sha256")
    return key[:_KEY_SIZE]


def _no_password() -> str:
    # OpenSSL would ask at the terminal otherwise.
    return ""
