"""Final statements, with their lines and the evidence that they were made of.

Kind: pre (additive; the previous release runs on it)

Rows are only added, and marked where they were voided: what somebody was charged stays on record. See docs/adr/0013.
"""

from alembic import op

revision = "0011"
down_revision = "0010"
branch_labels = None
depends_on = None

_STATEMENT = """
CREATE TABLE statement (
    id            bigint GENERATED ALWAYS AS IDENTITY,
    account       text COLLATE "C" NOT NULL,
    subscription  text COLLATE "C" NOT NULL,
    period_from   timestamptz NOT NULL,
    period_to     timestamptz NOT NULL,
    is_closing    boolean NOT NULL,
    currency_code text COLLATE "C" NOT NULL,
    total         numeric NOT NULL,
    as_of         timestamptz NOT NULL,
    lines         jsonb NOT NULL,
    evidence      jsonb NOT NULL,
    finalized_at  timestamptz NOT NULL DEFAULT now(),
    finalized_by  text COLLATE "C" NOT NULL,
    voided_at     timestamptz,
    voided_by     text COLLATE "C",
    void_reason   text COLLATE "C",
    CONSTRAINT statement_pkey PRIMARY KEY (id),
    CONSTRAINT statement_period_check CHECK (period_from < period_to),
    CONSTRAINT statement_void_check CHECK (
        (voided_at IS NULL) = (voided_by IS NULL) AND (voided_at IS NULL) = (void_reason IS NULL)
    )
)
"""


def upgrade() -> None:
    """Make the table."""
    op.execute(_STATEMENT)
    op.execute("CREATE INDEX statement_of_subscription_idx ON statement (subscription, period_from, id)")
    op.execute("CREATE INDEX statement_account_idx ON statement (account)")
    # Of a period one statement counts: this decides, whatever else goes wrong.
    op.execute(
        "CREATE UNIQUE INDEX statement_in_effect_idx ON statement (subscription, period_from, period_to) "
        "WHERE voided_at IS NULL"
    )


def downgrade() -> None:
    """Remove the table: what was frozen is forgotten, and every period is a draft again."""
    op.execute("DROP TABLE statement")
