"""What authors of plugins import: the whole of it, and no more.

Names are looked up when they are first used, so that the part of a plugin that runs in
children loads only what it needs.
"""

from __future__ import annotations

import sys

TYPE_CHECKING = False  # importing typing would bring `re` and more into every child
if TYPE_CHECKING:
    from typing import Any

    from procession._channels.packet_channel import PacketChannel as PacketChannel
    from procession._channels.packet_sockets import PacketSocketChannel as PacketSocketChannel
    from procession._channels.packet_sockets import PacketSocketLane as PacketSocketLane
    from procession._channels.packet_sockets import packet_socket_pair as packet_socket_pair
    from procession._channels.porter import Porter as Porter
    from procession._channels.stream_channel import StreamChannel as StreamChannel
    from procession._choosing.limits import configured_number as configured_number
    from procession._contracts.channel import Buffer as Buffer
    from procession._contracts.channel import Channel as Channel
    from procession._contracts.channel import Message as Message
    from procession._contracts.child_handle import LOST_EXIT_CODE as LOST_EXIT_CODE
    from procession._contracts.child_handle import Child as Child
    from procession._contracts.child_handle import PidChild as PidChild
    from procession._contracts.child_handle import has_pidfd as has_pidfd
    from procession._contracts.features import SerializerFeatures as SerializerFeatures
    from procession._contracts.features import StartFeatures as StartFeatures
    from procession._contracts.features import TransportFeatures as TransportFeatures
    from procession._contracts.hookimpl import hookimpl as hookimpl
    from procession._contracts.lane import Lane as Lane
    from procession._contracts.mailbox import Mailbox as Mailbox
    from procession._contracts.primitives import LOCK as LOCK
    from procession._contracts.primitives import NOTICE_SECONDS as NOTICE_SECONDS
    from procession._contracts.primitives import RECURSIVE as RECURSIVE
    from procession._contracts.primitives import SEMAPHORE as SEMAPHORE
    from procession._contracts.primitives import Primitive as Primitive
    from procession._contracts.serializer import Serializer as Serializer
    from procession._contracts.start_method import StartMethod as StartMethod
    from procession._contracts.transport import Transport as Transport
    from procession._ground.anonymous_file import anonymous_file as anonymous_file
    from procession._ground.bell import Bell as Bell
    from procession._ground.file_lock import LockFile as LockFile
    from procession._ground.handoff import Exportable as Exportable
    from procession._ground.handoff import Handoff as Handoff
    from procession._ground.handoff import Recipe as Recipe
    from procession._ground.handoff import Takeover as Takeover
    from procession._ground.handoff import Token as Token
    from procession._ground.shared_words import SharedWords as SharedWords
    from procession._ground.shared_words import reserve as reserve
    from procession._ground.sockets import BorrowedSocket as BorrowedSocket
    from procession._ground.spawn import spawn_interpreter as spawn_interpreter
    from procession._ground.vectors import write_all as write_all
    from procession._ground.waiting import wait_readable as wait_readable
    from procession._locks.holder import RECORD_WORDS as RECORD_WORDS
    from procession._locks.holder import Holder as Holder
    from procession._locks.holder import myself as myself
    from procession._locks.holder import owner_died as owner_died
    from procession._locks.holder import write_record as write_record
    from procession._mailboxes.packet_lane import PacketLane as PacketLane
    from procession._mailboxes.packet_mailbox import PacketMailbox as PacketMailbox
    from procession._messages.blocks import blocks as blocks
    from procession._processes.interpreter import helper_command as helper_command
    from procession._starting.launch_plan import LaunchPlan as LaunchPlan
    from procession._starting.launch_plan import Parcel as Parcel

_HOMES = {
    "anonymous_file": "_ground.anonymous_file",
    "Bell": "_ground.bell",
    "blocks": "_messages.blocks",
    "BorrowedSocket": "_ground.sockets",
    "Buffer": "_contracts.channel",
    "Channel": "_contracts.channel",
    "Child": "_contracts.child_handle",
    "configured_number": "_choosing.limits",
    "Exportable": "_ground.handoff",
    "Handoff": "_ground.handoff",
    "has_pidfd": "_contracts.child_handle",
    "helper_command": "_processes.interpreter",
    "Holder": "_locks.holder",
    "hookimpl": "_contracts.hookimpl",
    "Lane": "_contracts.lane",
    "LaunchPlan": "_starting.launch_plan",
    "LOCK": "_contracts.primitives",
    "LockFile": "_ground.file_lock",
    "LOST_EXIT_CODE": "_contracts.child_handle",
    "Mailbox": "_contracts.mailbox",
    "Message": "_contracts.channel",
    "myself": "_locks.holder",
    "NOTICE_SECONDS": "_contracts.primitives",
    "owner_died": "_locks.holder",
    "PacketChannel": "_channels.packet_channel",
    "PacketLane": "_mailboxes.packet_lane",
    "packet_socket_pair": "_channels.packet_sockets",
    "PacketMailbox": "_mailboxes.packet_mailbox",
    "PacketSocketChannel": "_channels.packet_sockets",
    "PacketSocketLane": "_channels.packet_sockets",
    "Parcel": "_starting.launch_plan",
    "PidChild": "_contracts.child_handle",
    "Porter": "_channels.porter",
    "Primitive": "_contracts.primitives",
    "Recipe": "_ground.handoff",
    "RECORD_WORDS": "_locks.holder",
    "RECURSIVE": "_contracts.primitives",
    "reserve": "_ground.shared_words",
    "SEMAPHORE": "_contracts.primitives",
    "Serializer": "_contracts.serializer",
    "SerializerFeatures": "_contracts.features",
    "SharedWords": "_ground.shared_words",
    "spawn_interpreter": "_ground.spawn",
    "StartFeatures": "_contracts.features",
    "StartMethod": "_contracts.start_method",
    "StreamChannel": "_channels.stream_channel",
    "Takeover": "_ground.handoff",
    "Token": "_ground.handoff",
    "Transport": "_contracts.transport",
    "TransportFeatures": "_contracts.features",
    "wait_readable": "_ground.waiting",
    "write_all": "_ground.vectors",
    "write_record": "_locks.holder",
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
