"""Plain streams with multiprocessing's framing, and the mailbox that any pair will do for."""

from __future__ import annotations

import os
import socket
import sys
from typing import ClassVar

import pytest

if sys.platform != "linux":
    pytest.skip("the conformance kit looks into /proc", allow_module_level=True)

from procession._channels.stream_channel import StreamChannel
from procession._choosing import selection
from procession._choosing.registry import Registry
from procession.plugin import Channel, Transport, TransportFeatures
from procession.testing import TransportSuite


class Stream(Transport):
    """Pipes and socket pairs, as `Connection(handle)` and listeners use them."""

    name: ClassVar[str] = "stream"
    features: ClassVar[TransportFeatures] = TransportFeatures()

    def pair(self, *, duplex: bool = True) -> tuple[Channel, Channel]:
        """See `Transport.pair`."""
        if duplex:
            one, other = (end.detach() for end in socket.socketpair())
            return StreamChannel((one,), (one,)), StreamChannel((other,), (other,))
        reader, writer = os.pipe()
        return StreamChannel((reader,), ()), StreamChannel((), (writer,))


class TestStream(TransportSuite):
    """The contract of a transport, but for buffers, which this framing does not have.

    Its mailbox is `PairMailbox`, the one of a transport that offers only pairs.
    """

    bodies_only = True

    @pytest.fixture
    def transport(self, monkeypatch: pytest.MonkeyPatch) -> type[Stream]:
        """The class, known by its name while the test runs."""
        registry = Registry()
        registry.adopt({("transport", "stream"): f"{__name__}:Stream"})
        monkeypatch.setattr(selection._selector, "registry", registry)
        return Stream
