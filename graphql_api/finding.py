"""Any object by its global id. Each kind asks for its own scope: an id opens nothing that a list would not show."""

from typing import assert_never

from graphql_api.accounts import find_account_node
from graphql_api.context import MeteringInfo
from graphql_api.credits import find_credit_grant_node
from graphql_api.events import find_event
from graphql_api.meters import find_meter_node
from graphql_api.nodes import (
    AccountName,
    CreditGrantName,
    DraftStatementName,
    EventName,
    MeterName,
    Node,
    PlanName,
    RejectedEventName,
    StatementName,
    SubscriptionName,
    named,
)
from graphql_api.plans import find_plan_node
from graphql_api.rejected import find_rejected_event
from graphql_api.statements import find_statement_node
from graphql_api.subscriptions import find_subscription_node


async def resolve_node(id: str, info: MeteringInfo) -> Node | None:
    """The object of this id; None where there is none, or the caller may not see it."""
    name = named(id)
    match name:
        case None:
            return None
        case EventName():
            return await find_event(name, info)
        case RejectedEventName():
            return await find_rejected_event(name, info)
        case MeterName():
            return await find_meter_node(name, info)
        case PlanName():
            return await find_plan_node(name, info)
        case SubscriptionName():
            return await find_subscription_node(name, info)
        case AccountName():
            return await find_account_node(name, info)
        case StatementName() | DraftStatementName() | CreditGrantName():
            return await _find_billed(name, info)
        case _:
            assert_never(name)


async def _find_billed(name: StatementName | DraftStatementName | CreditGrantName, info: MeteringInfo) -> Node | None:
    if isinstance(name, CreditGrantName):
        return await find_credit_grant_node(name, info)
    return await find_statement_node(name, info)
