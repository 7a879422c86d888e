"""The level that each gauge had when its events were given up: what is carried into later periods.

Kind: pre (additive; the previous release runs on it)

Of events that were given up before, nobody knows the levels any more. A release that does not know of this table keeps none:
retention works where all processes are of this one.
"""

from alembic import op

revision = "0028"
down_revision = "0027"
branch_labels = None
depends_on = None

# Names may be longer together than a key of an index may be. The server's encoding is always UTF-8, so it is the same for ever.
_GAUGE = """
CREATE FUNCTION gauge_digest(
    account text, subscription text, "user" text, device text, product text, feature text, unit text
) RETURNS bytea IMMUTABLE PARALLEL SAFE LANGUAGE sql RETURN sha256(convert_to(
    quote_nullable(account) || ',' || quote_nullable(subscription) || ',' || quote_nullable("user") || ','
    || quote_nullable(device) || ',' || quote_nullable(product) || ',' || quote_nullable(feature) || ',' || quote_nullable(unit),
    'UTF8'
))
"""
_TABLE = """
CREATE TABLE carried_level (
    account        text COLLATE "C" NOT NULL,
    occurred_at    timestamptz NOT NULL,
    subscription   text COLLATE "C",
    "user"         text COLLATE "C",
    device         text COLLATE "C",
    product        text COLLATE "C" NOT NULL,
    feature        text COLLATE "C",
    classification text COLLATE "C",
    unit           text COLLATE "C" NOT NULL,
    quantity       numeric NOT NULL,
    gauge          bytea NOT NULL
        GENERATED ALWAYS AS (gauge_digest(account, subscription, "user", device, product, feature, unit)) STORED,
    CONSTRAINT carried_level_pkey PRIMARY KEY (gauge)
)
"""


def upgrade() -> None:
    """Make the table."""
    op.execute(_GAUGE)
    op.execute(_TABLE)
    # Whoever asks for levels names a unit, and an account where it does not ask for everyone's.
    op.execute("CREATE INDEX carried_level_unit_account_idx ON carried_level (unit, account)")
    op.execute("CREATE INDEX carried_level_account_idx ON carried_level (account)")
    # Those that are taken out again at once: not found by reading all of them, once for each day that is given up.
    op.execute("CREATE INDEX carried_level_zero_idx ON carried_level (occurred_at) WHERE quantity = 0")


def downgrade() -> None:
    """Remove it: levels of events that were given up are forgotten."""
    op.execute("DROP TABLE carried_level")
    op.execute("DROP FUNCTION gauge_digest")
