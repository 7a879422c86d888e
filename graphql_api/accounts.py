"""Accounts: what is known of a customer besides its usage, its subscriptions, its users, and its health."""

from collections.abc import Sequence
from decimal import Decimal
from typing import Annotated, Any, Final

import msgspec
import strawberry

from graphql_api.attributes import attributes_of
from graphql_api.auth import requires
from graphql_api.context import MeteringInfo
from graphql_api.early_warnings import EarlyWarning, warnings_of
from graphql_api.health import health_field
from graphql_api.left_out import given_or_none
from graphql_api.nodes import AccountName, Node, node_id
from graphql_api.pages import CursorText, Edge, PageInfo, check_first, decode_cursor, edges_of, encode_cursor, page_info
from graphql_api.problems import InvalidInput
from graphql_api.questions import OrderDirection
from graphql_api.scalars import Instant, JsonObject
from graphql_api.subscriptions import SubscriptionFacts, facts_of
from graphql_api.users import UserConnection, users_of
from health.scorecards import Subject
from metering.accounts import AccountOrder
from metering.errors import InvalidInputError
from metering.health.customers import (
    Customer,
    CustomerField,
    CustomerFilter,
    CustomerOrder,
    find_customer,
    list_customers,
)
from metering.input_faults import attributes_issues
from metering.keys import Scope
from metering.limits import Limits
from metering.service import Snapshot
from metering.subjects import SubjectRef
from metering.subscriptions import Subscription, subscriptions_of

# Far more than scores, amounts and instants have.
_PLACE_DIGITS_MAX: Final = 100
_ORDERS: Final = {
    CustomerField.KEY: "The account's key.",
    CustomerField.SCORE: "The score for the purpose `health`, as it is now.",
    CustomerField.SCORE_CHANGE: "That score against the one 28 days before.",
    CustomerField.MONTHLY_AMOUNT: "What the subscriptions that run pay a month, where they are in one currency.",
    CustomerField.RENEWS_AT: "The first renewal of the subscriptions that run.",
}
_field: Any = strawberry.enum(CustomerField, name="AccountOrderField")
for _value in _field.__strawberry_definition__.values:
    _value.description = _ORDERS[CustomerField(_value.value)]


@strawberry.type(description="A customer.")
class Account(Node):
    """One account."""

    id: strawberry.ID = strawberry.field(description="Globally unique and opaque.")
    key: str
    name: str | None
    attributes: JsonObject
    # Whether it was put just now: the operation's snapshot may be older than that.
    is_new: strawberry.Private[bool]

    @strawberry.field(description="By key.")
    async def subscriptions(self, info: MeteringInfo) -> list[SubscriptionFacts]:
        """All of the account's."""
        context = info.context
        page_rows = context.limits.page_rows_max
        if not self.is_new:
            return await _facts(
                context.snapshot, await context.loaders.subscriptions(context.snapshot, self.key, page_rows)
            )
        async with context.service.snapshot(context.snapshot.reach) as snapshot:
            return await _facts(snapshot, (await subscriptions_of(snapshot, [self.key], page_rows))[self.key])

    @strawberry.field(description="By key: who has usage of the last year, or of whom something was said.")
    async def users(self, info: MeteringInfo, first: int = 50, after: str | None = strawberry.UNSET) -> UserConnection:
        """See graphql_api/users.py."""
        return await users_of(self.key, first, after or None, info)

    health = health_field(lambda account: SubjectRef(Subject.ACCOUNT, account.key, account.key))

    @strawberry.field(
        description="The newest early warnings of it and of all in it; none for a caller that is bound to accounts.",
        **requires(Scope.HEALTH_READ),
    )
    async def warnings(self, info: MeteringInfo, first: int = 20) -> list[EarlyWarning]:
        """See graphql_api/early_warnings.py."""
        return await warnings_of(self.key, first, info)


@strawberry.input
class PutAccountInput:
    """An account as it is put."""

    key: str
    name: str
    attributes: JsonObject | None = strawberry.UNSET


PutAccountResult = Annotated[Account | InvalidInput, strawberry.union("PutAccountResult")]


async def resolve_put_account(given: PutAccountInput, info: MeteringInfo) -> PutAccountResult:
    """Make an account, or change it."""
    context = info.context
    key = context.require(Scope.CATALOG_WRITE)
    order = AccountOrder(key=given.key, name=given.name, attributes=attributes_of(given.attributes))
    made = await context.service.put_account(order, key)
    return account_of(Customer(made.key, made.name, made.attributes), is_new=True)


async def find_account_node(name: AccountName, info: MeteringInfo) -> Account | None:
    """The account of a global id, if the caller sees it."""
    info.context.require(Scope.USAGE_READ)
    return await resolve_account(name.key, info)


# ---------------------------------------------------------------- lists


@strawberry.input(description="All that are given must hold.")
class AccountFilter:
    """Which accounts."""

    band: list[str] | None = strawberry.field(
        default=strawberry.UNSET,
        description="For the purpose `health`; needs the scope HEALTH_READ, as orders by score do.",
    )
    attributes: JsonObject | None = strawberry.field(
        default=strawberry.UNSET, description="Keep accounts whose attributes contain these."
    )
    text: str | None = strawberry.field(
        default=strawberry.UNSET,
        description="Keep accounts whose key or name contains this, in letters of either size.",
    )
    renews_before: Instant | None = strawberry.field(
        default=strawberry.UNSET, description="Keep accounts with a subscription that runs and renews before."
    )


@strawberry.input(
    name="AccountOrder", description="Accounts without a value are the last, whatever the direction; ties by key."
)
class AccountListOrder:
    """In which order."""

    field: CustomerField
    direction: OrderDirection


@strawberry.type
class AccountConnection:
    """One page of accounts."""

    edges: list[Edge[Account]]
    nodes: list[Account]
    page_info: PageInfo
    total_count: int


class _AccountPlace(msgspec.Struct, frozen=True, array_like=True):
    """What a cursor holds."""

    key: CursorText
    place: Decimal | None

    def __post_init__(self) -> None:
        if self.place is not None and not (self.place.is_finite() and abs(self.place.adjusted()) <= _PLACE_DIGITS_MAX):
            raise ValueError("no score, amount or instant is like this")


async def resolve_account(key: str, info: MeteringInfo) -> Account | None:
    """The account of this key, if the caller sees it."""
    found = await find_customer(info.context.snapshot, key)
    return None if found is None else account_of(found, is_new=False)


async def resolve_accounts(
    given: AccountFilter, order: AccountListOrder, first: int, after: str | None, info: MeteringInfo
) -> AccountConnection:
    """A page of accounts."""
    context = info.context
    check_first(first, context.limits, ("first",))
    place = decode_cursor(after, _AccountPlace, ("after",)) if after else None
    chosen = chosen_of(given, context.limits)
    ordered = CustomerOrder(order.field, descending=order.direction is OrderDirection.DESC)
    if chosen.bands is not None or ordered.is_of_scores:
        context.require(Scope.HEALTH_READ)
    behind = None if place is None else Customer(place.key, None, "{}", place.place)
    page = await list_customers(context.snapshot, chosen, ordered, first, behind)
    nodes = [account_of(each, is_new=False) for each in page.customers]
    cursors = [encode_cursor(_AccountPlace(each.key, each.place)) for each in page.customers]
    return AccountConnection(
        edges=edges_of(nodes, cursors),
        nodes=nodes,
        page_info=page_info(cursors, has_next=page.has_next, has_previous=place is not None),
        total_count=page.total,
    )


def chosen_of(given: AccountFilter, limits: Limits) -> CustomerFilter:
    """Which accounts are asked for. Raises InvalidInputError for attributes that cannot be."""
    bands = given_or_none(given.band)
    return CustomerFilter(
        bands=None if bands is None else tuple(bands),
        attributes=_contained(given_or_none(given.attributes), limits),
        text=given_or_none(given.text),
        renews_before=given_or_none(given.renews_before),
    )


def _contained(given: JsonObject | None, limits: Limits) -> str | None:
    if given is None:
        return None
    attributes = attributes_of(given)
    issues = list(attributes_issues(attributes, ("filter", "attributes"), limits))
    if issues:
        raise InvalidInputError(issues)
    return msgspec.json.encode(attributes).decode()


async def _facts(snapshot: Snapshot, subscriptions: Sequence[Subscription]) -> list[SubscriptionFacts]:
    now = (await snapshot.horizon()).as_of
    return [facts_of(each, now) for each in subscriptions]


def account_of(account: Customer, *, is_new: bool) -> Account:
    """An account as the API shows it."""
    return Account(
        id=node_id("Account", account.key),
        key=account.key,
        name=account.name,
        attributes=JsonObject(msgspec.json.decode(account.attributes)),
        is_new=is_new,
    )
