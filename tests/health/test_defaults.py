"""The cards that are there from the start: without faults, with sources, and right about customers like those of the story."""

import pytest

from health.catalogue import CATALOGUE
from health.defaults import default_scorecards
from health.faults import selection_faults, validate
from health.measurements import Measurement, NotApplicable, Observed
from health.score import Health, evaluate
from health.scorecards import Scorecard, Subject, card_for, leaves_of
from tests.health.cards import AS_OF

CARDS = {card.key: card for card in default_scorecards()}


@pytest.mark.parametrize("scorecard", CARDS.values(), ids=CARDS)
def test_default_cards_have_no_faults_and_say_their_sources(scorecard: Scorecard) -> None:
    """Each card can be published as it is, and each curve says where it is from."""
    sources = ("published", "judgement", "measured", "by definition")

    assert () == validate(scorecard, CATALOGUE, default_scorecards())
    assert [] == [leaf.path for leaf in leaves_of(scorecard) if not leaf.measure.note.startswith(sources)]


def test_default_cards_score_everybody() -> None:
    """Whatever the attributes are there is a card; trials and renewals have their own."""
    cards = default_scorecards()

    def chosen(subject: Subject, **attributes: str) -> str | None:
        found = card_for(cards, subject, "health", attributes)
        return found.key if found else None

    assert () == selection_faults(cards)
    assert ("account", "renewal") == (chosen(Subject.ACCOUNT), chosen(Subject.ACCOUNT, stage="renewal"))
    assert ("subscription", "trial") == (chosen(Subject.SUBSCRIPTION), chosen(Subject.SUBSCRIPTION, stage="trial"))
    assert ("user", "user") == (chosen(Subject.USER), chosen(Subject.USER, stage="trial"))
    assert card_for(cards, Subject.USER, "growth", {}) is None


def account(**values: float | Measurement) -> Health:
    """An account with these values, each seen today."""
    found = {name: Observed(value) if isinstance(value, float) else value for name, value in values.items()}
    return evaluate(CARDS["account"], found, as_of=AS_OF)


def test_an_account_that_is_well_and_one_that_is_not() -> None:
    """All is well: thriving. Seats unused, usage falling, detractors, an invoice overdue: critical."""
    well = account(
        seat_utilisation=0.95,
        median_l28=16.0,
        drop_z=-0.5,
        breadth_core=0.9,
        nps=60.0,
        tickets_28d_per_seat=0.05,
        pulse=5.0,
    )
    ill = account(
        seat_utilisation=0.15,
        median_l28=0.0,
        drop_z=4.5,
        breadth_core=0.2,
        nps=-50.0,
        pulse=2.0,
        invoice_overdue_days=50.0,
    )

    assert ("thriving", "critical") == (well.band, ill.band)


def test_no_news_is_no_good_news() -> None:
    """Of an account of which only invoices are known there is no score; without seats, seats do not count."""
    silent = account()
    seatless = account(
        seat_utilisation=NotApplicable("no seats are sold"), median_l28=16.0, drop_z=-0.5, breadth_core=0.9
    )

    assert ("unknown", None) == (silent.band, silent.score)
    assert seatless.score is not None
    assert seatless.drivers[0].weight == 0


def test_a_lost_champion_caps_the_band() -> None:
    """However well the rest is, an account whose champion is gone is at risk, and says why."""
    lost = account(seat_utilisation=0.95, median_l28=16.0, drop_z=-0.5, breadth_core=0.9, champion_lost=1.0)

    assert ("at_risk", 49) == (lost.band, lost.score)
    assert lost.adjustment is not None
    assert lost.adjustment.reason == "a champion is lost"
