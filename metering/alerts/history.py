"""The alerts that there were and are, within a caller's reach: whose figure it is decides who sees it."""

from datetime import datetime
from decimal import Decimal
from enum import Enum
from typing import Any
from uuid import UUID

import msgspec

from metering.alerts.rules import OF_AMOUNTS, OF_USAGE
from metering.events import in_utc
from metering.periods import Period
from metering.store.queries import sql
from metering.store.snapshot import Snapshot


class Resolution(Enum):
    """Why an alert was closed."""

    BELOW = "BELOW"
    PERIOD_ENDED = "PERIOD_ENDED"
    RULE_CHANGED = "RULE_CHANGED"


class Alert(msgspec.Struct, frozen=True, kw_only=True):
    """An alert: a subject's figure in a period came to a bound. `value` is the figure at which it was raised."""

    id: UUID
    rule: str
    measure: str
    subject: str
    dimensions: tuple[tuple[str, str | None], ...]
    period: Period
    value: Decimal
    whole: Decimal | None
    threshold: Decimal
    raised_at: datetime
    resolved_at: datetime | None
    resolution: Resolution | None
    resolved_value: Decimal | None


class AlertsChosen(msgspec.Struct, frozen=True, kw_only=True):
    """Which alerts are meant; None means all."""

    rule: str | None = None
    account: str | None = None
    open_only: bool = False
    # Also those of amounts.
    with_amounts: bool = False


class AlertPlace(msgspec.Struct, frozen=True):
    """Where an alert stands."""

    raised_at: datetime
    id: UUID


async def read_alerts(
    snapshot: Snapshot, chosen: AlertsChosen, first: int, after: AlertPlace | None
) -> tuple[list[Alert], bool]:
    """The `first` alerts, the newest first, from behind a place on; and whether there are more."""
    texts = [chosen.rule, chosen.account]
    if any(text is not None and "\0" in text for text in texts):
        return [], False
    measures = [*OF_USAGE, *(OF_AMOUNTS if chosen.with_amounts else ())]
    place = (None, None) if after is None else (after.raised_at, after.id)
    arguments = [*snapshot.reach.arguments(), *texts, chosen.open_only, measures, *place, first + 1]
    rows = await snapshot.fetch(sql("alerts.list_alerts"), arguments)
    return [_alert(row) for row in rows[:first]], len(rows) > first


def _alert(row: Any) -> Alert:
    return Alert(
        id=row["id"],
        rule=row["rule"],
        measure=row["measure"],
        subject=row["subject"],
        dimensions=msgspec.json.decode(row["dimensions"], type=tuple[tuple[str, str | None], ...]),
        period=Period(in_utc(row["period_from"]), in_utc(row["period_to"])),
        value=row["value"],
        whole=row["whole"],
        threshold=row["threshold"],
        raised_at=in_utc(row["raised_at"]),
        resolved_at=None if row["resolved_at"] is None else in_utc(row["resolved_at"]),
        resolution=None if row["resolution"] is None else Resolution(row["resolution"]),
        resolved_value=row["resolved_value"],
    )
