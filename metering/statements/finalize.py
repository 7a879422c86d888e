"""Freezing statements, and taking them back; once each, whoever tries at the same time.

A statement is computed in a snapshot, and kept in a transaction in which nobody else freezes or voids one of the same
subscription. Where somebody did in between, what it carries may have been carried already, so it is computed anew.
"""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, NamedTuple

from metering.errors import ConflictError, InputIssue, InvalidInputError, NotFoundError
from metering.keys import Caller
from metering.limits import Limits
from metering.reach import EVERYTHING, Reach
from metering.statements.credit_lines import credits_json
from metering.statements.credits import Drawing, book, draw, give_back_drawn
from metering.statements.drafts import Draft
from metering.statements.history import FinalStatement
from metering.statements.kept import final_of, find_kept
from metering.statements.read import statement_at
from metering.statements.records import evidence_json, lines_json
from metering.store.pool import Database
from metering.store.queries import sql
from metering.store.snapshot import Snapshot


class Revision(NamedTuple):
    """How many statements of a subscription were ever frozen, and how many of them voided: other numbers, other history."""

    frozen: int = 0
    voided: int = 0


async def finalize_statement(
    database: Database, subscription: str, at: datetime, key: Caller, limits: Limits
) -> FinalStatement:
    """Freeze the statement that an instant belongs to, and return it; one that is final is returned as it is.

    Raises as statement_at() does; and ConflictError for a period that is not over yet.
    """
    return await _finalize(database, subscription, at, key.reach, limits, by=key.signature)


async def finalize_by(
    database: Database, subscription: str, at: datetime, limits: Limits, *, by: str
) -> FinalStatement:
    """The same for somebody who may see every account."""
    return await _finalize(database, subscription, at, EVERYTHING, limits, by=by)


async def _finalize(
    database: Database, subscription: str, at: datetime, reach: Reach, limits: Limits, *, by: str
) -> FinalStatement:
    while True:
        async with Snapshot(database, reach) as snapshot:
            found = await statement_at(snapshot, subscription, at, limits)
            revisions = await read_revisions(snapshot, [subscription])
        if isinstance(found, FinalStatement):
            return found
        check_over(found)
        # Nothing was kept only where others made progress meanwhile, so this ends.
        for kept in await keep(database, [found], revisions, by=by):
            return kept


def check_over(draft: Draft) -> None:
    """Raise ConflictError for a draft of a period in which usage still occurs."""
    if draft.period.end > draft.as_of:
        raise ConflictError(
            f"The period ends at {draft.period.end:%FT%TZ}, and it is {draft.as_of:%FT%TZ}: it is frozen when it is over. "
            "Usage that arrives later becomes adjustments of the next statement."
        )


async def read_revisions(snapshot: Snapshot, subscriptions: Sequence[str]) -> Mapping[str, Revision]:
    """The revisions of these subscriptions' statements; those without any are left out."""
    return _revisions(await snapshot.fetch(sql("statements.read_revisions"), [subscriptions]))


async def keep(
    database: Database, drafts: Sequence[Draft], revisions: Mapping[str, Revision], *, by: str
) -> list[FinalStatement]:
    """Freeze drafts that were computed at these revisions; those of subscriptions with another one by now are left out."""
    subscriptions = sorted({each.subscription for each in drafts})
    async with database.transaction() as connection:
        await connection.execute(sql("statements.lock_subscriptions"), subscriptions)
        # A statement of its own: it sees what those committed who held the locks before.
        now = _revisions(await connection.fetch(sql("statements.read_revisions"), subscriptions))
        current = [each for each in drafts if revisions.get(each.subscription) == now.get(each.subscription)]
        if not current:
            return []
        drawings = await draw(connection, current)
        cells = zip(*map(_cells, current, drawings), strict=True)
        rows = await connection.fetch(sql("statements.insert_statements"), *cells, by)
        finals = [final_of(row) for row in rows]
        by_name = {(each.subscription, each.period): each for each in finals}
        drawn = [(by_name[each.subscription, each.period], made) for each, made in zip(current, drawings, strict=True)]
        await book(connection, drawn, by=by)
    return finals


async def void_statement(
    database: Database, statement_id: int, reason: str, key: Caller, limits: Limits
) -> FinalStatement:
    """Take a final statement back: it stays on record, and its period is a draft again.

    What it drew of credits goes back to them. Raises NotFoundError where there is none that the caller may see; ConflictError
    where it was voided before, or later statements built on what it drew; InvalidInputError for a reason that is none.
    """
    if not reason.strip() or len(reason) > limits.reason_chars_max or "\0" in reason:
        message = f"A reason has 1 to {limits.reason_chars_max:,} characters, not only spaces, none of them NUL."
        raise InvalidInputError([InputIssue(("reason",), message)])
    async with Snapshot(database, key.reach) as snapshot:
        found = await find_kept(snapshot, statement_id)
    if found is None:
        raise NotFoundError("There is no final statement of this id.")
    async with database.transaction() as connection:
        await connection.execute(sql("statements.lock_subscriptions"), [found.subscription])
        row = await connection.fetchrow(sql("statements.void_statement"), statement_id, key.signature, reason)
        if row is None:
            raise ConflictError("This statement was voided before; its period is a draft, unless it was frozen again.")
        await give_back_drawn(connection, statement_id, by=key.signature)
    return final_of(row)


def _revisions(rows: Sequence[Any]) -> dict[str, Revision]:
    return {row["subscription"]: Revision(row["frozen"], row["voided"]) for row in rows}


def _cells(draft: Draft, drawing: Drawing) -> tuple[object, ...]:
    return (
        draft.account,
        draft.subscription,
        draft.period.start,
        draft.period.end,
        draft.is_closing,
        draft.currency.code,
        draft.total.amount,
        draft.as_of,
        lines_json(draft.lines),
        evidence_json(draft.evidence),
        credits_json(drawing.lines),
    )
