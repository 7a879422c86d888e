"""Limits of API keys, their default source, and what keys with a rate may still send.

Kind: pre (additive; the previous release runs on it)

Allowances are unlogged: they change with each request of a limited key, and a crash of the database fills them up, which
costs nothing but a burst.
"""

from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add the columns, and make the table."""
    op.execute(
        """
        ALTER TABLE api_key
            ADD COLUMN default_source text COLLATE "C",
            ADD COLUMN events_per_second_max integer,
            ADD COLUMN burst_events_max integer,
            ADD COLUMN request_events_max integer,
            ADD COLUMN request_bytes_max integer,
            ADD CONSTRAINT api_key_rate_check CHECK (
                events_per_second_max > 0 AND burst_events_max > 0
                AND (events_per_second_max IS NULL) = (burst_events_max IS NULL)
            ),
            ADD CONSTRAINT api_key_request_check CHECK (request_events_max > 0 AND request_bytes_max > 0)
        """
    )
    op.execute(
        """
        CREATE UNLOGGED TABLE key_allowance (
            prefix text COLLATE "C" NOT NULL,
            events numeric NOT NULL,
            as_of  timestamptz NOT NULL,
            taken  boolean NOT NULL,
            CONSTRAINT key_allowance_pkey PRIMARY KEY (prefix)
        ) WITH (fillfactor = 50)
        """
    )


def downgrade() -> None:
    """Remove them: every key may send without limits, and needs a source in each event."""
    op.execute("DROP TABLE key_allowance")
    op.execute(
        """
        ALTER TABLE api_key
            DROP CONSTRAINT api_key_rate_check,
            DROP CONSTRAINT api_key_request_check,
            DROP COLUMN default_source,
            DROP COLUMN events_per_second_max,
            DROP COLUMN burst_events_max,
            DROP COLUMN request_events_max,
            DROP COLUMN request_bytes_max
        """
    )
