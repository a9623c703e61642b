"""What the processes that share a mailbox know in common."""

from __future__ import annotations

import mmap
import struct

from procession._mailboxes import roster

# The bytes that the ledger and the hot words have for themselves.
_OWN_SIZE = 4096
#: The bytes at the start of the mailbox's file that hold the state.
SIZE = _OWN_SIZE + roster.SIZE
#: Where behind them the table of the shelves lies, see `_mailboxes.shelves`, and how long it is.
TABLE = SIZE
TABLE_SIZE = 8192

_FIELDS = struct.Struct("=17Q")
# Positions in words of eight bytes.
_SELECTOR = 0
_HOT = 8
_COPIES = (64, 96)
_RELAY = 128

#: Positions in `MailboxState.relay`: how far the message that is offered was written, and read.
#: They lie apart, so that the processors do not take them away from each other.
WRITTEN, READ = 0, 16

#: `Ledger.shut`.
OPEN, DRAINING, DROPPED = 0, 1, 2
#: `Ledger.offer_fate`.
CLOSED, OFFERED, TAKEN = 0, 1, 2


class Ledger:
    """One consistent reading of a mailbox's counters; see `MailboxState`."""

    __slots__ = (
        "done",
        "freed",
        "head",
        "logged",
        "offer_end",
        "offer_fate",
        "offer_start",
        "shelved",
        "shut",
        "spool_freed",
        "spool_head",
        "spool_tail",
        "tail",
        "taken",
        "window_end",
        "window_head",
        "window_tail",
    )

    #: The overflow log's records lie in its file from `head` to `tail`; below `freed`
    #: it has given its memory back.
    head: int
    tail: int
    freed: int
    #: How many messages are in the log.
    logged: int
    #: Likewise for the large messages in the spool.
    spool_head: int
    spool_tail: int
    spool_freed: int
    #: And for those in the window in front of it, which is a circle.
    window_head: int
    window_tail: int
    #: Below it, the window has its memory.
    window_end: int
    #: Messages taken under the lock, and messages counted as done.
    taken: int
    done: int
    #: A bit for each shelf in which a message lies that waits.
    shelved: int
    #: `OPEN`, `DRAINING` (no more puts) or `DROPPED` (nor gets).
    shut: int
    #: The last message that was offered from hand to hand, see `_mailboxes.packet_relay`: its
    #: positions, and what has become of it: `CLOSED` (it was not taken so), `OFFERED` or `TAKEN`.
    offer_start: int
    offer_end: int
    offer_fate: int


class MailboxState:
    """Two pages of memory shared by all processes that have the mailbox.

    The *ledger* is changed by transactions: whoever holds the mailbox's lock loads it,
    changes what it loaded, and commits. There are two copies, and one word says which
    is valid; a commit writes the other copy and then that word. A process killed at any
    instruction has therefore committed everything or nothing.

    *Hot words* are single numbers that are read without the lock on every put and get.

    *The roster* has a page of its own.

    The descriptor is borrowed while the pages are mapped.
    """

    __slots__ = ("_map", "_words", "hot", "relay", "roster")

    def __init__(self, fd: int) -> None:
        self._map = mmap.mmap(fd, SIZE)
        self._words = memoryview(self._map).cast("Q")
        #: Eight words, to be read and written singly.
        self.hot = self._words[_HOT : _HOT + 8]
        #: The words of those who pass a message, see `WRITTEN`.
        self.relay = self._words[_RELAY : _RELAY + READ + 1]
        #: Which processes wait here for long, and what they have taken.
        self.roster = roster.Roster(self._words[_OWN_SIZE // 8 :])

    def load(self) -> Ledger:
        """Return the ledger, consistent also when it is loaded without the lock."""
        while True:
            selector = self._words[_SELECTOR]
            ledger = _read(self._map, selector)
            if self._words[_SELECTOR] == selector:
                return ledger

    def version(self) -> int:
        """Return a number that every commit changes."""
        return self._words[_SELECTOR]

    def commit(self, ledger: Ledger) -> None:
        """Make *ledger* the valid one; the mailbox's lock is held."""
        selector = self._words[_SELECTOR]
        _FIELDS.pack_into(
            self._map,
            _COPIES[(selector + 1) & 1] * 8,
            ledger.head,
            ledger.tail,
            ledger.freed,
            ledger.logged,
            ledger.spool_head,
            ledger.spool_tail,
            ledger.spool_freed,
            ledger.window_head,
            ledger.window_tail,
            ledger.window_end,
            ledger.taken,
            ledger.done,
            ledger.shut,
            ledger.shelved,
            ledger.offer_start,
            ledger.offer_end,
            ledger.offer_fate,
        )
        self._words[_SELECTOR] = selector + 1

    def close(self) -> None:
        """Unmap the pages."""
        self.hot.release()
        self.relay.release()
        self.roster.close()
        self._words.release()
        self._map.close()


def parse(page: bytes) -> Ledger:
    """Return the ledger in a copy of the whole page, for those who only look."""
    (selector,) = struct.unpack_from("=Q", page, _SELECTOR * 8)
    return _read(page, selector)


def _read(page: bytes | mmap.mmap, selector: int) -> Ledger:
    """Return the ledger that *selector* says is valid."""
    ledger = Ledger()
    (
        ledger.head,
        ledger.tail,
        ledger.freed,
        ledger.logged,
        ledger.spool_head,
        ledger.spool_tail,
        ledger.spool_freed,
        ledger.window_head,
        ledger.window_tail,
        ledger.window_end,
        ledger.taken,
        ledger.done,
        ledger.shut,
        ledger.shelved,
        ledger.offer_start,
        ledger.offer_end,
        ledger.offer_fate,
    ) = _FIELDS.unpack_from(page, _COPIES[selector & 1] * 8)
    return ledger
