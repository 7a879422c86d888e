"""Measures: every metric of subjects as a UTC day begins, and what is usual among all customers that day.

Metrics are read from the daily rollups by a few statements over sets (metering/store/sql/measures.sql), and are exact: what
came late, was corrected or voided is in the next measure. docs/adr/0021 says how.
"""

import asyncio
from collections.abc import Collection, Mapping
from datetime import UTC, date, datetime, time, timedelta
from statistics import median
from typing import Any, Final, TypeAlias

import msgspec

from health.measurements import Measurement
from health.scorecards import Subject
from health.silence import ActivityModel, Recency, fit_activity
from metering.health.gathering import (
    LOOKBACK_DAYS,
    WEEKS_MAX,
    WINDOW_DAYS,
    Gathered,
    Question,
    ask,
    gather,
    gather_people,
    gather_weeks,
)
from metering.health.included import allowance_metric, read_allowance_use
from metering.health.norms import COHORT_DAYS, Norms
from metering.health.told_metrics import NAMES, contract_metrics, read_told, signal_metrics
from metering.health.usage_metrics import Usage
from metering.store.pool import Connection, Database
from metering.store.queries import sql
from metering.store.snapshot import Snapshot
from metering.subjects import SubjectRef

Metrics: TypeAlias = Mapping[str, Measurement]
Measured: TypeAlias = Mapping[SubjectRef, Metrics]

_WEEKS_MIN: Final = 8


class Measurer:
    """Measures subjects, against norms that are computed once for each day, and kept."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._turn = asyncio.Lock()
        # When they were computed, and what they are: read again only where others are kept.
        self._newest: tuple[datetime, Norms] | None = None

    async def measure(self, snapshot: Snapshot, subjects: Collection[SubjectRef], as_of: date) -> Measured:
        """Every metric of these subjects as a UTC day begins. The snapshot reaches everything."""
        question = await ask(snapshot, {ref.account for ref in subjects}, as_of)
        # Norms last, as others may be computing them.
        gathered = await gather(question)
        return await _measured(question, gathered, await self.norms(snapshot, as_of), subjects)

    async def norms(self, snapshot: Snapshot, as_of: date) -> Norms:
        """The norms of a day: those that are kept and hold, or else as they are now, which are kept from then on."""
        # Of those who ask at the same time one computes them, and the others have what is kept then.
        async with self._turn:
            return await self._norms(snapshot, as_of)

    async def _norms(self, snapshot: Snapshot, as_of: date) -> Norms:
        row = await self._find(as_of)
        is_complete = (await snapshot.horizon()).complete_at >= datetime.combine(as_of, time(), UTC)
        replaced: datetime | None = None
        if row is not None:
            kept = self._read(row)
            holds = kept.last_on is not None or await read_last_day(snapshot, as_of) is None
            if holds and (row["is_complete"] or not is_complete):
                return kept
            if row["is_complete"]:
                # Nobody had sent anything. Who was measured then is marked when that is rolled up: see the scorer.
                return await read_norms(snapshot, as_of)
            replaced = row["computed_at"]
        norms = await read_norms(snapshot, as_of)
        events = (await snapshot.fetch(sql("norms.count_events"), [as_of]))[0]["events"]
        return await self._keep(norms, events, replaced, is_complete=is_complete)

    async def _keep(self, norms: Norms, events: int, replaced: datetime | None, *, is_complete: bool) -> Norms:
        """Keep norms, and say what is kept: another process may have been first."""
        text = msgspec.json.encode(norms).decode()
        async with self._database.connection() as connection:
            if await connection.fetchval(sql("norms.keep_norms"), norms.as_of, text, events, is_complete, replaced):
                return norms
        row = await self._find(norms.as_of)
        return norms if row is None else self._read(row)

    async def _find(self, as_of: date) -> Any:
        """The row of a day as it is now, in no snapshot; without the norms where we have these already."""
        known_at = None if self._newest is None else self._newest[0]
        async with self._database.connection() as connection:
            return await connection.fetchrow(sql("norms.find_norms"), as_of, known_at)

    def _read(self, row: Any) -> Norms:
        if row["norms"] is not None:
            self._newest = row["computed_at"], msgspec.json.decode(row["norms"], type=Norms)
        assert self._newest is not None, "a row is without norms only where we have them"
        return self._newest[1]


async def find_norms(connection: Connection, as_of: date) -> Norms | None:
    """The norms of a day that are kept; None where there are none."""
    row = await connection.fetchrow(sql("norms.find_norms"), as_of, None)
    return None if row is None else msgspec.json.decode(row["norms"], type=Norms)


async def measure(
    snapshot: Snapshot, subjects: Collection[SubjectRef], as_of: date, norms: Norms
) -> dict[SubjectRef, Metrics]:
    """Every metric of these subjects as a UTC day begins, against norms. The snapshot reaches their accounts."""
    question = await ask(snapshot, {ref.account for ref in subjects}, as_of)
    gathered = await gather(question)
    return await _measured(question, gathered, norms, subjects)


async def measure_everybody(snapshot: Snapshot, as_of: date) -> tuple[Norms, dict[SubjectRef, Metrics]]:
    """Norms as of a day, and every metric of whoever has a contract or was active in the year before."""
    question = await ask(snapshot, None, as_of)
    gathered = await gather(question)
    norms = await _norms(question, gathered)
    subjects = {*gathered.lives, *gathered.contracts}
    subjects |= {SubjectRef(Subject.ACCOUNT, ref.account, ref.account) for ref in subjects}
    return norms, await _measured(question, gathered, norms, subjects)


async def read_norms(snapshot: Snapshot, as_of: date) -> Norms:
    """What is usual among all customers as of a day. The snapshot reaches everything."""
    question = await ask(snapshot, None, as_of)
    return await _norms(question, await gather(question, is_for_norms=True))


async def read_last_day(snapshot: Snapshot, as_of: date) -> date | None:
    """The last day, of the 28 before a day, on which anything came in from anybody. The snapshot reaches everything."""
    return await _last_day(await ask(snapshot, None, as_of))


async def _last_day(question: Question) -> date | None:
    rows = await question.snapshot.fetch(sql("measures.find_last_day"), [question.as_of, *question.rollups])
    last_on: date | None = rows[0]["last_on"]
    return last_on


async def _measured(
    question: Question, gathered: Gathered, norms: Norms, subjects: Collection[SubjectRef]
) -> dict[SubjectRef, Metrics]:
    usage = await _complete(question, gathered, norms, subjects)
    told = await read_told(question.snapshot, question.accounts, question.as_of)
    allowances = await read_allowance_use(question.snapshot, gathered)

    def measured() -> dict[SubjectRef, Metrics]:
        found: dict[SubjectRef, Metrics] = {}
        for ref in subjects:
            metrics = dict(usage.of(ref))
            if ref.subject is not Subject.USER:
                metrics |= contract_metrics(gathered, ref)
                metrics["allowance_use"] = allowance_metric(allowances, ref)
            found[ref] = metrics | dict(signal_metrics(gathered, norms, told, ref))
        return found

    # Of many subjects this takes a while: others are served meanwhile.
    return await asyncio.to_thread(measured)


async def _complete(question: Question, gathered: Gathered, norms: Norms, subjects: Collection[SubjectRef]) -> Usage:
    """Read what is asked by subject, and by what was read before."""
    usage = Usage(gathered, norms)
    customers = [ref for ref in subjects if ref.subject is not Subject.USER]
    await gather_people(question, gathered, {ref: usage.expected(ref) for ref in customers}, sorted_refs(usage.absent))
    await gather_weeks(question, gathered, _weeks(usage, subjects), norms)
    return usage


def sorted_refs(refs: Collection[SubjectRef]) -> list[SubjectRef]:
    """Subjects in an order that is always the same."""
    return sorted(refs, key=lambda ref: (ref.account, ref.key))


def _weeks(usage: Usage, subjects: Collection[SubjectRef]) -> dict[SubjectRef, int]:
    weeks = {ref: min(usage.weeks(ref), WEEKS_MAX) for ref in subjects}
    return {ref: count for ref, count in weeks.items() if count >= _WEEKS_MIN}


def _began(gathered: Gathered, customers: Collection[SubjectRef]) -> dict[SubjectRef, date]:
    """When those began whose first days are looked back to: whoever began before may have been active on days not seen."""
    began = {ref: gathered.began_on(ref) for ref in customers}
    earliest = gathered.as_of - timedelta(days=LOOKBACK_DAYS)
    return {ref: day for ref, day in began.items() if day is not None and day >= earliest}


# ---------------------------------------------------------------- norms


async def _norms(question: Question, gathered: Gathered) -> Norms:
    snapshot, as_of = question.snapshot, question.as_of
    usage = Usage(gathered, Norms(as_of=as_of))
    contracts = gathered.contracts
    customers = [ref for ref in gathered.lives if ref.subject is not Subject.USER]
    customers = list({*customers, *contracts, *(_account_of(ref) for ref in contracts)})
    accounts = [ref for ref in customers if ref.subject is Subject.ACCOUNT]
    weeks = _weeks(usage, accounts)

    async def read() -> tuple[list[Any], list[Any], date | None]:
        await gather_weeks(question, gathered, weeks, None)
        offered = await snapshot.fetch(sql("measures.list_offered_features"), [as_of, *question.rollups], hashed=True)
        told = await snapshot.fetch(sql("measures.find_told"), [as_of, NAMES])
        return offered, told, await _last_day(question)

    # PostgreSQL reads while we calculate.
    calculation = asyncio.to_thread(_calculated, gathered, _began(gathered, customers))
    (offered, told, last_on), calculated = await asyncio.gather(read(), calculation)
    norms: Norms = msgspec.structs.replace(
        calculated,
        last_on=last_on,
        offered={row["product"]: tuple(row["features"]) for row in offered},
        told=frozenset(row["name"] for row in told),
    )
    for week in gathered.weeks.values():
        # The same in each of them: what these accounts say together.
        return msgspec.structs.replace(
            norms, dispersion=week.usual_dispersion, change=week.usual_change, fast_change=week.usual_fast_change
        )
    return norms


def _calculated(gathered: Gathered, began: Mapping[SubjectRef, date]) -> Norms:
    """What is usual by the active days alone."""
    norms = Norms(as_of=gathered.as_of, models=_models(gathered), cohorts=_cohorts(gathered, began))
    gap = _usual_gap(gathered)
    return norms if gap is None else msgspec.structs.replace(norms, usual_gap_days=gap)


def _account_of(ref: SubjectRef) -> SubjectRef:
    return SubjectRef(Subject.ACCOUNT, ref.account, ref.account)


def _usual_gap(gathered: Gathered) -> float | None:
    """The median of all users' gaps together."""
    gaps = [gap for ref, life in gathered.lives.items() if ref.subject is Subject.USER for gap in life.gaps()]
    return float(median(gaps)) if gaps else None


def _models(gathered: Gathered) -> dict[str, ActivityModel]:
    """Fitted on who of those that were active before the window was active in it."""
    models = {}
    end = LOOKBACK_DAYS - WINDOW_DAYS - 1
    for subject in Subject:
        recencies: list[Recency] = []
        active: list[bool] = []
        for ref, life in gathered.lives.items():
            if ref.subject is subject and (before := life.before_window()):
                recencies.append((float(end - before[-1]), len(before) - 1.0, float(end - before[0])))
                active.append(len(life.days) > len(before))
        models[subject.value] = fit_activity(recencies, active)
    return models


def _cohorts(gathered: Gathered, began: Mapping[SubjectRef, date]) -> dict[str, dict[int, dict[int, int]]]:
    """How many subjects had how many active days by which age, as far as they are that old."""
    cohorts: dict[str, dict[int, dict[int, int]]] = {}
    for ref, began_on in began.items():
        by_age = cohorts.setdefault(ref.subject.value, {})
        life = gathered.lives.get(ref)
        ages = [] if life is None else life.ages(began_on, COHORT_DAYS)
        active = 0
        for age in range(1, min((gathered.as_of - began_on).days, COHORT_DAYS) + 1):
            # By the age of so many days, the days from 0 to the one before are over.
            while active < len(ages) and ages[active] < age:
                active += 1
            counts = by_age.setdefault(age, {})
            counts[active] = counts.get(active, 0) + 1
    return cohorts
