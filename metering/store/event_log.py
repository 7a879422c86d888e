"""The log of events as the writer sees it: append a batch in one transaction, or find who claimed which names."""

from collections.abc import Sequence
from datetime import date, datetime
from typing import Final, NamedTuple

import asyncpg

from metering.events import AdmittedEvent
from metering.limits import LIMITS, Limits
from metering.store.copy_text import Row, copy_rows, hexadecimal, written
from metering.store.partitions import NotRetainedError, Partitions
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
_IDENTITY_COLUMNS: Final = ("account", "day", "key", "occurred_at", "content")


class Claim(NamedTuple):
    """A name, claimed for a UTC day."""

    account: str
    day: date
    key: bytes


class EventLog:
    """Appends events. What is returned from is committed."""

    def __init__(self, database: Database, limits: Limits = LIMITS) -> None:
        self._database = database
        self._limits = limits
        self._partitions = Partitions(database)

    async def append(self, events: Sequence[tuple[AdmittedEvent, datetime]], quarantine: Changes = NO_CHANGES) -> None:
        """Commit these events, their claims and what they make pending; each comes with when it was received.

        What changes in the quarantine is committed with them.

        Raises one of `faults.CONTENTION` when a name is claimed already or another writer is in the way, and
        NotRetainedError when one of the events occurred before everything that is taken any more.
        """
        await self._partitions.ensure(PARTITIONED_EVENT, {event.occurred_at.date() for event, _ in events})
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
        published_at = await connection.fetchval(sql("events.read_published"))
        late = {
            (event.event.account, hour_of(event.occurred_at)) for event, _ in events if event.occurred_at < published_at
        }
        if late:
            # Nothing is given up above the published horizon, so only who is late need look.
            taken_from = await connection.fetchval(sql("events.read_taken_from"))
            if any(event.occurred_at < taken_from for event, _ in events):
                raise NotRetainedError(taken_from)
            accounts, hours = zip(*sorted(late), strict=True)
            await connection.execute(sql("events.log_pending"), accounts, hours)

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


async def log_pending_hour(connection: Connection, account: str, hour: datetime) -> None:
    """Have an hour rolled up anew that this transaction, which works as a writer, changed."""
    published_at = await connection.fetchval(sql("events.read_published"))
    if hour < published_at:
        await connection.execute(sql("events.log_pending"), [account], [hour])


def hour_of(instant: datetime) -> datetime:
    """The UTC hour that holds this instant."""
    return instant.replace(minute=0, second=0, microsecond=0)


def _rows(events: Sequence[tuple[AdmittedEvent, datetime]]) -> tuple[list[Row], list[Row]]:
    """The rows of `event`, and those of `event_identity`."""
    rows: list[Row] = []
    claims: list[Row] = []
    for admitted, received_at in events:
        event = admitted.event
        occurred_at = written(admitted.occurred_at)
        key = hexadecimal(admitted.key)
        content = hexadecimal(admitted.content)
        claims += [(event.account, day.isoformat(), key, occurred_at, content) for day in admitted.days]
        rows.append(
            (
                event.account,
                occurred_at,
                key,
                admitted.source,
                event.id,
                written(received_at),
                event.subscription or "",
                event.user or "",
                event.device or "",
                event.product,
                event.feature or "",
                event.classification or "",
                event.unit,
                admitted.quantity,
                admitted.attributes or "",
            )
        )
    return rows, claims
