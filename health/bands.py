"""Names for scores, and how much it takes to rise by one."""

from bisect import bisect_right
from collections.abc import Sequence

from health.scorecards import UNKNOWN_BAND, Band


def band_of(bands: Sequence[Band], score: float | None) -> str:
    """The band that a score is in by itself; a band's beginning belongs to it. The bands rise from 0."""
    return UNKNOWN_BAND if score is None else bands[_place(bands, score)].key


def band_after(bands: Sequence[Band], score: float | None, previous: str | None, hysteresis: float) -> str:
    """The band of a score that was in another band before.

    It falls at once, so that no warning is late. It rises when it is `hysteresis` points inside the higher band, so that
    a score which swings about a bound by less than that changes its band once and not every day.
    """
    keys = [band.key for band in bands]
    if score is None or previous not in keys:
        return band_of(bands, score)
    before, now = keys.index(previous), _place(bands, score)
    if now > before:
        now = max(before, _place(bands, score - hysteresis))
    return keys[now]


def _place(bands: Sequence[Band], score: float) -> int:
    return max(0, bisect_right(bands, score, key=lambda band: band.start) - 1)
