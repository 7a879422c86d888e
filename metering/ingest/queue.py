"""What waits to be written: a line for each sender, served in turns, and room that nobody can take from the others. Pure.

* In turns: a batch begins with the sender whose turn it is, and goes on round the others. So whoever has something
  waiting is served after at most one batch for each other sender, however much these have in line.
* Room: when all of it is taken, whoever holds most gives way to whoever would hold less, newest first. What stands first
  in a line is never sent away, so nobody loses a turn.
"""

from collections import deque
from collections.abc import Iterator
from itertools import islice
from typing import Generic, TypeVar

Item = TypeVar("Item")


class _Line(Generic[Item]):
    """What one sender has waiting, oldest first, each with its size."""

    def __init__(self) -> None:
        self.items: deque[tuple[Item, int]] = deque()
        self.size = 0


class FairQueue(Generic[Item]):
    """Items with sizes, of senders with names. Each item leaves once: taken, sent away, or with the rest."""

    def __init__(self) -> None:
        # In the order of their turns; only those who have something waiting.
        self._lines: dict[str, _Line[Item]] = {}
        self.size = 0

    def __bool__(self) -> bool:
        """Whether anything waits."""
        return bool(self._lines)

    def held(self, sender: str) -> int:
        """The size of all that this sender has waiting."""
        line = self._lines.get(sender)
        return 0 if line is None else line.size

    def would_take(self, sender: str, size: int, room: int) -> bool:
        """Whether `put` would take an item of this size now."""
        return self._giving_way(sender, size, room) is not None

    def put(self, sender: str, item: Item, size: int, room: int) -> list[Item] | None:
        """Put an item at the end of its sender's line; `room` is what all that waits may have in size.

        Returns the items that were sent away for it, mostly none; None when it was not taken itself, because nobody holds
        more than its sender would.
        """
        giving_way = self._giving_way(sender, size, room)
        if giving_way is None:
            return None
        sent_away = [self._drop_newest(name) for name in giving_way]
        line = self._lines.setdefault(sender, _Line())
        line.items.append((item, size))
        line.size += size
        self.size += size
        return sent_away

    def take(self, size_max: int) -> list[Item]:
        """The next batch: up to this size, of every sender in turn; what does not fit keeps its turn. At least one item."""
        batch: list[Item] = []
        room = size_max
        turns = deque(self._lines)
        while turns and (room > 0 or not batch):
            sender = turns.popleft()
            line = self._lines[sender]
            item, size = line.items[0]
            if batch and size > room:
                continue
            line.items.popleft()
            line.size -= size
            self.size -= size
            room -= size
            batch.append(item)
            del self._lines[sender]
            if line.items:
                self._lines[sender] = line
                turns.append(sender)
        return batch

    def take_all(self) -> list[Item]:
        """Everything that waits."""
        everything = [item for line in self._lines.values() for item, _ in line.items]
        self._lines.clear()
        self.size = 0
        return everything

    def _giving_way(self, sender: str, size: int, room: int) -> list[str] | None:
        """Whose newest items have to be sent away, one after the other; None when there is no such way."""
        excess = self.size + size - room
        if excess <= 0:
            return []
        would_hold = self.held(sender) + size
        held = {name: line.size for name, line in self._lines.items() if line.size > would_hold}
        newest = {name: _sizes_from_newest(self._lines[name]) for name in held}
        giving_way: list[str] = []
        while excess > 0:
            if not held:
                return None
            greediest = max(held, key=held.__getitem__)
            smaller = next(newest[greediest], 0)
            excess -= smaller
            held[greediest] -= smaller
            if smaller:
                giving_way.append(greediest)
            if not smaller or held[greediest] <= would_hold:
                del held[greediest]
        return giving_way

    def _drop_newest(self, sender: str) -> Item:
        line = self._lines[sender]
        item, size = line.items.pop()
        line.size -= size
        self.size -= size
        return item


def _sizes_from_newest(line: _Line[Item]) -> Iterator[int]:
    """The sizes of what may be sent away: all but what stands first."""
    return (size for _, size in islice(reversed(line.items), len(line.items) - 1))
