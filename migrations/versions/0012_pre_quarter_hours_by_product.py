"""A rollup of quarters of an hour by product: the day that is not over is answered without every other dimension.

Kind: pre (stop the processes of the previous release: their refresher would leave the new rollup behind)

It is filled from the rollup with every dimension, whose events may be gone, so nothing is rolled up anew. The rollup by
account is made again, of the new one: there is less of it to read.
"""

import sqlalchemy as sa
from alembic import op

from metering.store.engine import MIGRATED_AS

revision = "0012"
down_revision = "0011"
branch_labels = None
depends_on = None

ALL = "usage_quarter_hour"
BY_PRODUCT = "usage_quarter_hour_by_product"
BY_ACCOUNT = "usage_quarter_hour_by_account"
DIMENSIONS = {BY_PRODUCT: ("account", "product", "unit"), BY_ACCOUNT: ("account", "unit")}
FIGURES = "sum(quantity) AS quantity, sum(events)::bigint AS events, min(minimum) AS minimum, max(maximum) AS maximum"
COLUMNS = "quantity numeric NOT NULL, events bigint NOT NULL, minimum numeric NOT NULL, maximum numeric NOT NULL"
# The refresher's lock (metering/rollups/refresh.py): nothing is rolled up while we read what there is.
ALONE = f"SELECT pg_advisory_xact_lock({0x6D65_7472_7266_7368})"


def upgrade() -> None:
    """Make the rollup by product, and of it the one by account."""
    op.execute(ALONE)
    _drop(BY_ACCOUNT)
    _make(BY_PRODUCT, ALL)
    _make(BY_ACCOUNT, BY_PRODUCT)


def downgrade() -> None:
    """Make the rollup by account of every dimension again."""
    op.execute(ALONE)
    _drop(BY_ACCOUNT)
    _drop(BY_PRODUCT)
    _make(BY_ACCOUNT, ALL)


def _drop(name: str) -> None:
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
        texts = ", ".join(f'{dimension} text COLLATE "C" NOT NULL' for dimension in DIMENSIONS[name])
        op.execute(f"CREATE TABLE {name} (bucket timestamptz NOT NULL, {texts}, {COLUMNS})")
        op.execute(f"CREATE INDEX {name}_bucket_idx ON {name} USING brin (bucket)")
    op.execute(f"CREATE INDEX {name}_account_bucket_idx ON {name} (account, bucket)")
    op.execute(
        f"INSERT INTO {filled} (bucket, {dimensions}, quantity, events, minimum, maximum) "
        f"SELECT bucket, {dimensions}, {FIGURES} FROM {source} GROUP BY bucket, {dimensions} ORDER BY bucket"
    )


def _stored_in(name: str) -> str:
    where = sa.text(
        "SELECT format('%I.%I', materialization_hypertable_schema, materialization_hypertable_name) "
        "FROM timescaledb_information.continuous_aggregates WHERE view_name = :name AND view_schema = current_schema()"
    )
    return str(op.get_bind().scalar(where, {"name": name}))


def _on_timescaledb() -> bool:
    return bool(op.get_bind().exec_driver_sql(MIGRATED_AS).scalar() == "timescaledb")
