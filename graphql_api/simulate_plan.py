"""Simulations: who would pay more, and who less, on another plan; all from one snapshot."""

from collections.abc import Mapping
from decimal import Decimal
from typing import Annotated, Any, Final

import msgspec
import strawberry

from graphql_api.context import MeteringInfo
from graphql_api.left_out import given_or_none
from graphql_api.lookahead import pages_asked
from graphql_api.money import Money, money_of
from graphql_api.pages import CursorText, PageInfo, check_first, decode_cursor, encode_cursor, page_info
from graphql_api.plans import PublishPlanInput, draft_of
from graphql_api.problems import InvalidInput, NotFound, TooLarge
from graphql_api.questions import Period, PeriodInput
from graphql_api.scalars import Instant
from metering.keys import Scope
from metering.limits import LIMITS, Limits
from metering.statements.simulations import (
    PageAsked,
    Place,
    Report,
    Row,
    SimulationOrder,
    Sums,
    check_order,
    report_of,
)
from rating.simulations import Weight

_WEIGHTS: Final[Mapping[Weight, str]] = {
    Weight.LIGHT: "Uses as much as the average user of its subscription, or less.",
    Weight.HEAVY: "Uses more than the average user of its subscription.",
}
_weight: Any = strawberry.enum(
    Weight,
    name="UserWeight",
    description="How much a user uses, by the mean of its shares of what the meters of both plans counted for its subscription.",
)
for _value in _weight.__strawberry_definition__.values:
    _value.description = _WEIGHTS[Weight(_value.value)]


@strawberry.input
class SimulatePlanInput:
    """What is to be simulated."""

    plan: str | None = strawberry.field(default=strawberry.UNSET, description="A published plan; or give a draft.")
    version: int | None = strawberry.field(default=strawberry.UNSET, description="Its newest one when left out.")
    draft: PublishPlanInput | None = strawberry.UNSET
    period: PeriodInput = strawberry.field(description=f"Of {LIMITS.simulation_days_max} days at most.")
    account: str | None = strawberry.field(default=strawberry.UNSET, description="Everybody when left out.")
    by_user: bool = strawberry.field(default=False, description="Also split by user into light and heavy.")


@strawberry.type
class SimulationRow:
    """What is owed on both sides."""

    account: str
    subscription: str
    user: str | None = strawberry.field(description="Null where it is not split by user, and for what has no user.")
    weight: Weight | None = strawberry.field(description="Of the user.")
    current: Money
    simulated: Money
    difference: Money = strawberry.field(description="What would be owed more, or (below zero) less.")


@strawberry.type
class SimulationEdge:
    """A row and its place."""

    node: SimulationRow
    cursor: str


@strawberry.type
class SimulationConnection:
    """One page of rows."""

    edges: list[SimulationEdge]
    nodes: list[SimulationRow]
    page_info: PageInfo
    total_count: int


@strawberry.type(description="The light or the heavy users of all subscriptions together.")
class SimulatedUsers:
    """Users of one weight."""

    weight: Weight
    users: int
    current: list[Money]
    simulated: list[Money]
    pays_more: int
    pays_less: int
    unchanged: int


class _Rows(msgspec.Struct, frozen=True):
    """What was walked through, and which pages of it were asked for."""

    report: Report
    pages: Mapping[tuple[int, str | None], PageAsked]


@strawberry.type(
    description="Both sides are rated from the usage of the moment, without adjustments: what is frozen is rated again. "
    "What of the billing periods falls into the period counts, as in `charges`."
)
class PlanSimulation:
    """The answer."""

    period: Period
    as_of: Instant = strawberry.field(description="Every event acknowledged before this instant is counted.")
    current: list[Money] = strawberry.field(
        description="What is owed as it is; nothing where there is no subscription."
    )
    simulated: list[Money] = strawberry.field(description="What would be owed.")
    pays_more: int = strawberry.field(description="How many subscriptions would owe more.")
    pays_less: int
    unchanged: int
    other_currency: int = strawberry.field(
        description="How many subscriptions are left out, because they are in another currency than the plan."
    )
    users: list[SimulatedUsers] = strawberry.field(description="Light and heavy ones, where it is split by user.")
    walked: strawberry.Private[_Rows]

    @strawberry.field(
        description="Subscriptions, or with `byUser` their users: the biggest difference first, whichever way it goes; "
        "those alike by subscription and user."
    )
    def rows(self, first: int = 50, after: str | None = strawberry.UNSET) -> SimulationConnection:
        """One of the pages that were found on the way."""
        page = self.walked.report.page(self.walked.pages[first, after or None])
        nodes = [_node(row) for row in page.rows]
        cursors = [encode_cursor(_cursor_of(row)) for row in page.rows]
        return SimulationConnection(
            edges=[SimulationEdge(node=node, cursor=cursor) for node, cursor in zip(nodes, cursors, strict=True)],
            nodes=nodes,
            page_info=page_info(cursors, has_next=page.has_next, has_previous=bool(after)),
            total_count=self.walked.report.row_count,
        )


SimulatePlanResult = Annotated[
    PlanSimulation | InvalidInput | NotFound | TooLarge, strawberry.union("SimulatePlanResult")
]


class _RowPlace(msgspec.Struct, frozen=True, array_like=True):
    """What a cursor holds."""

    # As it is written: with all minor digits.
    difference: Annotated[str, msgspec.Meta(pattern=r"\A[0-9]{1,200}(\.[0-9]{1,10})?\Z")]
    subscription: CursorText
    user: CursorText | None


async def resolve_simulate_plan(given: SimulatePlanInput, info: MeteringInfo) -> SimulatePlanResult:
    """Rate a period's usage under another plan."""
    context = info.context
    context.require(Scope.CHARGES_READ)
    order = _order_of(given)
    # All pages are found on one way through, so they have to be known before.
    pages = {
        (asked.first, asked.after): _page_asked(asked.first, asked.after, context.limits)
        for asked in pages_asked(info.selected_fields, "rows")
    }
    simulation = await check_order(context.snapshot, order, context.limits)
    report = await report_of(context.snapshot, simulation, pages.values(), context.limits)
    horizon = await context.snapshot.horizon()
    totals = report.subscriptions
    return PlanSimulation(
        period=Period(from_=given.period.from_, to=given.period.to),
        as_of=Instant(horizon.as_of),
        current=_current(totals),
        simulated=_simulated(totals),
        pays_more=totals.pay_more,
        pays_less=totals.pay_less,
        unchanged=totals.unchanged,
        other_currency=simulation.other_currency,
        users=[_users(weight, sums) for weight, sums in report.users.items()] if order.by_user else [],
        walked=_Rows(report, pages),
    )


def _order_of(given: SimulatePlanInput) -> SimulationOrder:
    draft, account = given_or_none(given.draft), given_or_none(given.account)
    return SimulationOrder(
        plan=given_or_none(given.plan),
        version=given_or_none(given.version),
        draft=None if draft is None else draft_of(draft),
        start=given.period.from_,
        end=given.period.to,
        accounts=None if account is None else [account],
        by_user=given.by_user,
    )


def _page_asked(first: int, after: str | None, limits: Limits) -> PageAsked:
    check_first(first, limits, ("rows", "first"))
    cursor = None if after is None else decode_cursor(after, _RowPlace, ("rows", "after"))
    return PageAsked(
        first, None if cursor is None else Place(Decimal(cursor.difference), cursor.subscription, cursor.user)
    )


def _cursor_of(row: Row) -> _RowPlace:
    place = row.place
    return _RowPlace(f"{place.difference:f}", place.subscription, place.user)


def _node(row: Row) -> SimulationRow:
    return SimulationRow(
        account=row.account,
        subscription=row.subscription,
        user=row.user,
        weight=row.weight,
        current=money_of(row.compared.current),
        simulated=money_of(row.compared.simulated),
        difference=money_of(row.compared.difference),
    )


def _users(weight: Weight, sums: Sums) -> SimulatedUsers:
    return SimulatedUsers(
        weight=weight,
        users=sums.count,
        current=_current(sums),
        simulated=_simulated(sums),
        pays_more=sums.pay_more,
        pays_less=sums.pay_less,
        unchanged=sums.unchanged,
    )


def _current(sums: Sums) -> list[Money]:
    """One amount; none where nobody owes it."""
    return [money_of(sums.compared.current)] if sums.count else []


def _simulated(sums: Sums) -> list[Money]:
    return [money_of(sums.compared.simulated)] if sums.count else []
