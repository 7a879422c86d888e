"""Of each loop of background work: which process runs it and since when, when its last run began, how often it failed in a row,
and by which code.

Kind: pre (additive; the previous release runs on it: it notes less, and a loop that never succeeded is to it one that never ran)
"""

from alembic import op

revision = "0022"
down_revision = "0021"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add the columns; a loop that failed before it ever succeeded has no instant at which it ran."""
    op.execute("""
        ALTER TABLE background_loop
            ALTER ran_at DROP NOT NULL,
            ADD started_at timestamptz,
            ADD failures   integer NOT NULL DEFAULT 0,
            ADD fault_code text COLLATE "C",
            ADD process    text COLLATE "C",
            ADD led_since  timestamptz
    """)


def downgrade() -> None:
    """Remove them; what never succeeded is as if it had when it failed, as it was noted before."""
    op.execute("UPDATE background_loop SET ran_at = coalesce(failed_at, now()) WHERE ran_at IS NULL")
    op.execute("""
        ALTER TABLE background_loop
            ALTER ran_at SET NOT NULL,
            DROP started_at,
            DROP failures,
            DROP fault_code,
            DROP process,
            DROP led_since
    """)
