"""A day that is full already: so many events of random ids, recorded before the measuring begins.

Written by the database itself, without the primary keys, which are made anew afterwards: what is left is what as many
requests would have left, in a hundredth of the time. No rollup holds them yet; the service's refresher makes them.
"""

import asyncio
from datetime import datetime

from metering.store.partitions import Partitions
from metering.store.pool import Connection, Database
from metering.store.tables import PARTITIONED_EVENT, PARTITIONED_IDENTITY

_SOURCE = """
CREATE UNLOGGED TABLE preload AS
SELECT number,
       'account-' || lpad((power({accounts}, random())::int - 1)::text, 4, '0') AS account,
       $1::timestamptz + random() * ($2::timestamptz - $1::timestamptz) AS occurred_at,
       decode(md5(number::text), 'hex') AS key
FROM generate_series(1, {count}) AS number
"""
_EVENTS = """
INSERT INTO event (account, occurred_at, key, source, event_id, received_at, subscription, "user", device, product,
                   feature, classification, unit, quantity)
SELECT account, occurred_at, key, 'preload', encode(key, 'hex'), now(), account || '-team', 'user-' || number % 20,
       'user-' || number % 20 || '-phone', 'product-' || number % 8, 'feature-' || number % 8 || '-' || number % 6,
       'billable', CASE WHEN number % 2 = 0 THEN 'gigabyte' ELSE 'call' END, number % 100000 / 1000.0
FROM preload
"""
_IDENTITIES = """
INSERT INTO event_identity (account, day, key, occurred_at, content)
SELECT account, (occurred_at AT TIME ZONE 'UTC')::date, key, occurred_at, key FROM preload
"""


async def preload(database: Database, count: int, accounts: int, now: datetime) -> None:
    """Fill the UTC day of `now`, up to then, with so many events of so many accounts."""
    midnight = now.replace(hour=0, minute=0, second=0, microsecond=0)
    partitions = Partitions(database)
    for partitioned in (PARTITIONED_EVENT, PARTITIONED_IDENTITY):
        await partitions.ensure(partitioned, [now.date()])
    async with database.connection() as first, database.connection() as second:
        await run(first, _SOURCE.format(accounts=accounts, count=count), midnight, now)
        await asyncio.gather(
            fill(first, "event", "account, occurred_at, key", _EVENTS),
            fill(second, "event_identity", "key, day, account", _IDENTITIES),
        )
        await run(first, "DROP TABLE preload")
        await run(first, "CHECKPOINT")


async def fill(connection: Connection, table: str, key: str, statement: str, *arguments: object) -> None:
    """Fill a table by an INSERT ... SELECT, with its primary key away meanwhile."""
    await run(connection, f"ALTER TABLE {table} DROP CONSTRAINT {table}_pkey")
    await run(connection, statement, *arguments)
    await run(connection, "SET maintenance_work_mem = '1GB'")
    await run(connection, f"ALTER TABLE {table} ADD CONSTRAINT {table}_pkey PRIMARY KEY ({key})")
    await run(connection, f"VACUUM (ANALYZE) {table}")


async def run(connection: Connection, statement: str, *arguments: object) -> None:
    """Run a statement that may take long."""
    await connection.execute(statement, *arguments, timeout=3_600)
