"""Meters: named figures made of events, and who put them.

Kind: pre (additive; the previous release runs on it)

A meter is a view on events that are there already, so nothing but its definition is kept.
"""

from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Make the table."""
    op.execute(
        """
        CREATE TABLE meter (
            key                text COLLATE "C" NOT NULL,
            name               text COLLATE "C" NOT NULL,
            unit               text COLLATE "C" NOT NULL,
            aggregation        text COLLATE "C" NOT NULL,
            distinct_dimension text COLLATE "C",
            filter             jsonb NOT NULL,
            rounding_mode      text COLLATE "C",
            rounding_step      numeric,
            created_at         timestamptz NOT NULL DEFAULT now(),
            created_by         text COLLATE "C" NOT NULL,
            changed_at         timestamptz NOT NULL DEFAULT now(),
            changed_by         text COLLATE "C" NOT NULL,
            CONSTRAINT meter_pkey PRIMARY KEY (key),
            CONSTRAINT meter_distinct_check CHECK (
                (aggregation = 'UNIQUE_COUNT') = (distinct_dimension IS NOT NULL)
            ),
            CONSTRAINT meter_rounding_check CHECK (
                rounding_step > 0 AND (rounding_mode IS NULL) = (rounding_step IS NULL)
            )
        )
        """
    )


def downgrade() -> None:
    """Remove the table: what meters there were is forgotten, what was recorded stays."""
    op.execute("DROP TABLE meter")
