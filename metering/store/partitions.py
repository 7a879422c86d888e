"""Partitions of the plain PostgreSQL engine, made when they are needed; on TimescaleDB chunks make themselves.

A partition is made as a table of its own and then attached: ATTACH takes a lock that readers and writers can live
with, where CREATE ... PARTITION OF would make every one of them wait.
"""

from collections.abc import Collection, Iterable
from datetime import UTC, date, datetime, timedelta
from typing import Final

from metering.store.engine import Engine
from metering.store.pool import Connection, Database
from metering.store.tables import Partitioned

# A Monday, so that a week's partition is a calendar week.
_ORIGIN: Final = date(1970, 1, 5)
_LOCK: Final = 0x6D65_7472_7061_7274  # "metrpart"
_CHUNKS: Final = (
    "SELECT range_start FROM timescaledb_information.chunks "
    "WHERE hypertable_schema = current_schema() AND hypertable_name = $1"
)


def partition_start(partitioned: Partitioned, day: date) -> date:
    """The first day of the partition that holds this day."""
    return day - timedelta(days=(day - _ORIGIN).days % partitioned.width_days)


class Partitions:
    """Knows which partitions there are, and makes what is missing."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._known: set[tuple[str, date]] = set()

    async def ensure(self, partitioned: Partitioned, days: Iterable[date]) -> None:
        """Make the partitions for these days, in a transaction of its own, where they are not known to be there."""
        if self._database.engine is Engine.TIMESCALEDB:
            return
        starts = {partition_start(partitioned, day) for day in days}
        missing = sorted(start for start in starts if (partitioned.table, start) not in self._known)
        if not missing:
            return
        async with self._database.transaction() as connection:
            await connection.execute("SELECT pg_advisory_xact_lock($1)", _LOCK)
            there = await _attached(connection, partitioned.table)
            for start in missing:
                if _name(partitioned, start) not in there:
                    await _make(connection, partitioned, start)
        self._known.update((partitioned.table, start) for start in missing)

    def forget(self) -> None:
        """Look anew: a partition that was known is gone."""
        self._known.clear()


async def attached_starts(connection: Connection, partitioned: Partitioned) -> list[date]:
    """The first days of the partitions that there are, ascending."""
    names = await _attached(connection, partitioned.table)
    return sorted(datetime.strptime(name.rpartition("_")[2], "%Y%m%d").replace(tzinfo=UTC).date() for name in names)


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
