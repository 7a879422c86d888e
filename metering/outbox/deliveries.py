"""The log of deliveries: what was sent to a destination, how each attempt ended, and sending it again."""

from datetime import datetime
from enum import Enum
from uuid import UUID

import msgspec

from metering.audit import AuditAction, AuditKind, note
from metering.errors import InputIssue, InvalidInputError, NotFoundError
from metering.events import in_utc
from metering.keys import Caller, Scope
from metering.store.pool import Database
from metering.store.queries import sql


class DeliveryState(Enum):
    """Where a delivery stands."""

    PENDING = "PENDING"
    DELIVERED = "DELIVERED"
    FAILED = "FAILED"


class Attempt(msgspec.Struct, frozen=True, kw_only=True):
    """One attempt: when, how long it took, and the status; or, without one, what went wrong."""

    attempted_at: datetime
    milliseconds: int
    status: int | None
    fault: str | None


class Delivery(msgspec.Struct, frozen=True, kw_only=True):
    """A notification on its way to a destination. `due_at` is when it is tried next, where it is pending."""

    sequence: int
    notification: UUID
    type: str
    subject: str
    published_at: datetime
    state: DeliveryState
    due_at: datetime | None
    finished_at: datetime | None
    attempts: tuple[Attempt, ...]


class ReplayOrder(msgspec.Struct, frozen=True, kw_only=True):
    """What is to be sent again: of a destination, what was published in a period; all, or what was not delivered."""

    destination: str
    since: datetime
    # None: now.
    until: datetime | None
    undelivered_only: bool


async def read_deliveries(
    database: Database, destination: str, state: DeliveryState | None, first: int, after: int | None
) -> tuple[list[Delivery], bool]:
    """The `first` deliveries, the newest notification first, from behind a sequence on; and whether there are more."""
    if "\0" in destination:
        return [], False
    wanted = None if state is None else state.value
    async with database.snapshot() as connection:
        rows = await connection.fetch(sql("deliveries.list_deliveries"), destination, wanted, after, first + 1)
        page = rows[:first]
        attempts: dict[int, list[Attempt]] = {row["sequence"]: [] for row in page}
        if page:
            made = await connection.fetch(sql("deliveries.list_attempts"), page[0]["destination_id"], list(attempts))
            for row in made:
                attempts[row["sequence"]].append(
                    Attempt(
                        attempted_at=in_utc(row["attempted_at"]),
                        milliseconds=row["milliseconds"],
                        status=row["status"],
                        fault=row["fault"],
                    )
                )
    deliveries = [
        Delivery(
            sequence=row["sequence"],
            notification=row["id"],
            type=row["type"],
            subject=row["subject"],
            published_at=in_utc(row["published_at"]),
            state=DeliveryState(row["state"]),
            due_at=in_utc(row["due_at"]) if row["finished_at"] is None else None,
            finished_at=None if row["finished_at"] is None else in_utc(row["finished_at"]),
            attempts=tuple(attempts[row["sequence"]]),
        )
        for row in page
    ]
    return deliveries, len(rows) > first


async def replay(database: Database, order: ReplayOrder, key: Caller, now: datetime) -> int:
    """Queue again, with the same ids, what a destination takes and was published in a period; say how many.

    What was not queued when it was published is queued now: a destination may be younger than what it is to be told.
    Raises InvalidInputError, and NotFoundError where there is no such destination.
    """
    key.require(Scope.ADMIN)
    until = now if order.until is None else order.until
    if order.since >= until:
        raise InvalidInputError([InputIssue(("input", "until"), "`until` must be later than `since`.")])
    async with database.transaction() as connection:
        row = None
        if "\0" not in order.destination:
            row = await connection.fetchrow(sql("destinations.lock_destination"), order.destination)
        if row is None:
            raise NotFoundError(f"There is no destination {order.destination!r:.60}.")
        queued: int = await connection.fetchval(
            sql("deliveries.replay"), row["id"], order.since, until, order.undelivered_only, now
        )
        told = {"since": order.since, "until": until, "undelivered_only": order.undelivered_only, "queued": queued}
        await note(connection, key.signature, AuditKind.DESTINATION, AuditAction.REPLAYED, order.destination, told)
    return queued
