"""What lies where in the shared memory of a ring: the same as `csrc/layout.h`.

The page ``docs/explanation/ring.md`` describes the protocol.
"""

from __future__ import annotations

import struct
import sys

#: A header has a page of its own, and the data come behind it.
HEADER_SIZE = 4096

#: "PRRING" and "PRLANE", and the version of the layout.
STREAM_MAGIC = 0x3330474E49525250
LANE_MAGIC = 0x3130454E414C5250

#: What each header begins with: the magic number and the size of the data.
BEGINNING = struct.Struct("=QQ")
#: Of a stream, also the kind of its locks, 0 for those of files, and how large it can become.
STREAM_BEGINNING = struct.Struct("=QQQQ")

#: Where the words of a stream's header lie, in bytes. Positions have eight bytes, as have the
#: first four, and other words four; the last two are locks of the C library.
OFFSETS = {
    "magic": 0,
    "size": 8,
    "lock_size": 16,
    "full": 24,
    "tail": 128,
    "writer_cpu": 136,
    "head": 256,
    "reader_cpu": 264,
    "armed": 384,
    "watched": 388,
    "room_wanted": 512,
    "stopped": 520,
    "left": 524,
    "putting": 640,
    "getting": 768,
}

#: What a message begins with: the length of the body, the number of buffers, a mark.
RECORD = struct.Struct("=QII")
RECORD_MARK = 0x52657631
#: Every message begins and ends at a multiple of it, and no part of one does.
ALIGNMENT = 16

#: No address space can hold more.
LONGEST_MESSAGE = 1 << 47
MOST_BUFFERS = 1 << 26

#: Where the words of a lane's header lie, in bytes; all but the last two have eight.
LANE_OFFSETS = {
    "magic": 0,
    "size": 8,
    "lock_size": 16,
    "tail": 384,
    "head": 512,
    "armed": 640,
    "watched": 644,
}

#: Why memory whose locks are of the other kind is refused.
FOREIGN_LOCKS = (
    "the locks of this ring are of another implementation; all processes that use it need the "
    "same one (PROCESSION_RING_IMPLEMENTATION forces one)"
)

# The upper half of tail and head is a number of packets.
_UPPER = 4 if sys.byteorder == "little" else 0
#: Where the numbers of packets that were sent and received lie, four bytes each.
LANE_COUNTERS = (LANE_OFFSETS["tail"] + _UPPER, LANE_OFFSETS["head"] + _UPPER)
