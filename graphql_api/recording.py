"""Mutations on events: record a few, correct one."""

from collections.abc import Mapping
from decimal import Decimal
from typing import Annotated, Any, Final

import msgspec
import strawberry

from graphql_api.context import MeteringInfo
from graphql_api.events import Event, events_of
from graphql_api.problems import Conflict, InvalidInput, NotFound
from graphql_api.scalars import DecimalText, Instant, JsonObject
from metering.corrections import Correction, CorrectionOrder, Value, read_corrections
from metering.errors import BodyError, InputIssue, InvalidInputError
from metering.events import Scalar, UsageEvent
from metering.ingest.receipts import Receipt
from metering.keys import Scope


class _Unnamed(str):
    """The source that stands in the schema for one that is not named; it tells itself from one that is."""

    __slots__ = ()


_SOURCE: Final = _Unnamed("graphql")


@strawberry.input
class UsageEventInput:
    """One event; the names are the contract's."""

    id: str
    source: str = _SOURCE
    occurred_at: Instant
    account: str
    subscription: str | None = strawberry.UNSET
    user: str | None = strawberry.UNSET
    device: str | None = strawberry.UNSET
    product: str
    feature: str | None = strawberry.UNSET
    classification: str | None = strawberry.UNSET
    unit: str
    quantity: DecimalText = DecimalText(Decimal(1))
    attributes: JsonObject | None = strawberry.UNSET


@strawberry.input
class RecordUsageInput:
    """A few events."""

    events: list[UsageEventInput]


@strawberry.type
class RejectedItem:
    """One refused event."""

    index: int
    id: str | None
    code: str
    message: str
    path: str | None


@strawberry.type
class RecordUsageReceipt:
    """What became of the events."""

    accepted: int
    duplicates: int
    rejected: list[RejectedItem]


RecordUsageResult = Annotated[RecordUsageReceipt | InvalidInput, strawberry.union("RecordUsageResult")]


@strawberry.input
class EventValuesInput:
    """Other values for an event: a field left out stays, null clears it."""

    subscription: str | None = strawberry.UNSET
    user: str | None = strawberry.UNSET
    device: str | None = strawberry.UNSET
    product: str | None = strawberry.UNSET
    feature: str | None = strawberry.UNSET
    classification: str | None = strawberry.UNSET
    unit: str | None = strawberry.UNSET
    quantity: DecimalText | None = strawberry.UNSET
    attributes: JsonObject | None = strawberry.field(
        default=strawberry.UNSET, description="All of them: one that is left out goes."
    )


@strawberry.input(
    description="Void the event, or give other values: a field left out stays, null clears it. For another account or "
    "time, void it and send a new event."
)
class CorrectEventInput:
    """Which event, and what becomes of it."""

    account: str
    source: str
    id: str
    occurred_at: Instant | None = strawberry.field(
        default=strawberry.UNSET, description="Where the same name was used on several days."
    )
    reason: str
    void: bool = False
    values: EventValuesInput | None = strawberry.UNSET


CorrectEventResult = Annotated[Event | NotFound | InvalidInput | Conflict, strawberry.union("CorrectEventResult")]


async def resolve_record_usage(given: RecordUsageInput, info: MeteringInfo) -> RecordUsageResult:
    """Record a few events."""
    context = info.context
    key = context.require(Scope.USAGE_WRITE)
    limits = key.limits.within(context.limits)
    if context.body_bytes > limits.body_bytes_max:
        message = f"This key may send {limits.body_bytes_max:,} bytes in a request; this has {context.body_bytes:,}."
        raise BodyError(413, "body_too_large", message)
    if len(given.events) > limits.body_events_max:
        message = f"{limits.body_events_max:,} events are taken; producers of many use POST /v1/events."
        raise InvalidInputError([InputIssue(("input", "events"), message)])
    events = [_usage_event(index, event, key.default_source) for index, event in enumerate(given.events)]
    return receipt_of(await context.service.record(events, key))


def _usage_event(index: int, given: UsageEventInput, default_source: str | None) -> UsageEvent:
    values: dict[str, Any] = {
        name: value
        for name in UsageEvent.__struct_fields__
        if (value := getattr(given, name)) not in (strawberry.UNSET, None)
    }
    if isinstance(given.source, _Unnamed):
        values["source"] = default_source or str(given.source)
    _check_scalars(values, ("input", "events", str(index)))
    return UsageEvent(**values)


def _check_scalars(values: Mapping[str, object], path: tuple[str, ...]) -> None:
    """Raise InvalidInputError where one of the attributes, if there are any, is no scalar."""
    try:
        # Through the wire's own types, so that what is refused there is refused here.
        msgspec.convert(values.get("attributes") or {}, dict[str, Scalar])
    except msgspec.ValidationError as error:
        message = f"An attribute is a string, number, true, false or null: {error}."
        raise InvalidInputError([InputIssue((*path, "attributes"), message)]) from error


def receipt_of(receipt: Receipt) -> RecordUsageReceipt:
    """A receipt as the API shows it."""
    return RecordUsageReceipt(
        accepted=receipt.accepted,
        duplicates=receipt.duplicates,
        rejected=[
            RejectedItem(
                index=rejection.index,
                id=rejection.id,
                code=rejection.code.value,
                message=rejection.message,
                path=rejection.path,
            )
            for rejection in receipt.rejected
        ],
    )


async def resolve_correct_event(given: CorrectEventInput, info: MeteringInfo) -> CorrectEventResult:
    """Take an event out of every figure, or put other values in its place."""
    context = info.context
    key = context.require(Scope.USAGE_WRITE)
    order = CorrectionOrder(
        account=given.account,
        source=given.source,
        event_id=given.id,
        occurred_at=given.occurred_at or None,
        reason=given.reason,
        void=given.void,
        values=_values(given.values or None),
    )
    corrected = await context.service.correct(order, key)
    # A snapshot of its own: the operation's may be older than what was just committed.
    async with context.service.snapshot(key.reach) as snapshot:
        corrections = await read_corrections(snapshot, [corrected])
    return events_of([corrected], lambda: _done(corrections))[0]


async def _done(corrections: list[list[Correction]]) -> list[list[Correction]]:
    return corrections


def _values(given: EventValuesInput | None) -> dict[str, Value]:
    if given is None:
        return {}
    values = {name: value for name, value in vars(given).items() if value is not strawberry.UNSET}
    _check_scalars(values, ("input", "values"))
    return values
