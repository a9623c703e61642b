"""What authors of plugins import: the whole of it, and no more.

Names are looked up when they are first used, so that the part of a plugin that runs in
children loads only what it needs.
"""

from __future__ import annotations

import sys

TYPE_CHECKING = False  # importing typing would bring `re` and more into every child
if TYPE_CHECKING:
    from typing import Any

    from procession._anonymous_file import anonymous_file as anonymous_file
    from procession._bell import Bell as Bell
    from procession._blocks import blocks as blocks
    from procession._channel import Buffer as Buffer
    from procession._channel import Channel as Channel
    from procession._channel import Message as Message
    from procession._child_handle import LOST_EXIT_CODE as LOST_EXIT_CODE
    from procession._child_handle import Child as Child
    from procession._child_handle import PidChild as PidChild
    from procession._child_handle import has_pidfd as has_pidfd
    from procession._features import SerializerFeatures as SerializerFeatures
    from procession._features import StartFeatures as StartFeatures
    from procession._features import TransportFeatures as TransportFeatures
    from procession._file_lock import LockFile as LockFile
    from procession._handoff import Exportable as Exportable
    from procession._handoff import Handoff as Handoff
    from procession._handoff import Recipe as Recipe
    from procession._handoff import Takeover as Takeover
    from procession._handoff import Token as Token
    from procession._holder import RECORD_WORDS as RECORD_WORDS
    from procession._holder import Holder as Holder
    from procession._holder import myself as myself
    from procession._holder import owner_died as owner_died
    from procession._holder import write_record as write_record
    from procession._hookimpl import hookimpl as hookimpl
    from procession._interpreter import helper_command as helper_command
    from procession._lane import Lane as Lane
    from procession._launch_plan import LaunchPlan as LaunchPlan
    from procession._launch_plan import Parcel as Parcel
    from procession._limits import configured_number as configured_number
    from procession._mailbox import Mailbox as Mailbox
    from procession._packet_channel import PacketChannel as PacketChannel
    from procession._packet_lane import PacketLane as PacketLane
    from procession._packet_mailbox import PacketMailbox as PacketMailbox
    from procession._packet_sockets import PacketSocketChannel as PacketSocketChannel
    from procession._packet_sockets import PacketSocketLane as PacketSocketLane
    from procession._packet_sockets import packet_socket_pair as packet_socket_pair
    from procession._porter import Porter as Porter
    from procession._primitives import LOCK as LOCK
    from procession._primitives import NOTICE_SECONDS as NOTICE_SECONDS
    from procession._primitives import RECURSIVE as RECURSIVE
    from procession._primitives import SEMAPHORE as SEMAPHORE
    from procession._primitives import Primitive as Primitive
    from procession._serializer import Serializer as Serializer
    from procession._shared_words import SharedWords as SharedWords
    from procession._shared_words import reserve as reserve
    from procession._sockets import BorrowedSocket as BorrowedSocket
    from procession._spawn import spawn_interpreter as spawn_interpreter
    from procession._start_method import StartMethod as StartMethod
    from procession._stream_channel import StreamChannel as StreamChannel
    from procession._transport import Transport as Transport
    from procession._vectors import write_all as write_all
    from procession._waiting import wait_readable as wait_readable

_HOMES = {
    "anonymous_file": "_anonymous_file",
    "Bell": "_bell",
    "blocks": "_blocks",
    "BorrowedSocket": "_sockets",
    "Buffer": "_channel",
    "Channel": "_channel",
    "Child": "_child_handle",
    "configured_number": "_limits",
    "Exportable": "_handoff",
    "Handoff": "_handoff",
    "has_pidfd": "_child_handle",
    "helper_command": "_interpreter",
    "Holder": "_holder",
    "hookimpl": "_hookimpl",
    "Lane": "_lane",
    "LaunchPlan": "_launch_plan",
    "LOCK": "_primitives",
    "LockFile": "_file_lock",
    "LOST_EXIT_CODE": "_child_handle",
    "Mailbox": "_mailbox",
    "Message": "_channel",
    "myself": "_holder",
    "NOTICE_SECONDS": "_primitives",
    "owner_died": "_holder",
    "PacketChannel": "_packet_channel",
    "PacketLane": "_packet_lane",
    "packet_socket_pair": "_packet_sockets",
    "PacketMailbox": "_packet_mailbox",
    "PacketSocketChannel": "_packet_sockets",
    "PacketSocketLane": "_packet_sockets",
    "Parcel": "_launch_plan",
    "PidChild": "_child_handle",
    "Porter": "_porter",
    "Primitive": "_primitives",
    "Recipe": "_handoff",
    "RECORD_WORDS": "_holder",
    "RECURSIVE": "_primitives",
    "reserve": "_shared_words",
    "SEMAPHORE": "_primitives",
    "Serializer": "_serializer",
    "SerializerFeatures": "_features",
    "SharedWords": "_shared_words",
    "spawn_interpreter": "_spawn",
    "StartFeatures": "_features",
    "StartMethod": "_start_method",
    "StreamChannel": "_stream_channel",
    "Takeover": "_handoff",
    "Token": "_handoff",
    "Transport": "_transport",
    "TransportFeatures": "_features",
    "wait_readable": "_waiting",
    "write_all": "_vectors",
    "write_record": "_holder",
}

__all__ = sorted(_HOMES)  # from the table, so that the two cannot differ


def __getattr__(name: str) -> Any:
    """Import *name* from the module where it is defined."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module = f"procession.{_HOMES[name]}"
    __import__(module)
    value = getattr(sys.modules[module], name)
    globals()[name] = value
    return value
