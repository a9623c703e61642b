"""Features, and which pairs are refused because of them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from procession._choosing.negotiation import negotiate
from procession._choosing.registry import Registry
from procession._contracts.features import StartFeatures, TransportFeatures
from procession.errors import IncompatiblePluginsError

if TYPE_CHECKING:
    from tests.core.conftest import FakeSite


def check(start_method: str, transport: str) -> None:
    """Negotiate between two installed plugins."""
    registry = Registry()
    negotiate(
        registry.load("start_method", start_method),
        registry.load("transport", transport),
        registry=registry,
    )


def test_features_are_values() -> None:
    """What a class declares cannot be changed afterwards by whoever reads it."""
    features = StartFeatures(inherits_memory=True)

    assert StartFeatures(inherits_memory=True) == features
    with pytest.raises(AttributeError, match=r"inherits_memory.* cannot be set"):
        features.inherits_memory = False  # type: ignore[misc]


def test_atomic_size_is_a_size() -> None:
    """A negative size is an error of the plugin's author, found when it is written."""
    with pytest.raises(ValueError, match="atomic_up_to"):
        TransportFeatures(atomic_up_to=-1)


@pytest.mark.parametrize("start", ["inherits_memory=True", "carries_descriptors=True"])
def test_descriptors_reach_the_child(site: FakeSite, start: str) -> None:
    """Carrying descriptors and inheriting memory are both enough for a pipe."""
    site.start_method("here", features=start)
    site.transport("pipe", features="needs_descriptors=True")

    check("here", "pipe")


def test_missing_descriptors_are_refused(site: FakeSite) -> None:
    """Both names, the missing feature, and what would work: not a failure deep in a child."""
    site.start_method("bare")
    site.start_method("fork", features="inherits_memory=True")
    site.transport("pipe")
    site.transport("tcp", features="needs_descriptors=False, same_host=False")

    with pytest.raises(IncompatiblePluginsError) as caught:
        check("bare", "pipe")

    message = str(caught.value)
    assert "'bare' and transport 'pipe'" in message
    assert "needs_descriptors" in message
    assert message.endswith("what would work: bare with tcp, fork with pipe")


def test_other_hosts_are_refused(site: FakeSite) -> None:
    """A start method for other machines needs a transport that reaches them."""
    site.start_method("ssh", features="same_host=False, carries_descriptors=True")
    site.transport("pipe")

    with pytest.raises(IncompatiblePluginsError, match=r"same_host.*no installed pair would work"):
        check("ssh", "pipe")


def test_broken_plugins_do_not_spoil_the_advice(site: FakeSite) -> None:
    """What would work is found among the plugins that can be loaded."""
    site.start_method("bare")
    site.start_method("bad", source="import does_not_exist")
    site.start_method("fork", features="inherits_memory=True")
    site.transport("pipe")
    site.transport("off", reason="switched off", features="needs_descriptors=False")

    with pytest.raises(IncompatiblePluginsError, match=r"what would work: fork with pipe$"):
        check("bare", "pipe")
