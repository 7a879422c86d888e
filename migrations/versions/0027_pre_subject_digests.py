"""Subjects of any length in the indexes of alerts and deliveries; up to when rules were evaluated; until when a destination asked
to be left alone; and which delivery of each subject is the first.

Kind: pre (additive; the previous release runs on it)

A subject is made of names, each of them up to 256 characters, which take twelve bytes each where they are percent-encoded: more
than an index takes. So indexes hold digests of subjects, two where none may be there twice.
"""

from alembic import op

revision = "0027"
down_revision = "0026"
branch_labels = None
depends_on = None

_FIRST_DELIVERY = """
CREATE VIEW first_delivery AS
SELECT destination_id, sequence, subject, attempts, due_at, first_attempt_at
FROM delivery
WHERE state = 'PENDING' AND NOT EXISTS (
    SELECT FROM delivery AS earlier
    WHERE earlier.destination_id = delivery.destination_id AND earlier.state = 'PENDING'
      AND hashtextextended(earlier.subject, 0) = hashtextextended(delivery.subject, 0)
      AND earlier.subject = delivery.subject AND earlier.sequence < delivery.sequence
)
"""


def upgrade() -> None:
    """Index digests, add the columns, and say of every rule that it was evaluated until now."""
    for name in ("alert_open_idx", "alert_rule_subject_period_from_idx", "delivery_order_idx"):
        op.execute(f"DROP INDEX {name}")
    op.execute(
        "CREATE UNIQUE INDEX alert_open_idx ON alert "
        "(rule, period_from, hashtextextended(subject, '0'), hashtextextended(subject, '1')) WHERE resolved_at IS NULL"
    )
    op.execute("CREATE INDEX alert_rule_period_from_idx ON alert (rule, period_from)")
    op.execute(
        "CREATE INDEX delivery_order_idx ON delivery (destination_id, hashtextextended(subject, '0'), sequence) "
        "WHERE state = 'PENDING'"
    )
    op.execute("ALTER TABLE alert_rule ADD COLUMN evaluated_to timestamptz")
    # What was over before is no news.
    op.execute("UPDATE alert_rule SET evaluated_to = now()")
    op.execute("ALTER TABLE destination ADD COLUMN not_before timestamptz")
    op.execute(_FIRST_DELIVERY)


def downgrade() -> None:
    """Index the subjects themselves; it fails where there is one that is too long for that."""
    op.execute("DROP VIEW first_delivery")
    op.execute("ALTER TABLE destination DROP COLUMN not_before")
    op.execute("ALTER TABLE alert_rule DROP COLUMN evaluated_to")
    for name in ("alert_open_idx", "alert_rule_period_from_idx", "delivery_order_idx"):
        op.execute(f"DROP INDEX {name}")
    op.execute("CREATE UNIQUE INDEX alert_open_idx ON alert (rule, subject, period_from) WHERE resolved_at IS NULL")
    op.execute("CREATE INDEX alert_rule_subject_period_from_idx ON alert (rule, subject, period_from)")
    op.execute(
        "CREATE INDEX delivery_order_idx ON delivery (destination_id, subject, sequence) WHERE state = 'PENDING'"
    )
