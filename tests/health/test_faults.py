"""Everything that is wrong with a scorecard is said at once, with its path and what to do; the rest can be scored."""

import random
from dataclasses import dataclass
from datetime import date, timedelta
from typing import Any

import pytest

from health.bounds import BANDS_MAX, MEASURES_MAX, OVERRIDE_DAYS_MAX
from health.catalogue import CATALOGUE, Metric
from health.definitions import Unreadable, checked_scorecard, definition_of, scorecard_of
from health.expressions import Operation, Operator
from health.faults import measurement_faults, override_faults, selection_faults, validate
from health.measurements import Observed
from health.overrides import Override
from health.scorecards import Band, Cap, Condition, Group, Scorecard, Subject
from tests.health.cards import AS_OF, METRICS, card, measure, random_card, utc

PLAIN = {
    name: Metric(key=name, unit=name, subjects=frozenset(Subject), description="") for name in (*METRICS, "always")
}


def faults(scorecard: Scorecard) -> dict[str, str]:
    """Each fault's message by its path."""
    return {".".join(fault.path): fault.message for fault in validate(scorecard, PLAIN)}


def read(definition: Any) -> Scorecard | Unreadable:
    """A definition as a card of an account."""
    return scorecard_of(definition, key="card", version=1, subject=Subject.ACCOUNT, purpose="health")


def test_all_faults_are_told_at_once() -> None:
    """An unknown metric, a falling curve, weights of zero, bands out of order and more: each with its path, in one answer."""
    scorecard = card(
        Group(
            name="usage",
            weight=60,
            parts=(measure("nonsense", 0), measure("metric_1", 0, curve=((0, 0), (5, 50), (5, 60), (2, 101)))),
        ),
        measure("metric_2", -1, fresh_days=30),
        measure("metric_3", prior=200, fresh_days=90, expires_days=90),
        bands=(
            Band(start=10, key="a"),
            Band(start=70, key="b"),
            Band(start=30, key="a"),
            Band(start=90, key="unknown"),
        ),
        caps=(
            Cap(metric="metric_4", reason=" "),
            Cap(metric="metric_4", at_least=2, at_most=1, min=60, max=50, reason="x"),
        ),
        when={"stage": Condition(), "amount": Condition(at_least=5, below=5)},
        min_coverage=0.0,
    )

    assert list(faults(scorecard).items()) == [
        ("when.stage", "asks for nothing; give in, atLeast or below, or leave the attribute out"),
        ("when.amount.below", "5 is not above atLeast, 5: no value is both"),
        ("bands.0.from", "is 10; the lowest band begins at 0, where scores do"),
        ("bands.2.key", "'a' is band 0 too; each needs its own name"),
        ("bands.3.key", "'unknown' is said of those who have no score; take another name"),
        ("bands.2.from", "30 is not above the band before it, 70; put them in rising order"),
        ("minCoverage", "is 0: a score of which nothing is known would be a guess; give more than 0"),
        ("tree.0.parts", "has weights of zero only; give one of its parts a weight above 0"),
        ("tree.0.parts.0.metric", "there is no metric 'nonsense'; take one of the catalogue, or add it to expressions"),
        ("tree.0.parts.1.curve.3.1", "is 101; it has to be 0 to 100"),
        ("tree.0.parts.1.curve.2.0", "the value 5 falls back behind 5; put the points in rising order of values"),
        ("tree.0.parts.1.curve.3.0", "the value 2 falls back behind 5; put the points in rising order of values"),
        ("tree.1.weight", "is -1; it has to be 0 or more"),
        ("tree.1.expiresDays", "is missing: a value fades from freshDays to expiresDays; give both or neither"),
        ("tree.2.prior", "is 200; it has to be 0 to 100"),
        ("tree.2.expiresDays", "90 is not after freshDays, 90"),
        ("caps.0", "has no atLeast and no atMost: say which values it is for"),
        ("caps.0.reason", "is empty; who reads the score has to know why it is bounded"),
        ("caps.1.min", "60 is above max, 50; no score is both"),
        ("caps.1.atMost", "1 is below atLeast, 2: no value is both"),
    ]


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf"), 1e300])
def test_numbers_that_cannot_be_calculated_with_are_faults(value: float) -> None:
    """Weights, curves and bands that are no numbers, or beyond all measure, are told, wherever they stand."""
    scorecard = card(
        measure("metric_1", value, curve=((value, 50),)), bands=(Band(start=0, key="a"), Band(start=value, key="b"))
    )

    assert {"bands.1.from", "tree.0.weight", "tree.0.curve.0.0"} <= faults(scorecard).keys()


def test_how_much_a_card_may_hold() -> None:
    """2 to 12 bands, up to 40 measures; one more is a fault."""
    bands = tuple(Band(start=number, key=str(number)) for number in range(BANDS_MAX + 1))
    many = {f"m{number}": PLAIN["always"] for number in range(MEASURES_MAX + 1)}
    measures = tuple(measure(name) for name in many)

    assert faults(card(measure("always"), bands=bands)) == {"bands": "has 13 bands; 2 to 12"}
    assert faults(card(measure("always"), bands=bands[:1])) == {"bands": "has 1 bands; 2 to 12"}
    assert faults(card(measure("always"), bands=bands[:-1])) == {}
    assert ["has 41 measures; 40 at most"] == [fault.message for fault in validate(card(*measures), many)]
    assert () == validate(card(*measures[:-1]), many)
    assert faults(card()) == {"tree": "has no measure; one is the least"}


def test_metrics_are_of_the_subject_that_is_scored() -> None:
    """A metric that is not measured of the subject is told, with whom it is measured of."""
    scorecard = card(measure("silence"))

    assert ["'silence' is not measured of ACCOUNT, but of USER"] == [
        fault.message for fault in validate(scorecard, CATALOGUE)
    ]


def test_expressions_bring_alike_together_and_end_somewhere() -> None:
    """Sums are of one unit, operands are counted, names are not taken twice, and no expression is made of itself."""
    scorecard = card(
        measure("a"),
        expressions={
            "a": Operation(Operator.ADD, ("b", 1.0)),
            "b": Operation(Operator.RATIO, ("c", 2.0)),
            "c": Operation(Operator.MAX, ("a", "a")),
            "sum": Operation(Operator.ADD, ("metric_1", "metric_2")),
            "few": Operation(Operator.RATIO, ("metric_1",)),
            "metric_3": 1.0,
        },
    )

    assert faults(scorecard) == {
        "expressions.a": "is made of itself: a -> b -> c -> a; break the circle",
        "expressions.b": "is made of itself: b -> c -> a -> b; break the circle",
        "expressions.c": "is made of itself: c -> a -> b -> c; break the circle",
        "expressions.sum.add": "brings metric_1 and metric_2 together; take metrics of one unit",
        "expressions.few.ratio": "takes 2 operands; here are 1",
        "expressions.metric_3": "'metric_3' is a metric of the catalogue; give it another name",
    }


def test_no_score_is_made_of_itself() -> None:
    """A card that rolls up another score which rolls up this one is refused, with the way around."""
    rolled = {
        purpose: Metric(
            key=purpose, unit="points", subjects=frozenset(Subject), description="", reads=((Subject.ACCOUNT, purpose),)
        )
        for purpose in ("health", "growth")
    }
    growth = card(measure("health"), key="growth", purpose="growth")
    health = card(measure("growth"), key="health")

    assert () == validate(growth, rolled)
    assert [
        "is made of its own score: ACCOUNT health -> ACCOUNT growth -> ACCOUNT health; leave out the metric that closes it"
    ] == [fault.message for fault in validate(health, rolled, [growth])]


def test_a_person_cannot_speak_of_the_future_or_for_ever() -> None:
    """An override begins today or earlier, ends after it begins and within 90 days, bounds something, and says why."""
    word = Override(reason="", set_on=AS_OF + timedelta(days=1), expires_on=AS_OF)
    found = {".".join(fault.path): fault.message for fault in override_faults(word, today=AS_OF)}
    long = Override(reason="x", max=50, set_on=AS_OF, expires_on=AS_OF + timedelta(days=OVERRIDE_DAYS_MAX + 1))

    assert found == {
        "": "has no max and no min, so that it bounds nothing; give one",
        "reason": "is empty; who reads the score has to know why it is bounded",
        "setOn": "2026-03-02 is in the future; a word on a score counts from the day it is said",
        "expiresOn": "2026-03-01 is not after setOn, 2026-03-02",
    }
    assert ["2026-05-31 is more than 90 days on; say it again then"] == [
        fault.message for fault in override_faults(long, today=AS_OF)
    ]
    assert () == override_faults(
        Override(reason="x", max=50, set_on=AS_OF, expires_on=AS_OF + timedelta(days=90)), today=AS_OF
    )


def test_what_was_measured_is_a_number_of_the_past() -> None:
    """A measured value that is no number, or was observed after the day, is told with its metric."""
    tomorrow = utc(AS_OF + timedelta(days=1))
    found = measurement_faults(
        {"a": Observed(float("nan")), "b": Observed(1.0, tomorrow), "c": Observed(1.0, utc(AS_OF))}, as_of=AS_OF
    )

    assert [(".".join(fault.path), fault.message) for fault in found] == [
        ("a.value", "nan is no number to calculate with; 1e+12 at most"),
        ("b.observedAt", f"{tomorrow} is after {AS_OF}; it is not known yet then"),
    ]


def test_a_purpose_has_a_card_for_everybody_else() -> None:
    """Cards with conditions only leave somebody without a score, which is told by subject and purpose."""
    trial = card(measure("always"), when={"stage": Condition(one_of=("trial",))})

    assert [("ACCOUNT", "health")] == [fault.path for fault in selection_faults([trial])]
    assert () == selection_faults([trial, card(measure("always"), key="rest")])


def test_what_cannot_be_read_is_told_at_once() -> None:
    """Wrong types, missing and unknown fields, and what is no expression: all of them, each with its path."""
    unreadable = read(
        {
            "key": "x",
            "colour": "red",
            "priority": "high",
            "bands": [{"from": "low"}, 7],
            "tree": [
                {"metric": 3, "weight": "x", "curve": [[0, 0], [1]], "extra": 1},
                {"name": "g", "parts": [{"metric": "a", "weight": 1, "curve": [[0, "y"]]}]},
            ],
            "caps": {},
            "when": {"stage": {"in": "trial"}},
            "expressions": {"a": {"ratio": ["x", {"power": []}]}, "b": None},
        }
    )

    assert isinstance(unreadable, Unreadable)
    assert [".".join(fault.path) for fault in unreadable.faults] == [
        "key",
        "colour",
        "priority",
        "when.stage.in",
        "bands.0.from",
        "bands.0.key",
        "bands.1",
        "tree.0.extra",
        "tree.0.metric",
        "tree.0.weight",
        "tree.0.curve.1",
        "tree.1.parts.0.curve.0.1",
        "tree.1.weight",
        "caps",
        "expressions.a.ratio.1",
        "expressions.b",
    ]
    for nonsense in (None, [], "x", 3):
        assert isinstance(read(nonsense), Unreadable)


def test_what_cannot_be_read_hides_nothing_else() -> None:
    """What can be read is validated beside what cannot, at its own place; of what cannot, nothing else is said."""
    found = checked_scorecard(
        {
            "priority": "high",
            "bands": [{"from": 0, "key": "a"}, {"from": "x", "key": "b"}],
            "tree": [
                {"metric": 3, "weight": 1, "curve": []},
                {"weight": 1, "parts": [{"metric": "nonsense", "weight": 0, "curve": [[0, 0], [0, 1]]}]},
            ],
            "minCoverage": 2,
            "caps": [{"metric": "nps", "reason": "x"}],
        },
        CATALOGUE,
        key="card",
        version=1,
        subject=Subject.ACCOUNT,
        purpose="health",
    )

    assert isinstance(found, Unreadable)
    assert [".".join(fault.path) for fault in found.faults] == [
        "priority",
        "bands.1.from",
        "tree.0.metric",
        "tree.1.name",
        "minCoverage",
        "tree.1.parts",
        "tree.1.parts.0.metric",
        "tree.1.parts.0.curve.1.0",
        "caps.0",
        "caps.0",
    ]


def test_a_card_without_faults_is_the_card() -> None:
    """What can be read and has no faults is the card itself, and nothing else is."""
    rng = random.Random(11)
    for _ in range(50):
        scorecard = random_card(rng)
        given: dict[str, Any] = {"key": "card", "version": 1, "subject": Subject.ACCOUNT, "purpose": "health"}
        assert scorecard == checked_scorecard(definition_of(scorecard), PLAIN, **given)
        assert isinstance(checked_scorecard(definition_of(scorecard), {}, **given), Unreadable)
        assert isinstance(checked_scorecard([], PLAIN, **given), Unreadable)


def test_a_card_is_read_as_it_was_written() -> None:
    """definition_of() and scorecard_of() are each other's inverse, for any card; no value is changed on the way."""
    rng = random.Random(1)
    for _ in range(200):
        scorecard = random_card(rng)
        again = read(definition_of(scorecard))
        assert scorecard == again
        assert () == validate(scorecard, PLAIN)


def test_what_is_read_is_never_changed_silently() -> None:
    """Weights stay as they were given, whatever they add up to."""
    scorecard = read(
        {
            "bands": [{"from": 0, "key": "a"}, {"from": 50, "key": "b"}],
            "tree": [{"metric": "nps", "weight": weight, "curve": [[0, 0]]} for weight in (30, 30)],
        }
    )

    assert isinstance(scorecard, Scorecard)
    assert [30, 30] == [part.weight for part in scorecard.tree]


@dataclass
class _Foreign:
    """Something that is no part of JSON."""

    day: date = AS_OF


def test_hostile_definitions_are_refused_and_nothing_breaks() -> None:
    """Whatever JSON is put in the place of any part of a card is told as a fault or read; nothing is raised."""
    rng = random.Random(7)
    awkward: list[Any] = [
        None,
        True,
        -1,
        1e400,
        "",
        "x" * 300,
        [],
        {},
        [[]],
        {"parts": []},
        {"in": []},
        [[1, 2, 3]],
        _Foreign(),
    ]
    deep: Any = {"parts": []}
    for _ in range(2000):
        deep = {"name": "g", "weight": 1, "parts": [deep]}
    for _ in range(300):
        definition = definition_of(random_card(rng))
        spot: Any = definition
        while isinstance(spot, dict | list) and spot:
            key = rng.choice(list(spot)) if isinstance(spot, dict) else rng.randrange(len(spot))
            if rng.random() < 0.3 or not isinstance(spot[key], dict | list):
                spot[key] = rng.choice([*awkward, deep])
                break
            spot = spot[key]
        found = read(definition)
        given: dict[str, Any] = {"key": "card", "version": 1, "subject": Subject.ACCOUNT, "purpose": "health"}
        checked = checked_scorecard(definition, PLAIN, **given)
        if isinstance(found, Unreadable):
            assert isinstance(checked, Unreadable)
            assert set(found.faults) <= set(checked.faults)
        else:
            assert isinstance(checked, Unreadable) is bool(validate(found, PLAIN))
