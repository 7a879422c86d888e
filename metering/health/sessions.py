"""What questions about sessions of users have in common: they are read from events, so they are bounded before they are asked.

A session ends with half an hour without a use: an event of a user that is neither a reversal nor in the background. Sessions are
made of what is asked for: of one subscription, or one product, they are those of that alone.
"""

from datetime import timedelta
from typing import Any, Final

import msgspec

from metering.errors import InputIssue, InvalidInputError
from metering.events import Dimension
from metering.health.conventions import SERVICE_ACCOUNT, columns_of, read_conventions
from metering.health.gathering import within
from metering.limits import Limits
from metering.questions import Question
from metering.recorded import check_events_kept
from metering.rollups.read import read_totals
from metering.store.filters import filter_shapes
from metering.store.snapshot import Snapshot
from metering.store.usage_query import Compiled, FilterShape

_DAY: Final = timedelta(days=1)


class Sessions(msgspec.Struct, frozen=True):
    """A question about sessions that may be asked: the shapes of its filters, and what its statements are given."""

    snapshot: Snapshot
    question: Question
    filters: tuple[FilterShape, ...]
    values: dict[str, object]

    async def rows(self, statement: Compiled, **values: object) -> list[Any]:
        """The rows of a statement."""
        return await self.snapshot.fetch(statement.text, statement.arguments({**self.values, **values}))


def sessions_faults(question: Question, limits: Limits) -> list[InputIssue]:
    """What is wrong with a question about sessions, as far as it is known without the events."""
    period = question.period
    if period.end - period.start <= limits.sessions_days_max * _DAY:
        return []
    days = -((period.start - period.end) // _DAY)
    message = f"This is a period of {days:,} days, and sessions are read from {limits.sessions_days_max:,} at most; ask for a "
    return [InputIssue(("query", "period"), f"{message}shorter one.")]


async def ask_sessions(snapshot: Snapshot, question: Question, limits: Limits) -> Sessions:
    """The question, if it may be asked.

    Raises InvalidInputError where the period is too long, reaches below the events that are retained, or has more of them than
    are read for one answer. Rollups say how many there are: all of what is asked for, also those that are no uses.
    """
    if faults := sessions_faults(question, limits):
        raise InvalidInputError(faults)
    await check_events_kept(snapshot, question)
    totals = await read_totals(snapshot, msgspec.structs.replace(question, group_by=()))
    events = sum(total.events for total in totals)
    if events > limits.sessions_events_max:
        message = (
            f"These are {events:,} events, and sessions are made of {limits.sessions_events_max:,} at most; ask for a "
        )
        raise InvalidInputError([InputIssue(("query", "period"), f"{message}shorter period, or for less by a filter.")])
    filters = filter_shapes(question, snapshot.reach)
    accounts, users = await _service_accounts(snapshot, question)
    values: dict[str, object] = {
        "period_from": question.period.start,
        "period_to": question.period.end,
        "service_accounts": accounts,
        "service_users": users,
        **{shape.parameter: chosen for shape, chosen in filters},
    }
    return Sessions(snapshot, question, tuple(shape for shape, _ in filters), values)


async def _service_accounts(snapshot: Snapshot, question: Question) -> tuple[list[str], list[str]]:
    """Users that are no persons as of the end of the period's last UTC day: their accounts, and their keys.

    Who reaches less than whole accounts is not told what is said of users, and gets figures of all that it sees.
    """
    if snapshot.reach.is_narrow:
        return [], []
    chosen = question.filters.get(Dimension.ACCOUNT)
    asked = None if chosen is None or chosen.negated else [value for value in chosen.values if value is not None]
    as_of = (question.period.end - timedelta.resolution).date() + _DAY
    conventions = await read_conventions(snapshot, within(snapshot, asked), as_of)
    return columns_of(conventions.users(SERVICE_ACCOUNT))
