"""Compare rollups with the events that they are made of: all of them, or a sample. Drift is a bug; this only reads.

Each step is one rollup over a few whole buckets, in a snapshot of its own: horizon, pending log, rollup and events are of
one instant, so that writes and refreshes beside it make no difference. What readers do not take from a rollup (above the
horizon, or pending) is not compared, nor is what begins before the retained range.
"""

import random
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import Any, Final

import msgspec

from metering.limits import Limits
from metering.periods import Period
from metering.reach import EVERYTHING
from metering.store.drift_query import drift_statement
from metering.store.partitions import days_kept
from metering.store.pool import Database
from metering.store.snapshot import Horizon, Snapshot
from metering.store.tables import PARTITIONED_EVENT, ROLLUPS, Rollup

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_DAY: Final = timedelta(days=1)


class Step(msgspec.Struct, frozen=True):
    """Buckets of one rollup that are compared together: the whole ones inside the period."""

    rollup: Rollup
    period: Period

    @property
    def width(self) -> timedelta:
        """How long the rollup's buckets are."""
        return timedelta(seconds=self.rollup.width_seconds)


class Figures(msgspec.Struct, frozen=True):
    """What a rollup's row holds."""

    quantity: Decimal
    events: int
    # None where what is pending was taken away: then nobody can say.
    minimum: Decimal | None
    maximum: Decimal | None


class DriftingRow(msgspec.Struct, frozen=True):
    """A combination of values for which rollup and events differ; None where one of them has no such row."""

    key: Mapping[str, str | None]
    told: Figures | None
    counted: Figures | None


class Drift(msgspec.Struct, frozen=True):
    """A bucket that differs: how many rows of it do, and the first few of them."""

    rollup: str
    bucket: Period
    row_count: int
    rows: tuple[DriftingRow, ...]


class Compared(msgspec.Struct, frozen=True):
    """What a step found: how many buckets were compared, and those that drift."""

    buckets: int
    drift: tuple[Drift, ...]


class Reconciler:
    """Plans the steps, and takes them one by one."""

    def __init__(self, database: Database, limits: Limits, retention: timedelta | None) -> None:
        self._database = database
        self._limits = limits
        self._retention = retention

    async def plan_all(self) -> list[Step]:
        """Every bucket of every rollup, a day at a time; also of days that only a rollup knows."""
        days = set(await self._days())
        async with Snapshot(self._database, EVERYTHING) as snapshot:
            for rollup in ROLLUPS:
                rows = await snapshot.fetch(
                    f"SELECT DISTINCT date_bin('1 day', bucket, 'epoch') AS day FROM {rollup.name}"
                )
                days |= {row["day"].date() for row in rows}
            horizon = await snapshot.horizon()
        steps = dict.fromkeys(Step(rollup, _period_of(rollup, day)) for day in sorted(days) for rollup in ROLLUPS)
        return [step for step in steps if self._whole(step, horizon) is not None]

    async def plan_sample(self, size: int, seed: int) -> list[Step]:
        """So many buckets by chance, the same for the same seed and days; each rollup in turn, no bucket twice."""
        async with Snapshot(self._database, EVERYTHING) as snapshot:
            horizon = await snapshot.horizon()
        chance = random.Random(seed)  # noqa: S311 - a sample that can be repeated, not a secret
        days = await self._days()
        drawn: list[Iterator[Step]] = [self._shuffled(rollup, days, horizon, chance) for rollup in ROLLUPS]
        steps: list[Step] = []
        while drawn and len(steps) < size:
            taken = [(buckets, next(buckets, None)) for buckets in drawn[: size - len(steps)]]
            steps += [step for _, step in taken if step is not None]
            drawn = [*(buckets for buckets, step in taken if step is not None), *drawn[len(taken) :]]
        return steps

    async def compare(self, step: Step) -> Compared:
        """Take one step."""
        async with Snapshot(self._database, EVERYTHING) as snapshot:
            period = self._whole(step, await snapshot.horizon())
            if period is None:
                return Compared(0, ())
            arguments = [period.start, period.end, self._limits.drift_rows_max]
            statement = drift_statement(step.rollup, rollups_agree=snapshot.rollups_agree)
            rows = await snapshot.fetch(statement, arguments)
        by_bucket: dict[datetime, list[Any]] = {}
        for row in rows:
            by_bucket.setdefault(row["bucket"], []).append(row)
        drift = tuple(
            Drift(
                step.rollup.name,
                Period(start, start + step.width),
                of_bucket[0]["rows"],
                tuple(_drifting_row(step.rollup, row) for row in of_bucket),
            )
            for start, of_bucket in by_bucket.items()
        )
        return Compared((period.end - period.start) // step.width, drift)

    async def _days(self) -> Sequence[date]:
        """The days of which there may be events."""
        async with self._database.connection() as connection:
            return await days_kept(connection, self._database.engine, PARTITIONED_EVENT)

    def _shuffled(
        self, rollup: Rollup, days: Sequence[date], horizon: Horizon, chance: random.Random
    ) -> Iterator[Step]:
        """The rollup's buckets in an order by chance; made one by one, for a year has tens of thousands."""
        width = timedelta(seconds=rollup.width_seconds)
        periods = sorted({_period_of(rollup, day) for day in days}, key=lambda period: period.start)
        a_period = max(1, _DAY // width)
        for index in chance.sample(range(len(periods) * a_period), len(periods) * a_period):
            start = periods[index // a_period].start + index % a_period * width
            step = Step(rollup, Period(start, start + width))
            if self._whole(step, horizon) is not None:
                yield step

    def _whole(self, step: Step, horizon: Horizon) -> Period | None:
        """The whole buckets of a step that are rolled up and whose events are all kept."""
        # A retention that was shortened, and is longer again, brings nothing back.
        start = max(step.period.start, horizon.raw_from.astimezone(UTC))
        if self._retention is not None:
            start = max(start, horizon.as_of.astimezone(UTC) - self._retention)
        start += (_EPOCH - start) % step.width
        end = min(step.period.end, horizon.complete_at.astimezone(UTC))
        end -= (end - _EPOCH) % step.width
        return Period(start, end) if start < end else None


def _period_of(rollup: Rollup, day: date) -> Period:
    """The day, or the rollup's bucket that holds it where that is longer."""
    width = max(_DAY, timedelta(seconds=rollup.width_seconds))
    midnight = datetime(day.year, day.month, day.day, tzinfo=UTC)
    start = midnight - (midnight - _EPOCH) % width
    return Period(start, start + width)


def _drifting_row(rollup: Rollup, row: Any) -> DriftingRow:
    return DriftingRow({name: row[name] for name in rollup.dimensions}, _figures(row, "told"), _figures(row, "counted"))


def _figures(row: Any, side: str) -> Figures | None:
    if row[f"{side}_events"] is None:
        return None
    return Figures(*(row[f"{side}_{name}"] for name in ("quantity", "events", "minimum", "maximum")))
