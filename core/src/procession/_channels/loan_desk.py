"""The shelves of one direction of a connection, and who has them.

As in a queue (see `_mailboxes.shelves`), a shelf has a message that waits, or somebody who looks,
or is free. But a connection has no ledger beside its channel: what waits is in the channel itself,
and a process can be killed between telling one and telling the other. So messages are numbered.

* Who sends numbers its message, writes the number to the shelf, and sends it, all with the
  lock of the senders held: the channel has them in the order of their numbers.
* Who receives takes a message out of the channel, gets a hold on its shelf, or copies it out,
  and then writes its number down as the last one that was *taken*, all with the lock of the
  receivers held.

A message waits as long as its number is above the one taken last. So one word, written once,
tells that a message was taken, and with it that all older ones are no more in the channel, and
never will be: those whose sender was killed before it had sent them, and those whose receiver
was killed before it had looked. Their shelves are free again without anybody's having to know.

That needs messages which come through. So a large one that finds no shelf, and is sent as any
other, has a number, too.
"""

from __future__ import annotations

import mmap
import os
import struct
import sys
import time

from procession._ground.anonymous_file import anonymous_file
from procession._ground.file_lock import LockFile
from procession._mailboxes.mailbox_state import TABLE, TABLE_SIZE
from procession._mailboxes.patience import BYTES_OF_WORTH, NAP, REWARD, Patience
from procession._mailboxes.shelves import MOST, AllLent, Shelves

TYPE_CHECKING = False  # importing typing would bring `re` and more into every child
if TYPE_CHECKING:
    from collections.abc import Callable

    from procession._contracts.channel import Buffer

# Words of eight bytes in the first page: the number taken last, the number given last, whether
# somebody has asked for a lease, how many bytes leases may keep; and for each shelf the number of
# the last message in it.
_TAKEN, _GIVEN, _ASKED, _BUDGET = 0, 1, 2, 3
_NUMBERS = 8
_SIZE = 4096
# And what a message begins with that has a number; nobody else can know these bytes.
_KEY = 48
_KEY_BYTES = 16

_NUMBER = struct.Struct("=Q")
#: How many bytes `LoanDesk.number_in` needs to look at.
HEAD_BYTES = _KEY_BYTES + _NUMBER.size


class LoanDesk:
    """One direction's shelves, for one of its processes.

    Threads: any. Fork: the child goes on using it. There is no `close`: it owns the file, and
    closes it when it is collected, as the last thread that uses it may be in the middle.
    """

    __slots__ = (
        "_fd",
        "_key",
        "_lock_file",
        "_map",
        "_patience",
        "_words",
        "receiving",
        "sending",
        "shelves",
        "starved",
    )

    def __init__(self, fd: int, copy: Callable[[Buffer, Buffer], object] | None = None) -> None:
        """Take over *fd*, which `new_file` has made here or elsewhere, unless this fails.

        *copy* as for `Shelves`.
        """
        self._fd = -1
        self._map = mmap.mmap(fd, _SIZE)
        self._words = memoryview(self._map).cast("Q")
        self._key = self._map[_KEY : _KEY + _KEY_BYTES]
        self.shelves = Shelves(fd, self._words[_BUDGET : _BUDGET + 1], copy)
        self._lock_file = LockFile(fd)
        #: The locks of those who send, and who receive.
        self.sending = self._lock_file.lock(0)
        self.receiving = self._lock_file.lock(1)
        #: Whether a message has found no shelf since the last one that has, so that somebody
        #: was warned.
        self.starved = False
        self._patience = Patience()
        self._fd = fd

    @property
    def fd(self) -> int:
        """The file, borrowed."""
        return self._fd

    # -- what those do that send, with their lock held

    @property
    def asked(self) -> bool:
        """Whether somebody has ever asked for a lease. (Needs no lock.)"""
        return bool(self._words[_ASKED])

    def find(self, size: int) -> int | None:
        """Return a free shelf with memory for *size* bytes, or None if there is none.

        Raises `AllLent` if that is because of leases, and nobody was warned of it yet.
        """
        try:
            shelf = self._await_used(size)
            if shelf is None:
                shelf = self.shelves.find(self._waiting(), size)
        except AllLent:
            if not self.starved:
                raise
            return None
        except OSError:  # no descriptor to look with, say
            return None
        if shelf is not None:
            self.starved = False
        return shelf

    def _waiting(self) -> int:
        """Return a bit for each shelf in which a message waits."""
        words = self._words
        taken = words[_TAKEN]
        return sum(1 << shelf for shelf in range(MOST) if words[_NUMBERS + shelf] > taken)

    def _await_used(self, size: int) -> int | None:
        """Return a free shelf with memory that was used before, if there is one, or soon is.

        New memory costs several times what copying does, so that it is worth waiting for what
        waits to be taken, as long as receivers are quick.
        """
        worth = size // BYTES_OF_WORTH
        end = time.monotonic() + worth * REWARD
        while True:
            waiting = self._waiting()
            shelf = self.shelves.find_used(waiting, size)
            begun = time.monotonic()
            if (
                shelf is not None
                or not waiting & waiting - 1  # the sender is to be ahead by one, at least
                or begun >= end
                or not self._patience.allows(begun)
            ):
                return shelf
            before = self._words[_TAKEN]
            time.sleep(NAP)
            now = time.monotonic()
            taken = self._words[_TAKEN] - before
            self._patience.record(now, now - begun, worth * taken)

    def next_head(self, shelf: int | None = None) -> bytes:
        """Return what begins the next message, which waits in *shelf* from now on, if in any."""
        words = self._words
        number = words[_GIVEN] + 1
        words[_GIVEN] = number
        if shelf is not None:
            words[_NUMBERS + shelf] = number
        return self._key + _NUMBER.pack(number)

    # -- what those do that receive, with their lock held

    def ask(self) -> None:
        """Have large messages put on shelves from now on. (Needs no lock.)"""
        self._words[_ASKED] = 1

    def number_in(self, head: Buffer) -> int | None:
        """Return the number of the message that begins with *head*; None if it has none."""
        if head[:_KEY_BYTES] != self._key:
            return None
        if len(head) < HEAD_BYTES:
            raise OSError("bad message: it ends before its number does")
        number: int = _NUMBER.unpack_from(head, _KEY_BYTES)[0]
        return number

    def check(self, shelf: int, number: int) -> None:
        """Raise `OSError` unless it is the message *number* that waits in *shelf*."""
        found = self._words[_NUMBERS + shelf]
        if found != number:
            raise OSError(f"bad message: shelf {shelf} has message {found}, not {number}")

    def finish(self, number: int) -> None:
        """Say that the message *number* was taken: it and all older ones wait no more."""
        self._words[_TAKEN] = number

    def __del__(
        self,
        close: Callable[[int], None] = os.close,
        is_finalizing: Callable[[], bool] = sys.is_finalizing,
    ) -> None:
        fd = getattr(self, "_fd", -1)
        if fd < 0 or is_finalizing():
            return  # the modules are half gone, and the kernel closes everything anyway
        self._fd = -1
        self._lock_file.close()
        self.shelves.close()
        self._words.release()
        self._map.close()
        close(fd)


def new_file(budget: int = 0) -> int:
    """Return a descriptor of the file for a new desk, which the caller owns. Raises `OSError`.

    *budget*: how many bytes its leases may keep, 0 for the usual.
    """
    fd = anonymous_file("procession-leases")
    try:
        if sys.platform != "win32":
            os.ftruncate(fd, TABLE + TABLE_SIZE)
            os.pwrite(fd, _NUMBER.pack(budget), _BUDGET * 8)
            os.pwrite(fd, os.urandom(_KEY_BYTES), _KEY)
    except BaseException:
        os.close(fd)
        raise
    return fd
