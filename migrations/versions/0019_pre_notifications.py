"""Alert rules and alerts, notifications in the outbox, destinations, and what became of each delivery.

Kind: pre (additive; the previous release runs on it)

A notification is written in the transaction of what it tells of, and with it a delivery for each destination that takes it.
See docs/adr/0024.
"""

from alembic import op

revision = "0019"
down_revision = "0018"
branch_labels = None
depends_on = None

_RULE = """
CREATE TABLE alert_rule (
    key        text COLLATE "C" NOT NULL,
    name       text COLLATE "C" NOT NULL,
    definition jsonb NOT NULL,
    accounts   text[] COLLATE "C",
    enabled    boolean NOT NULL,
    revision   integer NOT NULL DEFAULT 1,
    fault      text COLLATE "C",
    created_at timestamptz NOT NULL DEFAULT now(),
    changed_at timestamptz NOT NULL DEFAULT now(),
    changed_by text COLLATE "C" NOT NULL,
    CONSTRAINT alert_rule_pkey PRIMARY KEY (key)
)
"""
_ALERT = """
CREATE TABLE alert (
    id             uuid NOT NULL,
    rule           text COLLATE "C" NOT NULL,
    revision       integer NOT NULL,
    measure        text COLLATE "C" NOT NULL,
    subject        text COLLATE "C" NOT NULL,
    dimensions     jsonb NOT NULL,
    account        text COLLATE "C",
    subscription   text COLLATE "C",
    "user"         text COLLATE "C",
    period_from    timestamptz NOT NULL,
    period_to      timestamptz NOT NULL,
    value          numeric NOT NULL,
    whole          numeric,
    threshold      numeric NOT NULL,
    raised_at      timestamptz NOT NULL,
    resolved_at    timestamptz,
    resolution     text COLLATE "C",
    resolved_value numeric,
    CONSTRAINT alert_pkey PRIMARY KEY (id),
    CONSTRAINT alert_rule_fkey FOREIGN KEY (rule) REFERENCES alert_rule (key),
    CONSTRAINT alert_period_check CHECK (period_from < period_to),
    CONSTRAINT alert_resolved_check CHECK (
        (resolved_at IS NULL) = (resolution IS NULL) AND (resolved_value IS NULL OR resolved_at IS NOT NULL)
    )
)
"""
_DESTINATION = """
CREATE TABLE destination (
    id              bigint GENERATED ALWAYS AS IDENTITY,
    key             text COLLATE "C" NOT NULL,
    kind            text COLLATE "C" NOT NULL,
    address         text COLLATE "C" NOT NULL,
    encrypted          bytea NOT NULL,
    types           text[] COLLATE "C" NOT NULL,
    enabled         boolean NOT NULL,
    failing_since   timestamptz,
    disabled_at     timestamptz,
    disabled_reason text COLLATE "C",
    created_at      timestamptz NOT NULL DEFAULT now(),
    changed_at      timestamptz NOT NULL DEFAULT now(),
    changed_by      text COLLATE "C" NOT NULL,
    CONSTRAINT destination_pkey PRIMARY KEY (id),
    CONSTRAINT destination_key_key UNIQUE (key),
    CONSTRAINT destination_disabled_check CHECK ((disabled_at IS NULL) = (disabled_reason IS NULL))
)
"""
_NOTIFICATION = """
CREATE TABLE notification (
    sequence     bigint GENERATED ALWAYS AS IDENTITY,
    id           uuid NOT NULL,
    type         text COLLATE "C" NOT NULL,
    subject      text COLLATE "C" NOT NULL,
    data         text COLLATE "C" NOT NULL,
    published_at timestamptz NOT NULL DEFAULT now(),
    CONSTRAINT notification_pkey PRIMARY KEY (sequence),
    CONSTRAINT notification_id_key UNIQUE (id)
)
"""
_DELIVERY = """
CREATE TABLE delivery (
    destination_id   bigint NOT NULL,
    sequence         bigint NOT NULL,
    subject          text COLLATE "C" NOT NULL,
    state            text COLLATE "C" NOT NULL DEFAULT 'PENDING',
    attempts         integer NOT NULL DEFAULT 0,
    due_at           timestamptz NOT NULL,
    first_attempt_at timestamptz,
    finished_at      timestamptz,
    CONSTRAINT delivery_pkey PRIMARY KEY (destination_id, sequence),
    CONSTRAINT delivery_destination_id_fkey FOREIGN KEY (destination_id) REFERENCES destination (id),
    CONSTRAINT delivery_sequence_fkey FOREIGN KEY (sequence) REFERENCES notification (sequence) ON DELETE CASCADE,
    CONSTRAINT delivery_state_check CHECK (
        state IN ('PENDING', 'DELIVERED', 'FAILED') AND (state = 'PENDING') = (finished_at IS NULL)
    )
)
"""
_ATTEMPT = """
CREATE TABLE delivery_attempt (
    id             bigint GENERATED ALWAYS AS IDENTITY,
    destination_id bigint NOT NULL,
    sequence       bigint NOT NULL,
    attempted_at   timestamptz NOT NULL,
    milliseconds   integer NOT NULL,
    status         integer,
    fault          text COLLATE "C",
    CONSTRAINT delivery_attempt_pkey PRIMARY KEY (id),
    CONSTRAINT delivery_attempt_delivery_fkey FOREIGN KEY (destination_id, sequence)
        REFERENCES delivery (destination_id, sequence) ON DELETE CASCADE
)
"""
_LOOP = """
CREATE TABLE background_loop (
    name      text COLLATE "C" NOT NULL,
    ran_at    timestamptz NOT NULL,
    failed_at timestamptz,
    fault     text COLLATE "C",
    CONSTRAINT background_loop_pkey PRIMARY KEY (name)
)
"""


def upgrade() -> None:
    """Make the tables, and the indexes by which what waits, and what is open, is found."""
    for statement in (_RULE, _ALERT, _DESTINATION, _NOTIFICATION, _DELIVERY, _ATTEMPT, _LOOP):
        op.execute(statement)
    op.execute("CREATE UNIQUE INDEX alert_open_idx ON alert (rule, subject, period_from) WHERE resolved_at IS NULL")
    op.execute("CREATE INDEX alert_rule_subject_period_from_idx ON alert (rule, subject, period_from)")
    op.execute("CREATE INDEX alert_raised_at_id_idx ON alert (raised_at, id)")
    op.execute("CREATE INDEX notification_published_at_idx ON notification (published_at)")
    op.execute("CREATE INDEX delivery_sequence_idx ON delivery (sequence)")
    op.execute("CREATE INDEX delivery_due_idx ON delivery (destination_id, due_at) WHERE state = 'PENDING'")
    op.execute(
        "CREATE INDEX delivery_order_idx ON delivery (destination_id, subject, sequence) WHERE state = 'PENDING'"
    )
    op.execute("CREATE INDEX delivery_attempt_delivery_idx ON delivery_attempt (destination_id, sequence)")


def downgrade() -> None:
    """Remove all of it: rules, alerts and what was delivered are forgotten."""
    for table in (
        "background_loop",
        "delivery_attempt",
        "delivery",
        "notification",
        "destination",
        "alert",
        "alert_rule",
    ):
        op.execute(f"DROP TABLE {table}")
