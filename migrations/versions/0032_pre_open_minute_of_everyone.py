"""The minute that is not over, of everyone: the tail of everyone is added to with every step.

Kind: pre (stop the processes of the previous release: their refresher would add each minute of everyone once more)

The tail begins anew: for a moment questions read its events.
"""

from alembic import op

revision = "0032"
down_revision = "0031"
branch_labels = None
depends_on = None

# The refresher's lock (metering/rollups/refresh.py): nothing is rolled up while the tail begins anew.
ALONE = f"SELECT pg_advisory_xact_lock({0x6D65_7472_7266_7368})"
# Every event of the tail is read until the next step: none of its rows, and nothing that is late for them.
BEGIN_TAIL_ANEW = (
    "DELETE FROM usage_minute",
    "DELETE FROM usage_minute_by_account",
    "DELETE FROM usage_minute_by_subscription",
    "DELETE FROM usage_minute_of_everyone",
    "DELETE FROM late_event",
    "DELETE FROM pending_minute",
    "UPDATE rollup_horizon SET tail_complete_at = least(tail_complete_at, complete_at)",
)


def upgrade() -> None:
    """Have the tail made again."""
    _begin_tail_anew()


def downgrade() -> None:
    """Have it made again, by whole minutes."""
    _begin_tail_anew()


def _begin_tail_anew() -> None:
    op.execute(ALONE)
    for statement in BEGIN_TAIL_ANEW:
        op.execute(statement)
