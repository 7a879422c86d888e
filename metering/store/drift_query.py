"""What a rollup says beside what the events say, for whole buckets: one statement for each rollup, made from the table of them.

Left out is what readers do not take from the rollup either: account-buckets that are pending. Where rollups agree in every
snapshot, readers take these away from a rollup without account by one with accounts, and so do we; elsewhere it is left out
wherever any account is pending. Pending is logged by the finest bucket there is, so it lies inside one bucket of every rollup.
"""

from functools import lru_cache
from typing import Final

from metering.store.tables import DAILY_ROLLUPS, QUARTER_HOUR_ROLLUPS, Rollup, narrowest

_FIGURES = ("quantity", "events", "minimum", "maximum")
_OF_WIDTH: Final = {rollups[0].width_seconds: rollups for rollups in (QUARTER_HOUR_ROLLUPS, DAILY_ROLLUPS)}


@lru_cache(maxsize=100)
def drift_statement(rollup: Rollup, *, rollups_agree: bool) -> str:
    """The rows that differ, the first few of each bucket. $1, $2: from and to, whole buckets; $3: how many of a bucket.

    `told_` is what the rollup says, all NULL where it has no such row; `counted_` is what the events say. `rows` is how
    many rows of the bucket differ. Rows of the same values are added up, as readers do: a row too many shows as well.
    Extremes cannot be taken away: of a bucket of which anything was, they are NULL on both sides.
    """
    is_taken_away = rollups_agree and not rollup.has_account
    columns = ", ".join(f'"{name}"' for name in rollup.dimensions)
    account = "account, " if rollup.has_account or is_taken_away else ""
    not_late = f"NOT IN (SELECT {account}bucket FROM late)"
    told = _less_late(rollup, columns) if is_taken_away else f"{_whole(rollup)} AND ({account}bucket) {not_late}"
    left = "HAVING sum(events) <> 0 OR sum(quantity) <> 0" if is_taken_away else ""
    at = _binned(rollup, "occurred_at")
    keys = ", ".join(f'coalesce(told."{name}", counted."{name}") AS "{name}"' for name in rollup.dimensions)
    figures = ", ".join(f"{side}.{name} AS {side}_{name}" for side in ("told", "counted") for name in _FIGURES)

    def extreme(figure: str, bucket: str) -> str:
        return f"CASE WHEN {bucket} NOT IN (SELECT bucket FROM late) THEN {figure} END" if is_taken_away else figure

    return f"""
    WITH late AS MATERIALIZED (
        SELECT DISTINCT account, {_binned(rollup, "bucket")} AS bucket
        FROM pending_bucket WHERE bucket >= $1 AND bucket < $2
    ), told AS (
        SELECT bucket, {columns}, sum(quantity) AS quantity, sum(events)::bigint AS events,
               {extreme("min(minimum)", "bucket")} AS minimum, {extreme("max(maximum)", "bucket")} AS maximum
        FROM {told}
        GROUP BY bucket, {columns} {left}
    ), counted AS (
        SELECT {at} AS bucket, {columns}, sum(quantity) AS quantity, count(*) AS events,
               {extreme("min(quantity)", at)} AS minimum, {extreme("max(quantity)", at)} AS maximum
        FROM event
        WHERE occurred_at >= $1 AND occurred_at < $2 AND NOT voided AND ({account}{at}) {not_late}
        GROUP BY {at}, {columns}
    ), drift AS (
        SELECT coalesce(told.bucket, counted.bucket) AS bucket, {keys}, {figures}
        FROM told FULL JOIN counted ON told.bucket = counted.bucket AND {_same(rollup)}
        WHERE {_row("told")} IS DISTINCT FROM {_row("counted")}
    ), numbered AS (
        SELECT drift.*, count(*) OVER (PARTITION BY bucket) AS rows,
               row_number() OVER (PARTITION BY bucket ORDER BY {columns}) AS place
        FROM drift
    )
    SELECT * FROM numbered WHERE place <= $3 ORDER BY bucket, place
    """


def _whole(rollup: Rollup) -> str:
    return f"{rollup.name} WHERE bucket >= $1 AND bucket < $2"


def _less_late(rollup: Rollup, columns: str) -> str:
    """Rows of everyone, and, to be taken away from them, those of pending accounts."""
    of_account = narrowest(_OF_WIDTH[rollup.width_seconds], {*rollup.dimensions, "account"})
    return f"""(
            SELECT bucket, {columns}, quantity, events, minimum, maximum FROM {_whole(rollup)}
            UNION ALL
            SELECT bucket, {columns}, -quantity, -events, NULL, NULL FROM {_whole(of_account)}
                AND (account, bucket) IN (SELECT account, bucket FROM late)
        ) AS row"""


def _binned(rollup: Rollup, at: str) -> str:
    return f"date_bin('{rollup.width_seconds} seconds', {at}, 'epoch')"


def _same(rollup: Rollup) -> str:
    """Equality that takes NULL for a value; no text is empty."""
    return " AND ".join(
        f"coalesce(told.\"{name}\", '') = coalesce(counted.\"{name}\", '')" for name in rollup.dimensions
    )


def _row(side: str) -> str:
    return f"({', '.join(f'{side}.{name}' for name in _FIGURES)})"
