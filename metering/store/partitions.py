"""Partitions of the plain PostgreSQL engine, made when they are needed; on TimescaleDB chunks make themselves.

A partition is made as a table of its own and then attached: ATTACH takes a lock that readers and writers can live
with, where CREATE ... PARTITION OF would make every one of them wait.
"""

from collections.abc import Collection, Iterable, Sequence
from datetime import UTC, date, datetime, timedelta
from typing import Final

from metering.store.engine import Engine
from metering.store.pool import Connection, Database
from metering.store.queries import sql
from metering.store.tables import PARTITIONED_RAW, Partitioned

# A Monday, so that a week's partition is a calendar week.
_ORIGIN: Final = date(1970, 1, 5)
_LOCK: Final = 0x6D65_7472_7061_7274  # "metrpart"
# So many are made in one transaction, which holds the locks of all of them, about seven each, until it ends.
_MADE_TOGETHER: Final = 20
_CHUNKS: Final = (
    "SELECT range_start FROM timescaledb_information.chunks "
    "WHERE hypertable_schema = current_schema() AND hypertable_name = $1"
)


class NotRetainedError(Exception):
    """What was to be written occurred before everything that is taken any more: `taken_from`."""

    def __init__(self, taken_from: datetime) -> None:
        self.taken_from = taken_from
        super().__init__(f"nothing that occurred before {taken_from} is taken any more")


def partition_start(partitioned: Partitioned, day: date) -> date:
    """The first day of the partition that holds this day."""
    return day - timedelta(days=(day - _ORIGIN).days % partitioned.width_days)


class Partitions:
    """Knows which partitions there are, and makes what is missing."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._known: set[tuple[str, date]] = set()

    async def ensure(self, partitioned: Partitioned, days: Iterable[date]) -> None:
        """Make the partitions for these days, in transactions of its own, where they are not known to be there.

        Raises NotRetainedError for one of events that are given up: it is dropped, or about to be.
        """
        if self._database.engine is Engine.TIMESCALEDB:
            return
        starts = {partition_start(partitioned, day) for day in days}
        missing = sorted(start for start in starts if (partitioned.table, start) not in self._known)
        for first in range(0, len(missing), _MADE_TOGETHER):
            await self._make(partitioned, missing[first : first + _MADE_TOGETHER])

    async def _make(self, partitioned: Partitioned, missing: Sequence[date]) -> None:
        async with self._database.transaction() as connection:
            await connection.execute("SELECT pg_advisory_xact_lock($1)", _LOCK)
            if partitioned in PARTITIONED_RAW:
                await _check_taken(connection, partitioned, missing[0])
            there = await _attached(connection, partitioned.table)
            for start in missing:
                if _name(partitioned, start) not in there:
                    await _make(connection, partitioned, start)
        self._known.update((partitioned.table, start) for start in missing)

    def forget(self) -> None:
        """Look anew: a partition that was known is gone."""
        self._known.clear()


async def _check_taken(connection: Connection, partitioned: Partitioned, start: date) -> None:
    taken_from: datetime = await connection.fetchval(sql("events.read_taken_from"))
    if is_over(partitioned, start, taken_from):
        raise NotRetainedError(taken_from)


def is_over(partitioned: Partitioned, start: date, retained_from: datetime) -> bool:
    """Whether nothing of the partition that begins on this day is retained."""
    return start + timedelta(days=partitioned.width_days + partitioned.kept_longer_days) <= retained_from.date()


async def attached_starts(connection: Connection, partitioned: Partitioned) -> list[date]:
    """The first days of the partitions that there are, ascending."""
    return sorted(_start_of(name) for name in await _attached(connection, partitioned.table))


def _start_of(name: str) -> date:
    return datetime.strptime(name.rpartition("_")[2], "%Y%m%d").replace(tzinfo=UTC).date()


async def drop_partitions(connection: Connection, partitioned: Partitioned, retained_from: datetime) -> None:
    """Drop the partitions of which nothing is retained, on a connection outside of a transaction.

    Detached first, concurrently: nobody who reads or writes other partitions waits. A partition that was being detached
    when somebody was killed is detached to its end, and one that was only detached is still dropped.

    Raises asyncpg.LockNotAvailableError where somebody else held one of these partitions for longer than the session's
    lock_timeout.
    """
    for row in await connection.fetch(_PARTITIONS, partitioned.table):
        name = row["name"]
        if not is_over(partitioned, _start_of(name), retained_from):
            continue
        if row["is_pending"]:
            await connection.execute(f'ALTER TABLE {partitioned.table} DETACH PARTITION "{name}" FINALIZE')
        elif row["is_attached"]:
            await connection.execute(f'ALTER TABLE {partitioned.table} DETACH PARTITION "{name}" CONCURRENTLY')
        await connection.execute(f'DROP TABLE "{name}"')


# Only one partition can be in the middle of being detached: that one first.
_PARTITIONS: Final = """
SELECT relname AS name, coalesce(inhdetachpending, false) AS is_pending, inhrelid IS NOT NULL AS is_attached
FROM pg_class LEFT JOIN pg_inherits ON inhrelid = pg_class.oid
WHERE relkind = 'r' AND relname ~ ('^' || $1::text || '_[0-9]{8}$')
  AND relnamespace = (SELECT relnamespace FROM pg_class WHERE oid = $1::text::regclass)
ORDER BY is_pending DESC, relname
"""


async def days_kept(connection: Connection, engine: Engine, partitioned: Partitioned) -> list[date]:
    """The days of all partitions, or chunks, that there are, ascending: a row's day is one of them."""
    if engine is Engine.TIMESCALEDB:
        rows = await connection.fetch(_CHUNKS, partitioned.table)
        starts = [row["range_start"].date() for row in rows]
    else:
        starts = await attached_starts(connection, partitioned)
    return sorted({start + timedelta(days=index) for start in starts for index in range(partitioned.width_days)})


async def _attached(connection: Connection, table: str) -> Collection[str]:
    rows = await connection.fetch(
        "SELECT inhrelid::regclass::text AS name FROM pg_inherits WHERE inhparent = $1::text::regclass", table
    )
    return {row["name"] for row in rows}


async def _make(connection: Connection, partitioned: Partitioned, start: date) -> None:
    name = _name(partitioned, start)
    end = start + timedelta(days=partitioned.width_days)
    await connection.execute(f'CREATE TABLE "{name}" (LIKE {partitioned.table} INCLUDING ALL)')
    await connection.execute(
        f'ALTER TABLE {partitioned.table} ATTACH PARTITION "{name}" '
        f"FOR VALUES FROM ('{start:%Y-%m-%d}{_utc(partitioned)}') TO ('{end:%Y-%m-%d}{_utc(partitioned)}')"
    )


def _name(partitioned: Partitioned, start: date) -> str:
    return f"{partitioned.table}_{start:%Y%m%d}"


def _utc(partitioned: Partitioned) -> str:
    return "" if partitioned.column == "day" else " 00:00+00"
