"""What those see who put into a packet mailbox, or get, without taking its lock."""

from __future__ import annotations

#: The hot words, by position: getters are asleep; puts, gets have to look closer before they
#: use the lane; somebody wants to be told when a message is taken, which is putters that are
#: asleep or, without a maxsize, a getter that gives way; somebody gets with leases.
SLEEPING, PUTS, GETS, FULL, LEASING = 0, 1, 2, 3, 4
#: And another one: how many bytes leases may keep, 0 for what is usual.
BUDGET = 5
#: And one that says where the message begins that is offered, see `_mailboxes.packet_relay`; 0 for
#: none.
OFFER = 6
#: And how many messages those have seen moving who gave way for it, a hint, see `_mailboxes.turns`.
MOVED = 7
#: Why they have to, in `PUTS` and `GETS`: the overflow log has messages, the mailbox was
#: shut down, it has a maxsize, its messages are counted when they are taken.
LOGGED, SHUT, BOUNDED, COUNTED = 1, 2, 4, 8

#: Kinds of packets; a lane carries the first two. The others are tokens of large messages.
PLAIN, FRAMED, SPOOLED, SHELVED = 0, 1, 2, 3
