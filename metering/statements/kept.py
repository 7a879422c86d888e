"""Final statements as they are kept: finding and listing them."""

from collections.abc import Collection, Sequence
from datetime import datetime
from typing import Any

import msgspec

from metering.events import in_utc
from metering.statements.history import FinalStatement, History, StatementStatus, in_order
from metering.store.queries import sql
from metering.store.snapshot import Snapshot
from metering.subscriptions import RatedSubscription
from rating.money import Money, currency_of
from rating.periods import Period


class Place(msgspec.Struct, frozen=True, order=True):
    """Where a statement stands among all: by subscription, its period's beginning, and its id; 0 where it is a draft."""

    subscription: str
    start: datetime
    id: int


class Chosen(msgspec.Struct, frozen=True, kw_only=True):
    """Which statements are meant; None means all. `period` is one that theirs have an instant in common with."""

    subscriptions: Collection[str] | None = None
    accounts: Collection[str] | None = None
    status: StatementStatus | None = None
    period: Period | None = None


async def read_histories(snapshot: Snapshot, subscriptions: Sequence[RatedSubscription]) -> list[History]:
    """These subscriptions with what was frozen of them; one statement."""
    as_of = (await snapshot.horizon()).as_of
    rows = await snapshot.fetch(sql("statements.list_final"), [[each.key for each in subscriptions]])
    finals: dict[str, list[FinalStatement]] = {}
    for row in rows:
        finals.setdefault(row["subscription"], []).append(final_of(row))
    return [History(each, in_order(finals.get(each.key, ())), in_utc(as_of)) for each in subscriptions]


async def find_kept(snapshot: Snapshot, statement_id: int) -> FinalStatement | None:
    """The final or voided statement of this id, if it is within the snapshot's reach."""
    rows = await snapshot.fetch(sql("statements.find_statement"), [statement_id])
    found = final_of(rows[0]) if rows else None
    is_within = found is not None and snapshot.reach.shows(found.account, found.subscription, None)
    return found if is_within else None


async def read_kept(snapshot: Snapshot, chosen: Chosen, first: int, after: Place | None = None) -> list[FinalStatement]:
    """The `first` final and voided statements behind a place, in order."""
    reach = snapshot.reach
    texts = [
        None if names is None else [name for name in names if "\0" not in name]
        for names in (reach.of_subscriptions(chosen.subscriptions), reach.of_accounts(chosen.accounts))
    ]
    voided = None if chosen.status is None else chosen.status is StatementStatus.VOID
    period = (None, None) if chosen.period is None else (chosen.period.start, chosen.period.end)
    place = (None, None, None) if after is None else (after.subscription, after.start, after.id)
    rows = await snapshot.fetch(sql("statements.list_kept"), [*texts, voided, *period, *place, first])
    return [final_of(row) for row in rows]


def final_of(row: Any) -> FinalStatement:
    """A row of the table `statement`."""
    currency = currency_of(row["currency_code"])
    assert currency is not None, "a statement was frozen in a currency with a minor unit"
    return FinalStatement(
        id=row["id"],
        account=row["account"],
        subscription=row["subscription"],
        period=Period(in_utc(row["period_from"]), in_utc(row["period_to"])),
        is_closing=row["is_closing"],
        currency=currency,
        total=Money(row["total"], currency),
        as_of=in_utc(row["as_of"]),
        lines_text=row["lines"],
        evidence_text=row["evidence"],
        credits_text=row["credits"],
        finalized_at=in_utc(row["finalized_at"]),
        finalized_by=row["finalized_by"],
        voided_at=None if row["voided_at"] is None else in_utc(row["voided_at"]),
        voided_by=row["voided_by"],
        void_reason=row["void_reason"],
    )
