"""Accounts: what is known of a customer besides its usage."""

from typing import Annotated

import msgspec
import strawberry

from graphql_api.attributes import attributes_of
from graphql_api.context import MeteringInfo
from graphql_api.nodes import AccountName, Node, node_id
from graphql_api.problems import InvalidInput
from graphql_api.scalars import JsonObject
from graphql_api.subscriptions import SubscriptionFacts, facts_of
from metering import accounts
from metering.accounts import AccountOrder, find_account
from metering.keys import Scope
from metering.service import Snapshot
from metering.subscriptions import Subscription, read_subscriptions


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
        if not self.is_new:
            return await _subscriptions(info.context.snapshot, self.key, info)
        async with info.context.service.snapshot(info.context.snapshot.reach) as snapshot:
            return await _subscriptions(snapshot, self.key, info)


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
    return _shown(await context.service.put_account(order, key), is_new=True)


async def find_account_node(name: AccountName, info: MeteringInfo) -> Account | None:
    """The account of a global id, if the caller sees it."""
    context = info.context
    context.require(Scope.USAGE_READ)
    found = await find_account(context.snapshot, name.key)
    return None if found is None else _shown(found, is_new=False)


async def _subscriptions(snapshot: Snapshot, account: str, info: MeteringInfo) -> list[SubscriptionFacts]:
    found: list[Subscription] = []
    more = True
    while more:
        after = found[-1].key if found else None
        page, more = await read_subscriptions(snapshot, info.context.limits.page_rows_max, after, accounts=[account])
        found += page
    now = (await snapshot.horizon()).as_of
    return [facts_of(each, now) for each in found]


def _shown(account: accounts.Account, *, is_new: bool) -> Account:
    return Account(
        id=node_id("Account", account.key),
        key=account.key,
        name=account.name,
        attributes=JsonObject(msgspec.json.decode(account.attributes)),
        is_new=is_new,
    )
