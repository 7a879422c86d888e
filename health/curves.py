"""The one kind of curve: a line through points, flat before the first and after the last.

It covers thresholds (two points close together), straight and bounded lines, falling ones, and targets that can be
missed on both sides.
"""

from bisect import bisect_right
from collections.abc import Sequence


def score_at(curve: Sequence[tuple[float, float]], value: float) -> float:
    """The score of a value. The points' values rise; there is at least one point."""
    place = bisect_right(curve, value, key=lambda point: point[0])
    if place == 0:
        return curve[0][1]
    if place == len(curve):
        return curve[-1][1]
    (left, low), (right, high) = curve[place - 1], curve[place]
    share = (value - left) / (right - left)
    # Both ends are weighted, so that the score never leaves them, and is a point's own where the value is.
    return low * (1.0 - share) + high * share
