"""Rules of lists: they read what there is of their subjects, and say why somebody is on a list; odds and offers by hand."""

from math import sqrt
from pathlib import Path
from typing import Final

import pytest

from health.alarms import DEFAULTS, Thresholds
from health.catalogue import CATALOGUE
from health.lists.conditions import at_most, below
from health.lists.cross_selling import Offer, offers
from health.lists.customer_success import UNUSED_SEATS
from health.lists.known import RULES
from health.lists.rules import FACTS, Rank, Rule, reasons_of, with_thresholds, with_warning_thresholds
from health.lists.trials import closing_probability
from health.scorecards import Subject

DOCUMENT: Final = Path(__file__).parents[2] / "docs" / "lists.md"


def row_of(rule: Rule) -> str:
    """What docs/lists.md says of a rule: the field, whose, and each condition with its threshold."""

    def text(conditions: object) -> str:
        return ", ".join(
            f"`{each.metric}` {each.comparison.value} {each.threshold:g}"
            f"{'' if each.warning is None else f' (`{each.warning}`)'}{'' if each.unknown is None else ' or unknown'}"
            for each in conditions  # type: ignore[attr-defined]
        )

    signs = "; ".join(text(sign) for sign in rule.signs)
    required = text(rule.required)
    at_least = f"{rule.signs_min} or more of: {signs}" if signs else ""
    return f"| `{rule.name}` | {rule.subject.value} | {required} | {at_least} | `{rule.rank.metric}` |"


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: f"{rule.name} {rule.subject.value}")
def test_a_rule_reads_what_there_is_and_is_documented(rule: Rule) -> None:
    """Each metric is one of the subject's or a fact, each reason can be told, and docs/lists.md has the rule as it is."""
    for condition in rule.conditions:
        assert condition.metric in FACTS or rule.subject in CATALOGUE[condition.metric].subjects, condition
        assert "{" not in condition.told({condition.metric: condition.threshold})
    assert rule.rank.metric in FACTS or rule.subject in CATALOGUE[rule.rank.metric].subjects
    assert rule.required or rule.signs_min
    assert row_of(rule) in DOCUMENT.read_text(encoding="utf-8").splitlines()


def test_what_means_a_warning_has_its_threshold() -> None:
    """Other thresholds of warnings move the conditions that mean the same, and no other; what a question gives goes before."""
    put = Thresholds(underused_below=0.25, underused_seats_min=9, renewal_days_max=30)
    moved = with_warning_thresholds(UNUSED_SEATS, put)

    assert [1.0, 0.25, 9.0, 60.0] == [each.threshold for each in moved.required]
    assert [1.0, 0.25, 4.0, 60.0] == [each.threshold for each in with_thresholds(moved, {"seats": 4.0}).required]
    assert all(rule == with_warning_thresholds(rule, DEFAULTS) for rule in RULES)
    assert {rule.name for rule in RULES if rule.follows_warnings} == {
        *("unusedSeats", "dropOffs", "renewalsAtRisk", "champions", "adoptionGaps", "valueForRenewal"),
        "discountsToPhaseOut",
    }


def test_reasons_are_what_holds() -> None:
    """What is required, all of a sign or nothing of it, and remarks; what is unknown holds only where that is said."""
    seats = below("seat_utilisation", 0.5, "{value:.0%} of the seats, below {threshold:.0%}")
    days = at_most("active_days", 4, "{value:.0f} days")
    quiet = at_most("touch_days", 9, "{value:.0f} days ago", unknown="nobody told")
    rule = Rule(
        name="few",
        subject=Subject.ACCOUNT,
        question="?",
        required=(quiet,),
        signs=((seats, days), (days,)),
        signs_min=1,
        remarks=(seats,),
        rank=Rank("active_days"),
        blind="much",
    )

    assert reasons_of(rule, {"active_days": 4.0, "seat_utilisation": 0.5}) == (quiet, days)
    assert reasons_of(rule, {"active_days": 4.0, "seat_utilisation": 0.25}) == (quiet, seats, days)
    assert reasons_of(rule, {"active_days": 5.0, "seat_utilisation": 0.25}) is None
    assert reasons_of(rule, {"touch_days": 10.0, "active_days": 0.0}) is None
    assert reasons_of(rule, {}) is None
    assert (seats.told({"seat_utilisation": 0.25}), quiet.told({})) == ("25% of the seats, below 50%", "nobody told")


def test_odds_of_trials_are_shrunk_towards_all() -> None:
    """60 of 100 with all signs and 10 of 100 without any: (60 + 20 * 0.35) / 120; signs that none showed are as all; too few
    trials say nothing.
    """
    every, none = (True, True), (False, False)
    finished = {every: (100, 60), none: (100, 10)}

    assert closing_probability(every, finished) == pytest.approx(67 / 120)
    assert closing_probability((True, False), finished) == pytest.approx(0.35)
    assert closing_probability(every, {every: (199, 100)}) is None


def test_what_goes_with_what() -> None:
    """Of 40 who use maps 32 use mail, of 100 customers 40 do: Wilson's lower bound of 0.8 by 0.4; few users say nothing."""
    together = {("maps", "maps"): 40, ("mail", "mail"): 40, ("maps", "mail"): 32, ("mail", "maps"): 32}
    rare = {("rare", "rare"): 29, ("rare", "mail"): 29, ("mail", "rare"): 29}
    z = 1.959964
    low = (0.8 + z * z / 80 - z * sqrt(0.16 / 40 + z * z / 6400)) / (1 + z * z / 40)

    found = offers({**together, **rare}, 100)

    assert [(each.used, each.offered, each.users, each.both) for each in found] == [
        ("mail", "rare", 40, 29),
        ("mail", "maps", 40, 32),
        ("maps", "mail", 40, 32),
    ]
    assert found[2] == Offer(used="maps", offered="mail", users=40, both=32, lift=pytest.approx(low / 0.4, rel=1e-6))
    assert [] == offers({("maps", "maps"): 40, ("mail", "mail"): 50, ("maps", "mail"): 20, ("mail", "maps"): 20}, 100)
