"""What start methods, transports and serializers declare about themselves.

A plugin states its features as class attributes; core refuses a pair that cannot
work before anything is started, and the conformance kit checks that what is declared
is there and that what is not is refused. The defaults are the careful ones: a plugin
claims what it can do, and a feature added here later is one that no existing plugin has
to deny.
"""

from __future__ import annotations

from procession._ground.value import Value

__all__ = ["SerializerFeatures", "StartFeatures", "TransportFeatures"]


class StartFeatures(Value):
    """What a start method gives to the children it starts."""

    inherits_memory: bool = False
    """The child begins as a copy of the parent's memory: nothing needs to be pickled,
    and the parent's open descriptors are the child's, too."""

    carries_descriptors: bool = False
    """Descriptors that are named in the parcel arrive in the child. A method that
    inherits memory has them anyway and need not declare it."""

    same_host: bool = True
    """The child runs on the parent's machine and sees the same kernel objects."""

    shares_memory: bool = False
    """The child is a thread of the parent: not a copy of its memory, but the same. It has no
    surroundings of its own, so that core refuses all options of a process."""

    options: frozenset[str] = frozenset()
    """The options of a process that the method itself sees to, such as
    ``interpreter_env``; core refuses what needs the method and is not named here. All
    others are done by the child in `LaunchPlan.run` and in what is packed, for any method."""


class TransportFeatures(Value):
    """What a transport needs from the two processes, and what it gives to them."""

    duplex: bool = True
    """`pair(duplex=True)` works: both ends can send and receive."""

    same_host: bool = True
    """Both ends must be on one machine."""

    shares_memory: bool = False
    """Messages stay in the memory of one process: both ends must be in it. Goes with start
    methods that declare the same, and with no others."""

    needs_descriptors: bool = True
    """An end reaches another process as open descriptors: the start method must hand
    these over, by carrying them or by inheriting memory."""

    atomic_up_to: int = 0
    """Messages of at most this many bytes are written whole or not at all, also when
    several processes write at once; 0 if none are. Queues of such a transport need no
    lock that a killed process could keep."""

    sizes: bool = False
    """`pair` and `mailbox` take a `size`: how many bytes they hold."""

    def check(self) -> None:
        """Raise ValueError for what cannot be a number of bytes."""
        if self.atomic_up_to < 0:
            raise ValueError(f"atomic_up_to must be 0 or more, not {self.atomic_up_to}")


class SerializerFeatures(Value):
    """What a serializer can do beyond `pickle`."""

    by_value: bool = False
    """Functions and classes that the other side cannot import (lambdas, closures, what was
    defined in an interactive session) are pickled with their code, for the same version of
    Python."""
