"""A month's statements of all subscriptions: computed some subscriptions at a time, and frozen where that is asked for.

A month's run has the statements of all billing periods that end in it, in each subscription's own zone, and the closing
statements of what had ended. Run again, it finds what is final as it is: so it goes on where it was broken off.
"""

from collections.abc import AsyncIterator, Mapping, Sequence
from datetime import UTC, date, timedelta, tzinfo
from enum import Enum

import msgspec

from metering.errors import ConflictError, NotFoundError
from metering.limits import Limits
from metering.periods import day_start
from metering.reach import EVERYTHING
from metering.statements.credits import with_credits
from metering.statements.drafts import Draft, task_of
from metering.statements.finalize import Revision, finalize_by, keep, read_revisions
from metering.statements.history import Due, History
from metering.statements.kept import read_histories
from metering.statements.read import Statement, draft_all
from metering.store.pool import Database
from metering.store.queries import sql
from metering.store.snapshot import Snapshot
from metering.subscriptions import read_rated
from rating.periods import Period

_MONTHS = 12


class Month(msgspec.Struct, frozen=True):
    """A month of the calendar."""

    year: int
    month: int

    def bounds(self, zone: tzinfo) -> Period:
        """From when to when it is in a zone."""
        following = date(self.year + self.month // _MONTHS, self.month % _MONTHS + 1, 1)
        return Period(day_start(date(self.year, self.month, 1), zone), day_start(following, zone))


class Outcome(Enum):
    """What became of a statement in a run."""

    DRAFT = "draft"
    FINALIZED = "finalized"
    FINAL = "final already"
    RUNNING = "not over yet"
    FAILED = "failed"


class Billed(msgspec.Struct, frozen=True):
    """A statement of a run; without it where it failed, and then with the reason."""

    outcome: Outcome
    subscription: str
    period: Period
    statement: Statement | None
    reason: str | None = None


class Page(msgspec.Struct, frozen=True):
    """The statements of some subscriptions, by key, as of one instant; `last` is the key of the last of them."""

    billed: Sequence[Billed]
    revisions: Mapping[str, Revision]
    subscriptions: int
    last: str | None
    has_more: bool


async def count_subscriptions(database: Database) -> int:
    """How many subscriptions there are, which is what a run takes."""
    async with database.connection() as connection:
        count: int = await connection.fetchval(sql("statements.count_subscriptions"))
    return count


async def bill(database: Database, month: Month, limits: Limits, *, by: str, finalize: bool) -> AsyncIterator[Page]:
    """A month's run, a page after the other; `by` is who freezes. Each page is computed as of an instant of its own."""
    last, has_more = None, True
    while has_more:
        async with Snapshot(database, EVERYTHING) as snapshot:
            page = await read_page(snapshot, month, last, limits)
        last, has_more = page.last, page.has_more
        yield await _frozen(database, page, limits, by=by) if finalize else page


async def read_page(snapshot: Snapshot, month: Month, after: str | None, limits: Limits) -> Page:
    """The month's statements of the subscriptions behind the key `after`, as many as are looked at together."""
    as_of = (await snapshot.horizon()).as_of
    # Midnight is up to a day later in a zone behind UTC.
    until = max(as_of, month.bounds(UTC).end + timedelta(days=2))
    found, has_more = await read_rated(snapshot, limits.statement_page_subscriptions, after, until=until)
    histories = await read_histories(snapshot, found)
    dues = [(history, due) for history in histories for due in _dues(history, month)]
    billed = [_final(history, due) for history, due in dues if history.final_of(due) is not None]
    tasks = [task_of(history, due) for history, due in dues if history.final_of(due) is None]
    drafts = await with_credits(snapshot, await draft_all(snapshot, tasks))
    for task, draft in zip(tasks, drafts, strict=True):
        if isinstance(draft, ConflictError):
            key = task.history.subscription.key
            billed.append(Billed(Outcome.FAILED, key, task.due.period, None, str(draft)))
        elif not draft.is_empty:
            billed.append(Billed(Outcome.DRAFT, draft.subscription, draft.period, draft))
    return Page(
        billed=sorted(billed, key=lambda each: (each.subscription, each.period.start)),
        revisions=await read_revisions(snapshot, [each.key for each in found]),
        subscriptions=len(found),
        last=found[-1].key if found else None,
        has_more=has_more,
    )


def _dues(history: History, month: Month) -> list[Due]:
    bounds = month.bounds(history.terms.zone)
    dues = history.dues_ending_in(bounds)
    closing = history.closing
    return [*dues, closing] if closing is not None and closing.period.start < bounds.end else dues


def _final(history: History, due: Due) -> Billed:
    return Billed(Outcome.FINAL, history.subscription.key, due.period, history.final_of(due))


async def _frozen(database: Database, page: Page, limits: Limits, *, by: str) -> Page:
    """The page with its drafts frozen, as far as their periods are over."""
    drafts = [each.statement for each in page.billed if isinstance(each.statement, Draft)]
    over = [draft for draft in drafts if draft.period.end <= draft.as_of]
    kept = await keep(database, over, page.revisions, by=by) if over else []
    by_name = {(each.subscription, each.period): each for each in kept}
    billed = []
    for each in page.billed:
        if not isinstance(each.statement, Draft):
            billed.append(each)
        elif each.statement.period.end > each.statement.as_of:
            billed.append(msgspec.structs.replace(each, outcome=Outcome.RUNNING))
        elif (each.subscription, each.period) in by_name:
            final = by_name[each.subscription, each.period]
            billed.append(Billed(Outcome.FINALIZED, each.subscription, each.period, final))
        else:
            billed.extend(await _frozen_alone(database, each, limits, by=by))
    return msgspec.structs.replace(page, billed=billed)


async def _frozen_alone(database: Database, billed: Billed, limits: Limits, *, by: str) -> list[Billed]:
    """Freeze one of a subscription of which somebody else froze or voided a statement meanwhile."""
    try:
        final = await finalize_by(database, billed.subscription, billed.period.start, limits, by=by)
    except NotFoundError:
        return []  # a closing statement, of which somebody else took what there was
    except ConflictError as error:
        return [Billed(Outcome.FAILED, billed.subscription, billed.period, None, str(error))]
    outcome = Outcome.FINALIZED if final.finalized_by == by else Outcome.FINAL
    return [Billed(outcome, billed.subscription, final.period, final)]
