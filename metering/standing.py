"""Where a key with a rate stands after a request: what is left of its allowance, and how long until there is more. Pure."""

from decimal import Decimal
from math import floor
from typing import Final

import msgspec

_MICRO: Final = 1_000_000


class Standing(msgspec.Struct, frozen=True, kw_only=True):
    """The allowance of a key right after a request of `asked_events` was taken out of it, or was not."""

    events_per_second_max: int
    burst_events_max: int
    # To a millionth; below zero after a request that was larger than the burst.
    left_events: Decimal
    asked_events: int
    taken: bool

    @property
    def available_events(self) -> int:
        """How many events the key may send now."""
        return max(0, floor(self.left_events))

    @property
    def wait_seconds(self) -> int:
        """Whole seconds after which a request that was not taken would be, if nobody else spends what is coming in."""
        return self.seconds_until(self.asked_events)

    def seconds_until(self, events: int) -> int:
        """Whole seconds until a request of so many events would be taken; 0 when it would be now."""
        missing = min(events, self.burst_events_max) - self.left_events
        # In whole numbers, rounded up: a decimal's division would round to the nearest.
        return max(0, -(-int(missing * _MICRO) // (self.events_per_second_max * _MICRO)))
