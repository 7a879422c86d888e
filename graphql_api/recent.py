"""Texts that were asked for last, within two bounds; the one that was not asked for the longest goes first."""

from collections import OrderedDict
from typing import Generic, TypeVar

Value = TypeVar("Value")


class Recent(Generic[Value]):
    """Keeps values by name, by number and by size."""

    def __init__(self, count_max: int, bytes_max: int) -> None:
        self._count_max = count_max
        self._bytes_max = bytes_max
        self._kept: OrderedDict[str, tuple[Value, int]] = OrderedDict()
        self._bytes = 0

    def get(self, name: str) -> Value | None:
        """The value of this name, if it is kept."""
        found = self._kept.get(name)
        if found is None:
            return None
        self._kept.move_to_end(name)
        return found[0]

    def keep(self, name: str, value: Value, size_bytes: int) -> None:
        """Keep a value of this size; one that is larger than all may be is not kept."""
        if size_bytes > self._bytes_max:
            return
        _, before = self._kept.pop(name, (None, 0))
        self._kept[name] = (value, size_bytes)
        self._bytes += size_bytes - before
        while len(self._kept) > self._count_max or self._bytes > self._bytes_max:
            _, (_, gone) = self._kept.popitem(last=False)
            self._bytes -= gone
