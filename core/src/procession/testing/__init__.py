"""What tests of procession and of its plugins are made of.

The conformance kit is classes to subclass: `StartMethodSuite`, `TransportSuite` (of which
`MailboxSuite` is a part), `PairSuite`, `PrimitiveSuite` and `SerializerSuite`. They need the extra
``testing`` and Linux.

Nothing is imported here before it is used: `payloads` runs in children and stays slim, `leaks`
runs in the test process, and neither needs the other.
"""

from __future__ import annotations

import sys

TYPE_CHECKING = False  # importing typing would bring `re` and more into every child
if TYPE_CHECKING and sys.platform != "linux":
    # There are none, but whoever subclasses them is checked on other platforms, too.
    class MailboxSuite: ...

    class PairSuite: ...

    class PrimitiveSuite: ...

    class SerializerSuite: ...

    class StartMethodSuite: ...

    class Suite: ...

    class TransportSuite: ...

elif TYPE_CHECKING:
    from procession.testing.suites.mailbox import MailboxSuite as MailboxSuite
    from procession.testing.suites.pair import PairSuite as PairSuite
    from procession.testing.suites.primitive import PrimitiveSuite as PrimitiveSuite
    from procession.testing.suites.serializer import SerializerSuite as SerializerSuite
    from procession.testing.suites.start_method import StartMethodSuite as StartMethodSuite
    from procession.testing.suites.suite import Suite as Suite
    from procession.testing.suites.transport import TransportSuite as TransportSuite

_PACKAGE = "procession.testing.suites"
_HOMES = {
    "MailboxSuite": "mailbox",
    "PairSuite": "pair",
    "PrimitiveSuite": "primitive",
    "SerializerSuite": "serializer",
    "StartMethodSuite": "start_method",
    "Suite": "suite",
    "TransportSuite": "transport",
}

__all__ = sorted(_HOMES)


def __getattr__(name: str) -> object:
    """Import the suite *name*, with assertions that say what they have compared."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    if sys.platform != "linux":
        raise ImportError(
            f"the conformance kit looks into /proc: it needs Linux, not {sys.platform}"
        )
    from importlib import import_module

    try:
        pytest = import_module("pytest")
        import_module("pytest_timeout")  # what hangs must fail
    except ModuleNotFoundError as missing:
        raise ModuleNotFoundError(
            f"the conformance kit needs the extra 'testing' ({missing.name} is not installed): "
            'pip install "procession[testing]"',
            name=missing.name,
        ) from None
    if _PACKAGE not in sys.modules:
        pytest.register_assert_rewrite(_PACKAGE)
    value = globals()[name] = getattr(import_module(f"{_PACKAGE}.{_HOMES[name]}"), name)
    return value
