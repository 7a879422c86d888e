"""What interventions did, by what was measured of subjects week by week: the shell of health/effects.py.

Those held out by lot are compared with those who were not. Where nobody was, all others of the same kind are what those
treated are compared with, given the path of both.
"""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from datetime import UTC, date, timedelta
from enum import Enum
from hashlib import sha256
from typing import Any, Final

import msgspec

from health.effects import PRE_WEEKS, Effect, Followed, effect_after, effect_of_trial
from health.needs import Reached, reached
from health.scorecards import Subject
from metering.health.interventions import SCORE, Intervention, Member, read_audience
from metering.health.known import list_customers, midnight_after
from metering.limits import Limits
from metering.store.queries import sql
from metering.store.snapshot import Snapshot

_WEEK: Final = timedelta(days=7)
_PURPOSE: Final = "health"
# Segments of few say nothing of a segment; all of these together are one.
_SEGMENT_MIN: Final = 10
_SEGMENTS_MAX: Final = 8

# A subject of the kind that is asked for: its account and key.
Name = tuple[str, str]


class Method(Enum):
    """How those treated were compared."""

    HOLD_OUT = "HOLD_OUT"
    COMPARED = "COMPARED"


class MeasuredEffect(msgspec.Struct, frozen=True, kw_only=True):
    """What an intervention did. `unmeasured` are those of its audience of whom a value is missing on a day that is needed.

    `measured_on` is the day at whose end the metric is compared with that at the end of `before_on`, the last day before.
    """

    method: Method
    before_on: date
    measured_on: date
    unmeasured: int
    effect: Effect


async def read_effect(snapshot: Snapshot, intervention: Intervention, limits: Limits) -> MeasuredEffect:
    """What an intervention did to its metric. A few statements for each page of accounts."""
    method = Method.HOLD_OUT if intervention.held_out else Method.COMPARED
    before_on = intervention.started_on - timedelta(days=1)
    last_on = intervention.ended_on or intervention.started_on
    measured_on = last_on + timedelta(days=intervention.window_days)
    today = (await snapshot.horizon()).as_of.astimezone(UTC).date()
    audience = await _audience(snapshot, intervention, limits)
    if method is Method.HOLD_OUT:
        days = [before_on, measured_on]
        found = await _values(snapshot, intervention, audience, days, limits)
        effect = await asyncio.to_thread(_of_trial, audience, found)
    else:
        days = [*(before_on - week * _WEEK for week in reversed(range(PRE_WEEKS))), measured_on]
        found, segments = await _followed(snapshot, intervention, days, limits)
        followed = await asyncio.to_thread(_sampled, intervention, audience, found, segments, limits)
        effect = await asyncio.to_thread(effect_after, followed)
    if measured_on >= today:
        over = f"the window is over on {measured_on}; what is measured until then says nothing of it"
        effect = msgspec.structs.replace(effect, not_enough=(over, *effect.not_enough))
    known = sum(_is_whole(found.get(name), len(days)) for name in audience)
    return MeasuredEffect(
        method=method,
        before_on=before_on,
        measured_on=measured_on,
        unmeasured=len(audience) - known,
        effect=effect,
    )


async def read_reached(snapshot: Snapshot, intervention: Intervention, limits: Limits) -> Reached | None:
    """Whether the right ones were reached, by what was measured on the last day before; None where no need was said."""
    if intervention.need is None:
        return None
    audience = await _audience(snapshot, intervention, limits)
    day = intervention.started_on - timedelta(days=1)
    statement, metric = sql("interventions.list_values"), intervention.need.metric
    values: list[tuple[float, bool]] = []
    async for accounts in _pages(snapshot, day, limits):
        rows = await snapshot.fetch(statement, [accounts, intervention.subject.value, metric, day, [day]])
        for row in rows:
            member = audience.get((row["account"], row["key"]))
            if row["value"] is not None and not (member and member.held_out):
                values.append((row["value"], member is not None))
    return reached(intervention.need, values)


async def _audience(snapshot: Snapshot, intervention: Intervention, limits: Limits) -> Mapping[Name, Member]:
    members, more = await read_audience(snapshot, intervention.key, limits.intervention_subjects_max)
    assert not more, "no audience is larger"
    return {(member.account, member.key): member for member in members}


async def _pages(snapshot: Snapshot, day: date, limits: Limits) -> AsyncIterator[list[str]]:
    """All accounts that there are on a day, page by page."""
    after: str | None = None
    while accounts := await list_customers(snapshot, after, limits.health_page_accounts, day):
        after = accounts[-1]
        yield accounts


async def _values(
    snapshot: Snapshot, intervention: Intervention, audience: Iterable[Name], days: Sequence[date], limits: Limits
) -> dict[Name, list[float | None]]:
    """The metric of those in these accounts on days."""
    accounts = sorted({account for account, _ in audience})
    found: dict[Name, list[float | None]] = {}
    for start in range(0, len(accounts), limits.health_page_accounts):
        page = accounts[start : start + limits.health_page_accounts]
        found |= _by_name(await _fetch(snapshot, intervention, page, days), len(days))
    return found


async def _followed(
    snapshot: Snapshot, intervention: Intervention, days: Sequence[date], limits: Limits
) -> tuple[dict[Name, list[float | None]], dict[Name, str]]:
    """The metric of everybody on days, and which segment each was in."""
    found: dict[Name, list[float | None]] = {}
    segments: dict[Name, str] = {}
    async for accounts in _pages(snapshot, days[-2], limits):
        of_page = _by_name(await _fetch(snapshot, intervention, accounts, days), len(days))
        found |= of_page
        if intervention.segment_by is not None and of_page:
            said = await snapshot.fetch(sql("health.list_attributes"), [accounts, midnight_after(days[-2])])
            segments |= _segments(intervention, of_page, said)
    return found, segments


async def _fetch(
    snapshot: Snapshot, intervention: Intervention, accounts: Sequence[str], days: Sequence[date]
) -> list[Any]:
    before_on = intervention.started_on - timedelta(days=1)
    subject = intervention.subject.value
    if intervention.metric == SCORE:
        return await snapshot.fetch(
            sql("interventions.list_scores"), [accounts, subject, _PURPOSE, before_on, list(days)]
        )
    return await snapshot.fetch(
        sql("interventions.list_values"), [accounts, subject, intervention.metric, before_on, list(days)]
    )


def _by_name(rows: Iterable[Any], days: int) -> dict[Name, list[float | None]]:
    found: dict[Name, list[float | None]] = {}
    for row in rows:
        found.setdefault((row["account"], row["key"]), [None] * days)[row["place"]] = row["value"]
    return found


def _segments(intervention: Intervention, names: Iterable[Name], said: Iterable[Any]) -> dict[Name, str]:
    """What subjects are said to be; where nothing is said of one, its account."""
    of = {
        (row["subject"], row["account"], row["key"]): row["value"]
        for row in said
        # What is said no more is kept as null.
        if row["name"] == intervention.segment_by and row["value"] != "null"
    }
    kind = intervention.subject.value
    found = {}
    for account, key in names:
        value = of.get((kind, account, key)) or of.get((Subject.ACCOUNT.value, account, account))
        if value is not None:
            found[account, key] = value
    return found


def _is_whole(values: Sequence[float | None] | None, days: int) -> bool:
    return values is not None and len(values) == days and None not in values


def _of_trial(audience: Mapping[Name, Member], found: Mapping[Name, Sequence[float | None]]) -> Effect:
    """By how much the metric changed, of those treated and of those held out: as the lot fell, whatever was done."""
    sides: dict[bool, list[float]] = {False: [], True: []}
    for name, member in audience.items():
        before, after = found.get(name, (None, None))
        if before is not None and after is not None:
            sides[member.held_out].append(after - before)
    return effect_of_trial(sides[False], sides[True])


def _sampled(
    intervention: Intervention,
    audience: Mapping[Name, Member],
    found: Mapping[Name, Sequence[float | None]],
    segments: Mapping[Name, str],
    limits: Limits,
) -> list[Followed]:
    """All that were treated, and of the others as many as are compared, by lot."""
    whole = {name: [value for value in values if value is not None] for name, values in found.items()}
    whole = {name: values for name, values in whole.items() if len(values) == len(found[name])}
    treated = [name for name in whole if name in audience]
    others = sorted(
        (name for name in whole if name not in audience),
        key=lambda name: sha256(f"{intervention.key}\0{name[0]}\0{name[1]}".encode()).digest(),
    )
    names = sorted([*treated, *others[: max(0, limits.intervention_compared_max - len(treated))]])
    counts = Counter(segments[name] for name in names if name in segments)
    large = {segment for segment, count in counts.most_common(_SEGMENTS_MAX) if count >= _SEGMENT_MIN}
    # Users of one account are not independent of each other.
    is_clustered = intervention.subject is Subject.USER
    return [
        Followed(
            subject=f"{account}\0{key}",
            treated=(account, key) in audience,
            before=tuple(whole[account, key][:-1]),
            after=whole[account, key][-1],
            segment=segment if (segment := segments.get((account, key), "")) in large else "",
            cluster=account if is_clustered else "",
        )
        for account, key in names
    ]
