"""Bytes on disk for each million events: as rows, in their indexes, in the rollups, and as columns where the engine has them.

Profile: the events of preload.py, in one UTC day three weeks ago, of the accounts that profile.py has; rolled up, then converted
as the service does it, while a late event is written every half second into the day that is converted.
Budget: two minutes for each million and engine.
"""

import argparse
import asyncio
import time
from collections.abc import Mapping
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from hashlib import blake2b
from itertools import count
from profile import ACCOUNTS

from bench import ENGINES, database, print_table, scratch
from preload import preload

from metering.config import Settings
from metering.events import UsageEvent
from metering.ingest.admit import Admission, admit
from metering.limits import LIMITS
from metering.retention import Retention, ages_of
from metering.rollups.refresh import Refresher
from metering.store.event_log import EventLog
from metering.store.pool import Database
from metering.store.stored import stored_of
from metering.store.tables import DAILY_ROLLUPS, ROLLUPS

AGE = timedelta(days=21)
_MEBIBYTE = 1024 * 1024
# Heap (TOAST included) and indexes of a table, all of its partitions or chunks together, columns too.
_PARTITIONS = """
SELECT sum(pg_table_size(oid))::bigint AS heap, sum(pg_indexes_size(oid))::bigint AS indexes
FROM (SELECT $1::text::regclass AS oid UNION ALL SELECT inhrelid FROM pg_inherits WHERE inhparent = $1::text::regclass) AS every
"""
_CHUNKS = """
SELECT sum(table_bytes + coalesce(toast_bytes, 0))::bigint AS heap, sum(index_bytes)::bigint AS indexes
FROM hypertable_detailed_size($1::text::regclass)
"""


async def sizes(pool: Database, engine: str) -> dict[str, tuple[int, int]]:
    """Heap and indexes of each table, in bytes."""
    statement = _PARTITIONS if engine == "PostgreSQL" else _CHUNKS
    names = ("event", "event_identity", *(rollup.name for rollup in ROLLUPS))
    async with pool.connection() as connection:
        rows = [await connection.fetchrow(statement, name) for name in names]
    return {name: (row["heap"] or 0, row["indexes"] or 0) for name, row in zip(names, rows, strict=True)}


async def late_events(pool: Database, at: datetime, over: asyncio.Event) -> list[float]:
    """Write an event of that day every half second, until it is over; how long each took, in seconds."""
    log, taken = EventLog(pool), []
    for number in count():
        with suppress(TimeoutError):
            await asyncio.wait_for(over.wait(), 0.5)
        if over.is_set():
            break
        event = UsageEvent(
            id=blake2b(b"%d" % number).hexdigest()[:32], source="late", occurred_at=at, account="account-0003",
            product="product-1", unit="call",
        )  # fmt: skip
        terms = Admission(limits=LIMITS, now=datetime.now(UTC), restamp_window=timedelta(hours=1))
        admitted, _ = admit([event], terms)
        started = time.monotonic()
        await log.append([(admitted[0][1], datetime.now(UTC))])
        taken.append(time.monotonic() - started)
    return taken


async def measured(url: str, engine: str, events: int) -> tuple[Mapping[str, Mapping[str, tuple[int, int]]], list[str]]:
    """The sizes as rows and as columns, and what converting was like."""
    pool = await Database.connect(Settings(database_url=url), LIMITS)
    try:
        now = datetime.now(UTC)
        day = (now - AGE).replace(hour=23, minute=59, second=59)
        await preload(pool, events, ACCOUNTS, day)
        assert await Refresher(pool).run(now) is not None
        found = {"rows": await sizes(pool, engine)}
        notes: list[str] = []
        retention = Retention(pool, ages_of(Settings()))
        over = asyncio.Event()
        late = asyncio.create_task(late_events(pool, day - timedelta(hours=5), over))
        started = time.monotonic()
        chunks = await retention.convert(now)
        assert chunks is not None, "nobody else converts"
        beside = time.monotonic() - started
        over.set()
        slowest = max(await late, default=0.0)
        started = time.monotonic()
        more = await retention.convert(now)
        assert more is not None, "nobody else converts"
        alone = time.monotonic() - started
        if chunks + more:
            found["columns"] = await sizes(pool, engine)
            notes.append(
                f"beside late events {chunks} chunks were converted in {beside:.1f} s, and the slowest late event took "
                f"{slowest:.2f} s; alone {more} in {alone:.1f} s"
            )
        async with pool.connection() as connection:
            total = sum((await stored_of(pool).bytes_of(connection)).values())
        notes.append(f"in all {total / _MEBIBYTE:,.0f} MiB")
        return found, notes
    finally:
        await pool.close()


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--millions", type=float, default=1.0, help="how many million events")
    millions: float = options.parse_args().millions
    rows, notes = [], []
    daily = [rollup.name for rollup in DAILY_ROLLUPS]
    for engine in ENGINES:
        with scratch(engine) as directory, database(engine, directory) as (url, _):
            found, said = asyncio.run(measured(url, engine, int(millions * 1_000_000)))
        notes += [f"{engine}: {note}" for note in said]
        for form, tables in found.items():
            groups = {"event": ["event"], "event_identity": ["event_identity"]}
            groups |= {name: [name] for name in tables if name not in {*groups, *daily}} | {"daily rollups": daily}
            for name, members in groups.items():
                heap, indexes = (sum(tables[member][part] for member in members) / millions for part in (0, 1))
                cells = [f"{number / _MEBIBYTE:,.0f}" for number in (heap, indexes, heap + indexes)]
                rows.append([engine, name, form, *cells])
    columns = ["engine", "table", "as", "heap, MiB", "indexes, MiB", "together, MiB"]
    print_table(f"MiB for each million events ({millions:g} million in one day)", columns, rows)
    print("\n" + "\n".join(f"* {note}" for note in notes))


if __name__ == "__main__":
    main()
