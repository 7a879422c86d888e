"""Priors of peers: the median of those whom a card scores, frozen for a month, and told as the baseline when it moves."""

from datetime import date
from math import fsum
from statistics import median
from typing import Any, Final

import pytest

from health.change import HealthChangeCause, change_between
from health.score import Health
from health.scorecards import Subject
from metering.health.band_migration import band_migration
from metering.health.cards import ScorecardDraft, publish_scorecard, read_cards
from metering.health.disclosure import disclosed
from metering.health.reading import Asked, read_scores
from metering.limits import LIMITS
from metering.store.pool import Database
from metering.store.snapshot import Snapshot
from metering.subjects import SubjectRef
from tests.metering.catalog import KEY, play, rows
from tests.metering.scored import CARD, publish_card, say, score_day
from tests.metering.test_scoring import forget_marks, put_accounts

PEERS: Final[dict[str, Any]] = {**CARD, "tree": [{**each, "prior": "peers"} for each in CARD["tree"]]}
MARCH: Final = [date(2026, 3, day) for day in (29, 30, 31)]
APRIL: Final = [date(2026, 4, day) for day in (1, 2)]
ACCOUNTS: Final = [f"a{number:02}" for number in range(12)]
EXACT: Final = pytest.approx(0.0, abs=1e-9)


async def scores(database: Database, day: date) -> dict[str, Health]:
    """The scores of all accounts as of a day."""
    asked = [Asked(SubjectRef(Subject.ACCOUNT, key, key), "health", day) for key in ACCOUNTS]
    async with Snapshot(database) as snapshot:
        found = await read_scores(snapshot, asked)
    return {key: health for key, health in zip(ACCOUNTS, found, strict=True) if health is not None}


def adds_up(health: Health) -> float:
    """How far a score is from its parts."""
    adjustment = 0.0 if health.adjustment is None else health.adjustment.contribution
    return health.bounded - fsum([health.baseline, adjustment, *(driver.contribution for driver in health.drivers)])


def test_priors_are_medians_that_are_frozen_for_a_month(database_url: str) -> None:
    """From the day after the first scores on, an unknown measure counts the median of the others; in the middle of a month it
    stays whatever they become, and with the next month it moves, told as the baseline; of fewer than ten there is none.
    """

    async def scenario(database: Database) -> None:
        await publish_card(database, PEERS)
        await put_accounts(database, *ACCOUNTS)
        # Of the last one only a survey is known; nine have answered one.
        pulses = {key: 1 + number % 4 for number, key in enumerate(ACCOUNTS[:-1])}
        for key, pulse in pulses.items():
            await say(database, date(2026, 3, 20), key, pulse=pulse, **({"nps": 10} if key < "a08" else {}))
        await say(database, date(2026, 3, 20), "a11", nps=10)
        await forget_marks(database)
        assert len(ACCOUNTS) == await score_day(database, MARCH[0])
        first = await scores(database, MARCH[0])
        assert {50.0} == {health.baseline for health in first.values()}
        await score_day(database, MARCH[1])
        usual = median((pulse - 1) * 25.0 for pulse in pulses.values())
        second = await scores(database, MARCH[1])
        assert {(usual, 50.0)} == {tuple(driver.prior for driver in each.drivers) for each in second.values()}
        for key in ACCOUNTS[:6]:
            await say(database, MARCH[1], key, pulse=5)
        await forget_marks(database)
        await score_day(database, MARCH[2])
        third = await scores(database, MARCH[2])
        assert {usual} == {each.drivers[0].prior for each in third.values()}

        for day in APRIL:
            await score_day(database, day)
        last = await scores(database, APRIL[1])
        later = median([100.0] * 6 + [(pulses[key] - 1) * 25.0 for key in ACCOUNTS[6:-1]])
        assert {later} == {each.drivers[0].prior for each in last.values()}
        kept = await rows(database, "SELECT since, path, peers FROM scorecard_prior ORDER BY since")
        assert [(MARCH[1], '["pulse"]', 11), (APRIL[0], '["pulse"]', 11)] == kept
        for key in ACCOUNTS:
            for before, after in ((first[key], second[key]), (second[key], third[key]), (third[key], last[key])):
                change = change_between(before, after)
                assert (change.difference or 0) - fsum(part.contribution for part in change.parts) == EXACT
                assert adds_up(after) == EXACT
        # Where a value is known, what is usual moves nothing; where it is not, it is what moved.
        assert () == change_between(third["a10"], last["a10"]).parts
        (part,) = change_between(third["a11"], last["a11"]).parts
        assert ("pulse", HealthChangeCause.BASELINE, (later - usual) / 2) == (
            part.metric,
            part.cause,
            part.contribution,
        )

    play(database_url, scenario)


def test_who_is_bound_is_not_told_what_is_usual(database_url: str) -> None:
    """For a caller that is bound to accounts the baseline is the card's own, whatever is usual, and the parts still add up; a
    dry run of such a card takes the medians that publishing it will.
    """

    async def scenario(database: Database) -> None:
        await publish_card(database, CARD)
        await put_accounts(database, *ACCOUNTS)
        for number, key in enumerate(ACCOUNTS):
            await say(database, MARCH[0], key, nps=0, **({"pulse": 1 + number % 3} if number else {}))
        await forget_marks(database)
        await score_day(database, MARCH[0])
        draft = ScorecardDraft(key="account", subject=Subject.ACCOUNT, purpose="health", definition=PEERS)
        async with Snapshot(database) as snapshot:
            cards = await read_cards(snapshot)
            migrated = await band_migration(snapshot, cards, cards.checked(draft, LIMITS), MARCH[1], LIMITS)
        await publish_scorecard(database, draft, KEY, LIMITS)
        await score_day(database, MARCH[1])
        found = await scores(database, MARCH[1])
        unknown = found["a00"]
        assert [25.0, 50.0] == [driver.prior for driver in unknown.drivers]
        assert [("a00", 50.0, 37.5, 37.5)] == [
            (each.ref.key, each.before.score, each.after.score, unknown.score) for each in migrated.worst
        ]
        async with Snapshot(database) as snapshot:
            card = (await read_cards(snapshot)).of(("account", 3))
        shown = disclosed(unknown, card)
        assert (37.5, 50.0) == (unknown.baseline, shown.baseline)
        assert unknown.score == shown.score
        assert adds_up(shown) == EXACT
        assert ["undisclosed"] == [driver.metric for driver in shown.drivers]

    play(database_url, scenario)
