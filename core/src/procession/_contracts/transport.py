"""The contract of a transport: one way of carrying messages between processes."""

from __future__ import annotations

from abc import ABC, abstractmethod

TYPE_CHECKING = False  # every module of the parent makes a fork dearer
if TYPE_CHECKING:
    from typing import ClassVar

    from procession._contracts.channel import Channel
    from procession._contracts.features import TransportFeatures
    from procession._contracts.mailbox import Mailbox


class Transport(ABC):
    """One way of carrying messages between processes.

    A plugin's hook returns the class. Core makes one instance, without arguments,
    per process that uses it; it holds no descriptors of its own.
    """

    #: The name users select; equals the name of the entry point.
    name: ClassVar[str]
    #: What the transport can do; core refuses what is not declared.
    features: ClassVar[TransportFeatures]

    @classmethod
    def unavailable(cls) -> str | None:
        """Return why this transport cannot work here, as a noun phrase, or None."""
        return None

    @classmethod
    def details(cls) -> str:
        """Return what a list of plugins should say about an available one; most often nothing.

        For example which of two implementations is in use here.
        """
        return ""

    @abstractmethod
    def pair(self, *, duplex: bool = True) -> tuple[Channel, Channel]:
        """Return two connected ends; the caller owns both.

        With *duplex* each end sends and receives; without, the first end only
        receives and the second only sends. Raises `OSError` when descriptors or
        memory have run out, and leaves nothing open then. A transport that does not
        declare `duplex` raises an error that says so.

        A transport whose features have `sizes` takes a keyword *size*, too, here and in
        `mailbox`: the bytes that can be on their way, in each direction, for those who ask
        for so many. It raises `ValueError` for a size that it cannot have.
        """

    def mailbox(self, *, maxsize: int = 0, joinable: bool = False) -> Mailbox:
        """Return a many-to-many mailbox, for queues; the caller owns it.

        *maxsize*: the most messages it holds, 0 for no limit. *joinable*: whether
        `Mailbox.task_done` and `Mailbox.join` will be used. The default is made of
        a one-way pair of this transport and locks that the kernel releases when
        their holder dies; a transport with atomic messages can do better.
        """
        from procession._mailboxes.pair_mailbox import PairMailbox

        return PairMailbox(*self.pair(duplex=False), maxsize=maxsize, joinable=joinable)
