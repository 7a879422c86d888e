"""Who would move from band to band if a scorecard were in force: everybody is scored by it as of today, and nothing is kept.

Those who would fall furthest are told by name, so that somebody who knows them says whether that is right.
"""

import asyncio
from collections import Counter
from collections.abc import Mapping
from datetime import date
from heapq import nsmallest

import msgspec

from health.score import Health
from health.scorecards import Scorecard
from health.stages import stage_of
from metering.health.cards import Cards, Version
from metering.health.choosing import Priors, Profile, score_profile, stage_of_account
from metering.health.known import Known, list_customers, read_known, read_previous
from metering.health.priors import medians, peer_paths, priors_of
from metering.health.reading import read_measured
from metering.limits import Limits
from metering.store.snapshot import Snapshot
from metering.subjects import SubjectRef


class BandMigration(msgspec.Struct, frozen=True):
    """How many subjects move from one band to another."""

    start: str
    end: str
    subjects: int


class Mover(msgspec.Struct, frozen=True):
    """A subject whose score would be lower, with the score that it has and the one that it would have."""

    ref: SubjectRef
    before: Health
    after: Health

    @property
    def moved(self) -> float:
        """By how many points; both have a score."""
        return (self.after.score or 0.0) - (self.before.score or 0.0)


class Migrated(msgspec.Struct, frozen=True):
    """How many move between which bands, and those who would fall furthest, the furthest first."""

    bands: tuple[BandMigration, ...]
    worst: tuple[Mover, ...]


async def band_migration(snapshot: Snapshot, cards: Cards, card: Scorecard, day: date, limits: Limits) -> Migrated:
    """Who moves if this card is added to those in force; nobody is told who stays. Four statements a page of accounts."""
    in_force = [each.card for each in cards.with_draft(card).newest if each.card.purpose == card.purpose]
    priors = await priors_of(snapshot, in_force, day)
    version = card.key, card.version
    if peer_paths(card) and version not in priors:
        usual = await medians(snapshot, card, day, limits)
        priors[version] = {path: prior for path, (prior, _) in usual.items()}
    moved: Counter[tuple[str, str]] = Counter()
    worst: list[Mover] = []
    after: str | None = None
    while accounts := await list_customers(snapshot, after, limits.health_page_accounts, day):
        after = accounts[-1]
        known = await read_known(snapshot, accounts, day)
        profiles = await _profiles(snapshot, known, card, day)
        of_page, fallen = await asyncio.to_thread(_moved, in_force, profiles, priors, card.purpose)
        moved += of_page
        worst = nsmallest(limits.scorecard_movers_max, [*worst, *fallen], key=_furthest)
    return Migrated(tuple(BandMigration(start, end, moved[start, end]) for start, end in sorted(moved)), tuple(worst))


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


def _moved(
    cards: list[Scorecard],
    profiles: list[tuple[Profile, date]],
    priors: Mapping[Version, Priors],
    purpose: str,
) -> tuple[Counter[tuple[str, str]], list[Mover]]:
    moved: Counter[tuple[str, str]] = Counter()
    fallen = []
    for profile, day in profiles:
        before = profile.previous[purpose]
        for scored in score_profile(cards, profile, day, priors):
            after = scored.health
            if after.band != before.band:
                moved[before.band, after.band] += 1
            if before.score is not None and after.score is not None and after.score < before.score:
                fallen.append(Mover(profile.ref, before, after))
    return moved, fallen


def _furthest(mover: Mover) -> tuple[float, str, str]:
    return mover.moved, mover.ref.account, mover.ref.key
