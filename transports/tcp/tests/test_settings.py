"""What the environment may say about other hosts, and what is refused."""

from __future__ import annotations

import ssl
import sys

import pytest

if sys.platform != "linux":
    pytest.skip("the transport needs SOCK_SEQPACKET", allow_module_level=True)

from procession.errors import ConfigurationError
from procession_tcp import Tcp
from procession_tcp._settings import AUTHKEY, CERTIFICATES, PLAIN, how_to_encrypt, parse

HAS_KEYS = getattr(ssl, "HAS_PSK", False)
ELSEWHERE = "203.0.113.7"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("10.0.0.7", ("10.0.0.7", 0)),
        ("10.0.0.7:4711", ("10.0.0.7", 4711)),
        ("fd00::7", ("fd00::7", 0)),
        ("[fd00::7]", ("fd00::7", 0)),
        ("[fd00::7]:4711", ("fd00::7", 4711)),
    ],
)
def test_addresses(text: str, expected: tuple[str, int]) -> None:
    """IPv4 and IPv6, with and without a port."""
    assert expected == parse(text)


@pytest.mark.parametrize("text", ["host.example", "10.0.0.7:x", "10.0.0", "[fd00::7", ":4711"])
def test_what_is_no_address(text: str) -> None:
    """The error says what is allowed."""
    if text == "[fd00::7":
        assert ("fd00::7", 0) == parse(text)  # what is meant is clear
        return
    with pytest.raises(ConfigurationError, match=r"PROCESSION_TCP_BIND.*10\.0\.0\.7"):
        parse(text)


@pytest.mark.parametrize("text", ["0.0.0.0", "::", "[::]:4711"])
def test_every_address(text: str) -> None:
    """Others could not be told where to come to."""
    with pytest.raises(ConfigurationError, match="others have to be told"):
        parse(text)


@pytest.fixture(autouse=True)
def clean(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is set."""
    for name in ("CERTIFICATE", "KEY", "AUTHORITY", "JOB"):
        monkeypatch.delenv(f"PROCESSION_TLS_{name}", raising=False)
    for name in ("BIND", "PLAINTEXT"):
        monkeypatch.delenv(f"PROCESSION_TCP_{name}", raising=False)


@pytest.mark.skipif(HAS_KEYS, reason="the authkey is enough there")
def test_plaintext_has_to_be_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """Between hosts, in so many words, and then it is warned of; on one host nobody listens in."""
    assert (PLAIN, None) == how_to_encrypt("127.0.0.1")
    assert (PLAIN, None) == how_to_encrypt("::1")
    for value in ("", "1", "yes"):
        monkeypatch.setenv("PROCESSION_TCP_PLAINTEXT", value)
        with pytest.raises(ConfigurationError, match=r"cannot be encrypted.*PLAINTEXT"):
            how_to_encrypt(ELSEWHERE)
    monkeypatch.setenv("PROCESSION_TCP_PLAINTEXT", "between hosts")
    with pytest.warns(RuntimeWarning, match="not encrypted"):
        assert (PLAIN, None) == how_to_encrypt(ELSEWHERE)


@pytest.mark.skipif(not HAS_KEYS, reason="pre-shared keys came with Python 3.13")
def test_the_authkey_is_enough(monkeypatch: pytest.MonkeyPatch) -> None:
    """From Python 3.13 on all is encrypted without anything being set."""
    monkeypatch.setenv("PROCESSION_TLS_JOB", "render")
    word, tls = how_to_encrypt(ELSEWHERE)
    assert AUTHKEY == word
    assert "'render'" in repr(tls)


def test_the_other_side_was_first() -> None:
    """What it has chosen is kept to, or refused, and never weakened."""
    with pytest.raises(ConfigurationError, match="PROCESSION_TLS_CERTIFICATE"):
        how_to_encrypt(ELSEWHERE, CERTIFICATES)
    with pytest.raises(ConfigurationError, match="cannot be encrypted"):
        how_to_encrypt(ELSEWHERE, PLAIN)
    if not HAS_KEYS:
        with pytest.raises(ConfigurationError, match=r"Python 3\.13"):
            how_to_encrypt(ELSEWHERE, AUTHKEY)


def test_the_list_of_plugins_says_where_we_are_reached(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whether anybody can come is the first thing to look at."""
    assert "on this host only" == Tcp.details()
    monkeypatch.setenv("PROCESSION_TCP_BIND", "10.0.0.7")
    assert "10.0.0.7" in Tcp.details()
