"""Gauges of the whole service: what the database knows of it, looked up when it is asked for.

Whichever process is asked tells the same, also of work that another process does.
"""

import asyncio
from datetime import timedelta
from typing import Any, Final

from metering import metrics
from metering.errors import MeteringError
from metering.lead import LEAD_LOCK
from metering.limits import Limits
from metering.loops import Loop, read_loops
from metering.metrics import Labelled, Metric, Readings
from metering.store.pool import Database
from metering.store.queries import sql

_SECOND: Final = timedelta(seconds=1)


async def read_gauges(database: Database, limits: Limits) -> Readings:
    """What the database tells of the service; that it is away, where it does not answer in time."""
    try:
        async with asyncio.timeout(limits.scrape_seconds_max):
            async with database.connection() as connection:
                row = await connection.fetchrow(sql("probes.read_gauges"), LEAD_LOCK)
            loops = await read_loops(database)
    except (MeteringError, TimeoutError):
        return _readings({metrics.DATABASE_UP: 0})
    assert row is not None, "the first migration puts one row there"
    readings = _readings({metrics.DATABASE_UP: 1, **_of_row(row)})
    for loop in loops:
        readings.add(_readings(_of_loop(loop), loop.name))
    return readings


def _of_row(row: Any) -> dict[Metric, float]:
    return {
        metrics.ROLLUP_LAG: row["rollup_lag"] / _SECOND,
        metrics.TAIL_LAG: row["tail_lag"] / _SECOND,
        metrics.PENDING: row["pending"],
        metrics.DELIVERIES: row["deliveries"],
        metrics.DELIVERY_LAG: row["delivery_lag"] / _SECOND,
        metrics.LED: int(row["is_led"]),
    }


def _of_loop(loop: Loop) -> dict[Metric, float]:
    """What is known of a loop; of one that never ran, and never ended well, there is nothing to tell."""
    known: dict[Metric, float] = {metrics.LOOP_FAILURES: loop.failures}
    if loop.lag is not None:
        known[metrics.LOOP_LAG] = loop.lag / _SECOND
    if loop.ran_at is not None:
        known[metrics.LOOP_SUCCESS] = loop.ran_at.timestamp()
    return known


def _readings(values: dict[Metric, float], *labels: str) -> Readings:
    return Readings({Labelled(metric.name, labels): value for metric, value in values.items()}, {})
