"""What the environment says about other hosts: where they reach this one, and how safely."""

from __future__ import annotations

import ipaddress
import os
import warnings

from procession.errors import ConfigurationError
from procession.tls import Tls

__all__ = ["AUTHKEY", "CERTIFICATES", "PLAIN", "how_to_encrypt", "parse"]

BIND = "PROCESSION_TCP_BIND"
PLAINTEXT = "PROCESSION_TCP_PLAINTEXT"
JOB = "PROCESSION_TLS_JOB"
#: What has to be said, in so many words, for nothing to be encrypted between hosts.
IN_SO_MANY_WORDS = "between hosts"

#: How an end is offered: by certificates, by the authkey, not encrypted.
CERTIFICATES, AUTHKEY, PLAIN = "certificates", "authkey", "plain"


def parse(text: str) -> tuple[str, int]:
    """Return the host and the port (0 for any) of ``host``, ``host:port`` or ``[host]:port``.

    Raises `ConfigurationError` when it is no address, or one for all interfaces.
    """
    host, port = text, "0"
    if text.startswith("["):
        host, _, port = text[1:].partition("]")
        port = port.removeprefix(":") or "0"
    elif text.count(":") == 1:
        host, port = text.split(":")
    try:
        address = ipaddress.ip_address(host)
        number = int(port)
    except ValueError:
        raise ConfigurationError(
            f"{BIND} is {text!r} in the environment; it may be an IP address of this host, alone "
            f"or with a port: '10.0.0.7', '10.0.0.7:4711', '[fd00::7]:4711'"
        ) from None
    if address.is_unspecified:
        raise ConfigurationError(
            f"{BIND} is {text!r} in the environment, which is every address of this host; others "
            f"have to be told one of them: give that"
        )
    return host, number


def how_to_encrypt(host: str, offered: str | None = None) -> tuple[str, Tls | None]:
    """Return how connections to or at *host* are encrypted: the word for it, and the `Tls`.

    *offered* is the word of the other side, which was first; None on the first side. Raises
    `ConfigurationError` when this side can do nothing, or not that, and warns with
    `RuntimeWarning` when nothing is encrypted between hosts.
    """
    if offered in (None, CERTIFICATES):
        tls = Tls.from_environment()
        if tls is not None:
            return CERTIFICATES, tls
        if offered:
            raise ConfigurationError(
                f"{host} asks for a certificate; set PROCESSION_TLS_CERTIFICATE, "
                f"PROCESSION_TLS_KEY and PROCESSION_TLS_AUTHORITY"
            )
    if offered in (None, AUTHKEY):
        try:
            return AUTHKEY, Tls.from_authkey(job=os.environ.get(JOB) or "procession")
        except ConfigurationError:
            if offered:
                raise
    _allow_plaintext(host)
    return PLAIN, None


def _allow_plaintext(host: str) -> None:
    """Raise `ConfigurationError` unless nothing need be encrypted; see `how_to_encrypt`."""
    if ipaddress.ip_address(host).is_loopback:
        return
    if os.environ.get(PLAINTEXT) != IN_SO_MANY_WORDS:
        raise ConfigurationError(
            f"connections with {host} cannot be encrypted: set PROCESSION_TLS_CERTIFICATE, "
            f"PROCESSION_TLS_KEY and PROCESSION_TLS_AUTHORITY, or use Python 3.13 on both sides; "
            f"{PLAINTEXT}={IN_SO_MANY_WORDS!r} in the environment lets everybody on the way read "
            f"and change what is sent"
        )
    warnings.warn(
        f"connections with {host} are not encrypted ({PLAINTEXT})", RuntimeWarning, stacklevel=4
    )
