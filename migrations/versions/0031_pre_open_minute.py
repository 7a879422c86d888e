"""The minute that is not over, for questions about everyone: an index by time on the tail by subscription.

Kind: pre (additive; the previous release runs on it)

Its key begins with the account, so PostgreSQL searched it once for each account that there is.
"""

from alembic import op

revision = "0031"
down_revision = "0030"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Make the index."""
    op.execute("CREATE INDEX usage_minute_by_subscription_bucket_idx ON usage_minute_by_subscription (bucket)")


def downgrade() -> None:
    """Remove it."""
    op.execute("DROP INDEX usage_minute_by_subscription_bucket_idx")
