"""Statements of a day that is not over: quarters of an hour, and the tail, by subscription.

Kind: pre (stop the processes of the previous release: their refresher would leave the new rollups behind)

Quarters are filled from the rollup with every dimension, whose events may be gone; those by product and by account are made
again, each of the one that has less to read. The tail begins anew: for a moment questions read its events.
"""

import sqlalchemy as sa
from alembic import op

from metering.store.engine import MIGRATED_AS

revision = "0030"
down_revision = "0029"
branch_labels = None
depends_on = None

ALL = "usage_quarter_hour"
BY_SUBSCRIPTION = "usage_quarter_hour_by_subscription"
BY_PRODUCT = "usage_quarter_hour_by_product"
BY_ACCOUNT = "usage_quarter_hour_by_account"
DIMENSIONS = {
    BY_SUBSCRIPTION: ("account", "subscription", "product", "unit"),
    BY_PRODUCT: ("account", "product", "unit"),
    BY_ACCOUNT: ("account", "unit"),
    "usage_minute_by_subscription": ("account", "subscription", "product", "unit"),
    "usage_minute_by_product": ("account", "product", "unit"),
}
FIGURES = "sum(quantity) AS quantity, sum(events)::bigint AS events, min(minimum) AS minimum, max(maximum) AS maximum"
COLUMNS = "quantity numeric NOT NULL, events bigint NOT NULL, minimum numeric NOT NULL, maximum numeric NOT NULL"
# The refresher's lock (metering/rollups/refresh.py): nothing is rolled up while we read what there is.
ALONE = f"SELECT pg_advisory_xact_lock({0x6D65_7472_7266_7368})"
# Every event of the tail is read until the next step: none of its rows, and nothing that is late for them.
BEGIN_TAIL_ANEW = (
    "DELETE FROM usage_minute",
    "DELETE FROM usage_minute_by_account",
    "DELETE FROM usage_minute_of_everyone",
    "DELETE FROM late_event",
    "DELETE FROM pending_minute",
    "UPDATE rollup_horizon SET tail_complete_at = least(tail_complete_at, complete_at)",
)


def upgrade() -> None:
    """Make the rollups by subscription, and of them the narrower ones."""
    op.execute(ALONE)
    _drop(BY_ACCOUNT, BY_PRODUCT)
    _make(BY_SUBSCRIPTION, ALL)
    _make(BY_PRODUCT, BY_SUBSCRIPTION)
    _make(BY_ACCOUNT, BY_PRODUCT)
    _replace_tail("usage_minute_by_product", "usage_minute_by_subscription")


def downgrade() -> None:
    """Make the narrower ones of every dimension again, and the tail by product."""
    op.execute(ALONE)
    _drop(BY_ACCOUNT, BY_PRODUCT, BY_SUBSCRIPTION)
    _make(BY_PRODUCT, ALL)
    _make(BY_ACCOUNT, BY_PRODUCT)
    _replace_tail("usage_minute_by_subscription", "usage_minute_by_product")


def _drop(*names: str) -> None:
    for name in names:
        op.execute(f"DROP {'MATERIALIZED VIEW' if _on_timescaledb() else 'TABLE'} {name}")


def _make(name: str, source: str) -> None:
    dimensions = ", ".join(DIMENSIONS[name])
    filled = name
    if _on_timescaledb():
        # Why there are these options, migration 0001 says.
        op.execute(
            f"CREATE MATERIALIZED VIEW {name} WITH (timescaledb.continuous, timescaledb.materialized_only = true, "
            f"timescaledb.create_group_indexes = false) AS "
            f"SELECT time_bucket('15 minutes', bucket) AS bucket, {dimensions}, {FIGURES} "
            f"FROM {source} GROUP BY 1, {dimensions} WITH NO DATA"
        )
        # A refresh cannot be part of a transaction; what it would write can.
        filled = _stored_in(name)
    else:
        op.execute(f"CREATE TABLE {name} ({_columns(name)})")
        op.execute(f"CREATE INDEX {name}_bucket_idx ON {name} USING brin (bucket)")
    op.execute(f"CREATE INDEX {name}_account_bucket_idx ON {name} (account, bucket)")
    op.execute(
        f"INSERT INTO {filled} (bucket, {dimensions}, quantity, events, minimum, maximum) "
        f"SELECT bucket, {dimensions}, {FIGURES} FROM {source} GROUP BY bucket, {dimensions} ORDER BY bucket"
    )


def _replace_tail(old: str, new: str) -> None:
    op.execute(f"DROP TABLE {old}")
    op.execute(f"CREATE TABLE {new} ({_columns(new)}) WITH (fillfactor = 50)")
    key = ", ".join(("account", "bucket", *DIMENSIONS[new][1:]))
    op.execute(f"ALTER TABLE {new} ADD UNIQUE NULLS NOT DISTINCT ({key})")
    for statement in BEGIN_TAIL_ANEW:
        op.execute(statement)


def _columns(name: str) -> str:
    texts = (f'{each} text COLLATE "C"{"" if each == "subscription" else " NOT NULL"}' for each in DIMENSIONS[name])
    return f"bucket timestamptz NOT NULL, {', '.join(texts)}, {COLUMNS}"


def _stored_in(name: str) -> str:
    where = sa.text(
        "SELECT format('%I.%I', materialization_hypertable_schema, materialization_hypertable_name) "
        "FROM timescaledb_information.continuous_aggregates WHERE view_name = :name AND view_schema = current_schema()"
    )
    return str(op.get_bind().scalar(where, {"name": name}))


def _on_timescaledb() -> bool:
    return bool(op.get_bind().exec_driver_sql(MIGRATED_AS).scalar() == "timescaledb")
