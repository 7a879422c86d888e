"""What is usual among peers: subjects of one segment. Few peers say nothing, and would give each other away."""

from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from statistics import median
from typing import Final

# A segment with fewer is widened by the caller, or not compared at all.
PEERS_MIN: Final = 30
# A median gives less away than a place does; of fewer it would say how one of them is.
PRIOR_PEERS_MIN: Final = 10


def percentile(value: float, peers: Sequence[float]) -> float | None:
    """The share of peers below a value, those alike counted half: 0 to 100. None where there are too few."""
    if len(peers) < PEERS_MIN:
        return None
    ordered = sorted(peers)
    return 50.0 * (bisect_left(ordered, value) + bisect_right(ordered, value)) / len(ordered)


def prior_of(scores: Sequence[float]) -> float | None:
    """A measure's prior: the median of its scores where it was observed. None where there are too few."""
    return median(scores) if len(scores) >= PRIOR_PEERS_MIN else None
