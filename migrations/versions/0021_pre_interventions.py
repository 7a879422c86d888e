"""Interventions: what was done for whom, who was left alone by lot, and what it was to move.

Kind: pre (additive; the previous release runs on it)
"""

from alembic import op

revision = "0021"
down_revision = "0019"
branch_labels = None
depends_on = None

_INTERVENTION = """
CREATE TABLE intervention (
    key             text COLLATE "C" NOT NULL,
    kind            text COLLATE "C" NOT NULL,
    subject         text COLLATE "C" NOT NULL,
    started_on      date NOT NULL,
    ended_on        date,
    metric          text COLLATE "C" NOT NULL,
    window_days     integer NOT NULL,
    holdout_percent double precision NOT NULL,
    segment_by      text COLLATE "C",
    need            jsonb,
    note            text COLLATE "C",
    content         bytea NOT NULL,
    recorded_at     timestamptz NOT NULL DEFAULT clock_timestamp(),
    recorded_by     text COLLATE "C" NOT NULL,
    CONSTRAINT intervention_pkey PRIMARY KEY (key),
    CONSTRAINT intervention_subject_check CHECK (subject IN ('ACCOUNT', 'SUBSCRIPTION', 'USER')),
    CONSTRAINT intervention_period_check CHECK (ended_on IS NULL OR ended_on >= started_on)
)
"""
_AUDIENCE = """
CREATE TABLE intervention_audience (
    intervention text COLLATE "C" NOT NULL,
    account      text COLLATE "C" NOT NULL,
    key          text COLLATE "C" NOT NULL,
    held_out     boolean NOT NULL,
    CONSTRAINT intervention_audience_pkey PRIMARY KEY (intervention, account, key),
    CONSTRAINT intervention_audience_intervention_fkey FOREIGN KEY (intervention) REFERENCES intervention (key)
)
"""


def upgrade() -> None:
    """Make both tables."""
    for statement in (_INTERVENTION, _AUDIENCE):
        op.execute(statement)


def downgrade() -> None:
    """Remove both: what was done, and for whom, is forgotten."""
    for table in ("intervention_audience", "intervention"):
        op.execute(f"DROP TABLE {table}")
