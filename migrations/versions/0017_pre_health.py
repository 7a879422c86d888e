"""Scorecards as they were published, what was measured of subjects day by day, and the scores that came of it.

Kind: pre (additive; the previous release runs on it)

A score of a day that is computed anew is another row. Measurements and scores are the two tables that grow from day to day:
hypertables on TimescaleDB, with the same columns as the plain tables elsewhere.
"""

import sqlalchemy as sa
from alembic import op

from metering.store.engine import MIGRATED_AS

revision = "0017"
down_revision = "0016"
branch_labels = None
depends_on = None

_SCORECARD = """
CREATE TABLE scorecard (
    key          text COLLATE "C" NOT NULL,
    version      integer NOT NULL,
    subject      text COLLATE "C" NOT NULL,
    purpose      text COLLATE "C" NOT NULL,
    definition   jsonb NOT NULL,
    published_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    published_by text COLLATE "C" NOT NULL,
    CONSTRAINT scorecard_pkey PRIMARY KEY (key, version),
    CONSTRAINT scorecard_version_check CHECK (version > 0),
    CONSTRAINT scorecard_subject_check CHECK (subject IN ('ACCOUNT', 'SUBSCRIPTION', 'USER'))
)
"""
_MEASURED = """
CREATE TABLE measured (
    account     text COLLATE "C" NOT NULL,
    subject     text COLLATE "C" NOT NULL,
    key         text COLLATE "C" NOT NULL,
    as_of       date NOT NULL,
    computed_at timestamptz NOT NULL,
    metrics     jsonb NOT NULL,
    CONSTRAINT measured_pkey PRIMARY KEY (account, subject, key, as_of),
    CONSTRAINT measured_subject_check CHECK (subject IN ('ACCOUNT', 'SUBSCRIPTION', 'USER'))
)
"""
_HEALTH = """
CREATE TABLE health (
    account     text COLLATE "C" NOT NULL,
    subject     text COLLATE "C" NOT NULL,
    key         text COLLATE "C" NOT NULL,
    purpose     text COLLATE "C" NOT NULL,
    as_of       date NOT NULL,
    computed_at timestamptz NOT NULL,
    scorecard   text COLLATE "C" NOT NULL,
    version     integer NOT NULL,
    score       double precision,
    band        text COLLATE "C" NOT NULL,
    coverage    double precision NOT NULL,
    baseline    double precision NOT NULL,
    raw         double precision NOT NULL,
    drivers     jsonb NOT NULL,
    adjustment  jsonb,
    CONSTRAINT health_pkey PRIMARY KEY (account, subject, key, purpose, as_of, computed_at),
    CONSTRAINT health_subject_check CHECK (subject IN ('ACCOUNT', 'SUBSCRIPTION', 'USER'))
)
"""
_OVERRIDE = """
CREATE TABLE health_override (
    account     text COLLATE "C" NOT NULL,
    sequence    bigint GENERATED ALWAYS AS IDENTITY,
    subject     text COLLATE "C" NOT NULL,
    key         text COLLATE "C" NOT NULL,
    purpose     text COLLATE "C" NOT NULL,
    lowest      double precision,
    highest     double precision,
    reason      text COLLATE "C" NOT NULL,
    set_on      date NOT NULL,
    expires_on  date NOT NULL,
    recorded_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    recorded_by text COLLATE "C" NOT NULL,
    CONSTRAINT health_override_pkey PRIMARY KEY (account, sequence),
    CONSTRAINT health_override_subject_check CHECK (subject IN ('ACCOUNT', 'SUBSCRIPTION', 'USER')),
    CONSTRAINT health_override_period_check CHECK (set_on < expires_on),
    CONSTRAINT health_override_bounds_check CHECK (lowest IS NOT NULL OR highest IS NOT NULL)
)
"""
_DIRTY = """
CREATE TABLE health_dirty (
    id        bigint GENERATED ALWAYS AS IDENTITY,
    account   text COLLATE "C" NOT NULL,
    since     date NOT NULL,
    marked_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    CONSTRAINT health_dirty_pkey PRIMARY KEY (id)
)
"""
_DAY = """
CREATE TABLE health_day (
    as_of         date NOT NULL,
    started_at    timestamptz NOT NULL DEFAULT clock_timestamp(),
    through       text COLLATE "C",
    completed_at  timestamptz,
    CONSTRAINT health_day_pkey PRIMARY KEY (as_of)
)
"""
# Events of days that are over come late: they are pending for rollups, and in the same transaction for scores. Before anybody
# is scored there is nothing to score anew.
_MARK = """
CREATE FUNCTION health_mark_late() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO health_dirty (account, since)
    SELECT account, min((bucket AT TIME ZONE 'UTC')::date) FROM late
    WHERE bucket < date_trunc('day', now(), 'UTC') AND EXISTS (SELECT FROM health_day)
    GROUP BY account;
    RETURN NULL;
END
$$
"""


def upgrade() -> None:
    """Make the tables, and let late events mark whose scores they are about."""
    for statement in (_SCORECARD, _MEASURED, _HEALTH, _OVERRIDE, _DIRTY, _DAY, _MARK):
        op.execute(statement)
    if op.get_bind().scalar(sa.text(MIGRATED_AS)) == "timescaledb":
        for table in ("measured", "health"):
            op.execute(
                f"SELECT create_hypertable('{table}', by_range('as_of', INTERVAL '28 days'), "
                "create_default_indexes => false)"
            )
    op.execute(
        "CREATE INDEX health_override_of_subject_idx ON health_override (account, subject, key, purpose, expires_on)"
    )
    op.execute("CREATE INDEX health_dirty_account_idx ON health_dirty (account)")
    op.execute(
        "CREATE TRIGGER pending_bucket_marks_health AFTER INSERT ON pending_bucket REFERENCING NEW TABLE AS late "
        "FOR EACH STATEMENT EXECUTE FUNCTION health_mark_late()"
    )


def downgrade() -> None:
    """Remove all of it: scores and their history are forgotten; what they were made of stays."""
    op.execute("DROP TRIGGER pending_bucket_marks_health ON pending_bucket")
    op.execute("DROP FUNCTION health_mark_late")
    for table in ("health_day", "health_dirty", "health_override", "health", "measured", "scorecard"):
        op.execute(f"DROP TABLE {table}")
