"""Which card scores whom; what is usual among peers."""

import random
from typing import Any

import pytest

from health.definitions import Unreadable, definition_of, scorecard_of
from health.measurements import Observed
from health.peers import PEERS_MIN, PRIOR_PEERS_MIN, percentile, prior_of
from health.score import DriverState, evaluate
from health.scorecards import Condition, Scalar, Scorecard, Subject, card_for, leaves_of
from tests.health.cards import AS_OF, card, measure


def one(key: str, **fields: Any) -> Scorecard:
    """A card by its key."""
    return card(measure("a"), key=key, **fields)


def test_the_first_card_by_priority_that_applies_is_taken() -> None:
    """By priority, then by key; only the newest version of a card counts; other subjects and purposes are others'."""
    trial = Condition(one_of=("trial",))
    cards = (
        one("rest"),
        one("also the rest"),
        one("trial", priority=5, when={"stage": trial}),
        one("large", priority=9, when={"amount": Condition(at_least=1000)}),
        one("old", priority=99),
        one("old", version=2, priority=-1),
        one("growth", priority=100, purpose="growth"),
        one("of users", priority=100, subject=Subject.USER),
    )

    def chosen(**attributes: Scalar) -> str:
        found = card_for(cards, Subject.ACCOUNT, "health", attributes)
        assert found is not None
        return found.key

    assert chosen() == "also the rest"
    assert chosen(stage="trial") == "trial"
    assert chosen(stage="trial", amount=5000) == "large"
    assert card_for(cards[2:4], Subject.ACCOUNT, "health", {}) is None
    assert card_for((), Subject.ACCOUNT, "health", {}) is None


@pytest.mark.parametrize(
    ("condition", "holds", "fails"),
    [
        (Condition(one_of=("trial", 3)), ["trial", 3, 3.0], ["Trial", "3", True, None]),
        (Condition(one_of=(True,)), [True], [1, "true", False, None]),
        (Condition(one_of=(0,)), [0, 0.0], [False, "", None]),
        (Condition(at_least=2, below=5), [2, 4.99], [1.99, 5, "3", True, None]),
        (Condition(below=5), [-1e9], [5, None]),
        (Condition(one_of=(1, 2), below=2), [1], [2]),
    ],
)
def test_conditions_compare_like_with_like(
    condition: Condition, holds: list[Scalar], fails: list[Scalar | None]
) -> None:
    """A number is no text and true is no number; what is not there meets no condition; ranges are half-open."""
    assert [True] * len(holds) == [condition.holds(value) for value in holds]
    assert [False] * len(fails) == [condition.holds(value) for value in fails]


def test_a_percentile_is_a_place_among_peers() -> None:
    """Against counting one by one: those below, and half of those alike; with fewer than 30 peers there is none, and
    with fewer than 10 no median either.
    """
    rng = random.Random(1)
    for _ in range(200):
        peers = [float(rng.randint(0, 20)) for _ in range(rng.randint(1, 60))]
        value = rng.choice([rng.uniform(-1, 21), float(rng.randint(0, 20))])
        place = percentile(value, peers)
        assert (prior_of(peers) is None) == (len(peers) < PRIOR_PEERS_MIN)
        if len(peers) < PEERS_MIN:
            assert place is None
            continue
        below = sum(peer < value for peer in peers)
        alike = sum(peer == value for peer in peers)
        assert place == pytest.approx(100 * (below + alike / 2) / len(peers))
        usual = prior_of(peers)
        assert usual is not None
        assert sum(peer < usual for peer in peers) <= len(peers) / 2 >= sum(peer > usual for peer in peers)


def test_a_measure_may_compare_with_peers() -> None:
    """Such a measure scores the place among peers and shows the value; with too few peers it is unknown."""
    scorecard = card(measure("a", peers=True), measure("b"))
    found = {"b": Observed(50.0)}

    placed = evaluate(scorecard, {**found, "a": Observed(7.0, percentile=80.0)}, as_of=AS_OF).drivers[0]
    alone = evaluate(scorecard, {**found, "a": Observed(7.0)}, as_of=AS_OF).drivers[0]
    assert (7.0, 80.0, DriverState.OBSERVED) == (placed.value, placed.score, placed.state)
    assert (None, DriverState.UNKNOWN) == (alone.score, alone.state)


def test_priors_are_by_path_and_belong_to_their_version() -> None:
    """A median of peers takes the place of the card's own prior, for the measure that it was taken of."""
    scorecard = card(measure("a"), measure("b", prior=20))
    paths = [leaf.path for leaf in leaves_of(scorecard)]
    health = evaluate(scorecard, {"a": Observed(90.0)}, as_of=AS_OF, priors={paths[0]: 70.0})

    assert [70.0, 20.0] == [driver.prior for driver in health.drivers]
    assert (45.0, 55.0) == (health.baseline, health.score)


def test_a_prior_of_peers_is_the_middle_until_there_are_some() -> None:
    """A card may ask for the median of peers in words; where none is known it is 50, and with another word it is no card."""
    definition = {
        **definition_of(card(measure("a"))),
        "tree": [{"metric": "a", "weight": 1, "curve": [[0, 0]], "prior": "peers"}],
    }
    named = {"key": "k", "version": 1, "subject": Subject.ACCOUNT, "purpose": "health"}
    read = scorecard_of(definition, **named)
    assert isinstance(read, Scorecard)
    (leaf,) = leaves_of(read)
    assert "peers" == leaf.measure.prior == definition_of(read)["tree"][0]["prior"]
    health = [evaluate(read, {}, as_of=AS_OF, priors=priors) for priors in ({}, {leaf.path: 80.0})]
    assert [50.0, 80.0] == [each.baseline for each in health]
    other = {**definition, "tree": [{**definition["tree"][0], "prior": "others"}]}
    refused = scorecard_of(other, **named)
    assert isinstance(refused, Unreadable)
    assert [("tree", "0", "prior")] == [fault.path for fault in refused.faults]
