"""Usage as services record it, for questions to be asked of: sessions of users, accounts by a power law, over many days.

An event belongs to a session: a user of an account on one device works with one product for about ten minutes, an event
every ten seconds or so, and moves to another feature now and then. Accounts are 2,000, and the first has an eleventh of
all; the larger an account, the more users it has (1,500 down to 3). Written by the database itself, without the primary
keys, which are made anew afterwards. No rollup holds the events yet; the service's refresher makes them.
"""

import asyncio
from datetime import datetime, timedelta

from preload import fill, run

from metering.store.partitions import Partitions
from metering.store.pool import Database
from metering.store.tables import PARTITIONED_EVENT, PARTITIONED_IDENTITY

_EVENTS_A_SESSION = 60
_SECONDS_BETWEEN = 10

_SESSIONS = f"""
CREATE UNLOGGED TABLE session AS
SELECT number, 'account-' || lpad(rank::text, 4, '0') AS account, 'team-' || person % 4 AS subscription,
       'user-' || person AS "user", 'user-' || person || CASE WHEN rolls[3] < 0.4 THEN '-phone' ELSE '-desktop' END AS device,
       (rolls[4] * 8)::int % 8 AS product, started_at, 1 + (-ln(1 - rolls[5]) * {_EVENTS_A_SESSION})::int AS events,
       CASE WHEN rank % 20 = 19 THEN 'trial' ELSE 'billable' END AS classification
FROM (
    SELECT number, rolls, rank, floor(rolls[2] * (3 + 1500 / (rank + 1)))::int AS person,
           $1::timestamptz + (number + rolls[6]) / {{sessions}} * ($2::timestamptz - $1::timestamptz) AS started_at
    FROM (
        SELECT number, rolls, floor(power(2000, rolls[1]))::int - 1 AS rank
        FROM (
            SELECT number, ARRAY[random(), random(), random(), random(), random(), random()] AS rolls
            FROM generate_series(0, {{sessions}} - 1) AS number
        ) AS rolled
    ) AS ranked
) AS placed
"""
_EACH = f"""
SELECT session.*, position, decode(md5(number || ' ' || position), 'hex') AS key,
       started_at
           + interval '{_SECONDS_BETWEEN} s' * (position + (hashint8(number * 1000 + position) & 1023) / 1024.0) AS occurred_at,
       hashint4((number % 1000000)::int * 7 + position / 12) & 65535 AS visited,
       hashint4(position * 31 + (number % 1000000)::int) & 65535 AS amount
FROM session, generate_series(0, session.events - 1) AS position
"""
_EVENTS = f"""
INSERT INTO event (account, occurred_at, key, source, event_id, received_at, subscription, "user", device, product,
                   feature, classification, unit, quantity)
SELECT account, occurred_at, key, 'dataset', encode(key, 'hex'), occurred_at + interval '2 s', subscription, "user", device,
       'product-' || product, 'feature-' || product || '-' || visited % 6, classification,
       CASE WHEN product % 2 = 1 THEN 'call' ELSE 'gigabyte' END, (1 + amount) / 1000.0
FROM ({_EACH}) AS each WHERE occurred_at < $1
"""
_IDENTITIES = f"""
INSERT INTO event_identity (account, day, key, occurred_at, content)
SELECT account, (occurred_at AT TIME ZONE 'UTC')::date, key, occurred_at, key FROM ({_EACH}) AS each WHERE occurred_at < $1
"""


async def record(database: Database, events: int, start: datetime, end: datetime) -> None:
    """Record about so many events between two instants."""
    partitions = Partitions(database)
    days = [start.date() + timedelta(days=number) for number in range((end - start).days + 2)]
    for partitioned in (PARTITIONED_EVENT, PARTITIONED_IDENTITY):
        await partitions.ensure(partitioned, days)
    async with database.connection() as first, database.connection() as second:
        await run(first, _SESSIONS.format(sessions=max(1, events // (_EVENTS_A_SESSION + 1))), start, end)
        await asyncio.gather(
            fill(first, "event", "account, occurred_at, key", _EVENTS, end),
            fill(second, "event_identity", "key, day, account", _IDENTITIES, end),
        )
        await run(first, "DROP TABLE session")
        await run(first, "CHECKPOINT")
