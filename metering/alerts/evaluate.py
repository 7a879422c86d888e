"""Rules against figures: what crossed a bound is noted, and published, in one transaction; once for each crossing.

One process at a time evaluates. Figures are read in a snapshot of their own, what is open on the session that holds the
lock: nobody else changes it. It may be killed anywhere; the next run sees the same figures, and what was not committed again.

A period that is over is looked at for a while still: an event that comes late, or is corrected, may have lifted a figure over
the bound in it. Such an alert is raised and closed at once, so that somebody is told. See docs/adr/0024.
"""

import time
from collections.abc import Callable, Sequence
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any, Final
from uuid import UUID, uuid4

import msgspec

from metering.alerts.crossings import Crossing, Seen, crossing
from metering.alerts.figures import Dimensions, Look, read_seen
from metering.alerts.history import Resolution
from metering.alerts.rules import AlertRule, rules_of
from metering.errors import DatabaseUnavailableError, MeteringError
from metering.events import in_utc
from metering.limits import Limits
from metering.outbox.event import OutboxEvent
from metering.outbox.publish import publish
from metering.periods import Period
from metering.reach import EVERYTHING
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


class Evaluator:
    """Evaluates rules, each as often as its own cost allows."""

    def __init__(self, database: Database, limits: Limits) -> None:
        self._database = database
        self._limits = limits
        # By rule: not before, on the clock of time.monotonic(); and since when its last period was not looked at.
        self._rests_until: dict[str, float] = {}
        self._took_seconds: dict[str, float] = {}
        self._looked_before_at: dict[str, datetime] = {}

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
                changed = await self._evaluate(connection, rule, now, look_before=all_rules)
                if changed and published is not None:
                    published()
                changes += changed
                ended = time.monotonic()
                self._took_seconds[rule.key] = ended - started
                self._rests_until[rule.key] = ended + _REST_FACTOR * (ended - started)
            return changes

    async def _evaluate(
        self, connection: Connection, rule: AlertRule, now: datetime | None, *, look_before: bool
    ) -> int:
        opened = [_open(row) for row in await connection.fetch(sql("alerts.list_open"), rule.key)]
        if not rule.enabled and not opened:
            return 0
        fault = None
        try:
            changes, at = await self._found(connection, rule, opened, now, look_before=look_before)
        except DatabaseUnavailableError:
            raise
        except MeteringError as error:
            fault, changes, at = str(error), [], None
        if fault != rule.fault:
            await connection.execute(sql("alert_rules.note_fault"), rule.key, fault)
            if fault is not None:
                logger().warning("alert_rule_faulty", rule=rule.key, fault=fault)
        if at is not None:
            await self._note(connection, rule, changes, at)
        return len(changes)

    async def _found(
        self,
        connection: Connection,
        rule: AlertRule,
        opened: Sequence[Open],
        now: datetime | None,
        *,
        look_before: bool,
    ) -> tuple[list[_Change], datetime]:
        """What has crossed a bound, and as of when."""
        async with Snapshot(self._database, EVERYTHING) as snapshot:
            at = in_utc((await snapshot.horizon()).as_of) if now is None else now
            changes = [
                _Change(id=each.id, seen=each.seen, resolution=reason)
                for each in opened
                if (reason := _closing(each, rule, at)) is not None
            ]
            if not rule.enabled:
                return changes, at
            going_on = [each for each in opened if _closing(each, rule, at) is None]
            named: list[Dimensions] = [each.seen.dimensions for each in going_on]
            seen = await read_seen(snapshot, Look(rule=rule, at=at, before=False, named=named), self._limits)
            changes += _crossed(rule, going_on, seen)
            if look_before or at >= self._looked_before_at.get(rule.key, at) + _BEFORE_EVERY:
                before = await read_seen(snapshot, Look(rule=rule, at=at, before=True), self._limits)
                changes += await _late(connection, rule, before, at)
                self._looked_before_at[rule.key] = at
            self._looked_before_at.setdefault(rule.key, at)
        return changes, at

    async def _note(self, connection: Connection, rule: AlertRule, changes: Sequence[_Change], at: datetime) -> None:
        """Note and publish, in order of the subjects' names: whoever publishes of several takes them in one order."""
        if not changes:
            return
        async with connection.transaction():
            # What is closed comes before what is raised of the same subject, unless it is the same alert.
            for each in sorted(changes, key=lambda change: change.seen.subject):
                if each.resolution is None:
                    await connection.execute(sql("alerts.raise_alert"), *_cells(rule, each, at))
                    await publish(connection, _event("alert.raised", rule, each), at)
                    continue
                resolved = await connection.fetchval(
                    sql("alerts.resolve_alert"), each.id, at, each.resolution.value, each.value
                )
                if resolved is not None:
                    await publish(connection, _event("alert.resolved", rule, each), at)


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
