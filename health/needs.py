"""A need, as a condition on a metric, and whether those were reached who had it."""

from collections.abc import Iterable

import msgspec


class Need(msgspec.Struct, frozen=True, kw_only=True):
    """Who needs something: whose metric is from `at_least` to `at_most`, both inside; one of them at least is there."""

    metric: str
    at_least: float | None = None
    at_most: float | None = None

    def holds(self, value: float) -> bool:
        """Whether a value says that there is the need."""
        return (self.at_least is None or value >= self.at_least) and (self.at_most is None or value <= self.at_most)


class Reached(msgspec.Struct, frozen=True, kw_only=True):
    """Whether the right ones were reached: of those treated of whom it is known, how many had the need; and of all that had
    it, how many were treated. Who is held out by lot is neither.
    """

    treated_known: int
    treated_in_need: int
    in_need: int

    @property
    def share_in_need(self) -> float | None:
        """Of those treated, the share that had the need; None where nothing is known of any."""
        return self.treated_in_need / self.treated_known if self.treated_known else None

    @property
    def share_treated(self) -> float | None:
        """Of those that had the need, the share that was treated; None where nobody had it."""
        return self.treated_in_need / self.in_need if self.in_need else None


def reached(need: Need, values: Iterable[tuple[float, bool]]) -> Reached:
    """Who was reached, of values of the metric with whether their subject was treated."""
    pairs = [(need.holds(value), treated) for value, treated in values]
    return Reached(
        treated_known=sum(treated for _, treated in pairs),
        treated_in_need=sum(has and treated for has, treated in pairs),
        in_need=sum(has for has, _ in pairs),
    )
