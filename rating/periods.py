"""Half-open periods of time, and which share of one another is."""

from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Final

import msgspec

from rating.exact import cut, multiply, subtract, trimmed

# An amount that does not end, as a third of a period's, is cut after so many digits. They are enough for its rounding to
# minor units to be that of the true quotient: the amount has 18 digits after the point, a year has less than 10^14
# microseconds, so a quotient that is not half a minor unit of at most 4 digits is further than 10^-37 from it.
PRORATED_DIGITS: Final = 40


class Period(msgspec.Struct, frozen=True, order=True, gc=False):
    """A half-open range of time: `start` is inside, `end` is the first instant after. Both are UTC."""

    start: datetime
    end: datetime

    def __post_init__(self) -> None:
        assert self.start.tzinfo is UTC, "a period's start is in UTC"
        assert self.end.tzinfo is UTC, "a period's end is in UTC"

    def within(self, other: "Period") -> "Period | None":
        """What both have in common; None where that is nothing."""
        start, end = max(self.start, other.start), min(self.end, other.end)
        return Period(start, end) if start < end else None


class PeriodShare(msgspec.Struct, frozen=True, gc=False):
    """Where a part begins and ends within a whole, in microseconds of time that really passed.

    Amounts are shared by position: what is due at the end less what was due at the beginning. So the amounts of parts
    that lie side by side add up to the amount of the whole, exactly, however it is cut.
    """

    start: int
    end: int
    whole: int

    def of(self, amount: Decimal, digits: int = PRORATED_DIGITS) -> Decimal:
        """This share of an amount; exact where it ends within so many digits after the point."""
        if self.start == 0 and self.end == self.whole:
            return amount
        return trimmed(subtract(self._due(amount, self.end, digits), self._due(amount, self.start, digits)))

    def _due(self, amount: Decimal, position: int, digits: int) -> Decimal:
        return cut(multiply(amount, Decimal(position)), Decimal(self.whole), digits)


WHOLE: Final = PeriodShare(0, 1, 1)


def share_of(part: Period, whole: Period) -> PeriodShare:
    """Which share of the whole the part is; it lies within it."""
    assert whole.start <= part.start <= part.end <= whole.end, "a part lies within its whole"
    if part == whole:
        return WHOLE
    return PeriodShare(
        _microseconds(part.start - whole.start),
        _microseconds(part.end - whole.start),
        _microseconds(whole.end - whole.start),
    )


def _microseconds(length: timedelta) -> int:
    return length // timedelta.resolution


def instant_text(instant: datetime) -> str:
    """An instant in UTC as keys and answers write it: 2026-03-01T00:00:00Z, with a fraction where it has one."""
    return instant.isoformat().replace("+00:00", "Z")
