"""What OpenSSL's errors mean to somebody who did not write OpenSSL."""

from __future__ import annotations

import ssl

from procession.errors import BrokenConnectionError, TlsError

_NOT_OURS = (
    "the other side's certificate is not signed by our authority (or, where no certificate is "
    "expected, it was asked for a key and has shown a certificate)"
)
#: By OpenSSL's code for what is wrong with a certificate that was shown to us.
_CERTIFICATES = {
    9: "the other side's certificate is not valid yet: compare the clocks of the two hosts",
    10: "the other side's certificate has expired: it needs a new one",
    18: "the other side's certificate is signed by itself, and not by our authority",
    19: _NOT_OURS,
    20: _NOT_OURS,
    23: "the other side's certificate was revoked",
    62: "the other side's certificate is for another name",
    64: "the other side's certificate is for another address",
}
#: By OpenSSL's reason for what we have found, and what the other side has told us.
_REASONS = {
    "BINDER_DOES_NOT_VERIFY": "the two sides differ in authkey",
    "SSLV3_ALERT_ILLEGAL_PARAMETER": "the two sides differ in authkey",
    "TLSV1_ALERT_DECRYPT_ERROR": "the two sides differ in authkey",
    "NO_SUITABLE_SIGNATURE_ALGORITHM": "the other side does not use a key derived from the "
    "authkey, as this one does, or not for the same job",
    "PSK_IDENTITY_NOT_FOUND": "the other side belongs to another job",
    "PEER_DID_NOT_RETURN_A_CERTIFICATE": "the other side has shown no certificate",
    "WRONG_VERSION_NUMBER": "the other side does not speak TLS",
    "HTTP_REQUEST": "the other side speaks HTTP",
    "HTTPS_PROXY_REQUEST": "the other side speaks HTTP",
    "UNSUPPORTED_PROTOCOL": "the other side speaks TLS older than 1.3",
    "NO_SHARED_CIPHER": "the two sides have no cipher in common",
    "TLSV1_ALERT_UNKNOWN_CA": "the other side does not trust who has signed our certificate",
    "SSLV3_ALERT_CERTIFICATE_EXPIRED": "our certificate has expired, says the other side",
    "SSLV3_ALERT_CERTIFICATE_REVOKED": "our certificate was revoked, says the other side",
    "SSLV3_ALERT_BAD_CERTIFICATE": "the other side has refused our certificate",
    "SSLV3_ALERT_CERTIFICATE_UNKNOWN": "the other side has refused our certificate",
    "TLSV13_ALERT_CERTIFICATE_REQUIRED": "the other side asks for a certificate, and we have none",
    "SSLV3_ALERT_HANDSHAKE_FAILURE": "the other side has refused us: it expects a certificate "
    "where we use a key derived from the authkey, or the other way round",
    "TLSV1_ALERT_PROTOCOL_VERSION": "the other side speaks TLS older than 1.3",
}
_ALERT = "_ALERT_"


def of_handshake(error: ssl.SSLError, peer: str) -> TlsError:
    """Return what to raise when a handshake with *peer* has failed with *error*."""
    if isinstance(error, ssl.SSLCertVerificationError):
        text = _CERTIFICATES.get(error.verify_code, "the other side's certificate is no good")
        return TlsError(f"no encrypted connection to {peer}: {text} ({error.verify_message})")
    reason = error.reason or "unknown reason"
    text = _REASONS.get(reason, "the TLS handshake has failed")
    return TlsError(f"no encrypted connection to {peer}: {text} ({reason})")


def of_stream(error: ssl.SSLError, peer: str) -> TlsError | BrokenConnectionError:
    """Return what to raise when receiving from or sending to *peer* has failed with *error*.

    What the other side thinks of our certificate comes only now.
    """
    if isinstance(error, ssl.SSLEOFError):
        return BrokenConnectionError(
            f"the connection to {peer} was cut: the process there has ended without closing it, or "
            f"somebody has cut it on its way; messages may be lost"
        )
    if _ALERT in (error.reason or ""):
        return of_handshake(error, peer)
    return BrokenConnectionError(
        f"what was received from {peer} is not what was sent: somebody has changed it on its way, "
        f"or its sender is broken ({error.reason})"
    )
