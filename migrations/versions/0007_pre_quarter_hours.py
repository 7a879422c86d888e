"""Rollups by a quarter of an hour instead of an hour, rollups without account, and the tail by minute.

Kind: pre (there was no release before it: rollups are replaced, not added to)

Rollups hold nothing that events do not say, so the old ones are dropped, and the horizon goes back to where it began: what
there is is rolled up anew, in the background, and figures are exact meanwhile. What was pending is then no longer so.
"""

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None

ALL = ("account", "subscription", '"user"', "device", "product", "feature", "classification", "unit")
REQUIRED = {"account", "product", "unit"}
FIGURES = "quantity numeric NOT NULL, events bigint NOT NULL, minimum numeric NOT NULL, maximum numeric NOT NULL"
BY_PRODUCT = ("account", "product", "feature", "classification", "unit")
EVERYONE = ("product", "feature", "classification", "unit")

# Each by its width, what it is made from, and its dimensions: from the widest on, so that each reads little.
ROLLUPS = {
    "usage_quarter_hour": ("15 minutes", "event", ALL),
    "usage_quarter_hour_of_everyone": ("15 minutes", "usage_quarter_hour", EVERYONE),
    "usage_quarter_hour_by_account": ("15 minutes", "usage_quarter_hour", ("account", "unit")),
    "usage_day": ("1 day", "usage_quarter_hour", ALL),
    "usage_day_by_product": ("1 day", "usage_day", BY_PRODUCT),
    "usage_day_by_subscription": ("1 day", "usage_day", ("account", "subscription", "product", "unit")),
    "usage_day_by_user": ("1 day", "usage_day", ("account", '"user"', "product", "unit")),
    "usage_day_by_device": ("1 day", "usage_day", ("account", "device", "product", "unit")),
    "usage_day_by_account": ("1 day", "usage_day_by_product", ("account", "unit")),
    "usage_day_of_everyone": ("1 day", "usage_day_by_product", EVERYONE),
}
MINUTES = {
    "usage_minute": ALL,
    "usage_minute_by_product": ("account", "product", "unit"),
    "usage_minute_by_account": ("account", "unit"),
    "usage_minute_of_everyone": ("product", "unit"),
}
# The minute that is not over yet is added to every few seconds: half of each page is left for the rows as they become.
ADDED_TO = "usage_minute_by_product"

# As migration 0001 made them.
HOURLY = {
    "usage_hour": ("1 hour", "event", ALL),
    "usage_day_by_product": ("1 day", "usage_hour", BY_PRODUCT),
    "usage_day_by_subscription": ("1 day", "usage_hour", ("account", "subscription", "product", "unit")),
    "usage_day_by_user": ("1 day", "usage_hour", ("account", '"user"', "product", "unit")),
    "usage_day_by_device": ("1 day", "usage_hour", ("account", "device", "product", "unit")),
    "usage_day": ("1 day", "usage_hour", ALL),
}

TAIL = """
CREATE TABLE pending_minute (
    id      bigint GENERATED ALWAYS AS IDENTITY,
    account text COLLATE "C" NOT NULL,
    bucket  timestamptz NOT NULL,
    CONSTRAINT pending_minute_pkey PRIMARY KEY (id)
);
CREATE INDEX pending_minute_account_bucket_idx ON pending_minute (account, bucket);

ALTER TABLE rollup_horizon
    ADD COLUMN tail_published_at timestamptz NOT NULL DEFAULT '1970-01-01 00:00+00',
    ADD COLUMN tail_complete_at  timestamptz NOT NULL DEFAULT '1970-01-01 00:00+00',
    ADD CONSTRAINT rollup_horizon_tail_check CHECK (tail_complete_at <= tail_published_at);
"""

# Everything that can be rolled up is, once more.
BEGIN_ANEW = """
UPDATE rollup_horizon SET published_at = '1970-01-01 00:00+00', complete_at = '1970-01-01 00:00+00';
DELETE FROM pending_bucket;
"""


def upgrade() -> None:
    """Drop the rollups by hour, make those by a quarter of an hour and the tail, and begin anew."""
    continuous = _drop(HOURLY)
    _make(ROLLUPS, continuous=continuous)
    for name, dimensions in MINUTES.items():
        key = ("account", "bucket") if "account" in dimensions else ("bucket",)
        op.execute(f"CREATE TABLE {name} ({_columns(dimensions)})")
        if name == ADDED_TO:
            op.execute(f"ALTER TABLE {name} SET (fillfactor = 50), ADD UNIQUE (account, bucket, product, unit)")
        else:
            op.execute(f"CREATE INDEX {name}_{'_'.join(key)}_idx ON {name} ({', '.join(key)})")
    _execute(TAIL)
    _execute(BEGIN_ANEW)


def downgrade() -> None:
    """Drop them, make the rollups by hour again, and begin anew."""
    continuous = _drop(ROLLUPS)
    _make(HOURLY, continuous=continuous)
    for name in (*MINUTES, "pending_minute"):
        op.execute(f"DROP TABLE {name}")
    op.execute("ALTER TABLE rollup_horizon DROP COLUMN tail_published_at, DROP COLUMN tail_complete_at")
    _execute(BEGIN_ANEW)


def _drop(rollups: dict[str, tuple[str, str, tuple[str, ...]]]) -> bool:
    """Drop them, and say whether they were continuous aggregates."""
    continuous = bool(
        op.get_bind().scalar(sa.text("SELECT relkind = 'v' FROM pg_class WHERE oid = 'usage_day'::regclass"))
    )
    for name in reversed(rollups):
        op.execute(f"DROP {'MATERIALIZED VIEW' if continuous else 'TABLE'} {name}")
    return continuous


def _make(rollups: dict[str, tuple[str, str, tuple[str, ...]]], *, continuous: bool) -> None:
    for name, (width, source, dimensions) in rollups.items():
        if continuous:
            op.execute(_continuous_aggregate(name, width, source, dimensions))
        else:
            partitioned = " PARTITION BY RANGE (bucket)" if source == "event" else ""
            op.execute(f"CREATE TABLE {name} ({_columns(dimensions)}){partitioned}")
            # Figures over everyone come by time alone. Rows arrive in that order, so the smallest of indexes will do; where
            # there is no account, buckets are looked up to be changed.
            kind = "brin" if "account" in dimensions else "btree"
            op.execute(f"CREATE INDEX {name}_bucket_idx ON {name} USING {kind} (bucket)")
        if "account" in dimensions:
            op.execute(f"CREATE INDEX {name}_account_bucket_idx ON {name} (account, bucket)")


def _columns(dimensions: tuple[str, ...]) -> str:
    texts = ", ".join(f'{name} text COLLATE "C"{" NOT NULL" if name in REQUIRED else ""}' for name in dimensions)
    return f"bucket timestamptz NOT NULL, {texts}, {FIGURES}"


def _continuous_aggregate(name: str, width: str, source: str, dimensions: tuple[str, ...]) -> str:
    # Why there are these options, migration 0001 says.
    options = "timescaledb.continuous, timescaledb.materialized_only = true, timescaledb.create_group_indexes = false"
    columns = ", ".join(dimensions)
    if source == "event":
        figures = "sum(quantity) AS quantity, count(*) AS events, min(quantity) AS minimum, max(quantity) AS maximum"
        time, condition = "occurred_at", " WHERE NOT voided"
    else:
        figures = (
            "sum(quantity) AS quantity, sum(events)::bigint AS events, min(minimum) AS minimum, max(maximum) AS maximum"
        )
        time, condition = "bucket", ""
    return (
        f"CREATE MATERIALIZED VIEW {name} WITH ({options}) AS SELECT time_bucket('{width}', {time}) AS bucket, {columns}, "
        f"{figures} FROM {source}{condition} GROUP BY 1, {columns} WITH NO DATA"
    )


def _execute(statements: str) -> None:
    for statement in statements.split(";"):
        if statement.strip():
            op.execute(statement)
