"""How likely a trial is to be paid for: what became of those that showed the same signs, shrunk towards all of them."""

from collections.abc import Mapping
from typing import Final, TypeAlias

TRIALS_MIN: Final = 200
"""Below so many trials that are over, a share says nothing."""
# All trials together count as so many that showed the same signs.
_PRIOR_TRIALS: Final = 20

Shown: TypeAlias = tuple[bool, ...]


def closing_probability(signs: Shown, finished: Mapping[Shown, tuple[int, int]]) -> float | None:
    """The probability that a trial with these signs is paid for. `finished` has, by signs, how many trials there were and how
    many were paid for; None where too few are over.
    """
    trials = sum(count for count, _ in finished.values())
    if trials < TRIALS_MIN:
        return None
    usual = sum(closed for _, closed in finished.values()) / trials
    count, closed = finished.get(signs, (0, 0))
    return (closed + _PRIOR_TRIALS * usual) / (count + _PRIOR_TRIALS)
