"""Rules against figures: what crossed a bound is noted, and published, in one transaction; once for each crossing.

One process at a time evaluates. Figures are read in a snapshot of their own, what is open on the session that holds the
lock: nobody else changes it. It may be killed anywhere; the next run sees the same figures, and what was not committed again.

A period that is over is looked at for a while still: an event that comes late, or is corrected, may have lifted a figure over
the bound in it, and one that ended while nobody evaluated was never looked at (past.py says which are). Such an alert is raised
and closed at once, so that somebody is told. See docs/adr/0024.
"""

import time
from collections.abc import Callable, Iterator, Sequence
from datetime import datetime, timedelta
from decimal import Decimal
from itertools import groupby
from typing import Any, Final
from uuid import UUID, uuid4

import msgspec

from metering.alerts.crossings import Crossing, Seen, crossing
from metering.alerts.figures import Dimensions, Look, read_seen
from metering.alerts.history import Resolution
from metering.alerts.past import past_looks
from metering.alerts.rules import AlertRule, rules_of
from metering.errors import DatabaseUnavailableError, MeteringError, SchemaError, TimeLimitError
from metering.events import in_utc
from metering.limits import Limits
from metering.outbox.event import OutboxEvent
from metering.outbox.publish import publish_all
from metering.periods import Period
from metering.reach import EVERYTHING
from metering.store.faults import translated
from metering.store.pool import Connection, Database
from metering.store.queries import sql
from metering.store.snapshot import Snapshot
from metering.store.turns import alone
from metering.telemetry import logger
from rating.exact import plain
from rating.periods import instant_text

EVALUATOR_LOCK: Final = 0x6D65_7472_616C_7274  # "metralrt"
# A rule that takes long rests longer, so that all of them together take no more than a quarter of a connection's time.
_REST_FACTOR: Final = 3
# How often periods that are over are looked at: what comes late may be told late.
_BEFORE_EVERY: Final = timedelta(minutes=1)


class Open(msgspec.Struct, frozen=True, kw_only=True):
    """An alert that is open."""

    id: UUID
    revision: int
    seen: Seen


class _Change(msgspec.Struct, frozen=True, kw_only=True):
    """An alert that is raised (where it has no id yet), or resolved."""

    id: UUID
    seen: Seen
    # None: it is raised.
    resolution: Resolution | None = None
    value: Decimal | None = None


class _PastLook(msgspec.Struct, frozen=True):
    """When a rule's periods that are over were looked at last, what it said then, and why some of them could not be read."""

    at: datetime
    revision: int
    fault: str | None


class Evaluator:
    """Evaluates rules, each as often as its own cost allows."""

    def __init__(self, database: Database, limits: Limits) -> None:
        self._database = database
        self._limits = limits
        # By rule: not before, on the clock of time.monotonic(); and when its past was looked at.
        self._rests_until: dict[str, float] = {}
        self._took_seconds: dict[str, float] = {}
        self._past_looks: dict[str, _PastLook] = {}

    async def run(
        self, now: datetime | None = None, *, all_rules: bool = False, published: Callable[[], None] | None = None
    ) -> int | None:
        """Evaluate the rules that are due (or all of them) at an instant, now unless given; say how many alerts changed.

        The quickest come first, and what one of them has published need not wait for the others: `published` is called.
        None where another process evaluates.
        """
        async with alone(self._database, EVALUATOR_LOCK) as connection:
            if connection is None:
                return None
            changes = 0
            rules = rules_of(await connection.fetch(sql("alert_rules.list_all")))
            for rule in sorted(rules, key=lambda rule: self._took_seconds.get(rule.key, 0.0)):
                started = time.monotonic()
                if started < self._rests_until.get(rule.key, 0.0) and not all_rules:
                    continue
                try:
                    changed = await self._tried(connection, rule, now, look_back=all_rules)
                finally:
                    ended = time.monotonic()
                    self._took_seconds[rule.key] = ended - started
                    self._rests_until[rule.key] = ended + _REST_FACTOR * (ended - started)
                if changed and published is not None:
                    published()
                changes += changed
            return changes

    async def _tried(self, connection: Connection, rule: AlertRule, now: datetime | None, *, look_back: bool) -> int:
        """Evaluate a rule. What goes wrong is its own fault, foreseen or not: the others are evaluated all the same."""
        try:
            with translated():
                return await self._evaluate(connection, rule, now, look_back=look_back)
        except (DatabaseUnavailableError, SchemaError):
            # This is so of all of them.
            raise
        except MeteringError as error:
            fault = str(error)
        except Exception as error:  # noqa: BLE001 - it is logged, and stands in the list of rules
            fault = (
                f"It failed in a way that was not foreseen ({type(error).__name__}); the log of the service tells more."
            )
            if fault != rule.fault:
                logger().error("alert_rule_broken", rule=rule.key, exc_info=error)
        await self._note_fault(connection, rule, fault)
        return 0

    async def _evaluate(self, connection: Connection, rule: AlertRule, now: datetime | None, *, look_back: bool) -> int:
        opened = [_open(row) for row in await connection.fetch(sql("alerts.list_open"), rule.key)]
        if not rule.enabled and not opened:
            return 0
        async with Snapshot(self._database, EVERYTHING) as snapshot:
            at = in_utc((await snapshot.horizon()).as_of) if now is None else now
            found = await self._found(snapshot, rule, opened, at)
            changes = await self._note(connection, rule, found, at)
            if rule.enabled and (look_back or self._is_to_look_back(rule, at)):
                changes += await self._look_back(connection, snapshot, rule, at)
        past = self._past_looks.get(rule.key)
        await self._note_fault(connection, rule, None if past is None or past.revision != rule.revision else past.fault)
        return changes

    async def _found(self, snapshot: Snapshot, rule: AlertRule, opened: Sequence[Open], at: datetime) -> list[_Change]:
        """What has crossed a bound in the running periods, and what is closed whatever its figure is."""
        reasons = {each.id: _closing(each, rule, at) for each in opened}
        changes = [
            _Change(id=each.id, seen=each.seen, resolution=reason)
            for each in opened
            if (reason := reasons[each.id]) is not None
        ]
        if not rule.enabled:
            return changes
        going_on = [each for each in opened if reasons[each.id] is None]
        named: list[Dimensions] = [each.seen.dimensions for each in going_on]
        seen = await read_seen(snapshot, Look(rule=rule, at=at, named=named), self._limits)
        return changes + _crossed(rule, going_on, seen)

    def _is_to_look_back(self, rule: AlertRule, at: datetime) -> bool:
        past = self._past_looks.get(rule.key)
        if past is not None and past.revision == rule.revision:
            return at >= past.at + _BEFORE_EVERY
        return at >= (rule.evaluated_to or rule.changed_at) + _BEFORE_EVERY

    async def _look_back(self, connection: Connection, snapshot: Snapshot, rule: AlertRule, at: datetime) -> int:
        """Tell of periods that are over what nobody was told. What cannot be read is said, and passed over."""
        looks = past_looks(rule, at, self._limits)
        if len(looks) == self._limits.alert_periods_max:
            logger().warning("alert_periods_passed_over", rule=rule.key, before=looks[0].at)
        changes, fault, is_through = 0, None, True
        for look in looks:
            try:
                seen = await read_seen(snapshot, look, self._limits)
            except (DatabaseUnavailableError, SchemaError):
                raise
            except MeteringError as error:
                fault = f"Of a period that is over: {error}"
                if isinstance(error, TimeLimitError):
                    # The snapshot is over with it; the same is tried again the next time.
                    is_through = False
                    break
                continue
            changes += await self._note(connection, rule, await _late(connection, rule, seen, at), at)
        if is_through:
            await connection.execute(sql("alert_rules.note_evaluated"), rule.key, at)
        self._past_looks[rule.key] = _PastLook(at, rule.revision, fault)
        return changes

    async def _note_fault(self, connection: Connection, rule: AlertRule, fault: str | None) -> None:
        """Note why a rule cannot be evaluated, or that it can be."""
        if fault == rule.fault:
            return
        await connection.execute(sql("alert_rules.note_fault"), rule.key, fault)
        if fault is not None:
            logger().warning("alert_rule_faulty", rule=rule.key, fault=fault)

    async def _note(self, connection: Connection, rule: AlertRule, changes: Sequence[_Change], at: datetime) -> int:
        """Note and publish, some subjects at a time; say how much. What is not noted when we die is seen again."""
        for some in _by_subjects(changes, self._limits.notification_subjects_max):
            async with connection.transaction():
                told = []
                # What is closed comes before what is raised of the same subject, unless it is the same alert.
                for each in some:
                    if each.resolution is None:
                        await connection.execute(sql("alerts.raise_alert"), *_cells(rule, each, at))
                        told.append(_event("alert.raised", rule, each))
                        continue
                    resolved = await connection.fetchval(
                        sql("alerts.resolve_alert"), each.id, at, each.resolution.value, each.value
                    )
                    if resolved is not None:
                        told.append(_event("alert.resolved", rule, each))
                await publish_all(connection, told, at, self._limits)
        return len(changes)


def _by_subjects(changes: Sequence[_Change], subjects_max: int) -> Iterator[list[_Change]]:
    """Changes in order of the subjects' names, of so many subjects at a time; those of one subject stay together."""
    in_order = sorted(changes, key=lambda change: change.seen.subject)
    of_subjects = [list(of) for _, of in groupby(in_order, key=lambda change: change.seen.subject)]
    for first in range(0, len(of_subjects), subjects_max):
        yield [change for of in of_subjects[first : first + subjects_max] for change in of]


def _closing(each: Open, rule: AlertRule, at: datetime) -> Resolution | None:
    """Why an alert is closed whatever its figure is; None where that decides."""
    if not rule.enabled or each.revision != rule.revision:
        return Resolution.RULE_CHANGED
    return Resolution.PERIOD_ENDED if each.seen.period.end <= at else None


def _crossed(rule: AlertRule, opened: Sequence[Open], seen: Sequence[Seen]) -> list[_Change]:
    """What figures of the running periods did."""
    known = {each.seen.place: each for each in opened}
    changes = []
    for each in seen:
        before = known.get(each.place)
        match crossing(each, rule.definition.bounds, is_open=before is not None):
            case Crossing.RAISED:
                changes.append(_Change(id=uuid4(), seen=each))
            case Crossing.RESOLVED if before is not None:
                changes.append(_Change(id=before.id, seen=each, resolution=Resolution.BELOW, value=each.value))
            case _:
                pass
    return changes


async def _late(connection: Connection, rule: AlertRule, seen: Sequence[Seen], at: datetime) -> list[_Change]:
    """Periods that are over, in which nobody was told; of the time in which the rule said what it says."""
    late = [
        each
        for each in seen
        if rule.changed_at < each.period.end <= at and crossing(each, rule.definition.bounds, is_open=False)
    ]
    starts = sorted({each.period.start for each in late})
    rows = await connection.fetch(sql("alerts.list_raised"), rule.key, starts) if late else []
    told = {(row["subject"], in_utc(row["period_from"])) for row in rows}
    changes = []
    for each in late:
        if each.place not in told:
            raised = _Change(id=uuid4(), seen=each)
            ended = _Change(id=raised.id, seen=each, resolution=Resolution.PERIOD_ENDED, value=each.value)
            changes += [raised, ended]
    return changes


def _cells(rule: AlertRule, change: _Change, at: datetime) -> tuple[object, ...]:
    seen, values = change.seen, change.seen.values
    return (
        change.id,
        rule.key,
        rule.revision,
        rule.measure_name,
        seen.subject,
        msgspec.json.encode(seen.dimensions).decode(),
        *(values.get(name) for name in ("account", "subscription", "user")),
        seen.period.start,
        seen.period.end,
        seen.value,
        seen.whole,
        rule.definition.bounds.threshold,
        at,
    )


def _event(type_name: str, rule: AlertRule, change: _Change) -> OutboxEvent:
    seen, bounds = change.seen, rule.definition.bounds
    value = seen.value if change.resolution is None else change.value
    data: dict[str, Any] = {
        "alert": str(change.id),
        "rule": rule.key,
        "name": rule.name,
        "measure": rule.measure_name,
        "dimensions": dict(seen.dimensions),
        "period": {"from": instant_text(seen.period.start), "to": instant_text(seen.period.end)},
        "value": None if value is None else plain(value),
        "whole": None if seen.whole is None else plain(seen.whole),
        "threshold": plain(bounds.threshold),
        "resolveBelow": plain(bounds.resolve_below),
    }
    if change.resolution is not None:
        data["resolution"] = change.resolution.value
    return OutboxEvent(type=type_name, subject=seen.subject, data=data)


def _open(row: Any) -> Open:
    dimensions = msgspec.json.decode(row["dimensions"], type=tuple[tuple[str, str | None], ...])
    seen = Seen(
        dimensions=dimensions,
        period=Period(in_utc(row["period_from"]), in_utc(row["period_to"])),
        value=row["value"],
        whole=row["whole"],
    )
    return Open(id=row["id"], revision=row["revision"], seen=seen)
