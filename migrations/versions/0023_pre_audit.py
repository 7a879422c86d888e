"""The audit log: who changed what, written by the tables themselves in the transaction of the change, and only added to; and
whether a destination is sent a bearer.

Kind: pre (additive; the previous release runs on it)

Triggers write it, so that no way of changing something can forget to, a console on the database included. Users of accounts
are not named in it: it is never changed, so what it says of a person could not be erased. See docs/security.md.
"""

from alembic import op

revision = "0023"
down_revision = "0022"
branch_labels = None
depends_on = None

_ENTRY = """
CREATE TABLE audit_entry (
    id         bigint GENERATED ALWAYS AS IDENTITY,
    changed_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    by         text COLLATE "C" NOT NULL,
    kind       text COLLATE "C" NOT NULL,
    action     text COLLATE "C" NOT NULL,
    account    text COLLATE "C",
    subject    text COLLATE "C",
    before     jsonb,
    after      jsonb,
    CONSTRAINT audit_entry_pkey PRIMARY KEY (id)
)
"""
# What a row says of who changed it stands in a column; of a row that is gone nobody says it, and of keys none does: then it
# is whom the transaction says (metering/audit.py), or else the role that is connected.
_SIGNED = """
CREATE FUNCTION audit_signed(columns text, said jsonb) RETURNS text STABLE LANGUAGE sql AS $$
    SELECT coalesce(
        nullif(current_setting('metering.by', true), ''),
        (
            SELECT said ->> name FROM unnest(string_to_array(columns, ',')) WITH ORDINALITY AS each (name, place)
            WHERE said ->> name IS NOT NULL ORDER BY place LIMIT 1
        ),
        'the database role ' || session_user
    )
$$
"""
_VALUE = """
CREATE FUNCTION audit_value(sign text, value jsonb) RETURNS jsonb IMMUTABLE LANGUAGE sql AS $$
    SELECT CASE sign
        WHEN '#' THEN to_jsonb(encode(sha256(convert_to(value::text, 'UTF8')), 'hex'))
        WHEN '$' THEN to_jsonb(value #>> '{}')
        ELSE value
    END
$$
"""
# Arguments: the kind; the columns that say by whom, the first that says it counts; those of the account and of the subject, or
# '' where there is none; then the columns that are shown: with a # before its name a digest, with a $ a decimal, as a string. A
# rule's filter by users or devices is left out; a meter has none.
_CHANGE = """
CREATE FUNCTION audit_change() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    earlier jsonb := CASE WHEN TG_OP = 'INSERT' THEN '{}' ELSE to_jsonb(OLD) END;
    later   jsonb := CASE WHEN TG_OP = 'DELETE' THEN '{}' ELSE to_jsonb(NEW) END;
    said    jsonb := CASE WHEN TG_OP = 'DELETE' THEN earlier ELSE later END;
    was     jsonb;
    is_now  jsonb;
BEGIN
    SELECT jsonb_object_agg(name, audit_value(sign, old_value)), jsonb_object_agg(name, audit_value(sign, new_value))
    INTO was, is_now
    FROM (
        SELECT name, sign, nullif(earlier -> name, 'null') AS old_value, nullif(later -> name, 'null') AS new_value
        FROM unnest(TG_ARGV[4:]) AS argument,
             LATERAL (SELECT ltrim(argument, '#$') AS name, left(argument, 1) AS sign) AS split
    ) AS shown
    WHERE old_value IS DISTINCT FROM new_value;
    IF TG_OP = 'UPDATE' AND was IS NULL THEN
        RETURN NULL;
    END IF;
    was := was #- '{definition,measure,slice,filters,user}' #- '{definition,measure,slice,filters,device}';
    is_now := is_now #- '{definition,measure,slice,filters,user}' #- '{definition,measure,slice,filters,device}';
    INSERT INTO audit_entry (by, kind, action, account, subject, before, after) VALUES (
        audit_signed(CASE WHEN TG_OP = 'DELETE' THEN '' ELSE TG_ARGV[1] END, said),
        TG_ARGV[0],
        CASE TG_OP WHEN 'INSERT' THEN 'CREATED' WHEN 'UPDATE' THEN 'CHANGED' ELSE 'REMOVED' END,
        said ->> TG_ARGV[2],
        said ->> TG_ARGV[3],
        CASE WHEN TG_OP <> 'INSERT' THEN was END,
        CASE WHEN TG_OP <> 'DELETE' THEN is_now END
    );
    RETURN NULL;
END
$$
"""
# Which event it was; that its user or device became another one, but not whose it was or is.
_CORRECTION = """
CREATE FUNCTION audit_correction() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    name text;
    was  jsonb := NEW.before;
    is_now jsonb := NEW.after;
BEGIN
    FOREACH name IN ARRAY ARRAY['user', 'device'] LOOP
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
_PEOPLE = """
CREATE FUNCTION audit_people() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO audit_entry (by, kind, action, account, after)
    SELECT audit_signed('by', jsonb_build_object('by', recorded_by)), 'USER', 'CHANGED', account,
           jsonb_build_object('attributes', jsonb_agg(DISTINCT name))
    FROM said WHERE subject = 'USER'
    GROUP BY recorded_by, account, key;
    RETURN NULL;
END
$$
"""
_REFUSE = """
CREATE FUNCTION audit_refuse_change() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'the audit log is only added to';
END
$$
"""

# Of each table: when it is looked at besides new and removed rows, by the columns that are set; and what audit_change() takes.
_WATCHED = {
    "meter": ("", ("METER", "changed_by", "", "key", "name", "unit", "aggregation", "distinct_dimension", "filter",
                   "rounding_mode", "$rounding_step")),
    "plan_version": ("", ("PLAN", "published_by", "", "plan", "version", "#definition")),
    "account": ("", ("ACCOUNT", "changed_by", "key", "key", "name", "attributes")),
    "subscription": ("", ("SUBSCRIPTION", "changed_by", "account", "key", "account", "currency_code", "starts_at", "time_zone",
                          "billing_anchor", "ends_at", "trial_ends_at", "renews_at", "$monthly_amount", "$discount_percent",
                          "attributes")),
    "subscription_terms": ("", ("SUBSCRIPTION", "replaced_by,put_by", "", "subscription", "since", "plan", "plan_version",
                                "seats", "replaced_at")),
    "api_key": (
        "name, digest, scopes, accounts, expires_at, revoked_at, events_per_second_max, request_events_max, request_bytes_max",
        ("API_KEY", "", "", "prefix", "name", "#digest", "scopes", "accounts", "expires_at", "revoked_at", "default_source",
         "events_per_second_max", "burst_events_max", "request_events_max", "request_bytes_max", "replaces"),
    ),
    "statement": ("", ("STATEMENT", "voided_by,finalized_by", "account", "subscription", "period_from", "period_to", "is_closing",
                       "currency_code", "$total", "voided_at", "#lines")),
    "credit_grant": (
        "account, key, amount, currency_code, meter, meters, priority, overdraft_max, effective_at, expires_at, voided_at",
        ("CREDIT_GRANT", "voided_by,granted_by", "account", "key", "$amount", "currency_code", "meter", "meters", "priority",
         "$overdraft_max", "effective_at", "expires_at", "voided_at"),
    ),
    "scorecard": ("", ("SCORECARD", "published_by", "", "key", "version", "subject", "purpose", "#definition")),
    "warning_thresholds": ("", ("WARNING_THRESHOLDS", "put_by", "", "version", "thresholds")),
    # Whom it was for are people, too.
    "intervention": ("", ("INTERVENTION", "recorded_by", "", "key", "kind", "subject", "started_on", "ended_on", "metric",
                          "window_days", "holdout_percent", "segment_by", "need")),
    "destination": (
        "key, kind, address, encrypted, types, enabled, has_bearer",
        ("DESTINATION", "changed_by", "", "key", "kind", "address", "#encrypted", "types", "enabled", "has_bearer"),
    ),
    "alert_rule": (
        "name, definition, accounts, enabled",
        ("ALERT_RULE", "changed_by", "", "key", "name", "definition", "accounts", "enabled"),
    ),
}  # fmt: skip
_OVERRIDE = ("purpose", "subject", "lowest", "highest", "set_on", "expires_on")


def upgrade() -> None:
    """Make the table, what writes it, and what refuses any change of it."""
    for statement in (_ENTRY, _SIGNED, _VALUE, _CHANGE, _CORRECTION, _PEOPLE, _REFUSE):
        op.execute(statement)
    op.execute("ALTER TABLE destination ADD COLUMN has_bearer boolean NOT NULL DEFAULT false")
    op.execute("CREATE INDEX audit_entry_kind_subject_id_idx ON audit_entry (kind, subject, id)")
    op.execute("CREATE INDEX audit_entry_account_id_idx ON audit_entry (account, id)")
    op.execute("CREATE INDEX audit_entry_changed_at_idx ON audit_entry (changed_at)")
    op.execute(
        "CREATE TRIGGER audit_entry_stays BEFORE UPDATE OR DELETE OR TRUNCATE ON audit_entry "
        "FOR EACH STATEMENT EXECUTE FUNCTION audit_refuse_change()"
    )
    for table, (columns, arguments) in _WATCHED.items():
        update = f"UPDATE OF {columns}" if columns else "UPDATE"
        op.execute(
            f"CREATE TRIGGER {table}_audited AFTER INSERT OR {update} OR DELETE ON {table} "
            f"FOR EACH ROW EXECUTE FUNCTION audit_change({_quoted(*arguments)})"
        )
    # Scores are of users, too; whose key is not said.
    for name, subject, condition in (("", "key", "<>"), ("_of_user", "", "=")):
        op.execute(
            f"CREATE TRIGGER health_override{name}_audited AFTER INSERT ON health_override FOR EACH ROW "
            f"WHEN (NEW.subject {condition} 'USER') "
            f"EXECUTE FUNCTION audit_change({_quoted('HEALTH_OVERRIDE', 'recorded_by', 'account', subject, *_OVERRIDE)})"
        )
    op.execute(
        "CREATE TRIGGER event_correction_audited AFTER INSERT ON event_correction "
        "FOR EACH ROW EXECUTE FUNCTION audit_correction()"
    )
    op.execute(
        "CREATE TRIGGER attribute_fact_audited AFTER INSERT ON attribute_fact REFERENCING NEW TABLE AS said "
        "FOR EACH STATEMENT EXECUTE FUNCTION audit_people()"
    )


def _quoted(*arguments: str) -> str:
    return ", ".join(f"'{argument}'" for argument in arguments)


def downgrade() -> None:
    """Remove all of it: who changed what is forgotten."""
    for table in ("event_correction", "attribute_fact", "health_override", *_WATCHED):
        op.execute(f"DROP TRIGGER {table}_audited ON {table}")
    op.execute("DROP TRIGGER health_override_of_user_audited ON health_override")
    op.execute("ALTER TABLE destination DROP COLUMN has_bearer")
    op.execute("DROP TABLE audit_entry")
    for function in (
        "audit_refuse_change",
        "audit_people",
        "audit_correction",
        "audit_change",
        "audit_value",
        "audit_signed",
    ):
        op.execute(f"DROP FUNCTION {function}")
