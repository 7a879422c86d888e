"""What rolls up, as SQL: made from the table of rollups, so that each is described once (metering/store/tables.py)."""

from typing import Final

from metering.store.tables import (
    DAY_SECONDS,
    MINUTE,
    MINUTE_BY_SUBSCRIPTION,
    MINUTE_OF_EVERYONE,
    MINUTE_SECONDS,
    QUARTER_HOUR,
    QUARTER_HOUR_SECONDS,
    REQUIRED_DIMENSIONS,
    WHOLE_MINUTES,
    Rollup,
)

_WIDTHS: Final = {MINUTE_SECONDS: "1 minute", QUARTER_HOUR_SECONDS: "15 minutes", DAY_SECONDS: "1 day"}
_OF_EVENTS: Final = "sum(quantity) AS quantity, count(*) AS events, min(quantity) AS minimum, max(quantity) AS maximum"
_OF_ROWS: Final = (
    "sum(quantity) AS quantity, sum(events)::bigint AS events, min(minimum) AS minimum, max(maximum) AS maximum"
)

# Late buckets of accounts.
_LATE: Final = "unnest($1::text[], $2::timestamptz[]) AS late (account, bucket)"

# Held until the step commits: two refreshers never roll up the same buckets side by side.
LOCK_HORIZON: Final = "SELECT complete_at FROM rollup_horizon FOR UPDATE"
LOCK_TAIL: Final = "SELECT complete_at, tail_complete_at FROM rollup_horizon FOR UPDATE"

# PostgreSQL expects about as many groups as events and would sort them; there are far fewer, and hashing takes a quarter
# of the time. What does not fit into memory is hashed in parts.
HASHED: Final = "SET LOCAL enable_sort = off; SET LOCAL work_mem = '128MB'"

# Few changes are looked up one by one: what a late event costs then does not grow with what there is. PostgreSQL expects
# few rows for an account and a bucket of a rollup, and there may be thousands: many changes are joined with all rows of
# their time instead.
_LOOKED_UP_MAX: Final = 1_000
_LOOKED_UP: Final = "SET LOCAL enable_nestloop = on; SET LOCAL enable_hashjoin = off; SET LOCAL enable_mergejoin = off"
_JOINED: Final = "SET LOCAL enable_nestloop = off; SET LOCAL enable_hashjoin = on; SET LOCAL enable_mergejoin = on"


def found(buckets: int) -> str:
    """How what is stored of so many late buckets is found, for the rest of the transaction."""
    return _LOOKED_UP if buckets <= _LOOKED_UP_MAX else _JOINED


def refresh(rollup: Rollup) -> str:
    """Have TimescaleDB roll up the buckets from $1 to $2."""
    return f"CALL refresh_continuous_aggregate('{rollup.name}', $1::timestamptz, $2::timestamptz, force => true)"


def roll_up(rollup: Rollup) -> str:
    """Roll up the buckets from $1 to $2, which hold nothing yet."""
    made = f"""
    SELECT {_bucket(rollup)} AS bucket, {_columns(rollup)}, {_figures(rollup)}
    FROM {rollup.source}
    WHERE {_at(rollup)} >= $1 AND {_at(rollup)} < $2{_not_voided(rollup)}
    GROUP BY 1, {_columns(rollup)}
    """
    if rollup.has_account and rollup.width_seconds > MINUTE_SECONDS:
        # Hashed, an account's rows would lie on as many pages as they are, and each would be read from disk for a question.
        # OFFSET keeps what is sorted to the rows that were made, which are fewer than those that they are made of.
        made = f"SELECT * FROM ({made} OFFSET 0) AS made ORDER BY account, bucket"
    return f"INSERT INTO {rollup.name} ({_target(rollup)}) {made}"


def drop_late(rollup: Rollup) -> str:
    """Drop the buckets $2 of the accounts $1, which lie between $3 and $4."""
    return f"""
    DELETE FROM {rollup.name} AS stale
    USING unnest($1::text[], $2::timestamptz[]) AS late (account, bucket)
    WHERE stale.account = late.account AND stale.bucket = late.bucket AND stale.bucket >= $3 AND stale.bucket < $4
    """


def roll_up_late(rollup: Rollup) -> str:
    """Roll up the buckets $2 of the accounts $1, which lie between $3 and $4 and hold nothing any more."""
    return f"""
    INSERT INTO {rollup.name} ({_target(rollup)})
    SELECT late.bucket, {_columns(rollup, "source.")}, {_figures(rollup)}
    FROM {_late_of_source(rollup)}
    GROUP BY late.bucket, {_columns(rollup, "source.")}
    """


def drop_buckets(rollup: Rollup) -> str:
    """Drop the buckets $1 of everyone."""
    return f"DELETE FROM {rollup.name} WHERE bucket = ANY ($1::timestamptz[])"


def roll_up_buckets(rollup: Rollup) -> str:
    """Roll up the buckets $1 of everyone, which lie between $2 and $3 and hold nothing any more."""
    return f"""
    INSERT INTO {rollup.name} ({_target(rollup)})
    SELECT bucket, {_columns(rollup)}, {_figures(rollup)}
    FROM {rollup.source}
    WHERE bucket = ANY ($1::timestamptz[]) AND bucket >= $2 AND bucket < $3
    GROUP BY bucket, {_columns(rollup)}
    """


def rename(dimension: str, table: str) -> str:
    """Give the rows of the account $1 whose dimension is a key of the JSON $2 its value there instead.

    Where nobody is called so yet, no two rows become one: every figure stays.
    """
    return f"""
    UPDATE {table} SET "{dimension}" = $2::jsonb ->> "{dimension}"
    WHERE account = $1 AND "{dimension}" IN (SELECT jsonb_object_keys($2::jsonb))
    """


# ---------------------------------------------------------------- what changed


# What late events change in quarters of an hour, for as long as a transaction lasts: the rollups that are made from these
# then change by as much, and nothing of them has to be read that did not change.
MAKE_CHANGES: Final = f"""
CREATE TEMPORARY TABLE IF NOT EXISTS late_change (
    bucket timestamptz NOT NULL,
    {", ".join(f'"{name}" text COLLATE "C"' for name in QUARTER_HOUR.dimensions)},
    quantity numeric, events bigint, minimum numeric, maximum numeric, grows boolean NOT NULL
) ON COMMIT DELETE ROWS
"""


def _find_changes() -> str:
    columns = _columns(QUARTER_HOUR)
    return f"""
    INSERT INTO late_change (bucket, {columns}, quantity, events, minimum, maximum, grows)
    SELECT bucket, {columns}, sum(quantity), sum(events), min(fresh_minimum), max(fresh_maximum),
           coalesce(min(fresh_minimum) <= min(stale_minimum) AND max(fresh_maximum) >= max(stale_maximum),
                    min(stale_minimum) IS NULL)
    FROM (
        SELECT late.bucket, {_columns(QUARTER_HOUR, "source.")}, quantity, 1 AS events,
               quantity AS fresh_minimum, quantity AS fresh_maximum, NULL::numeric AS stale_minimum, NULL AS stale_maximum
        FROM {_late_of_source(QUARTER_HOUR)}
        UNION ALL
        SELECT late.bucket, {_columns(QUARTER_HOUR, "stale.")}, -quantity, -events, NULL, NULL, minimum, maximum
        FROM {_LATE} CROSS JOIN LATERAL (
            SELECT * FROM usage_quarter_hour
            WHERE account = late.account AND bucket = late.bucket AND bucket >= $3 AND bucket < $4
            OFFSET 0
        ) AS stale
    ) AS figures (bucket, {columns}, quantity, events, fresh_minimum, fresh_maximum, stale_minimum, stale_maximum)
    GROUP BY bucket, {columns}
    HAVING sum(quantity) <> 0 OR sum(events) <> 0 OR min(fresh_minimum) IS DISTINCT FROM min(stale_minimum)
        OR max(fresh_maximum) IS DISTINCT FROM max(stale_maximum)
    """


def merge_changes(rollup: Rollup) -> str:
    """Add to the buckets from $1 to $2 what grows in them."""
    same = [f"{_value(name, 'kept.')} = {_value(name, 'late.')}" for name in rollup.dimensions]
    return f"""
    MERGE INTO {rollup.name} AS kept
    USING (
        SELECT date_bin('{_width(rollup)}', bucket, 'epoch') AS bucket, {_columns(rollup)}, {_OF_ROWS}
        FROM late_change
        WHERE grows AND bucket >= $1 AND bucket < $2
        GROUP BY 1, {_columns(rollup)}
    ) AS late
    ON kept.bucket = late.bucket AND kept.bucket >= $1 AND kept.bucket < $2 AND {" AND ".join(same)}
    WHEN MATCHED THEN UPDATE SET
        quantity = kept.quantity + late.quantity, events = kept.events + late.events,
        minimum = least(kept.minimum, late.minimum), maximum = greatest(kept.maximum, late.maximum)
    WHEN NOT MATCHED THEN INSERT ({_target(rollup)})
        VALUES (late.bucket, {_columns(rollup, "late.")}, late.quantity, late.events, late.minimum, late.maximum)
    """


# ---------------------------------------------------------------- pieces


def _columns(rollup: Rollup, prefix: str = "") -> str:
    return ", ".join(f'{prefix}"{name}"' for name in rollup.dimensions)


def _target(rollup: Rollup) -> str:
    return f"bucket, {_columns(rollup)}, quantity, events, minimum, maximum"


def _at(rollup: Rollup) -> str:
    return "occurred_at" if rollup.source == "event" else "bucket"


def _bucket(rollup: Rollup) -> str:
    return f"date_bin('{_width(rollup)}', {_at(rollup)}, 'epoch')"


def _figures(rollup: Rollup) -> str:
    return _OF_EVENTS if rollup.source == "event" else _OF_ROWS


def _not_voided(rollup: Rollup) -> str:
    return " AND NOT voided" if rollup.source == "event" else ""


def _value(name: str, prefix: str) -> str:
    # No text of an event is empty, so this is an equality that takes NULL for a value; one that can be hashed.
    return f'{prefix}"{name}"' if name in REQUIRED_DIMENSIONS else f"coalesce({prefix}\"{name}\", '')"


def _late_of_source(rollup: Rollup) -> str:
    # Each late bucket is looked up by itself, which OFFSET says: of a partition that was just filled PostgreSQL knows
    # nothing, and would compare all of its rows with all of the buckets. The bounds beside them choose the partitions.
    at = _at(rollup)
    return f"""{_LATE} CROSS JOIN LATERAL (
        SELECT * FROM {rollup.source}
        WHERE account = late.account AND {at} >= late.bucket AND {at} < late.bucket + interval '{_width(rollup)}'
            AND {at} >= $3 AND {at} < $4{_not_voided(rollup)}
        OFFSET 0
    ) AS source"""


def _width(rollup: Rollup) -> str:
    return _WIDTHS[rollup.width_seconds]


def _add_found(rollup: Rollup) -> str:
    over = " WHERE bucket < $3" if rollup in WHOLE_MINUTES else ""
    return f"""
    INSERT INTO {rollup.name} ({_target(rollup)})
    SELECT bucket, {_columns(rollup)}, {_OF_EVENTS} FROM found{over} GROUP BY bucket, {_columns(rollup)}
    """


_ADD_TO_MINUTES_BY_SUBSCRIPTION: Final = (
    f"INSERT INTO {MINUTE_BY_SUBSCRIPTION.name} AS kept ({_target(MINUTE_BY_SUBSCRIPTION)})"
)
_ADDED: Final = """
ON CONFLICT (account, bucket, subscription, product, unit) DO UPDATE SET
    quantity = kept.quantity + excluded.quantity, events = kept.events + excluded.events,
    minimum = least(kept.minimum, excluded.minimum), maximum = greatest(kept.maximum, excluded.maximum)
"""


FIND_CHANGES: Final = _find_changes()
FIND_SHRUNK: Final = "SELECT DISTINCT account, bucket FROM late_change WHERE NOT grows"

# Add the events between $1 and $2 to their minutes; answers how many there were. Of everyone each step has rows of its own:
# they are few, and nothing tells them apart.
ADD_TO_MINUTES: Final = f"""
WITH fresh AS (
    SELECT {_bucket(MINUTE_BY_SUBSCRIPTION)} AS bucket, {_columns(MINUTE_BY_SUBSCRIPTION)}, {_OF_EVENTS}
    FROM event
    WHERE occurred_at >= $1 AND occurred_at < $2 AND NOT voided
    GROUP BY 1, {_columns(MINUTE_BY_SUBSCRIPTION)}
), added AS (
    {_ADD_TO_MINUTES_BY_SUBSCRIPTION} SELECT * FROM fresh {_ADDED}
), of_everyone AS (
    INSERT INTO {MINUTE_OF_EVERYONE.name} ({_target(MINUTE_OF_EVERYONE)})
    SELECT bucket, {_columns(MINUTE_OF_EVERYONE)}, {_OF_ROWS} FROM fresh GROUP BY bucket, {_columns(MINUTE_OF_EVERYONE)}
)
SELECT coalesce(sum(events), 0)::bigint FROM fresh
"""

# Add late events to the minutes of the tail, and forget them; answers how many there were. The tail is what lies between
# $1 and $2, and minutes below $3 are over. They get rows of their own where nothing tells rows apart: minutes do not last.
ADD_LATE_TO_MINUTES: Final = f"""
WITH late AS (
    DELETE FROM late_event RETURNING account, occurred_at, key
), found AS MATERIALIZED (
    SELECT named.* FROM late CROSS JOIN LATERAL (
        SELECT {_bucket(MINUTE)} AS bucket, {_columns(MINUTE)}, quantity FROM event
        WHERE account = late.account AND occurred_at = late.occurred_at AND key = late.key
            AND occurred_at >= $1 AND occurred_at < $2 AND NOT voided
        OFFSET 0
    ) AS named
), by_subscription AS (
    {_ADD_TO_MINUTES_BY_SUBSCRIPTION}
    SELECT bucket, {_columns(MINUTE_BY_SUBSCRIPTION)}, {_OF_EVENTS} FROM found
    GROUP BY bucket, {_columns(MINUTE_BY_SUBSCRIPTION)} {_ADDED}
), {", ".join(f"into_{rollup.name} AS ({_add_found(rollup)})" for rollup in (MINUTE_OF_EVERYONE, *WHOLE_MINUTES))}
SELECT count(*) FROM late
"""
