"""Every test of the kit says what it protects, in the contract's own words."""

from __future__ import annotations

import inspect
import re
import sys
from typing import Any

import pytest

if sys.platform != "linux":
    pytest.skip("the conformance kit looks into /proc", allow_module_level=True)

from procession import plugin, testing
from procession.connection import Connection

SUITES = [getattr(testing, name) for name in testing.__all__]
QUOTE = re.compile(r'`(?P<contract>\w+)(\.(?P<member>\w+))?`: "(?P<words>.*)"\Z', re.DOTALL)
TESTS = {
    test.__qualname__: test
    for suite in SUITES
    for name, test in inspect.getmembers(suite, inspect.isfunction)
    if name.startswith("test_")
}


def words_of(text: str) -> str:
    """Return *text* without line breaks and without the marks of comments and docstrings."""
    return " ".join(re.sub(r'#:|"""', " ", text).split())


def contract(name: str) -> Any:
    """Return the class of a contract."""
    return Connection if name == "Connection" else getattr(plugin, name)


def test_there_are_suites_with_tests() -> None:
    """A pattern that finds nothing would let every suite pass."""
    assert {"MailboxSuite", "PairSuite", "PrimitiveSuite", "StartMethodSuite", "TransportSuite"} < {
        suite.__name__ for suite in SUITES
    }
    assert len(TESTS) > 100


@pytest.mark.parametrize("name", TESTS)
def test_a_promise_is_quoted(name: str) -> None:
    """Who changes the words of a contract finds the tests that they are checked by."""
    docstring = inspect.cleandoc(TESTS[name].__doc__ or "")
    match = QUOTE.search(docstring)

    assert match, f"{name} has no quotation as its last paragraph"
    source = words_of(inspect.getsource(contract(match["contract"])))
    assert words_of(match["words"]) in source
    if match["member"]:
        assert re.search(rf"\b{match['member']}\b", source)
