"""The desk of one worker: memory that it shares with its pool.

Some words there say how far it is. In its tray lie its short answers: one that is laid there
costs no system call, can be looked at as often as one likes, and stays when the worker dies.
"""

from __future__ import annotations

from procession._messages.lookout import has_ordered_stores

TYPE_CHECKING = False  # importing typing would bring `re` and more into every child
if TYPE_CHECKING:
    from typing import Any, Final

    from procession._memory.shared_map import SharedMap

_WORD_BYTES = 8
#: Which task it has claimed and begun last, and from which on they are recalled.
CLAIMED, BEGUN, RECALLED = range(3)
# A cache line: the processors do not take it away from each other.
_HEAD_WORDS = 8
#: How many answers lie in a tray at once: no worker has more tasks than that.
SLOTS: Final = 64
_SLOT_WORDS = 64
_SLOT_BYTES = _SLOT_WORDS * _WORD_BYTES
#: The longest answer that can be laid in the tray.
LONGEST: Final = _SLOT_BYTES - _WORD_BYTES
_WORDS = _HEAD_WORDS + SLOTS * _SLOT_WORDS
#: The size of a desk.
BYTES: Final = _WORDS * _WORD_BYTES
_LENGTH_BITS = 16
_LENGTH = (1 << _LENGTH_BITS) - 1
# Instead of a length: the answer comes as a message, which is short or long.
_SHORT_MESSAGE, _LONG_MESSAGE = _LENGTH - 1, _LENGTH


#: Where there is none, answers go through the channel.
HAS_TRAY: Final = has_ordered_stores()


class Desk:
    """The desk of the worker at one place: the worker's side, or the pool's.

    An answer has the slot of its task's number, from the moment at which that is written there
    until the task that has the slot next is answered. A task is given when the one that had
    its slot before was answered, and that was seen.
    """

    __slots__ = ("_answers", "_memory", "words")

    def __init__(self, shared: SharedMap, place: int) -> None:
        """*shared* is the memory of all desks, `BYTES` for each *place*."""
        first = place * _WORDS
        self._memory: Any = shared.memory
        #: The words by their names, and then those of the slots.
        self.words = memoryview(shared.memory).cast("Q")[first : first + _WORDS]
        self._answers = (first + _HEAD_WORDS + 1) * _WORD_BYTES

    def clear(self) -> None:
        """Make it ready for a new worker, which begins to count anew."""
        self.words[CLAIMED] = self.words[BEGUN] = self.words[RECALLED] = 0
        for slot in range(SLOTS):
            self.words[_HEAD_WORDS + slot * _SLOT_WORDS] = 0

    def lay(self, number: int, answer: bytes) -> bool:
        """Lay the answer to task *number* in the tray; return False if it is too long for that."""
        length = len(answer)
        if length > LONGEST or not HAS_TRAY:
            return False
        slot = number % SLOTS
        start = self._answers + slot * _SLOT_BYTES
        self._memory[start : start + length] = answer
        # Last: who sees the number finds the whole answer.
        self.words[_HEAD_WORDS + slot * _SLOT_WORDS] = number << _LENGTH_BITS | length
        return True

    def announce(self, number: int, is_long: bool) -> None:
        """Say that the answer to task *number* will be a message, before it is sent."""
        how = _LONG_MESSAGE if is_long else _SHORT_MESSAGE
        self.words[_HEAD_WORDS + number % SLOTS * _SLOT_WORDS] = number << _LENGTH_BITS | how

    def look(self, number: int) -> bytes | None:
        """Return the answer to task *number*, or None if it does not lie in the tray."""
        slot = number % SLOTS
        at = _HEAD_WORDS + slot * _SLOT_WORDS
        word = self.words[at]
        length = word & _LENGTH
        if word >> _LENGTH_BITS != number or length > LONGEST:
            return None
        start = self._answers + slot * _SLOT_BYTES
        answer: bytes = self._memory[start : start + length]
        return answer if self.words[at] == word else None  # it was released meanwhile

    def take(self, number: int, most: int) -> list[bytes]:
        """Return the answers that lie in the tray from task *number* on, up to *most*."""
        answers: list[bytes] = []
        words, memory = self.words, self._memory
        for at_number in range(number, number + most):
            slot = at_number % SLOTS
            at = _HEAD_WORDS + slot * _SLOT_WORDS
            word = words[at]
            length = word & _LENGTH
            if word >> _LENGTH_BITS != at_number or length > LONGEST:
                break
            start = self._answers + slot * _SLOT_BYTES
            answers.append(memory[start : start + length])
        return answers

    def is_long(self, number: int) -> bool:
        """Return whether the answer to task *number* is a long message."""
        word = self.words[_HEAD_WORDS + number % SLOTS * _SLOT_WORDS]
        return bool(word == number << _LENGTH_BITS | _LONG_MESSAGE)

    def release(self) -> None:
        """Give the memory back. There is nothing on the desk afterwards, for who looks just now."""
        words, self.words = self.words, memoryview(bytes(BYTES)).cast("Q")
        self._memory = b""  # a mapping may have a descriptor
        words.release()
