"""The values that a dimension has: what a front end offers while somebody types."""

from graphql_api.context import MeteringInfo
from graphql_api.pages import check_first
from graphql_api.questions import UsageQuery, question_of
from metering.errors import InputIssue, InvalidInputError
from metering.events import Dimension
from metering.keys import Scope
from metering.rollups.read import read_values


async def resolve_dimension_values(
    dimension: Dimension, query: UsageQuery, prefix: str, first: int, info: MeteringInfo
) -> list[str]:
    """The values a dimension has in the usage asked for, by prefix."""
    context = info.context
    context.require(Scope.USAGE_READ)
    question = question_of(query, context.limits)
    check_first(first, context.limits, ("first",))
    if "\0" in prefix:
        raise InvalidInputError(
            [InputIssue(("prefix",), "The prefix holds a NUL character; no usage has such a value.")]
        )
    return await read_values(context.snapshot, question, dimension, prefix, first)
