"""`usageTotals`: the totals of a question, and again whenever they have changed.

Each answer is of a snapshot of its own, which is closed before the answer is sent: a client that reads slowly holds nothing.
"""

from collections.abc import AsyncGenerator, Mapping, Sequence

import msgspec

from graphql_api.context import MeteringInfo
from graphql_api.cost import Cost
from graphql_api.live import Live
from graphql_api.lookahead import dimensions_asked
from graphql_api.questions import UsageQuery, question_of
from graphql_api.usage import UsageTotal, usage_totals
from metering.errors import InputIssue, InvalidInputError, ThrottledError, TimeLimitError, UnauthenticatedError
from metering.events import Dimension
from metering.keys import Scope
from metering.limits import Limits
from metering.questions import Question
from metering.rollups import read
from metering.service import Snapshot


class _Found(msgspec.Struct, frozen=True):
    """What one snapshot says: the totals, and of the dimensions that are asked for how many values there are, by unit."""

    totals: tuple[read.Total, ...]
    values: Mapping[Dimension, Mapping[str, int]]

    async def distinct(self, dimension: Dimension, _position: int, unit: str) -> int:
        """How many values of the dimension there are among usage of this unit."""
        return self.values[dimension].get(unit, 0)


async def stream_usage_totals(
    query: UsageQuery, every_seconds: int, info: MeteringInfo
) -> AsyncGenerator[list[UsageTotal], None]:
    """The totals at once, and again whenever they have changed. It ends when the process stops.

    Raises UnauthenticatedError or ForbiddenError as soon as the key may no longer ask, and LiveFullError.
    """
    context = info.context
    key = context.require(Scope.USAGE_READ)
    _check_every(every_seconds, context.limits)
    question = question_of(query, context.limits)
    dimensions = dimensions_asked(info.selected_fields)
    asker = context.asker
    assert asker is not None, "whoever may ask a live question says who they are"
    last = None
    with asker.live.question(key.sender):
        while True:
            caller = await asker.again()
            if caller is None:
                raise UnauthenticatedError("The key is over.")
            # What it reaches may have changed, as what it may do.
            reach = caller.require(Scope.USAGE_READ).reach
            try:
                async with asker.live.turn(), context.service.snapshot(reach) as snapshot:
                    found = await _find(snapshot, question, dimensions)
            except TimeoutError as error:
                message = (
                    f"The totals took longer than {context.limits.graphql_seconds_max} s; ask for a shorter period."
                )
                raise TimeLimitError(message) from error
            if found != last:
                last = found
                yield usage_totals(found.totals, found)
            if not await until_due(asker.live, context.cost, every_seconds):
                return


async def until_due(live: Live, cost: Cost, every_seconds: int) -> bool:
    """Wait until the next reading is due, and paid for: each costs one. False when the process stops before."""
    seconds = every_seconds
    while await live.rest(seconds):
        try:
            cost.begin(1)
        except ThrottledError as error:
            seconds = error.wait_seconds
        else:
            return True
    return False


def _check_every(seconds: int, limits: Limits) -> None:
    if not limits.live_seconds_min <= seconds <= limits.live_seconds_max:
        message = (
            f"This must be {limits.live_seconds_min:,} to {limits.live_seconds_max:,} seconds; {seconds:,} is not."
        )
        raise InvalidInputError([InputIssue(("everySeconds",), message)])


async def _find(snapshot: Snapshot, question: Question, dimensions: Sequence[Dimension]) -> _Found:
    await read.check_retained(snapshot, question)
    whole = msgspec.structs.replace(question, group_by=())
    totals = await read.read_totals(snapshot, whole)
    values = {}
    for dimension in dimensions:
        (values[dimension],) = await read.read_distinct(snapshot, whole, ((),), dimension, remainder=False)
    return _Found(totals, values)
