"""What was measured on a day, found by the day: lists of subjects read all of one day, and not the history of each.

Kind: pre (additive; the previous release runs on it)
"""

from alembic import op

revision = "0024"
down_revision = "0023"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Make the index."""
    op.execute("CREATE INDEX measured_of_day_idx ON measured (as_of, subject)")


def downgrade() -> None:
    """Remove it: lists are read more slowly."""
    op.execute("DROP INDEX measured_of_day_idx")
