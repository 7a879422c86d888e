"""Of an event's attributes the audit log tells that they were corrected, and not what they said: they may be about a user.

Kind: pre (additive; the previous release runs on it)
"""

from alembic import op

revision = "0029"
down_revision = "0028"
branch_labels = None
depends_on = None

# Which event it was; that its user, its device or what was said of it became another one, but not which it was or is.
_CORRECTION = """
CREATE OR REPLACE FUNCTION audit_correction() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    name text;
    was  jsonb := NEW.before;
    is_now jsonb := NEW.after;
BEGIN
    FOREACH name IN ARRAY ARRAY[{names}] LOOP
        IF was ? name THEN
            was := was || jsonb_build_object(name, '…');
            is_now := is_now || jsonb_build_object(name, '…');
        END IF;
    END LOOP;
    INSERT INTO audit_entry (by, kind, action, account, subject, before, after)
    SELECT audit_signed('by', to_jsonb(NEW)), 'EVENT', 'CHANGED', NEW.account,
           (
               SELECT event_id FROM event
               WHERE account = NEW.account AND occurred_at = NEW.occurred_at AND key = NEW.key
           ),
           was, is_now || jsonb_build_object('occurred_at', NEW.occurred_at, 'voided', NEW.voided);
    RETURN NULL;
END
$$
"""


def upgrade() -> None:
    """Tell as little of attributes as of users."""
    op.execute(_CORRECTION.format(names="'user', 'device', 'attributes'"))


def downgrade() -> None:
    """Tell of attributes what of other fields is told: the release before corrects none."""
    op.execute(_CORRECTION.format(names="'user', 'device'"))
