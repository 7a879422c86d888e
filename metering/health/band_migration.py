"""Who would move from band to band if a scorecard were in force: everybody is scored by it as of today, and nothing is kept."""

import asyncio
from collections import Counter
from collections.abc import Mapping
from datetime import date

import msgspec

from health.scorecards import Scorecard
from health.stages import stage_of
from metering.health.cards import Cards
from metering.health.choosing import Profile, score_profile, stage_of_account
from metering.health.known import Known, list_customers, read_known, read_previous
from metering.health.reading import read_measured
from metering.limits import Limits
from metering.store.snapshot import Snapshot


class BandMigration(msgspec.Struct, frozen=True):
    """How many subjects move from one band to another."""

    start: str
    end: str
    subjects: int


async def band_migration(
    snapshot: Snapshot, cards: Cards, card: Scorecard, day: date, limits: Limits
) -> list[BandMigration]:
    """Who moves if this card is added to those in force; nobody is told who stays. Four statements a page of accounts."""
    in_force = [each.card for each in cards.with_draft(card).newest if each.card.purpose == card.purpose]
    moved: Counter[tuple[str, str]] = Counter()
    after: str | None = None
    while accounts := await list_customers(snapshot, after, limits.health_page_accounts, day):
        after = accounts[-1]
        known = await read_known(snapshot, accounts, day)
        profiles = await _profiles(snapshot, known, card, day)
        moved += await asyncio.to_thread(_moved, in_force, profiles, card.purpose)
    return [BandMigration(start, end, moved[start, end]) for start, end in sorted(moved)]


async def _profiles(snapshot: Snapshot, known: Known, card: Scorecard, day: date) -> list[tuple[Profile, date]]:
    """Those who have a score for the purpose, as they were measured for it, and on which day that was."""
    refs = [ref for ref in known.refs if ref.subject is card.subject]
    scores = await read_previous(snapshot, refs, {card.subject: [card.purpose]}, day)
    scored = [(ref, scores[ref][card.purpose]) for ref in refs if ref in scores]
    measured = await read_measured(snapshot, [(ref, health.as_of) for ref, health in scored])
    contracts = {each.ref: each for of_account in known.contracts.values() for each in of_account}
    profiles = []
    for (ref, health), measurements in zip(scored, measured, strict=True):
        contract = contracts.get(ref)
        lives = [each.life for each in known.contracts.get(ref.account, ())]
        facts: Mapping[str, str] = {} if contract is None else {"plan": contract.plan}
        profile = Profile(
            ref=ref,
            attributes={**facts, **known.attributes.get(ref, {})},
            stage=stage_of_account(lives, health.as_of) if contract is None else stage_of(contract.life, health.as_of),
            measurements=measurements or {},
            overrides=known.overrides.get(ref, {}),
            previous={card.purpose: health},
        )
        profiles.append((profile, health.as_of))
    return profiles


def _moved(cards: list[Scorecard], profiles: list[tuple[Profile, date]], purpose: str) -> Counter[tuple[str, str]]:
    moved: Counter[tuple[str, str]] = Counter()
    for profile, day in profiles:
        before = profile.previous[purpose].band
        for scored in score_profile(cards, profile, day):
            if scored.health.band != before:
                moved[before, scored.health.band] += 1
    return moved
