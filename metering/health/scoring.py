"""Scoring: measure subjects, choose each one's card, evaluate, and keep what came of it.

A score of a day says how things are when the day is over. What is kept is only added to: a day that is scored again has
another row, unless nothing is different.
"""

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from datetime import date, datetime, timedelta
from typing import TypeAlias

import msgspec

from health.measurements import Measurement
from health.score import Health
from health.scorecards import Scorecard, Subject
from health.stages import Stage, stage_of
from metering.health.cards import read_cards
from metering.health.choosing import Contract, Profile, of_subscriptions, score_profile, stage_of_account
from metering.health.known import Known, read_known, read_previous
from metering.health.records import Scored, adjustment_json, drivers_json, metrics_json
from metering.store.pool import Connection
from metering.store.queries import sql
from metering.store.snapshot import Snapshot
from metering.subjects import SubjectRef, names_of

Measured: TypeAlias = Mapping[SubjectRef, Mapping[str, Measurement]]
# What is known of each metric of subjects as a day begins: see metering/health/measuring.py.
Measure: TypeAlias = Callable[[Snapshot, Sequence[SubjectRef], date], Awaitable[Measured]]


class DayScores(msgspec.Struct, frozen=True):
    """What was measured of subjects on a day, and their scores."""

    as_of: date
    measured: Measured
    scored: Sequence[Scored]
    # The scores of the day before, by purpose; and how many contracts of each account run.
    previous: Mapping[SubjectRef, Mapping[str, Health]] = {}
    running: Mapping[str, int] = {}


async def score_accounts(snapshot: Snapshot, measure: Measure, accounts: Sequence[str], day: date) -> DayScores:
    """The scores of accounts and of all in them, at the end of a UTC day."""
    cards = [each.card for each in (await read_cards(snapshot)).newest]
    known = await read_known(snapshot, accounts, day)
    # Metrics are of the beginning of a day, and a score is of its end.
    measured = await measure(snapshot, known.refs, day + timedelta(days=1))
    purposes = {subject: sorted({card.purpose for card in cards if card.subject is subject}) for subject in Subject}
    previous = await read_previous(snapshot, known.refs, purposes, day - timedelta(days=1))
    # A moment of calculation for each subject: others are served meanwhile.
    return await asyncio.to_thread(_evaluated, cards, known, measured, previous, day)


def _evaluated(
    cards: Sequence[Scorecard],
    known: Known,
    measured: Measured,
    previous: Mapping[SubjectRef, Mapping[str, Health]],
    day: date,
) -> DayScores:
    stages = {
        account: stage_of_account((each.life for each in known.contracts.get(account, ())), day)
        for account in {ref.account for ref in known.refs}
    }
    contracts = {each.ref: each for of_account in known.contracts.values() for each in of_account}
    facts: dict[SubjectRef, Mapping[str, Measurement]] = {}
    scores: dict[SubjectRef, Health] = {}
    scored: list[Scored] = []
    # An account's score may be made of its subscriptions' ones.
    for ref in sorted(known.refs, key=lambda each: each.subject is not Subject.SUBSCRIPTION):
        contract = contracts.get(ref)
        facts[ref] = measured.get(ref, {})
        if ref.subject is Subject.ACCOUNT:
            facts[ref] = {**facts[ref], **of_subscriptions(scores, known.contracts.get(ref.account, ()))}
        profile = Profile(
            ref=ref,
            attributes={**_facts(contract), **known.attributes.get(ref, {})},
            stage=stages[ref.account] if contract is None else stage_of(contract.life, day),
            measurements=facts[ref],
            overrides=known.overrides.get(ref, {}),
            previous=previous.get(ref, {}),
        )
        for each in score_profile(cards, profile, day):
            scored.append(each)
            if ref.subject is Subject.SUBSCRIPTION and each.purpose == "health":
                scores[ref] = each.health
    running = {
        account: sum(stage_of(each.life, day) is not Stage.CHURNED for each in found)
        for account, found in known.contracts.items()
    }
    return DayScores(day, facts, scored, previous, running)


def _facts(contract: Contract | None) -> dict[str, str]:
    return {} if contract is None else {"plan": contract.plan}


async def keep(connection: Connection, scores: DayScores) -> int:
    """Keep what was measured and scored, and say how many scores are others than they were known to be."""
    now: datetime = await connection.fetchval(sql("subscriptions.read_clock"))
    refs = list(scores.measured)
    metrics = [metrics_json(found) for found in scores.measured.values()]
    await connection.execute(sql("health.put_measured"), scores.as_of, now, *names_of(refs), metrics)
    healths = [each.health for each in scores.scored]
    inserted: int = await connection.fetchval(
        sql("health.insert_scores"),
        scores.as_of,
        now,
        *names_of([each.ref for each in scores.scored]),
        [each.purpose for each in scores.scored],
        *([getattr(health, name) for health in healths] for name in _COLUMNS),
        [drivers_json(health.drivers) for health in healths],
        [adjustment_json(health.adjustment) for health in healths],
    )
    return inserted


_COLUMNS = ("scorecard", "version", "score", "band", "coverage", "baseline", "raw")
