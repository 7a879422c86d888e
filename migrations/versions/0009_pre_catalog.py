"""The catalog of what is sold and to whom: versions of plans, accounts, and subscriptions over time.

Kind: pre (additive; the previous release runs on it)

Versions of plans are only added. Terms of subscriptions are added, too, and marked where others took their place, so that
what was known at any time stays on record. See docs/adr/0012.
"""

from alembic import op

revision = "0009"
down_revision = "0008"
branch_labels = None
depends_on = None

_PLAN_VERSION = """
CREATE TABLE plan_version (
    plan         text COLLATE "C" NOT NULL,
    version      integer NOT NULL,
    definition   jsonb NOT NULL,
    overlapping  jsonb NOT NULL,
    published_at timestamptz NOT NULL DEFAULT now(),
    published_by text COLLATE "C" NOT NULL,
    CONSTRAINT plan_version_pkey PRIMARY KEY (plan, version),
    CONSTRAINT plan_version_version_check CHECK (version > 0)
)
"""
_ACCOUNT = """
CREATE TABLE account (
    key        text COLLATE "C" NOT NULL,
    name       text COLLATE "C" NOT NULL,
    attributes jsonb NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now(),
    created_by text COLLATE "C" NOT NULL,
    changed_at timestamptz NOT NULL DEFAULT now(),
    changed_by text COLLATE "C" NOT NULL,
    CONSTRAINT account_pkey PRIMARY KEY (key)
)
"""
_SUBSCRIPTION = """
CREATE TABLE subscription (
    key              text COLLATE "C" NOT NULL,
    account          text COLLATE "C" NOT NULL,
    currency_code    text COLLATE "C" NOT NULL,
    starts_at        timestamptz NOT NULL,
    time_zone        text COLLATE "C" NOT NULL,
    billing_anchor   timestamptz NOT NULL,
    ends_at          timestamptz,
    trial_ends_at    timestamptz,
    renews_at        timestamptz,
    monthly_amount   numeric,
    discount_percent numeric NOT NULL,
    attributes       jsonb NOT NULL,
    created_at       timestamptz NOT NULL DEFAULT now(),
    created_by       text COLLATE "C" NOT NULL,
    changed_at       timestamptz NOT NULL DEFAULT now(),
    changed_by       text COLLATE "C" NOT NULL,
    CONSTRAINT subscription_pkey PRIMARY KEY (key),
    CONSTRAINT subscription_end_check CHECK (starts_at < ends_at),
    CONSTRAINT subscription_amounts_check CHECK (
        monthly_amount >= 0 AND discount_percent >= 0 AND discount_percent <= 100
    )
)
"""
_TERMS = """
CREATE TABLE subscription_terms (
    subscription text COLLATE "C" NOT NULL,
    id           bigint GENERATED ALWAYS AS IDENTITY,
    since        timestamptz NOT NULL,
    plan         text COLLATE "C" NOT NULL,
    plan_version integer,
    seats        integer,
    put_at       timestamptz NOT NULL,
    put_by       text COLLATE "C" NOT NULL,
    replaced_at  timestamptz,
    replaced_by  text COLLATE "C",
    CONSTRAINT subscription_terms_pkey PRIMARY KEY (subscription, id),
    CONSTRAINT subscription_terms_seats_check CHECK (seats >= 0),
    CONSTRAINT subscription_terms_replaced_check CHECK ((replaced_at IS NULL) = (replaced_by IS NULL))
)
"""
_CHANGE = """
CREATE TABLE subscription_change (
    subscription text COLLATE "C" NOT NULL,
    id           bigint GENERATED ALWAYS AS IDENTITY,
    changed_at   timestamptz NOT NULL,
    by           text COLLATE "C" NOT NULL,
    before       jsonb NOT NULL,
    after        jsonb NOT NULL,
    CONSTRAINT subscription_change_pkey PRIMARY KEY (subscription, id)
)
"""


def upgrade() -> None:
    """Make the tables."""
    for table in (_PLAN_VERSION, _ACCOUNT, _SUBSCRIPTION, _TERMS, _CHANGE):
        op.execute(table)
    op.execute("CREATE INDEX subscription_account_idx ON subscription (account)")
    # Of the terms that count one begins at an instant: this decides where two are put at once.
    op.execute(
        "CREATE UNIQUE INDEX subscription_terms_in_effect_idx ON subscription_terms (subscription, since) "
        "WHERE replaced_at IS NULL"
    )


def downgrade() -> None:
    """Remove the tables: the catalog is forgotten, what was recorded stays."""
    for table in ("subscription_change", "subscription_terms", "subscription", "account", "plan_version"):
        op.execute(f"DROP TABLE {table}")
