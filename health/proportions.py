"""How far two shares are apart, and where the true difference is: of few people, a share says little."""

from math import sqrt

import msgspec

from health.backtest import wilson


class Difference(msgspec.Struct, frozen=True):
    """One share less another, with one added to what is counted and two to all (Laplace); where it is with 95 % confidence."""

    value: float
    low: float
    high: float


def difference_of(count: int, total: int, other_count: int, other_total: int) -> Difference:
    """The difference of two shares. The interval is Newcombe's, of the two that Wilson's formula gives."""
    share, other_share = (count + 1) / (total + 2), (other_count + 1) / (other_total + 2)
    one, other = wilson(count, total), wilson(other_count, other_total)
    plain = count / total if total else 0.5
    other_plain = other_count / other_total if other_total else 0.5
    gap = plain - other_plain
    low = gap - sqrt((plain - one[0]) ** 2 + (other[1] - other_plain) ** 2)
    high = gap + sqrt((one[1] - plain) ** 2 + (other_plain - other[0]) ** 2)
    return Difference(share - other_share, low, high)
