"""Events, identities, rollups, keys: the ground that everything stands on.

Kind: pre (additive; there is no previous release)

This is the one place, besides metering/rollups/refresh.py, where the engines differ: hypertables and continuous
aggregates on TimescaleDB, range partitions and plain tables elsewhere, with the same names and the same columns.
"""

import sqlalchemy as sa
from alembic import op

from metering.errors import SchemaError
from metering.store.engine import COMMUNITY, TIMESCALEDB_LICENSE, TIMESCALEDB_LOADED

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

EVENT = """
CREATE TABLE event (
    account        text COLLATE "C" NOT NULL,
    occurred_at    timestamptz NOT NULL,
    key            bytea NOT NULL,
    source         text COLLATE "C" NOT NULL,
    event_id       text COLLATE "C" NOT NULL,
    received_at    timestamptz NOT NULL,
    subscription   text COLLATE "C",
    "user"         text COLLATE "C",
    device         text COLLATE "C",
    product        text COLLATE "C" NOT NULL,
    feature        text COLLATE "C",
    classification text COLLATE "C",
    unit           text COLLATE "C" NOT NULL,
    quantity       numeric NOT NULL,
    attributes     jsonb,
    voided         boolean NOT NULL DEFAULT false,
    CONSTRAINT event_pkey PRIMARY KEY (account, occurred_at, key)
)
"""

EVENT_IDENTITY = """
CREATE TABLE event_identity (
    account     text COLLATE "C" NOT NULL,
    day         date NOT NULL,
    key         bytea NOT NULL,
    occurred_at timestamptz NOT NULL,
    content     bytea NOT NULL,
    CONSTRAINT event_identity_pkey PRIMARY KEY (account, day, key)
)
"""

CONTROL = """
CREATE TABLE pending_bucket (
    id      bigint GENERATED ALWAYS AS IDENTITY,
    account text COLLATE "C" NOT NULL,
    bucket  timestamptz NOT NULL,
    CONSTRAINT pending_bucket_pkey PRIMARY KEY (id)
);
CREATE INDEX pending_bucket_account_bucket_idx ON pending_bucket (account, bucket);

CREATE TABLE rollup_horizon (
    published_at timestamptz NOT NULL,
    complete_at  timestamptz NOT NULL,
    CONSTRAINT rollup_horizon_order_check CHECK (complete_at <= published_at)
);
CREATE UNIQUE INDEX rollup_horizon_one_row_idx ON rollup_horizon ((true));
INSERT INTO rollup_horizon VALUES ('1970-01-01 00:00+00', '1970-01-01 00:00+00');

CREATE TABLE api_key (
    prefix     text COLLATE "C" NOT NULL,
    name       text COLLATE "C" NOT NULL,
    digest     bytea NOT NULL,
    scopes     text[] COLLATE "C" NOT NULL,
    accounts   text[] COLLATE "C",
    created_at timestamptz NOT NULL DEFAULT now(),
    expires_at timestamptz,
    revoked_at timestamptz,
    CONSTRAINT api_key_pkey PRIMARY KEY (prefix),
    CONSTRAINT api_key_digest_key UNIQUE (digest)
);

CREATE TABLE demo_load (
    through   date NOT NULL,
    loaded_at timestamptz,
    CONSTRAINT demo_load_pkey PRIMARY KEY (through)
);
"""

ALL = ("account", "subscription", '"user"', "device", "product", "feature", "classification", "unit")
REQUIRED = {"account", "product", "unit"}
DAILY = {
    "usage_day_by_product": ("account", "product", "feature", "classification", "unit"),
    "usage_day_by_subscription": ("account", "subscription", "product", "unit"),
    "usage_day_by_user": ("account", '"user"', "product", "unit"),
    "usage_day_by_device": ("account", "device", "product", "unit"),
    "usage_day": ALL,
}
FIGURES = "quantity numeric NOT NULL, events bigint NOT NULL, minimum numeric NOT NULL, maximum numeric NOT NULL"


def upgrade() -> None:
    """Make everything."""
    timescaledb = _make_extension(op.get_bind())
    for statements in (
        EVENT + (";" if timescaledb else " PARTITION BY RANGE (occurred_at);"),
        EVENT_IDENTITY + (";" if timescaledb else " PARTITION BY RANGE (day);"),
        CONTROL,
    ):
        for statement in statements.split(";"):
            if statement.strip():
                op.execute(statement)
    if timescaledb:
        _make_hypertables()
    op.execute(
        "CREATE INDEX event_occurred_at_idx ON event USING brin (occurred_at) "
        "WITH (pages_per_range = 32, autosummarize = on)"
    )
    if timescaledb:
        _make_continuous_aggregates()
    else:
        _make_rollup_tables()


def _make_extension(connection: sa.Connection) -> bool:
    """Create the TimescaleDB extension where the server has its Community edition, and say whether it has."""
    if not connection.scalar(sa.text(TIMESCALEDB_LOADED)):
        return False
    savepoint = connection.begin_nested()
    try:
        connection.execute(sa.text("CREATE EXTENSION IF NOT EXISTS timescaledb"))
    except sa.exc.ProgrammingError as error:
        # A database on a TimescaleDB server is never plain by accident.
        raise SchemaError(
            f"This server has TimescaleDB, but this role may not use it ({error.orig}). "
            "Have an administrator run CREATE EXTENSION timescaledb in this database, then migrate again."
        ) from error
    if connection.scalar(sa.text(TIMESCALEDB_LICENSE)) == COMMUNITY:
        savepoint.commit()
        return True
    savepoint.rollback()
    return False


def _make_hypertables() -> None:
    week = "INTERVAL '7 days'"
    op.execute(f"SELECT create_hypertable('event', by_range('occurred_at', {week}), create_default_indexes => false)")
    op.execute(f"SELECT create_hypertable('event_identity', by_range('day', {week}), create_default_indexes => false)")


def _make_continuous_aggregates() -> None:
    op.execute(
        _continuous_aggregate(
            "usage_hour",
            f"SELECT time_bucket('1 hour', occurred_at) AS bucket, {', '.join(ALL)}, sum(quantity) AS quantity, "
            "count(*) AS events, min(quantity) AS minimum, max(quantity) AS maximum "
            f"FROM event WHERE NOT voided GROUP BY 1, {', '.join(ALL)}",
        )
    )
    for name, dimensions in DAILY.items():
        # The sum of bigint is numeric in PostgreSQL; the cast keeps the column what it is on the other engine.
        op.execute(
            _continuous_aggregate(
                name,
                f"SELECT time_bucket('1 day', bucket) AS bucket, {', '.join(dimensions)}, sum(quantity) AS quantity, "
                "sum(events)::bigint AS events, min(minimum) AS minimum, max(maximum) AS maximum "
                f"FROM usage_hour GROUP BY 1, {', '.join(dimensions)}",
            )
        )
    for name in ("usage_hour", *DAILY):
        op.execute(f"CREATE INDEX {name}_account_bucket_idx ON {name} (account, bucket)")


def _continuous_aggregate(name: str, query: str) -> str:
    # Without create_group_indexes => false, TimescaleDB makes one index for each dimension: refreshing is then ten times
    # slower. materialized_only: what is not refreshed yet we read from the events ourselves (metering/rollups/cover.py).
    options = "timescaledb.continuous, timescaledb.materialized_only = true, timescaledb.create_group_indexes = false"
    return f"CREATE MATERIALIZED VIEW {name} WITH ({options}) AS {query} WITH NO DATA"


def _make_rollup_tables() -> None:
    for name, dimensions in (("usage_hour", ALL), *DAILY.items()):
        columns = ", ".join(
            f'{column} text COLLATE "C"{" NOT NULL" if column in REQUIRED else ""}' for column in dimensions
        )
        partitioned = " PARTITION BY RANGE (bucket)" if name == "usage_hour" else ""
        op.execute(f"CREATE TABLE {name} (bucket timestamptz NOT NULL, {columns}, {FIGURES}){partitioned}")
        op.execute(f"CREATE INDEX {name}_account_bucket_idx ON {name} (account, bucket)")
        # Figures over everyone come by time alone; rows arrive in that order, so the smallest of indexes will do.
        op.execute(f"CREATE INDEX {name}_bucket_idx ON {name} USING brin (bucket)")


def downgrade() -> None:
    """Remove everything; the TimescaleDB extension stays, others may use it."""
    kind = (
        "MATERIALIZED VIEW"
        if op.get_bind().scalar(sa.text("SELECT relkind = 'v' FROM pg_class WHERE oid = 'usage_hour'::regclass"))
        else "TABLE"
    )
    for name in ("usage_hour", *DAILY)[::-1]:
        op.execute(f"DROP {kind} {name}")
    for name in ("demo_load", "api_key", "rollup_horizon", "pending_bucket", "event_identity", "event"):
        op.execute(f"DROP TABLE {name}")
