"""Asking for statements: one by an instant, many in order; final ones as they are kept, all others computed at the moment."""

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from datetime import datetime, timedelta
from typing import TypeAlias

from metering.aggregations import TRAITS
from metering.errors import ConflictError, InputIssue, InvalidInputError, NotFoundError
from metering.events import Dimension, in_utc
from metering.limits import Limits
from metering.meters import Definition, read_definitions
from metering.rated_meters import rated_meter
from metering.statements.credits import with_credits
from metering.statements.drafts import Draft, Task, draft_of, task_of
from metering.statements.figures import FiguresRead, Needed, metered_period, read_figures
from metering.statements.history import Due, FinalStatement, History, StatementStatus
from metering.statements.kept import Chosen, Place, read_histories, read_kept
from metering.statements.unrated import Covering, UnratedRead, count_unrated, coverings_of, read_unrated
from metering.store.snapshot import Snapshot
from metering.subscriptions import read_rated
from rating.meters import Meter
from rating.periods import Period

Statement: TypeAlias = Draft | FinalStatement


async def statement_at(snapshot: Snapshot, subscription: str, at: datetime, limits: Limits) -> Statement:
    """The statement of the billing period that an instant lies in; or, after the subscription's end, the closing one.

    Raises NotFoundError where there is none within the snapshot's reach; ConflictError where the usage that it is made of
    is not kept any more; InvalidInputError for an instant that no calendar has.
    """
    history = await find_history(snapshot, subscription, at, limits)
    due = history.due_at(at)
    if due is None:
        raise _nothing_at(history, at)
    final = history.final_of(due)
    if final is not None:
        return final
    (draft,) = await with_credits(snapshot, await draft_all(snapshot, [task_of(history, due)]))
    if isinstance(draft, ConflictError):
        raise draft
    if draft.is_empty:
        raise _nothing_at(history, at)
    return draft


async def find_history(snapshot: Snapshot, subscription: str, at: datetime, limits: Limits) -> History:
    """A subscription with what was frozen of it, and its phases up to an instant. Raises as statement_at() does."""
    if not limits.asked_from_min <= at < limits.asked_to_max:
        message = f"This must be from {limits.asked_from_min:%FT%TZ} on and before {limits.asked_to_max:%FT%TZ}."
        raise InvalidInputError([InputIssue(("at",), message)])
    until = max(at, (await snapshot.horizon()).as_of) + timedelta.resolution
    found, _ = await read_rated(snapshot, 1, until=until, keys=[subscription])
    if not found:
        raise NotFoundError(f"There is no subscription {subscription!r:.60}.")
    (history,) = await read_histories(snapshot, found)
    return history


async def draft_all(snapshot: Snapshot, tasks: Sequence[Task]) -> list[Draft | ConflictError]:
    """Draft statements, in order; figures of many are read together. A ConflictError for what cannot be computed any more."""
    own = {each for task in tasks for each in task.needed()}
    again = {each for task in tasks for carried in task.carried for each in task.needed_again(carried)}
    coverings = await _coverings(snapshot, tasks)
    keys = {each.meter for each in own | again} | {key for each in coverings for key in each.meters}
    definitions = await read_definitions(snapshot, keys)
    meters = {key: rated_meter(definition) for key, definition in definitions.items()}
    raw_from = (await snapshot.horizon()).raw_from
    comparable = {each for each in again if _is_comparable(each, definitions[each.meter], raw_from)}
    figures = await read_figures(snapshot, own | comparable, definitions)
    unrated = await read_unrated(snapshot, coverings, meters)
    # Of many statements this takes a while, in which others are served.
    return await asyncio.to_thread(_drafted, tasks, figures, unrated, meters)


def _is_comparable(needed: Needed, definition: Definition, raw_from: datetime) -> bool:
    """Whether a frozen period's figure can be read again."""
    return TRAITS[definition.aggregation].from_rollups or metered_period(needed.period).start >= raw_from


async def _coverings(snapshot: Snapshot, tasks: Sequence[Task]) -> list[Covering]:
    """What may be unrated. A closing period may have begun long ago: of that, what is kept in full is looked at."""
    raw_from = (await snapshot.horizon()).raw_from
    coverings: list[Covering] = []
    for place, task in enumerate(tasks):
        period = task.due.period
        start = period.start if task.due.billing is not None else max(period.start, raw_from)
        if start < period.end:
            whole = Period(in_utc(start), period.end)
            coverings += coverings_of(place, task.history.subscriber, task.history.terms, whole)
    return coverings


async def count_unrated_of(
    snapshot: Snapshot, statements: Sequence[Statement], dimension: Dimension
) -> list[Mapping[str, int] | InvalidInputError]:
    """How many values of a dimension the usage has, as it is now, that no price of each statement covers, by unit; or why
    that is not to be had any more. Statements of one page are asked about together.
    """
    keys = {each.subscription for each in statements}
    until = max(each.period.end for each in statements)
    page, _ = await read_rated(snapshot, len(keys), until=until, keys=keys)
    histories = {each.subscription.key: each for each in await read_histories(snapshot, page)}
    coverings = [
        covering
        for place, each in enumerate(statements)
        for history in [histories[each.subscription]]
        for covering in coverings_of(place, history.subscriber, history.terms, each.period)
    ]
    definitions = await read_definitions(snapshot, {key for each in coverings for key in each.meters})
    meters = {key: rated_meter(definition) for key, definition in definitions.items()}
    counts = await count_unrated(snapshot, coverings, meters, dimension)
    return [counts.get(place, {}) for place in range(len(statements))]


def _drafted(
    tasks: Sequence[Task], figures: FiguresRead, unrated: UnratedRead, meters: Mapping[str, Meter]
) -> list[Draft | ConflictError]:
    results: list[Draft | ConflictError] = []
    for place, task in enumerate(tasks):
        fault = _fault(task.needed(), figures) or unrated.unreadable.get(place)
        if fault is not None:
            message = "; ".join(issue.message for issue in fault.issues)
            results.append(
                ConflictError(
                    f"The statement of {task.history.subscription.key!r:.60} from {task.due.period.start:%FT%TZ} on was not "
                    f"frozen, and cannot be computed any more. {message}"
                )
            )
            continue
        results.append(draft_of(task, figures.figures, meters, unrated.totals.get(place, ())))
    return results


def _fault(needed: Sequence[Needed], figures: FiguresRead) -> InvalidInputError | None:
    return next((figures.unreadable[each] for each in needed if each in figures.unreadable), None)


def _nothing_at(history: History, at: datetime) -> NotFoundError:
    key, terms = history.subscription.key, history.terms
    if at < terms.starts_at:
        reason = f"starts at {terms.starts_at:%FT%TZ}"
    elif history.ended_at is not None and at >= history.ended_at:
        reason = f"ended at {history.ended_at:%FT%TZ}, and nothing is to be made up for since"
    else:
        reason = "is on no plan then that has a version in effect"
    return NotFoundError(f"There is no statement at {at:%FT%TZ}: the subscription {key!r:.60} {reason}.")


# ---------------------------------------------------------------- many


async def read_statements(
    snapshot: Snapshot, chosen: Chosen, first: int, after: Place | None, limits: Limits
) -> tuple[list[Statement], bool]:
    """The `first` statements behind a place, by subscription, period and id (a draft first); and whether there are more.

    Drafts are of every period that has begun and is not frozen; one that cannot be computed any more is left out.
    """
    if chosen.status in {StatementStatus.FINAL, StatementStatus.VOID}:
        kept = await read_kept(snapshot, chosen, first + 1, after)
        return list(kept[:first]), len(kept) > first
    found: list[Statement] = []
    async for page in _pages(snapshot, chosen, after, limits):
        found += await _of_page(snapshot, page, chosen, first + 1 - len(found), after)
        if len(found) > first:
            break
    return found[:first], len(found) > first


def place_of(statement: Statement) -> Place:
    """Where a statement stands."""
    number = statement.id if isinstance(statement, FinalStatement) else 0
    return Place(statement.subscription, statement.period.start, number)


async def _pages(
    snapshot: Snapshot, chosen: Chosen, after: Place | None, limits: Limits
) -> AsyncIterator[list[History]]:
    """The subscriptions that may have statements behind the place, some at a time."""
    until = (await snapshot.horizon()).as_of + timedelta.resolution
    keys, accounts = chosen.subscriptions, chosen.accounts
    if after is not None and (keys is None or after.subscription in keys):
        page, _ = await read_rated(snapshot, 1, until=until, keys=[after.subscription], accounts=accounts)
        yield await read_histories(snapshot, page)
    last = None if after is None else after.subscription
    has_more = True
    while has_more:
        page, has_more = await read_rated(
            snapshot, limits.statement_page_subscriptions, last, until=until, keys=keys, accounts=accounts
        )
        if page:
            yield await read_histories(snapshot, page)
            last = page[-1].key


async def _of_page(
    snapshot: Snapshot, page: Sequence[History], chosen: Chosen, count: int, after: Place | None
) -> list[Statement]:
    """At most so many statements of these subscriptions."""
    waiting: list[tuple[Place, FinalStatement | tuple[History, Due]]] = [
        (Place(history.subscription.key, due.period.start, 0), (history, due))
        for history in page
        for due in history.drafts
        if chosen.period is None or due.period.within(chosen.period) is not None
    ]
    if chosen.status is None:
        keys = [history.subscription.key for history in page]
        of_page = Chosen(subscriptions=keys, accounts=chosen.accounts, period=chosen.period)
        waiting += [(place_of(each), each) for each in await read_kept(snapshot, of_page, count, after)]
    # Drafts may turn out to be nothing; then the next ones are computed.
    queue = sorted((each for each in waiting if after is None or each[0] > after), key=lambda each: each[0])
    found: list[Statement] = []
    while queue and len(found) < count:
        turn, queue = queue[: count - len(found)], queue[count - len(found) :]
        tasks = [task_of(*each) for _, each in turn if isinstance(each, tuple)]
        drafts = iter(await with_credits(snapshot, await draft_all(snapshot, tasks)))
        for _, each in turn:
            statement = next(drafts) if isinstance(each, tuple) else each
            if isinstance(statement, FinalStatement) or (isinstance(statement, Draft) and not statement.is_empty):
                found.append(statement)
    return found
