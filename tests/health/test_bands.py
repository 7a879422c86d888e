"""Bands: where a score lies, and that it does not flap between two of them."""

import random
from itertools import pairwise

from health.bands import band_after, band_of
from health.scorecards import Band

BANDS = tuple(Band(start=start, key=str(start)) for start in (0, 30, 50, 70, 85))


def test_a_bands_beginning_belongs_to_it() -> None:
    """A score is in the highest band that begins at it or below; without a score the band is unknown."""
    assert ["0", "0", "30", "50", "70", "85", "85"] == [
        band_of(BANDS, score) for score in (0, 29.99, 30, 69.9, 70, 85, 100)
    ]
    assert band_of(BANDS, None) == "unknown"


def test_a_score_falls_at_once_and_rises_when_it_is_inside() -> None:
    """Into a lower band without delay; into a higher one from two points inside; by several bands in one go."""
    assert [band_after(BANDS, score, "70", 2) for score in (69.9, 70, 86.9, 87, 10, None)] == [
        "50",
        "70",
        "70",
        "85",
        "0",
        "unknown",
    ]
    assert band_after(BANDS, 71, "0", 2) == "50"
    assert band_after(BANDS, 72, "0", 2) == "70"
    assert (
        band_after(BANDS, 51, "unknown", 2)
        == band_after(BANDS, 51, None, 2)
        == band_after(BANDS, 51, "gone", 2)
        == "50"
    )


def test_a_swing_below_the_hysteresis_changes_the_band_once() -> None:
    """However long a score swings about by less than the hysteresis, its band changes at most once."""
    rng = random.Random(3)
    for _ in range(500):
        middle, band, bands = rng.uniform(2, 98), rng.choice(BANDS).key, []
        for _ in range(60):
            band = band_after(BANDS, middle + rng.uniform(-0.99, 0.99), band, 2)
            bands.append(band)
        assert sum(one != other for one, other in pairwise(bands)) <= 1


def test_without_hysteresis_there_is_no_memory() -> None:
    """With a hysteresis of zero, the band is that of the score, whatever it was before."""
    rng = random.Random(4)
    for _ in range(500):
        score = rng.uniform(0, 100)
        assert band_of(BANDS, score) == band_after(BANDS, score, rng.choice(BANDS).key, 0)
