"""The log of events as the writer sees it: append a batch in one transaction, or find who claimed which names."""

from collections.abc import Sequence
from datetime import date, datetime
from typing import Final, NamedTuple

import asyncpg

from metering.events import AdmittedEvent
from metering.limits import LIMITS, Limits
from metering.store.copy_text import copy_rows, written
from metering.store.partitions import NotRetainedError, Partitions, partition_start
from metering.store.pool import Connection, Database
from metering.store.quarantine import NO_CHANGES, Changes, change
from metering.store.queries import sql
from metering.store.tables import PARTITIONED_EVENT, PARTITIONED_IDENTITY

# Held shared by every writing transaction; see docs/adr/0004 for what the refresher learns from it.
WRITERS_LOCK: Final = 0x6D65_7472_7772_6974  # "metrwrit"

_EVENT_COLUMNS: Final = (
    "account", "occurred_at", "key", "source", "event_id", "received_at", "subscription", "user", "device",
    "product", "feature", "classification", "unit", "quantity", "attributes",
)  # fmt: skip
_IDENTITY_COLUMNS: Final = ("key", "day", "account", "occurred_at", "content")


class Claim(NamedTuple):
    """A name, claimed for a UTC day."""

    account: str
    day: date
    key: bytes


class ScatteredError(Exception):
    """The events are of more weeks than one transaction may write; nothing of them was written."""


class EventLog:
    """Appends events. What is returned from is committed."""

    def __init__(self, database: Database, limits: Limits = LIMITS) -> None:
        self._database = database
        self._limits = limits
        self._partitions = Partitions(database)

    async def append(
        self,
        events: Sequence[tuple[AdmittedEvent, datetime]],
        quarantine: Changes = NO_CHANGES,
        *,
        weeks_max: int | None = None,
    ) -> None:
        """Commit these events, their claims and what they make pending; each comes with when it was received.

        What changes in the quarantine is committed with them.

        Raises one of `faults.CONTENTION` when a name is claimed already or another writer is in the way, and
        NotRetainedError when one of the events occurred before everything that is taken any more; and ScatteredError when
        they are of more weeks than `weeks_max`.
        """
        days = {event.occurred_at.date() for event, _ in events}
        if weeks_max is not None and len(set(map(week_of, days))) > weeks_max:
            raise ScatteredError
        await self._partitions.ensure(PARTITIONED_EVENT, days)
        await self._partitions.ensure(PARTITIONED_IDENTITY, {day for event, _ in events for day in event.days})
        try:
            async with self._database.transaction() as connection:
                if events:
                    await self._append(connection, events)
                # After the events: whoever waits for a name holds nothing of the quarantine.
                if not quarantine.is_nothing:
                    await change(connection, quarantine, self._limits)
        except asyncpg.CheckViolationError:
            # "No partition found": one that we knew was dropped meanwhile.
            self._partitions.forget()
            raise

    async def _append(self, connection: Connection, events: Sequence[tuple[AdmittedEvent, datetime]]) -> None:
        await work_as_writer(connection)
        rows, claims = _rows(events)
        await copy_rows(connection, "event_identity", _IDENTITY_COLUMNS, claims)
        await copy_rows(connection, "event", _EVENT_COLUMNS, rows)
        if await _log_late(connection, [event for event, _ in events]):
            # Nothing is given up above the published horizon, so only who is late need look.
            taken_from = await connection.fetchval(sql("events.read_taken_from"))
            if any(event.occurred_at < taken_from for event, _ in events):
                raise NotRetainedError(taken_from)

    async def find_claims(self, claims: Sequence[Claim]) -> dict[tuple[str, date, bytes], bytes]:
        """The content behind those of these names that are claimed."""
        if not claims:
            return {}
        accounts, days, keys = zip(*claims, strict=True)
        async with self._database.connection() as connection:
            rows = await connection.fetch(sql("events.find_claims"), accounts, days, keys, min(days), max(days))
        return {tuple(claims[row["position"]]): row["content"] for row in rows}


async def work_as_writer(connection: Connection) -> None:
    """Begin to write, in the refresher's sight: it waits for this transaction before it rolls up what we may write."""
    await connection.execute(sql("events.enter_writers"), WRITERS_LOCK)


async def writers_at_work(connection: Connection) -> list[str]:
    """The writers that are at work now, as transactions of a session."""
    rows = await connection.fetch(sql("events.writers_at_work"), WRITERS_LOCK)
    return [row["virtualtransaction"] for row in rows]


async def log_changed(connection: Connection, account: str, occurred_at: datetime) -> None:
    """Have the buckets rolled up anew in which this transaction, which works as a writer, corrected an event."""
    horizon = await _published(connection)
    if occurred_at < horizon.published_at:
        await connection.execute(sql("events.log_pending"), [account], [quarter_hour_of(occurred_at)])
    if horizon.in_tail(occurred_at):
        await connection.execute(sql("events.log_corrected_minute"), account, minute_of(occurred_at))


async def _log_late(connection: Connection, events: Sequence[AdmittedEvent]) -> bool:
    """Log those of these events, which this transaction wrote, that the rollups may have passed. Says whether there are any."""
    horizon = await _published(connection)
    late_below = max(horizon.published_at, horizon.tail_published_at)
    late = [each for each in events if each.occurred_at < late_below]
    quarters = {
        (each.event.account, quarter_hour_of(each.occurred_at))
        for each in late
        if each.occurred_at < horizon.published_at
    }
    if quarters:
        await connection.execute(sql("events.log_pending"), *zip(*sorted(quarters), strict=True))
    # Also where both horizons have been published: until the one is complete, readers take minutes.
    of_tail = sorted(
        (each.event.account, each.occurred_at, each.key) for each in late if horizon.in_tail(each.occurred_at)
    )
    if of_tail:
        await connection.execute(sql("events.log_late"), *zip(*of_tail, strict=True))
    return bool(late)


class _Published(NamedTuple):
    """Below which instants events are late, as this transaction, which works as a writer, has to see it."""

    published_at: datetime
    complete_at: datetime
    tail_published_at: datetime

    def in_tail(self, occurred_at: datetime) -> bool:
        return self.complete_at <= occurred_at < self.tail_published_at


async def _published(connection: Connection) -> _Published:
    row = await connection.fetchrow(sql("events.read_published"))
    assert row is not None, "the first migration puts one row there"
    return _Published(*row)


def week_of(day: date) -> date:
    """The first day of the week whose events are kept together with those of this day."""
    return partition_start(PARTITIONED_EVENT, day)


def quarter_hour_of(instant: datetime) -> datetime:
    """The UTC quarter of an hour that holds this instant."""
    return instant.replace(minute=instant.minute // 15 * 15, second=0, microsecond=0)


def minute_of(instant: datetime) -> datetime:
    """The UTC minute that holds this instant."""
    return instant.replace(second=0, microsecond=0)


def _rows(events: Sequence[tuple[AdmittedEvent, datetime]]) -> tuple[list[str], list[str]]:
    """The rows of `event`, and those of `event_identity`, as `copy_rows` takes them."""
    rows: list[str] = []
    claims: list[str] = []
    for admitted, received_at in events:
        event = admitted.event
        account = event.account
        occurred_at = written(admitted.occurred_at)
        key = admitted.key.hex()
        content = admitted.content.hex()
        rows.append(
            f"{account}\0{occurred_at}\0\\x{key}\0{admitted.source}\0{event.id}\0{written(received_at)}\0{admitted.values}"
        )
        claims += [f"\\x{key}\0{day.isoformat()}\0{account}\0{occurred_at}\0\\x{content}" for day in admitted.days]
    return rows, claims
