"""Corrections: what an event said before, who changed it, when and why.

Kind: pre (additive; the previous release runs on it)

Corrections are few, so they are one plain table on every engine.
"""

from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Make the table."""
    op.execute(
        """
        CREATE TABLE event_correction (
            account      text COLLATE "C" NOT NULL,
            occurred_at  timestamptz NOT NULL,
            key          bytea NOT NULL,
            id           bigint GENERATED ALWAYS AS IDENTITY,
            corrected_at timestamptz NOT NULL DEFAULT clock_timestamp(),
            by           text COLLATE "C" NOT NULL,
            reason       text COLLATE "C" NOT NULL,
            voided       boolean NOT NULL,
            before       jsonb NOT NULL,
            after        jsonb NOT NULL,
            CONSTRAINT event_correction_pkey PRIMARY KEY (account, occurred_at, key, id)
        )
        """
    )


def downgrade() -> None:
    """Remove the table: what events said before is forgotten, what they say now stays."""
    op.execute("DROP TABLE event_correction")
