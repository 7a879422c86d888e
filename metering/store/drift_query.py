"""What a rollup says beside what the events say, for whole buckets: one statement for each rollup, made from the table of them.

Left out is what readers do not take from the rollup either: account-buckets that are pending. A rollup without account is
left out wherever any account is pending. Pending is logged by the finest bucket there is, so it lies inside one bucket
of every rollup.
"""

from functools import lru_cache

from metering.store.tables import Rollup

_FIGURES = ("quantity", "events", "minimum", "maximum")


@lru_cache(maxsize=100)
def drift_statement(rollup: Rollup) -> str:
    """The rows that differ, the first few of each bucket. $1, $2: from and to, whole buckets; $3: how many of a bucket.

    `told_` is what the rollup says, all NULL where it has no such row; `counted_` is what the events say. `rows` is how
    many rows of the bucket differ. Rows of the same values are added up, as readers do: a row too many shows as well.
    """
    columns = ", ".join(f'"{name}"' for name in rollup.dimensions)
    account = "account, " if "account" in rollup.dimensions else ""
    is_late = f"IN (SELECT {account}bucket FROM late)"
    keys = ", ".join(f'coalesce(told."{name}", counted."{name}") AS "{name}"' for name in rollup.dimensions)
    figures = ", ".join(f"{side}.{name} AS {side}_{name}" for side in ("told", "counted") for name in _FIGURES)
    return f"""
    WITH late AS MATERIALIZED (
        SELECT DISTINCT account, {_binned(rollup, "bucket")} AS bucket
        FROM pending_bucket WHERE bucket >= $1 AND bucket < $2
    ), told AS (
        SELECT bucket, {columns}, sum(quantity) AS quantity, sum(events)::bigint AS events,
               min(minimum) AS minimum, max(maximum) AS maximum
        FROM {rollup.name}
        WHERE bucket >= $1 AND bucket < $2 AND ({account}bucket) NOT {is_late}
        GROUP BY bucket, {columns}
    ), counted AS (
        SELECT {_binned(rollup, "occurred_at")} AS bucket, {columns}, sum(quantity) AS quantity, count(*) AS events,
               min(quantity) AS minimum, max(quantity) AS maximum
        FROM event
        WHERE occurred_at >= $1 AND occurred_at < $2 AND NOT voided
          AND ({account}{_binned(rollup, "occurred_at")}) NOT {is_late}
        GROUP BY 1, {columns}
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


def _binned(rollup: Rollup, at: str) -> str:
    return f"date_bin('{rollup.width_seconds} seconds', {at}, 'epoch')"


def _same(rollup: Rollup) -> str:
    """Equality that takes NULL for a value; no text is empty."""
    return " AND ".join(
        f"coalesce(told.\"{name}\", '') = coalesce(counted.\"{name}\", '')" for name in rollup.dimensions
    )


def _row(side: str) -> str:
    return f"({', '.join(f'{side}.{name}' for name in _FIGURES)})"
