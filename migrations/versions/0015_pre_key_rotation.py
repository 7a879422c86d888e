"""What digests of keys are made with, when keys were last used, and which keys they replace.

Kind: pre (additive; the previous release runs on it)

Keys that are there keep their digests and go on working. A key that the new release makes is not known to processes of the
previous one.
"""

from alembic import op

revision = "0015"
down_revision = "0013"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add the columns, and make the table."""
    op.execute(
        """
        ALTER TABLE api_key
            ADD COLUMN last_used_at timestamptz,
            ADD COLUMN replaces text COLLATE "C",
            ADD COLUMN line text COLLATE "C"
        """
    )
    op.execute(
        """
        CREATE TABLE server_secret (
            secret  bytea NOT NULL,
            made_at timestamptz NOT NULL DEFAULT now()
        )
        """
    )
    op.execute("CREATE UNIQUE INDEX server_secret_one_row_idx ON server_secret ((true))")


def downgrade() -> None:
    """Remove them: keys whose digests were made with the secret are known to nobody any more, and are made anew."""
    op.execute("DROP TABLE server_secret")
    op.execute("ALTER TABLE api_key DROP COLUMN last_used_at, DROP COLUMN replaces, DROP COLUMN line")
