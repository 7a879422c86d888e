"""Early warnings: what is alarming is kept, and told, in the transaction that keeps the scores of the day.

Told once for each episode (see episodes.py), through the outbox, with the three drivers that lower the score most. What was so
on the first day that anybody was scored is shown, and is no news.
"""

from collections.abc import Mapping, Sequence
from datetime import date, datetime, timedelta
from typing import Any, Final
from uuid import UUID, uuid4

import msgspec

from health.alarms import Alarm, AlarmType
from health.score import Health
from health.scorecards import Subject
from metering.events import in_utc
from metering.health.alarming import Alarming, Place
from metering.health.episodes import Course, Episode, course_of
from metering.health.thresholds import PutThresholds
from metering.outbox.event import OutboxEvent, subject_of
from metering.outbox.publish import publish_all
from metering.store.pool import Connection
from metering.store.queries import sql
from metering.store.snapshot import Snapshot
from metering.subjects import SubjectRef

_EVERYONE: Final = "EVERYONE"
_DRIVERS: Final = 3
# Names may be made of whatever JSON writes at length; what is told is short.
_TEXT_CHARS_MAX: Final = 256


class Warned(msgspec.Struct, frozen=True, kw_only=True):
    """A warning: since which day something was so of a subject (None: of all customers), and the last day that it was.

    `told_at` is None where nobody was told, for somebody had been lately, or it was so before anybody was scored; `withdrawn_at`
    is when a day that was scored again did not have it any more.
    """

    id: UUID
    type: AlarmType
    ref: SubjectRef | None
    as_of: date
    last_on: date
    evidence: Mapping[str, float | str]
    thresholds_version: int
    raised_at: datetime
    told_at: datetime | None
    withdrawn_at: datetime | None


class WarningsChosen(msgspec.Struct, frozen=True, kw_only=True):
    """Which warnings are meant; None means all."""

    types: Sequence[AlarmType] | None = None
    account: str | None = None
    # Those that were so on this day, or later.
    since: date | None = None
    # Also what days that were scored again do not have any more.
    with_withdrawn: bool = False


class WarningPlace(msgspec.Struct, frozen=True):
    """Where a warning stands."""

    as_of: date
    id: UUID


async def warn(connection: Connection, alarming: Alarming, put: PutThresholds) -> int:
    """Keep what is alarming on a day, and tell what is news; say how much was told. In the transaction that keeps the scores."""
    cooldown_days = put.thresholds.cooldown_days
    cooldown = timedelta(days=cooldown_days)
    rows = await connection.fetch(
        sql("warnings.list_near"), alarming.accounts, alarming.as_of - cooldown, alarming.as_of + cooldown
    )
    known: dict[Place, list[Episode]] = {}
    for row in rows:
        episode = Episode(
            row["id"], row["as_of"], row["last_on"], row["told_at"] is not None, row["withdrawn_at"] is not None
        )
        known.setdefault(Place(AlarmType(row["type"]), _ref(row), row["about"]), []).append(episode)
    course = course_of(alarming.as_of, alarming.found, known, cooldown_days)
    now: datetime = await connection.fetchval(sql("subscriptions.read_clock"))
    if course.changed:
        await _change(connection, course.changed, now)
    return await _begin(connection, alarming, course, put.version, now) if course.begun else 0


async def watch(connection: Connection, alarming: Alarming) -> None:
    """Note on how many subjects of each kind an eye was kept: once for each of them and day."""
    kinds = list(alarming.watched)
    await connection.execute(
        sql("warnings.watch"),
        alarming.as_of,
        [kind.value for kind in kinds],
        [alarming.watched[kind] for kind in kinds],
    )


async def _change(connection: Connection, changed: Sequence[Episode], now: datetime) -> None:
    await connection.execute(
        sql("warnings.change"),
        [each.id for each in changed],
        [each.as_of for each in changed],
        [each.last_on for each in changed],
        [each.is_withdrawn for each in changed],
        now,
    )


async def _begin(connection: Connection, alarming: Alarming, course: Course, version: int, now: datetime) -> int:
    """Insert what begins, and publish what is told, in the order of the subjects' names."""
    is_news = await connection.fetchval(sql("warnings.is_after_first_day"), alarming.as_of)
    begun = [(uuid4(), place, is_told and is_news) for place, is_told in course.begun.items()]
    names = [_names(place.ref) for _, place, _ in begun]
    await connection.execute(
        sql("warnings.insert"),
        alarming.as_of,
        now,
        version,
        [id for id, _, _ in begun],
        [place.type.value for _, place, _ in begun],
        *([each[column] for each in names] for column in range(3)),
        [place.about for _, place, _ in begun],
        [msgspec.json.encode(alarming.found[place].evidence).decode() for _, place, _ in begun],
        [is_told for _, _, is_told in begun],
    )
    told = [(id, place) for id, place, is_told in begun if is_told]
    events = [_event(id, place, alarming) for id, place in told]
    await publish_all(connection, sorted(events, key=lambda each: (each.subject, each.type)), now)
    return len(events)


def _names(ref: SubjectRef | None) -> tuple[str, str | None, str | None]:
    return (_EVERYONE, None, None) if ref is None else (ref.subject.value, ref.account, ref.key)


def _event(id: UUID, place: Place, alarming: Alarming) -> OutboxEvent:
    alarm, ref = alarming.found[place], place.ref
    subject, account, key = _names(ref)
    data: dict[str, Any] = {
        "warning": str(id),
        "asOf": alarming.as_of.isoformat(),
        "subject": subject,
        "account": account,
        "key": key,
        "evidence": _short(alarm),
    }
    if ref is None:
        return OutboxEvent(type=place.type.value, subject=subject_of(()), data=data)
    dimensions: list[tuple[str, str | None]] = [("account", ref.account)]
    if ref.subject is not Subject.ACCOUNT:
        dimensions.append((ref.subject.value.lower(), ref.key))
    health = alarming.scores[ref]
    data |= {"score": health.score, "band": health.band, "drivers": lowering_drivers(health)}
    return OutboxEvent(type=place.type.value, subject=subject_of(dimensions), data=data)


def _short(alarm: Alarm) -> dict[str, float | str]:
    return {
        name: value[:_TEXT_CHARS_MAX] if isinstance(value, str) else value for name, value in alarm.evidence.items()
    }


def lowering_drivers(health: Health) -> list[dict[str, Any]]:
    """The three that lower a score most, with what each takes from it; caps and overrides are one of them."""
    drivers = [(each.contribution, each.metric, each.value) for each in health.drivers]
    if health.adjustment is not None:
        drivers.append((health.adjustment.contribution, "adjustment", None))
    lowering = sorted((each for each in drivers if each[0] < 0), key=lambda each: (each[0], each[1]))
    return [
        {"metric": metric[:_TEXT_CHARS_MAX], "value": value, "contribution": contribution}
        for contribution, metric, value in lowering[:_DRIVERS]
    ]


# ---------------------------------------------------------------- reading


async def read_warnings(
    snapshot: Snapshot, chosen: WarningsChosen, first: int, after: WarningPlace | None
) -> tuple[list[Warned], bool]:
    """The `first` warnings, the newest first, from behind a place on; and whether there are more.

    None for who is bound to accounts: how customers are judged, and compared, is not for them.
    """
    if not snapshot.reach.is_everything or "\0" in (chosen.account or ""):
        return [], False
    rows = await snapshot.fetch(
        sql("warnings.list_warnings"),
        [
            None if chosen.types is None else [each.value for each in chosen.types],
            *(chosen.account, chosen.since, chosen.with_withdrawn),
            *((None, None) if after is None else (after.as_of, after.id)),
            first + 1,
        ],
    )
    return [_warned(row) for row in rows[:first]], len(rows) > first


async def read_warnings_of(snapshot: Snapshot, asked: Sequence[tuple[str, int]]) -> list[list[Warned]]:
    """The newest warnings of each account, and of all in it, so many at most; the same reach. One statement."""
    found: list[list[Warned]] = [[] for _ in asked]
    if snapshot.reach.is_everything:
        accounts, counts = [account for account, _ in asked], [count for _, count in asked]
        for row in await snapshot.fetch(sql("warnings.list_of_accounts"), [accounts, counts]):
            found[row["position"]].append(_warned(row))
    return found


def _warned(row: Any) -> Warned:
    return Warned(
        id=row["id"],
        type=AlarmType(row["type"]),
        ref=_ref(row),
        as_of=row["as_of"],
        last_on=row["last_on"],
        evidence=msgspec.json.decode(row["evidence"]),
        thresholds_version=row["thresholds_version"],
        raised_at=in_utc(row["raised_at"]),
        told_at=None if row["told_at"] is None else in_utc(row["told_at"]),
        withdrawn_at=None if row["withdrawn_at"] is None else in_utc(row["withdrawn_at"]),
    )


def _ref(row: Any) -> SubjectRef | None:
    return None if row["account"] is None else SubjectRef(Subject(row["subject"]), row["account"], row["key"])
