"""Whether a figure crossed a bound. Pure, and exact: a share is never divided, its bound is multiplied."""

from collections.abc import Mapping
from datetime import datetime
from decimal import Decimal
from enum import Enum

import msgspec

from metering.outbox.event import subject_of
from metering.periods import Period
from rating.exact import multiply


class Bounds(msgspec.Struct, frozen=True):
    """An alert is raised at or above the first and resolved strictly below the second, which is not the larger one.

    Between the two what is open stays open, and what is not stays so. Of a share, both are shares.
    """

    threshold: Decimal
    resolve_below: Decimal


class Seen(msgspec.Struct, frozen=True, kw_only=True):
    """A figure that was looked at: whose, in which period, and (where shares are compared) what it is a share of."""

    dimensions: tuple[tuple[str, str | None], ...]
    period: Period
    value: Decimal
    whole: Decimal | None = None

    @property
    def subject(self) -> str:
        """Whose it is, as notifications name it."""
        return subject_of(self.dimensions)

    @property
    def place(self) -> tuple[str, datetime]:
        """What tells it from all other figures of a rule: a subject crosses a bound in each period anew."""
        return self.subject, self.period.start

    @property
    def values(self) -> Mapping[str, str | None]:
        """The dimensions, by name."""
        return dict(self.dimensions)

    def reaches(self, bound: Decimal) -> bool:
        """Whether it is at or above a bound."""
        return self.value >= (bound if self.whole is None else multiply(bound, self.whole))


class Crossing(Enum):
    """What a figure did to its alert."""

    RAISED = "RAISED"
    RESOLVED = "RESOLVED"


def crossing(seen: Seen, bounds: Bounds, *, is_open: bool) -> Crossing | None:
    """What becomes of an alert that is open, or not, when this is seen; None where it stays as it is."""
    if is_open:
        return None if seen.reaches(bounds.resolve_below) else Crossing.RESOLVED
    return Crossing.RAISED if seen.reaches(bounds.threshold) else None
