"""What PostgreSQL can do with the same rows in the same tables with the same indexes, without a service: events/s.

None of them rolls anything up, none answers a client; they are durable. Encoding is done before the clock starts.
"""

import asyncio
import time
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from io import BytesIO
from itertools import islice
from profile import ACCOUNTS, FEATURES, PRODUCTS, events
from typing import Any

import asyncpg

from metering.events import identity_key

BATCH_ROWS = 5_000
# Enough for half a minute: in a shorter time PostgreSQL does not do what it puts off, and 150,000 events/s are no rate.
COPY_BATCHES = 800
COPY_SECONDS_MAX = 30.0
INSERT_BATCH_ROWS = 1_000
SECONDS_MAX = 15.0
_EVENT = (
    "account", "occurred_at", "key", "source", "event_id", "received_at", "subscription", "user", "device", "product",
    "feature", "classification", "unit", "quantity",
)  # fmt: skip
_IDENTITY = ("account", "day", "key", "occurred_at", "content")
_QUOTED = ", ".join(f'"{column}"' for column in _EVENT)
_TYPES = {"occurred_at": "timestamptz", "received_at": "timestamptz", "key": "bytea", "quantity": "numeric"}
_VALUES = ", ".join(f"${number}::{_TYPES.get(column, 'text')}[]" for number, column in enumerate(_EVENT, 1))
# When they happened: below the horizon, so that the service does not roll them up while it is measured.
_AGO = timedelta(hours=1)
# One statement for a batch, its conflicts skipped: what most teams would write.
_ON_CONFLICT = f"""
WITH sent ({_QUOTED}) AS (SELECT * FROM unnest({_VALUES})),
     fresh AS (
         INSERT INTO event_identity (account, day, key, occurred_at, content)
         SELECT account, (occurred_at AT TIME ZONE 'UTC')::date, key, occurred_at, key FROM sent
         ON CONFLICT DO NOTHING
         RETURNING account, key
     )
INSERT INTO event ({_QUOTED}) SELECT sent.* FROM sent JOIN fresh USING (account, key)
"""
# Events as profile.py has them, in batches.
_MADE = f"""
CREATE TEMPORARY TABLE made AS
SELECT number / {BATCH_ROWS} AS batch, 'account-' || lpad(account::text, 4, '0') AS account,
       now() - interval '{_AGO}' - random() * interval '1 minute' AS occurred_at, key, 'loadtest' AS source,
       encode(key, 'hex') AS event_id, now() AS received_at,
       'account-' || lpad(account::text, 4, '0') || '-team' AS subscription, 'user-' || person AS "user",
       'user-' || person || CASE WHEN random() < 0.4 THEN '-phone' ELSE '-desktop' END AS device,
       'product-' || product AS product, 'feature-' || product || '-' || floor(random() * {FEATURES}) AS feature,
       'billable' AS classification, CASE WHEN product % 2 = 1 THEN 'call' ELSE 'gigabyte' END AS unit,
       round((random() * 100)::numeric, 3) AS quantity, key AS content
FROM (
    SELECT *, floor(random() * (1 + account % 20))::int AS person FROM (
        SELECT number, floor(power({ACCOUNTS}, random()))::int - 1 AS account, floor(random() * {PRODUCTS})::int AS product,
               uuid_send(gen_random_uuid()) AS key
        FROM generate_series(0, {COPY_BATCHES * BATCH_ROWS - 1}) AS number
    ) AS rolled
) AS rolled;
ALTER TABLE made ADD COLUMN day date GENERATED ALWAYS AS ((occurred_at AT TIME ZONE 'UTC')::date) STORED;
CREATE INDEX ON made (batch)
"""
_SINGLE = f"INSERT INTO event ({_QUOTED}) VALUES ({', '.join(f'${number}' for number in range(1, len(_EVENT) + 1))})"
_SINGLE_IDENTITY = "INSERT INTO event_identity (account, day, key, occurred_at, content) VALUES ($1, $2, $3, $4, $5)"


# The bodies of a COPY of events, and of one of their identities.
Batch = tuple[BytesIO, BytesIO]


def event_rows() -> Iterator[tuple[Any, ...]]:
    """Rows of `event`, of new random ids."""
    now = datetime.now(UTC)
    for sent in events(time.time_ns(), now - _AGO, timedelta(minutes=1)):
        at = datetime.fromisoformat(sent["occurred_at"])
        yield (
            sent["account"], at, identity_key(sent["source"], sent["id"]), sent["source"], sent["id"], now,
            *(sent[name] for name in _EVENT[6:13]), Decimal(sent["quantity"]),
        )  # fmt: skip


def identity_of(row: tuple[Any, ...]) -> tuple[Any, ...]:
    """The row of `event_identity` to a row of `event`."""
    return (row[0], row[1].date(), row[2], row[1], row[2])


async def copy(url: str, encoded_batches: Sequence[Batch], connections: int) -> float:
    """Binary COPY of batches that are encoded already, over so many connections."""
    batches = iter(encoded_batches)
    pool = [await asyncpg.connect(url) for _ in range(connections)]
    started = time.perf_counter()
    count = 0

    async def work(connection: asyncpg.Connection) -> None:
        nonlocal count
        for rows, identities in batches:
            async with connection.transaction():
                await connection.copy_to_table("event_identity", source=identities, columns=_IDENTITY, format="binary")
                await connection.copy_to_table("event", source=rows, columns=_EVENT, format="binary")
            count += BATCH_ROWS
            if time.perf_counter() - started > COPY_SECONDS_MAX:
                return

    await asyncio.gather(*map(work, pool))
    seconds = time.perf_counter() - started
    for connection in pool:
        await connection.close()
    return count / seconds


async def encoded(url: str) -> list[Batch]:
    """The two bodies of each batch, sorted as the service sorts them, made and encoded by PostgreSQL itself."""
    connection = await asyncpg.connect(url, timeout=60, command_timeout=600)
    await connection.execute(_MADE)
    batches = [
        (
            await _copied(connection, number, _EVENT, "account, occurred_at, key"),
            await _copied(connection, number, _IDENTITY, "key"),
        )
        for number in range(COPY_BATCHES)
    ]
    await connection.close()
    return batches


async def _copied(connection: asyncpg.Connection, number: int, columns: Sequence[str], order: str) -> BytesIO:
    body = BytesIO()
    chosen = ", ".join(f'"{column}"' for column in columns)
    query = f"SELECT {chosen} FROM made WHERE batch = {number} ORDER BY {order}"
    await connection.copy_from_query(query, output=body, format="binary")
    body.seek(0)
    return body


async def insert_batches(url: str) -> float:
    """One INSERT ... ON CONFLICT for each thousand, over two connections."""
    return await _for_some_seconds(url, INSERT_BATCH_ROWS, _insert_batch)


async def insert_each(url: str) -> float:
    """A transaction for each event, over two connections."""
    return await _for_some_seconds(url, 1, _insert_one)


async def _insert_batch(connection: asyncpg.Connection, rows: list[tuple[Any, ...]]) -> None:
    await connection.execute(_ON_CONFLICT, *zip(*rows, strict=True))


async def _insert_one(connection: asyncpg.Connection, rows: list[tuple[Any, ...]]) -> None:
    async with connection.transaction():
        await connection.execute(_SINGLE_IDENTITY, *identity_of(rows[0]))
        await connection.execute(_SINGLE, *rows[0])


async def _for_some_seconds(url: str, size: int, write: Any) -> float:
    stream = event_rows()
    # Made before the clock starts.
    batches = iter([list(islice(stream, size)) for _ in range(min(30_000, 600_000 // size))])
    pool = [await asyncpg.connect(url) for _ in range(2)]
    started = time.perf_counter()
    count = 0

    async def work(connection: asyncpg.Connection) -> None:
        nonlocal count
        for rows in batches:
            await write(connection, rows)
            count += len(rows)
            if time.perf_counter() - started > SECONDS_MAX:
                return

    await asyncio.gather(*map(work, pool))
    seconds = time.perf_counter() - started
    for connection in pool:
        await connection.close()
    return count / seconds
