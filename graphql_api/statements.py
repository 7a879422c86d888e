"""Statements: what subscriptions owe, as drafts of the moment and as they were frozen."""

from collections.abc import Mapping
from typing import Annotated, Any, Final

import msgspec
import strawberry

from graphql_api.auth import HIDDEN, INTERNAL
from graphql_api.charge_lines import ChargeLine, charge_line_of, credit_line_of
from graphql_api.context import Context, MeteringInfo
from graphql_api.left_out import given_or_none
from graphql_api.money import Money, money_of
from graphql_api.nodes import DraftStatementName, Node, StatementName, named, node_id, sealed_id
from graphql_api.once import Once
from graphql_api.pages import (
    Connection,
    CursorInstant,
    CursorText,
    check_first,
    check_instant,
    decode_cursor,
    encode_cursor,
    opened,
    page_of,
)
from graphql_api.plans import Plan, plan_of
from graphql_api.problems import Conflict, NotFound
from graphql_api.questions import Period, PeriodInput
from graphql_api.scalars import Instant, JsonObject
from graphql_api.usage import UsageTotal, usage_totals
from metering.errors import ConflictError, InputIssue, InvalidInputError, NotFoundError
from metering.events import Dimension, in_utc
from metering.keys import Scope
from metering.plans import PublishedPlan, find_plan
from metering.seal import Seal
from metering.statements import read
from metering.statements.history import FinalStatement, StatementStatus
from metering.statements.kept import Chosen, Place, find_kept
from metering.statements.records import PlanVersion, evidence_json
from rating.periods import Period as RatingPeriod

_KIND: Final = "Statement"
_STATUSES: Final[Mapping[StatementStatus, str]] = {
    StatementStatus.DRAFT: "Computed from the usage of the moment; nothing of it is stored.",
    StatementStatus.FINAL: "Frozen: what it says stays.",
    StatementStatus.VOID: "Was final, and was taken back; it stays on record.",
}
_status: Any = strawberry.enum(StatementStatus)
for _value in _status.__strawberry_definition__.values:
    _value.description = _STATUSES[StatementStatus(_value.value)]


async def _published(version: PlanVersion, context: Context, once: Once) -> PublishedPlan:
    found = await once.ask(("plan", version), lambda: find_plan(context.snapshot, version.plan, version.version))
    assert found is not None, "versions of plans are not deleted"
    return found


class _Unrated(msgspec.Struct, frozen=True):
    """What counts values among the usage that no price of a statement covers."""

    context: Context
    statement: read.Statement
    once: Once

    async def distinct(self, dimension: Dimension, _: int, unit: str) -> int:
        """How many values of the dimension usage of this unit has."""
        counts = await self.once.ask(
            ("distinct", dimension, id(self.statement)),
            lambda: read.count_unrated_of(self.context.snapshot, self.statement, dimension),
        )
        return counts.get(unit, 0)


@strawberry.type(
    description="What a subscription owes for a billing period. After the subscription's end, closing statements carry "
    "what becomes of frozen periods later."
)
class Statement(Node):
    """One statement."""

    id: strawberry.ID = strawberry.field(
        description="Globally unique and opaque. A draft's leads to whatever is the statement of its period."
    )
    account: str
    subscription: str
    period: Period
    status: StatementStatus
    is_closing: bool = strawberry.field(description="Whether it is of what came after the subscription's end.")
    as_of: Instant = strawberry.field(description="Usage acknowledged before this instant is rated.")
    lines: list[ChargeLine]
    total: Money = strawberry.field(description="After credits: what all lines add up to.")
    total_before_credits: Money = strawberry.field(
        description="What all lines but those of kind CREDIT add up to; `charges` are of these."
    )
    finalized_at: Instant | None
    finalized_by: str | None = strawberry.field(directives=INTERNAL, extensions=HIDDEN)
    voided_at: Instant | None
    voided_by: str | None = strawberry.field(directives=INTERNAL, extensions=HIDDEN)
    void_reason: str | None
    statement: strawberry.Private[read.Statement]
    context: strawberry.Private[Context]
    once: strawberry.Private[Once]

    @strawberry.field(description="In order of effect, where the plan or its version changes inside the period.")
    async def plans(self) -> list[Plan]:
        """Each version is read once for all statements of a page."""
        return [plan_of(await _published(each, self.context, self.once)) for each in self.statement.evidence.plans]

    @strawberry.field(
        description="Usage of this subscription in the period that no price covers: no meter of a plan that was in effect "
        "counts it. `distinct` is of the usage as it is now, also of a final statement."
    )
    def unrated(self) -> list[UsageTotal]:
        """By unit."""
        return usage_totals(self.statement.evidence.unrated, _Unrated(self.context, self.statement, self.once))

    @strawberry.field(
        description="What it was made of: the meters' figures for each part of the period, plan versions, seats and "
        "discount; and the same of the periods that it adjusts. Decimals are strings."
    )
    def evidence(self) -> JsonObject:
        """As it is kept."""
        return JsonObject(msgspec.json.decode(evidence_json(self.statement.evidence)))


StatementResult = Annotated[Statement | NotFound | Conflict, strawberry.union("StatementResult")]


@strawberry.input(description="All that are given must hold.")
class StatementFilter:
    """Which statements."""

    account: str | None = strawberry.UNSET
    subscription: str | None = strawberry.UNSET
    status: StatementStatus | None = strawberry.UNSET
    period: PeriodInput | None = strawberry.field(
        default=strawberry.UNSET, description="Keep statements whose period has an instant in common with this one."
    )


StatementConnection = Connection[Statement]


class _StatementPlace(msgspec.Struct, frozen=True, array_like=True):
    """What a cursor holds."""

    subscription: CursorText
    start: CursorInstant
    # Of a draft of the number zero.
    sealed: str

    def __post_init__(self) -> None:
        check_instant(self.start)


# ---------------------------------------------------------------- asking


async def resolve_statement(subscription: str, at: Instant, info: MeteringInfo) -> StatementResult:
    """The statement that an instant belongs to."""
    context = info.context
    context.require(Scope.CHARGES_READ)
    found = await read.statement_at(context.snapshot, subscription, at, context.limits)
    return _shown(found, context, Once())


async def resolve_statements(
    given: StatementFilter, first: int, after: str | None, info: MeteringInfo
) -> StatementConnection:
    """Statements by subscription, period and age."""
    context = info.context
    context.require(Scope.CHARGES_READ)
    check_first(first, context.limits, ("first",))
    cursor = decode_cursor(after, _StatementPlace, ("after",)) if after else None
    place = None if cursor is None else _place(cursor, context.service.seal)
    chosen = _chosen(given)
    found, has_next = await read.read_statements(context.snapshot, chosen, first, place, context.limits)
    once = Once()
    nodes = [_shown(each, context, once) for each in found]
    cursors = [encode_cursor(_cursor_of(each, context.service.seal)) for each in found]
    return page_of(nodes, cursors, has_next=has_next, has_previous=place is not None)


async def find_statement_node(name: StatementName | DraftStatementName, info: MeteringInfo) -> Statement | None:
    """The statement of a global id, if the caller sees its account."""
    context = info.context
    context.require(Scope.CHARGES_READ)
    if isinstance(name, StatementName):
        number = context.service.seal.opened(_KIND, name.sealed)
        final = None if number is None else await find_kept(context.snapshot, number)
        return None if final is None else _shown(final, context, Once())
    try:
        at = in_utc(name.start)
        found = await read.statement_at(context.snapshot, name.subscription, at, context.limits)
    except (NotFoundError, InvalidInputError):
        return None
    return _shown(found, context, Once())


def _chosen(given: StatementFilter) -> Chosen:
    account, subscription = given_or_none(given.account), given_or_none(given.subscription)
    period = given_or_none(given.period)
    if period is not None and period.from_ >= period.to:
        message = "`to` must be later than `from`; a period is half-open [from, to)."
        raise InvalidInputError([InputIssue(("filter", "period", "to"), message)])
    return Chosen(
        subscriptions=None if subscription is None else [subscription],
        accounts=None if account is None else [account],
        status=given_or_none(given.status),
        period=None if period is None else RatingPeriod(period.from_, period.to),
    )


def _cursor_of(statement: read.Statement, seal: Seal) -> _StatementPlace:
    place = read.place_of(statement)
    return _StatementPlace(place.subscription, place.start, seal.closed(_KIND, place.id))


def _place(cursor: _StatementPlace, seal: Seal) -> Place:
    return Place(cursor.subscription, in_utc(cursor.start), opened(seal, _KIND, cursor.sealed, ("after",)))


# ---------------------------------------------------------------- freezing and taking back


async def resolve_finalize_statement(subscription: str, at: Instant, info: MeteringInfo) -> StatementResult:
    """Freeze a statement."""
    context = info.context
    key = context.require(Scope.CHARGES_WRITE)
    return _shown(await context.service.finalize_statement(subscription, at, key), context, Once())


async def resolve_void_statement(id: str, reason: str, info: MeteringInfo) -> StatementResult:
    """Take a final statement back."""
    context = info.context
    key = context.require(Scope.CHARGES_WRITE)
    name = named(id)
    if isinstance(name, DraftStatementName):
        raise ConflictError("This is the id of a draft; only a final statement can be voided.")
    number = context.service.seal.opened(_KIND, name.sealed) if isinstance(name, StatementName) else None
    if number is None:
        raise NotFoundError("There is no final statement of this id.")
    return _shown(await context.service.void_statement(number, reason, key), context, Once())


def _shown(statement: read.Statement, context: Context, once: Once) -> Statement:
    final = statement if isinstance(statement, FinalStatement) else None
    draft = ("DraftStatement", statement.subscription, statement.period.start)
    return Statement(
        id=node_id(*draft) if final is None else sealed_id(_KIND, final.id, context.service.seal),
        account=statement.account,
        subscription=statement.subscription,
        period=Period(from_=Instant(statement.period.start), to=Instant(statement.period.end)),
        status=statement.status,
        is_closing=statement.is_closing,
        as_of=Instant(statement.as_of),
        lines=[
            *(charge_line_of(each.line, each.adjusts, each.description) for each in statement.lines),
            *(credit_line_of(each, statement.period) for each in statement.credits),
        ],
        total=money_of(statement.owed),
        total_before_credits=money_of(statement.total),
        finalized_at=None if final is None else Instant(final.finalized_at),
        finalized_by=None if final is None else final.finalized_by,
        voided_at=None if final is None or final.voided_at is None else Instant(final.voided_at),
        voided_by=None if final is None else final.voided_by,
        void_reason=None if final is None else final.void_reason,
        statement=statement,
        context=context,
        once=once,
    )
