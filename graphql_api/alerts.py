"""Alerts: what rules have raised, and what became of it."""

from collections.abc import Mapping
from enum import Enum
from typing import Any, Final
from uuid import UUID

import msgspec
import strawberry

from graphql_api.context import MeteringInfo
from graphql_api.left_out import given_or_none
from graphql_api.pages import (
    Connection,
    CursorInstant,
    check_first,
    check_instant,
    decode_cursor,
    encode_cursor,
    page_of,
)
from graphql_api.questions import Period
from graphql_api.scalars import DecimalText, Instant
from graphql_api.usage import UsageKey
from metering.alerts import history
from metering.alerts.history import AlertPlace, AlertsChosen, Resolution, read_alerts
from metering.events import in_utc
from metering.keys import Scope

_RESOLUTIONS: Final[Mapping[Resolution, str]] = {
    Resolution.BELOW: "The figure fell below the rule's lower bound.",
    Resolution.PERIOD_ENDED: "Its period was over; in the next one it counts from nothing.",
    Resolution.RULE_CHANGED: "The rule says something else now, or was switched off.",
}
_resolution: Any = strawberry.enum(Resolution, name="AlertResolution")
for _value in _resolution.__strawberry_definition__.values:
    _value.description = _RESOLUTIONS[Resolution(_value.value)]


@strawberry.enum(description="What a rule looks at.")
class AlertMeasure(Enum):
    """The four measures."""

    QUANTITY = "QUANTITY"
    AMOUNT = "AMOUNT"
    INCLUDED_SHARE = "INCLUDED_SHARE"
    STATEMENT_TOTAL = "STATEMENT_TOTAL"


@strawberry.type(description="A subject's figure in a period came to a rule's bound.")
class Alert:
    """One alert."""

    id: strawberry.ID = strawberry.field(description="Notifications of it have it as `alert`.")
    rule: str = strawberry.field(description="The rule's key.")
    measure: AlertMeasure
    subject: str = strawberry.field(description="As notifications name it.")
    key: UsageKey
    period: Period
    value: DecimalText = strawberry.field(description="The figure that raised it.")
    whole: DecimalText | None = strawberry.field(
        description="What it is compared with a share of: an included quantity, or a budget."
    )
    threshold: DecimalText
    raised_at: Instant
    resolved_at: Instant | None
    resolution: Resolution | None
    resolved_value: DecimalText | None = strawberry.field(description="The figure that resolved it, where one did.")


AlertConnection = Connection[Alert]


@strawberry.input(description="All that are given must hold.")
class AlertFilter:
    """Which alerts are meant."""

    rule: str | None = strawberry.UNSET
    account: str | None = strawberry.UNSET
    open: bool = strawberry.field(default=False, description="Only those that are not resolved.")


class _AlertPlace(msgspec.Struct, frozen=True, array_like=True):
    """What a cursor holds."""

    raised_at: CursorInstant
    id: UUID

    def __post_init__(self) -> None:
        check_instant(self.raised_at)


async def resolve_alerts(filter: AlertFilter, first: int, after: str | None, info: MeteringInfo) -> AlertConnection:
    """Alerts, the newest first; those of amounts only for who may see amounts."""
    context = info.context
    key = context.require(Scope.USAGE_READ)
    check_first(first, context.limits, ("first",))
    place = decode_cursor(after, _AlertPlace, ("after",)) if after else None
    chosen = AlertsChosen(
        rule=given_or_none(filter.rule),
        account=given_or_none(filter.account),
        open_only=filter.open,
        with_amounts=key.holds(Scope.CHARGES_READ),
    )
    behind = None if place is None else AlertPlace(in_utc(place.raised_at), place.id)
    found, has_next = await read_alerts(context.snapshot, chosen, first, behind)
    cursors = [encode_cursor(_AlertPlace(each.raised_at, each.id)) for each in found]
    return page_of([_shown(each) for each in found], cursors, has_next=has_next, has_previous=place is not None)


def _shown(alert: history.Alert) -> Alert:
    return Alert(
        id=strawberry.ID(str(alert.id)),
        rule=alert.rule,
        measure=AlertMeasure(alert.measure),
        subject=alert.subject,
        key=UsageKey(**dict(alert.dimensions)),
        period=Period(from_=Instant(alert.period.start), to=Instant(alert.period.end)),
        value=DecimalText(alert.value),
        whole=None if alert.whole is None else DecimalText(alert.whole),
        threshold=DecimalText(alert.threshold),
        raised_at=Instant(alert.raised_at),
        resolved_at=None if alert.resolved_at is None else Instant(alert.resolved_at),
        resolution=alert.resolution,
        resolved_value=None if alert.resolved_value is None else DecimalText(alert.resolved_value),
    )
