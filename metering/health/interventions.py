"""Interventions: what was done for which subjects, who was left alone by lot, and what it was to move.

Who is left alone is asked before anything is done, and is the same whenever it is asked. What is recorded stays; an
intervention that goes on may be ended once.
"""

import math
from collections.abc import Iterator, Sequence
from datetime import date, datetime
from hashlib import blake2b
from typing import Any, Final

import msgspec

from health.catalogue import CATALOGUE
from health.effects import held_out
from health.needs import Need
from health.scorecards import Subject
from metering.errors import ConflictError, ForbiddenError, InputIssue, InvalidInputError
from metering.events import in_utc
from metering.health.told import owners_of
from metering.input_faults import Path, name_issues
from metering.keys import Caller
from metering.limits import Limits
from metering.store.pool import Connection, Database
from metering.store.queries import sql
from metering.store.snapshot import Snapshot
from metering.subjects import SubjectRef

# Beside the metrics of the catalogue: the score of the purpose `health`.
SCORE: Final = "score"
WINDOW_DAYS_MAX: Final = 364
# With fewer than a tenth treated it is no intervention any more.
HOLDOUT_PERCENT_MAX: Final = 90.0
_DIGEST_BYTES: Final = 16


class Named(msgspec.Struct, frozen=True):
    """A subject as it is named. The account may be left out where the key leads to it."""

    subject: Subject
    key: str
    account: str | None = None


class Audience(msgspec.Struct, frozen=True, kw_only=True):
    """Whom something is meant for, all of one kind: by keys, as subjects with their accounts, or both."""

    subject: Subject
    keys: tuple[str, ...] = ()
    subjects: tuple[Named, ...] = ()

    def named(self) -> Iterator[tuple[Path, Named]]:
        """Each with where it stands in the input."""
        for index, key in enumerate(self.keys):
            yield ("keys", str(index)), Named(self.subject, key)
        for index, named in enumerate(self.subjects):
            yield ("subjects", str(index)), named


class InterventionOrder(msgspec.Struct, frozen=True, kw_only=True):
    """An intervention as it is told. Without `ended_on` it goes on; days are UTC days."""

    key: str
    kind: str
    audience: Audience
    started_on: date
    ended_on: date | None
    metric: str
    window_days: int
    holdout_percent: float
    segment_by: str | None = None
    need: Need | None = None
    note: str | None = None


class Intervention(msgspec.Struct, frozen=True, kw_only=True):
    """An intervention as it is kept, with how many were treated and how many held out."""

    key: str
    kind: str
    subject: Subject
    started_on: date
    ended_on: date | None
    metric: str
    window_days: int
    holdout_percent: float
    segment_by: str | None
    need: Need | None
    note: str | None
    recorded_at: datetime
    recorded_by: str
    treated: int
    held_out: int


class Member(msgspec.Struct, frozen=True):
    """One of an audience."""

    account: str
    key: str
    held_out: bool


class HoldOutOrder(msgspec.Struct, frozen=True, kw_only=True):
    """What is about to be done, and whom for."""

    intervention: str
    percent: float
    audience: Audience


def hold_out(order: HoldOutOrder, limits: Limits) -> list[tuple[Named, bool]]:
    """Whether each of an audience is to be left alone. Raises InvalidInputError with every fault."""
    issues = [
        *name_issues(order.intervention, ("input", "intervention"), limits),
        *_percent_issues(order.percent, ("input", "percent")),
        *_audience_issues(order.audience, ("input",), limits),
    ]
    issues += [
        InputIssue(("input", *path, "account"), "Users are known within their account; say which.")
        for path, named in order.audience.named()
        if named.subject is Subject.USER and named.account is None
    ]
    if issues:
        raise InvalidInputError(issues)
    return [(named, _is_held(order.intervention, order.percent, named)) for _, named in order.audience.named()]


async def record_intervention(
    database: Database, order: InterventionOrder, key: Caller, limits: Limits
) -> Intervention:
    """Record an intervention, or that it has ended. Safe to repeat: it is known by its key.

    Raises InvalidInputError with every fault; ConflictError where the key says something else already; ForbiddenError
    for a key that is bound to accounts.
    """
    if key.accounts is not None:
        raise ForbiddenError(
            f"The key {key.prefix} is bound to accounts; what is done for customers is not theirs to say."
        )
    async with database.transaction() as connection:
        today = in_utc(await connection.fetchval(sql("subscriptions.read_clock"))).date()
        issues = list(_issues(order, today, limits))
        members, unknown = await _members(connection, order, key)
        if issues or unknown:
            raise InvalidInputError([*issues, *unknown])
        # One at a time by the same key.
        await connection.execute(sql("attributes.take_turns"), f"intervention {order.key}")
        content = _content(order, members)
        known = await connection.fetchrow(sql("interventions.find_intervention"), order.key)
        if known is None:
            await _insert(connection, order, members, content, key)
        else:
            await _end(connection, order, known, content)
        return _intervention(await connection.fetchrow(sql("interventions.find_intervention"), order.key))


async def read_interventions(snapshot: Snapshot, first: int, after: str | None) -> tuple[list[Intervention], bool]:
    """The `first` interventions by key behind one, and whether there are more. None for who is bound to accounts."""
    if not snapshot.reach.is_everything:
        return [], False
    rows = await snapshot.fetch(sql("interventions.list_interventions"), [after, first + 1])
    return [_intervention(row) for row in rows[:first]], len(rows) > first


async def find_intervention(snapshot: Snapshot, key: str) -> Intervention | None:
    """The intervention of a key. None for who is bound to accounts, too."""
    if not snapshot.reach.is_everything or "\0" in key:
        return None
    rows = await snapshot.fetch(sql("interventions.find_intervention"), [key])
    return _intervention(rows[0]) if rows else None


async def read_audience(
    snapshot: Snapshot, key: str, first: int, after: tuple[str, str] | None = None
) -> tuple[list[Member], bool]:
    """The `first` of an audience behind one, by account and key, and whether there are more."""
    account, subject = after or (None, None)
    reach = snapshot.reach.of_accounts(None)
    within = None if reach is None else sorted(reach)
    rows = await snapshot.fetch(sql("interventions.list_audience"), [key, account, subject, first + 1, within])
    return [Member(row["account"], row["key"], row["held_out"]) for row in rows[:first]], len(rows) > first


def _is_held(intervention: str, percent: float, named: Named) -> bool:
    # Users are known within their account; the lengths keep two names from being read as one.
    whose = named.account if named.subject is Subject.USER else None
    lot = f"{named.subject.value} {len(whose or '')} {whose or ''} {named.key}"
    return held_out(lot, intervention, percent)


async def _members(
    connection: Connection, order: InterventionOrder, key: Caller
) -> tuple[dict[SubjectRef, bool], list[InputIssue]]:
    """The audience with who is held out, each once; and who cannot be found."""
    audience = order.audience
    by_key = [Named(audience.subject, each) for each in audience.keys]
    owners, of_keys = await owners_of(connection, by_key, key, ("input", "keys"))
    more, of_subjects = await owners_of(connection, audience.subjects, key, ("input", "subjects"))
    # A key in a list is a value by itself.
    issues = [InputIssue(issue.path[:3], issue.message) for issue in of_keys] + of_subjects
    members = {
        SubjectRef(named.subject, account, named.key): _is_held(
            order.key, order.holdout_percent, Named(named.subject, named.key, account)
        )
        for account, named in zip([*owners, *more], [*by_key, *audience.subjects], strict=True)
    }
    return members, issues


async def _insert(
    connection: Connection, order: InterventionOrder, members: dict[SubjectRef, bool], content: bytes, key: Caller
) -> None:
    await connection.execute(
        sql("interventions.insert_intervention"),
        order.key,
        order.kind,
        order.audience.subject.value,
        order.started_on,
        order.ended_on,
        order.metric,
        order.window_days,
        order.holdout_percent,
        order.segment_by,
        None if order.need is None else msgspec.json.encode(order.need).decode(),
        order.note,
        content,
        key.signature,
    )
    await connection.execute(
        sql("interventions.insert_audience"),
        order.key,
        [ref.account for ref in members],
        [ref.key for ref in members],
        list(members.values()),
    )


async def _end(connection: Connection, order: InterventionOrder, known: Any, content: bytes) -> None:
    """What is recorded says the same; all that may be new is that it has ended."""
    if known["content"] != content:
        raise ConflictError(
            f"The intervention {order.key!r:.60} is recorded with other content, which stays; record this one by another key."
        )
    if known["ended_on"] is not None and order.ended_on not in {None, known["ended_on"]}:
        raise ConflictError(
            f"The intervention {order.key!r:.60} has ended on {known['ended_on']} already, which stays."
        )
    if order.ended_on is not None:
        await connection.execute(sql("interventions.end_intervention"), order.key, order.ended_on)


def _content(order: InterventionOrder, members: dict[SubjectRef, bool]) -> bytes:
    said = {
        **msgspec.structs.asdict(order),
        "ended_on": None,
        "audience": sorted((ref.subject.value, ref.account, ref.key) for ref in members),
    }
    return blake2b(msgspec.json.encode(said, order="deterministic"), digest_size=_DIGEST_BYTES).digest()


def _intervention(row: Any) -> Intervention:
    cells = {name: row[name] for name in Intervention.__struct_fields__}
    need = None if row["need"] is None else msgspec.json.decode(row["need"], type=Need)
    of_types = {"subject": Subject(row["subject"]), "need": need, "recorded_at": in_utc(row["recorded_at"])}
    return Intervention(**{**cells, **of_types})


# ---------------------------------------------------------------- faults


def _issues(order: InterventionOrder, today: date, limits: Limits) -> Iterator[InputIssue]:
    yield from name_issues(order.key, ("input", "key"), limits)
    yield from name_issues(order.kind, ("input", "kind"), limits)
    if order.started_on > today:
        yield InputIssue(
            ("input", "startedOn"), f"{order.started_on} is in the future; nothing is told before it is so."
        )
    if order.started_on < limits.asked_from_min.date():
        yield InputIssue(("input", "startedOn"), f"This must be {limits.asked_from_min:%F} or later.")
    if order.ended_on is not None and order.ended_on < order.started_on:
        yield InputIssue(("input", "endedOn"), f"{order.ended_on} is before it started, {order.started_on}.")
    if order.ended_on is not None and order.ended_on > today:
        yield InputIssue(("input", "endedOn"), f"{order.ended_on} is in the future; leave it out while it goes on.")
    if not 1 <= order.window_days <= WINDOW_DAYS_MAX:
        yield InputIssue(
            ("input", "windowDays"), f"This must be 1 to {WINDOW_DAYS_MAX}; this is {order.window_days:,}."
        )
    yield from _percent_issues(order.holdout_percent, ("input", "holdoutPercent"))
    yield from _metric_issues(order.metric, order.audience.subject, ("input", "metric"), has_score=True)
    if order.segment_by is not None:
        yield from name_issues(order.segment_by, ("input", "segmentBy"), limits)
    if order.need is not None:
        yield from _need_issues(order.need, order.audience.subject)
    if order.note is not None and (len(order.note) > limits.reason_chars_max or "\0" in order.note):
        message = f"A note has {limits.reason_chars_max:,} characters at most, none of them NUL."
        yield InputIssue(("input", "note"), message)
    yield from _audience_issues(order.audience, ("input",), limits)


def _percent_issues(percent: float, path: Path) -> Iterator[InputIssue]:
    if not 0 <= percent <= HOLDOUT_PERCENT_MAX:
        yield InputIssue(path, f"This must be 0, for nobody, to {HOLDOUT_PERCENT_MAX:g}; this is {percent:g}.")


def _metric_issues(metric: str, subject: Subject, path: Path, *, has_score: bool) -> Iterator[InputIssue]:
    if has_score and metric == SCORE:
        return
    found = CATALOGUE.get(metric)
    if found is None:
        score = f", and `{SCORE}`" if has_score else ""
        yield InputIssue(path, f"There is no metric {metric!r:.60}; take one that scorecards may use{score}.")
    elif subject not in found.subjects:
        whose = ", ".join(sorted(each.value for each in found.subjects))
        yield InputIssue(path, f"{metric!r} is not measured of {subject.value}, but of {whose}.")


def _need_issues(need: Need, subject: Subject) -> Iterator[InputIssue]:
    path = ("input", "need")
    yield from _metric_issues(need.metric, subject, (*path, "metric"), has_score=False)
    bounds = {"atLeast": need.at_least, "atMost": need.at_most}
    for name, bound in bounds.items():
        if bound is not None and not math.isfinite(bound):
            yield InputIssue((*path, name), f"{bound} is no number to compare with.")
    if need.at_least is None and need.at_most is None:
        yield InputIssue(path, "Say which values are a need: atLeast, atMost or both.")
    elif need.at_least is not None and need.at_most is not None and need.at_least > need.at_most:
        yield InputIssue((*path, "atMost"), f"{need.at_most:g} is below atLeast, {need.at_least:g}: no value is both.")


def _audience_issues(audience: Audience, path: Path, limits: Limits) -> Iterator[InputIssue]:
    named: Sequence[tuple[Path, Named]] = list(audience.named())
    if not 0 < len(named) <= limits.intervention_subjects_max:
        message = f"An audience is 1 to {limits.intervention_subjects_max:,} subjects; this is {len(named):,}."
        yield InputIssue((*path, "keys"), message)
    for here, each in named:
        yield from name_issues(each.key, (*path, *here, *(("key",) if here[0] == "subjects" else ())), limits)
        if each.account is not None:
            yield from name_issues(each.account, (*path, *here, "account"), limits)
