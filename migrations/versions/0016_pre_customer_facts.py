"""What we are told of customers besides their usage: signals, attributes over time, and what became of them.

Kind: pre (additive; the previous release runs on it)

Rows are only added. Each has two times: when it was so, and when we learned it; `sequence` settles what has both in common.
"""

from alembic import op

revision = "0016"
down_revision = "0015"
branch_labels = None
depends_on = None

_SIGNAL = """
CREATE TABLE signal (
    account     text COLLATE "C" NOT NULL,
    sequence    bigint GENERATED ALWAYS AS IDENTITY,
    subject     text COLLATE "C" NOT NULL,
    key         text COLLATE "C" NOT NULL,
    name        text COLLATE "C" NOT NULL,
    value       double precision NOT NULL,
    at          timestamptz NOT NULL,
    source      text COLLATE "C" NOT NULL,
    external_id text COLLATE "C",
    note        text COLLATE "C",
    expires_at  timestamptz,
    recorded_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    recorded_by text COLLATE "C" NOT NULL,
    identity    bytea NOT NULL,
    content     bytea NOT NULL,
    CONSTRAINT signal_pkey PRIMARY KEY (account, sequence),
    CONSTRAINT signal_account_identity_key UNIQUE (account, identity),
    CONSTRAINT signal_subject_check CHECK (subject IN ('ACCOUNT', 'SUBSCRIPTION', 'USER'))
)
"""
_ATTRIBUTE_FACT = """
CREATE TABLE attribute_fact (
    account     text COLLATE "C" NOT NULL,
    sequence    bigint GENERATED ALWAYS AS IDENTITY,
    subject     text COLLATE "C" NOT NULL,
    key         text COLLATE "C" NOT NULL,
    name        text COLLATE "C" NOT NULL,
    value       jsonb NOT NULL,
    at          timestamptz NOT NULL,
    recorded_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    recorded_by text COLLATE "C" NOT NULL,
    CONSTRAINT attribute_fact_pkey PRIMARY KEY (account, sequence),
    CONSTRAINT attribute_fact_subject_check CHECK (subject IN ('ACCOUNT', 'SUBSCRIPTION', 'USER'))
)
"""
_OUTCOME = """
CREATE TABLE outcome (
    account       text COLLATE "C" NOT NULL,
    sequence      bigint GENERATED ALWAYS AS IDENTITY,
    subject       text COLLATE "C" NOT NULL,
    key           text COLLATE "C" NOT NULL,
    kind          text COLLATE "C" NOT NULL,
    at            timestamptz NOT NULL,
    mrr_delta     numeric,
    currency_code text COLLATE "C",
    reason        text COLLATE "C",
    source        text COLLATE "C" NOT NULL,
    external_id   text COLLATE "C",
    recorded_at   timestamptz NOT NULL DEFAULT clock_timestamp(),
    recorded_by   text COLLATE "C" NOT NULL,
    identity      bytea NOT NULL,
    content       bytea NOT NULL,
    CONSTRAINT outcome_pkey PRIMARY KEY (account, sequence),
    CONSTRAINT outcome_account_identity_key UNIQUE (account, identity),
    CONSTRAINT outcome_subject_check CHECK (subject IN ('ACCOUNT', 'SUBSCRIPTION')),
    CONSTRAINT outcome_kind_check CHECK (
        kind IN ('RENEWED', 'CHURNED', 'CONTRACTED', 'EXPANDED', 'CONVERTED', 'TRIAL_LOST')
    ),
    CONSTRAINT outcome_amount_check CHECK ((mrr_delta IS NULL) = (currency_code IS NULL))
)
"""


def upgrade() -> None:
    """Make the tables; what is known of accounts and subscriptions now is their first attribute facts."""
    for table in (_SIGNAL, _ATTRIBUTE_FACT, _OUTCOME):
        op.execute(table)
    op.execute("CREATE INDEX signal_of_subject_idx ON signal (account, subject, key, name, at)")
    op.execute("CREATE INDEX signal_at_idx ON signal (at)")
    op.execute("CREATE INDEX attribute_fact_of_subject_idx ON attribute_fact (account, subject, key, name, at)")
    op.execute("CREATE INDEX outcome_of_subject_idx ON outcome (account, subject, key, at)")
    # Since when they are so is not known; since when they were last changed is.
    op.execute(
        "INSERT INTO attribute_fact (account, subject, key, name, value, at, recorded_by) "
        "SELECT key, 'ACCOUNT', key, said.name, said.value, changed_at, changed_by "
        "FROM account, jsonb_each(attributes) AS said (name, value)"
    )
    op.execute(
        "INSERT INTO attribute_fact (account, subject, key, name, value, at, recorded_by) "
        "SELECT account, 'SUBSCRIPTION', key, said.name, said.value, changed_at, changed_by "
        "FROM subscription, jsonb_each(attributes) AS said (name, value)"
    )


def downgrade() -> None:
    """Remove the tables: what we were told is forgotten, but for the attributes as they are now."""
    for table in ("outcome", "attribute_fact", "signal"):
        op.execute(f"DROP TABLE {table}")
