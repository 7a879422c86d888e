"""Differences of shares, against a published example."""

import pytest

from health.proportions import difference_of


def test_newcombe_is_as_published() -> None:
    """56 of 70 against 48 of 80, Newcombe's own example: 0.0524 to 0.3339; with Laplace the difference is less than 0.2."""
    found = difference_of(56, 70, 48, 80)

    assert (found.low, found.high) == (pytest.approx(0.0524, abs=5e-5), pytest.approx(0.3339, abs=5e-5))
    assert found.value == pytest.approx(57 / 72 - 49 / 82)


def test_of_nobody_nothing_is_known() -> None:
    """With nobody on one side the difference may be anything, and the interval holds zero."""
    found = difference_of(0, 0, 48, 80)

    assert found.low < 0 < found.high
