"""Interventions: what was done for whom, who was left alone by lot, and what it was to move; and priors of peers.

Kind: pre (additive; the previous release runs on it)
"""

from alembic import op

revision = "0021"
down_revision = "0020"
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
_PRIOR = """
CREATE TABLE scorecard_prior (
    key         text COLLATE "C" NOT NULL,
    version     integer NOT NULL,
    since       date NOT NULL,
    path        text COLLATE "C" NOT NULL,
    prior       double precision NOT NULL,
    peers       integer NOT NULL,
    computed_at timestamptz NOT NULL DEFAULT now(),
    CONSTRAINT scorecard_prior_pkey PRIMARY KEY (key, version, since, path)
)
"""


def upgrade() -> None:
    """Make the tables."""
    for statement in (_INTERVENTION, _AUDIENCE, _PRIOR):
        op.execute(statement)


def downgrade() -> None:
    """Remove them: what was done, and for whom, is forgotten; priors are computed anew."""
    for table in ("scorecard_prior", "intervention_audience", "intervention"):
        op.execute(f"DROP TABLE {table}")
