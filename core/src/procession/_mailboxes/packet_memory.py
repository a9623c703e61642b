"""The file of a packet mailbox: what lies where in it, and the locks on it."""

from __future__ import annotations

import mmap
import os
import sys

from procession._ground.anonymous_file import anonymous_file
from procession._ground.file_lock import LockFile
from procession._mailboxes.mailbox_state import SIZE, TABLE, TABLE_SIZE, MailboxState
from procession._mailboxes.overflow_log import OverflowLog
from procession._mailboxes.packet_marks import BUDGET
from procession._mailboxes.spool import WINDOW, Spool

TYPE_CHECKING = False  # importing typing would bring `re` and more into every child
if TYPE_CHECKING:
    from procession._mailboxes.shelves import Shelves
    from procession._mailboxes.spool import Copy

# Where the log and the spool lie in the file, behind the state and the table of the shelves.
# It is sparse, and both give back what was taken, so the distance costs nothing.
_LOG = -(-(TABLE + TABLE_SIZE) // mmap.ALLOCATIONGRANULARITY) * mmap.ALLOCATIONGRANULARITY
_SPOOL = 1 << 40


def new_file() -> int:
    """Return a descriptor of the file of a new mailbox, which the caller owns."""
    return anonymous_file("procession-mailbox", bytes(SIZE))


def place_of_spool() -> int:
    """Return where the spool begins: half-way, when a resource limit is on the size of files."""
    if sys.platform == "win32":
        return _SPOOL
    try:
        import resource
    except (ImportError, OSError):  # no descriptor is left to load it with
        return _SPOOL
    limit = resource.getrlimit(resource.RLIMIT_FSIZE)[0]
    if limit == resource.RLIM_INFINITY or limit >= 2 * _SPOOL:
        return _SPOOL
    return max(_LOG, limit // 2 // _LOG * _LOG)


class PacketMemory:
    """One file and what is in it: the state, the overflow log, the spool, the shelves.

    Threads: any. Fork: the child goes on using it. Owns the descriptor.
    """

    __slots__ = (
        "_lock_file",
        "_shelves",
        "copy",
        "fd",
        "lock",
        "log",
        "reading",
        "roster",
        "spool",
        "state",
        "words",
        "writing",
    )

    _shelves: Shelves | None

    def __init__(self, fd: int, spool: int, copy: Copy | None) -> None:
        """Take over *fd*, unless this fails. The spool begins at *spool*.

        *copy* copies what is mapped, where the lane has something better than Python's own.
        """
        self.fd = fd
        self.state = MailboxState(fd)
        self.words = self.state.hot
        #: For waits without limit: which processes wait and take.
        self.roster = self.state.roster
        self.log = OverflowLog(fd, _LOG)
        # No window where the room is limited: it could be used up although little is in it.
        self.spool = Spool(fd, spool, WINDOW if spool == _SPOOL else 0, copy)
        self.copy = copy
        self._shelves = None  # made when it is first needed
        self._lock_file = LockFile(fd)
        #: The mailbox's lock; the locks of the large messages' one writer and one reader.
        #: Whoever wants two takes one of the latter first.
        self.lock = self._lock_file.lock(0)
        self.writing = self._lock_file.lock(1)
        self.reading = self._lock_file.lock(2)

    def begin(self) -> None:
        """Write the state of an empty mailbox into the file, which nobody else has yet."""
        ledger = self.state.load()
        ledger.head = ledger.tail = ledger.freed = _LOG
        self.spool.begin(ledger)
        self.state.commit(ledger)

    @property
    def shelves(self) -> Shelves | None:
        """The shelves; None where there are none."""
        shelves = self._shelves
        if shelves is None and self.spool.base == _SPOOL:
            from procession._mailboxes.shelves import Shelves

            budget = self.words[BUDGET : BUDGET + 1]
            shelves = self._shelves = Shelves(self.fd, budget, self.copy)
        return shelves

    def retire(self) -> None:
        """Refuse every further use of the locks, after the threads that hold them."""
        self._lock_file.close()

    def close(self) -> None:
        """Let go of everything; `retire` comes first."""
        self.spool.close()
        if self._shelves is not None:
            self._shelves.close()
        self.state.close()
        os.close(self.fd)
