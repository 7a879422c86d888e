"""Events that came too late for the tail are logged by name, and added to it: see docs/adr/0014.

Kind: pre (a process of the previous release logs minutes instead, which are worked off as before)
"""

from alembic import op

revision = "0010"
down_revision = "0009"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Make the log."""
    op.execute(
        """
        CREATE TABLE late_event (
            account     text COLLATE "C" NOT NULL,
            occurred_at timestamptz NOT NULL,
            key         bytea NOT NULL,
            CONSTRAINT late_event_pkey PRIMARY KEY (account, occurred_at, key)
        )
        """
    )


def downgrade() -> None:
    """Drop it; the minutes of what it holds are logged instead, as the previous release reads them."""
    op.execute(
        "INSERT INTO pending_minute (account, bucket) "
        "SELECT DISTINCT account, date_bin('1 minute', occurred_at, 'epoch') FROM late_event"
    )
    op.execute("DROP TABLE late_event")
