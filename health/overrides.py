"""A person's word on one subject's score: bounds with a reason and an end. The score below it is kept."""

from datetime import date

import msgspec


class Override(msgspec.Struct, frozen=True, kw_only=True, rename="camel", forbid_unknown_fields=True):
    """The score is at least `min` and at most `max` in [set_on, expires_on); both days are UTC."""

    reason: str
    set_on: date
    expires_on: date
    max: float | None = None
    min: float | None = None

    def holds_on(self, day: date) -> bool:
        """Whether it counts on a day."""
        return self.set_on <= day < self.expires_on
