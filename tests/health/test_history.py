"""As of a day, and known at an instant: what comes late changes what is known, and never what was."""

import random
from datetime import timedelta

from health.history import AttributeFact, HealthFact, Signal, attributes_as_of, health_as_of, history, signals_as_of
from health.measurements import Observed
from health.score import evaluate
from tests.health.cards import AS_OF, card, measure, utc

CARD = card(measure("nps", fresh_days=90, expires_days=180), measure("other"))


def day(number: int) -> timedelta:
    """So many days."""
    return timedelta(days=number)


def signal(at: int, value: float, *, recorded: int | None = None, sequence: int = 0, name: str = "nps") -> Signal:
    """A signal of a day, recorded on that day or on another one; days count from the day that is asked about."""
    known = at if recorded is None else recorded
    return Signal(
        name=name, value=value, at=utc(AS_OF + day(at)), recorded_at=utc(AS_OF + day(known)), sequence=sequence
    )


def test_the_latest_value_holds_and_ties_go_to_what_was_learned_last() -> None:
    """Of several values the latest of its own time counts; of one time, what was recorded last, then the sequence."""
    signals = [signal(-9, 1), signal(-5, 2), signal(-5, 3, sequence=1), signal(1, 9), signal(-7, 8, recorded=0)]

    assert signals_as_of(signals, AS_OF) == {"nps": Observed(3, utc(AS_OF + day(-5)))}
    assert signals_as_of(signals, AS_OF + day(-6))["nps"].value == 8
    assert signals_as_of(signals, AS_OF + day(-6), known_at=utc(AS_OF + day(-6)))["nps"].value == 1
    assert signals_as_of(signals, AS_OF + day(-20)) == {}


def test_what_comes_late_never_changes_what_was_known() -> None:
    """Facts that are recorded after an instant change no answer as known then, and their order in a list none at all."""
    rng = random.Random(2)
    for _ in range(300):
        facts = [
            signal(
                at := rng.randint(-30, 5),
                rng.random(),
                recorded=at + rng.choice([0, 0, 3, 40]),
                sequence=number,
                name=rng.choice("ab"),
            )
            for number in range(rng.randint(0, 15))
        ]
        known_at = utc(AS_OF + day(rng.randint(-20, 20)))
        answer = signals_as_of(facts, AS_OF, known_at=known_at)
        early = [fact for fact in facts if fact.recorded_at <= known_at]
        shuffled = rng.sample(facts, len(facts))

        assert answer == signals_as_of(early, AS_OF, known_at=known_at) == signals_as_of(early, AS_OF)
        assert answer == signals_as_of(shuffled, AS_OF, known_at=known_at)
        # The same by looking at each name alone, from the last fact backwards.
        for name in "ab":
            mine = [fact for fact in early if fact.name == name and fact.at.date() <= AS_OF]
            last = max(mine, key=lambda fact: (fact.at, fact.recorded_at, fact.sequence), default=None)
            assert (None if last is None else last.value) == (answer[name].value if name in answer else None)


def test_attributes_hold_until_they_are_taken_away() -> None:
    """An attribute holds from its instant on; None takes it away."""
    facts = [
        AttributeFact(name="stage", value=value, at=utc(AS_OF + day(at)), recorded_at=utc(AS_OF), sequence=at)
        for at, value in ((-20, "trial"), (-10, "adoption"), (0, None))
    ]

    assert [{}, {"stage": "trial"}, {"stage": "adoption"}, {}] == [
        attributes_as_of(facts, AS_OF + day(number)) for number in (-21, -15, -1, 0)
    ]


def scored(as_of: int, value: float, *, computed: int, sequence: int = 0, version: int = 1) -> HealthFact:
    """A score of a day, as it was computed on another one."""
    scorecard = card(measure("a"), version=version)
    health = evaluate(scorecard, {"a": Observed(value)}, as_of=AS_OF + day(as_of))
    return HealthFact(computed_at=utc(AS_OF + day(computed)), sequence=sequence, health=health)


def test_history_is_restated_and_the_older_state_can_be_asked_for() -> None:
    """A day that is computed again shows its last score, and its first to whoever asks what was known before."""
    facts = [
        scored(-2, 50, computed=-1),
        scored(-1, 60, computed=0),
        scored(-2, 40, computed=3),
        scored(-1, 61, computed=0, sequence=1),
    ]

    def scores(**known: object) -> list[float | None]:
        return [health.score for health in history(facts, AS_OF + day(-9), AS_OF, **known)]  # type: ignore[arg-type]

    assert scores() == [40, 61]
    assert scores(known_at=utc(AS_OF + day(0))) == [50, 61]
    assert scores(known_at=utc(AS_OF + day(-1))) == [50]
    assert history(facts, AS_OF + day(-1), AS_OF + day(-1)) == ()


def test_a_trend_can_be_of_one_version() -> None:
    """With a version, days that another version scored are left out."""
    facts = [
        scored(-3, 50, computed=-3),
        scored(-2, 70, computed=-2, version=2),
        scored(-2, 51, computed=-1, sequence=1),
    ]

    assert [50, 51] == [one.score for one in history(facts, AS_OF + day(-9), AS_OF, version=1)]
    assert [70] == [one.score for one in history(facts, AS_OF + day(-9), AS_OF, version=2)]


def test_the_score_of_a_day_is_the_last_one_up_to_it() -> None:
    """A day without a score has that of the last day before it; before the first there is none."""
    facts = [scored(-5, 50, computed=-5), scored(-3, 60, computed=-3), scored(-5, 25, computed=-1)]

    assert [None, 25, 60] == [
        health.score if (health := health_as_of(facts, AS_OF + day(number))) else None for number in (-6, -4, 0)
    ]
    then = health_as_of(facts, AS_OF + day(-4), known_at=utc(AS_OF + day(-4)))
    assert then is not None
    assert then.score == 50
