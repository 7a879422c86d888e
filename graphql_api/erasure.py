"""Erasing users of accounts. Only who reaches everything may."""

from typing import Annotated

import strawberry

from graphql_api.context import MeteringInfo
from graphql_api.problems import Conflict, InvalidInput
from graphql_api.scalars import BigInt
from metering.keys import Scope


@strawberry.input
class EraseUserInput:
    """Which user of which account."""

    account: str
    key: str


@strawberry.type
class EraseUserSuccess:
    """A user that nobody knows any more."""

    events: BigInt = strawberry.field(
        description="How many events were the user's; 0 where there is no such user, or not any more."
    )


EraseUserResult = Annotated[EraseUserSuccess | InvalidInput | Conflict, strawberry.union("EraseUserResult")]


async def resolve_erase_user(given: EraseUserInput, info: MeteringInfo) -> EraseUserResult:
    """Erase a user."""
    context = info.context
    key = context.require(Scope.ADMIN)
    return EraseUserSuccess(events=BigInt(await context.service.erase_user(given.account, given.key, key)))
