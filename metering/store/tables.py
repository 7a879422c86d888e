"""The tables, once: migrations make them, queries read them, a test compares the two.

Every key of events, identities, pending buckets and rollups starts with the account. Text is collated "C" throughout:
compared by bytes, the same on every machine and after every upgrade of its C library.
"""

from collections.abc import Sequence
from collections.abc import Set as AbstractSet
from typing import Any, Final

import msgspec
import sqlalchemy as sa
from sqlalchemy.dialects import postgresql

METADATA: Final = sa.MetaData(
    naming_convention={
        "pk": "%(table_name)s_pkey",
        "ix": "%(table_name)s_%(column_0_N_name)s_idx",
        "uq": "%(table_name)s_%(column_0_N_name)s_key",
        "ck": "%(table_name)s_%(constraint_name)s_check",
    }
)

TEXT: Final = sa.Text(collation="C")
INSTANT: Final = sa.DateTime(timezone=True)


def _text(name: str, *, required: bool = False) -> sa.Column[str]:
    return sa.Column(name, TEXT, nullable=not required)


DIMENSIONS: Final = ("account", "subscription", "user", "device", "product", "feature", "classification", "unit")
REQUIRED_DIMENSIONS: Final = frozenset({"account", "product", "unit"})

event: Final = sa.Table(
    "event",
    METADATA,
    _text("account", required=True),
    sa.Column("occurred_at", INSTANT, nullable=False),
    sa.Column("key", sa.LargeBinary, nullable=False),
    _text("source", required=True),
    _text("event_id", required=True),
    sa.Column("received_at", INSTANT, nullable=False),
    _text("subscription"),
    _text("user"),
    _text("device"),
    _text("product", required=True),
    _text("feature"),
    _text("classification"),
    _text("unit", required=True),
    # Without a declared scale: admission refuses what is too precise, and nothing may round it silently afterwards.
    sa.Column("quantity", sa.Numeric, nullable=False),
    sa.Column("attributes", postgresql.JSONB),
    sa.Column("voided", sa.Boolean, nullable=False, server_default=sa.false()),
    sa.PrimaryKeyConstraint("account", "occurred_at", "key"),
    # For the tail over all accounts: events arrive about in order of time, so the smallest of indexes will do.
    sa.Index(
        None,
        "occurred_at",
        postgresql_using="brin",
        postgresql_with={"pages_per_range": "32", "autosummarize": "on"},
    ),
)

# Who was named when: the unique key that decides, alone, whether an event is new. See docs/adr/0003.
event_identity: Final = sa.Table(
    "event_identity",
    METADATA,
    _text("account", required=True),
    sa.Column("day", sa.Date, nullable=False),
    sa.Column("key", sa.LargeBinary, nullable=False),
    sa.Column("occurred_at", INSTANT, nullable=False),
    sa.Column("content", sa.LargeBinary, nullable=False),
    # Not the account first: hashes differ at once, so that finding the place in the index takes a comparison a step.
    sa.PrimaryKeyConstraint("key", "day", "account"),
)

# What events said before they were corrected. The event itself holds the values in effect.
event_correction: Final = sa.Table(
    "event_correction",
    METADATA,
    _text("account", required=True),
    sa.Column("occurred_at", INSTANT, nullable=False),
    sa.Column("key", sa.LargeBinary, nullable=False),
    sa.Column("id", sa.BigInteger, sa.Identity(always=True), nullable=False),
    sa.Column("corrected_at", INSTANT, nullable=False, server_default=sa.func.clock_timestamp()),
    _text("by", required=True),
    _text("reason", required=True),
    sa.Column("voided", sa.Boolean, nullable=False),
    # Field by field: only what changed, a quantity as a string.
    sa.Column("before", postgresql.JSONB, nullable=False),
    sa.Column("after", postgresql.JSONB, nullable=False),
    sa.PrimaryKeyConstraint("account", "occurred_at", "key", "id"),
)


def _pending(name: str) -> sa.Table:
    # Which buckets of which accounts got events after they were rolled up. Append-only; the refresher deletes what it worked
    # off.
    return sa.Table(
        name,
        METADATA,
        sa.Column("id", sa.BigInteger, sa.Identity(always=True), primary_key=True),
        _text("account", required=True),
        sa.Column("bucket", INSTANT, nullable=False),
        sa.Index(None, "account", "bucket"),
    )


# Quarters of an hour below the horizon that got or changed events, and minutes of the tail whose events were corrected.
pending_bucket: Final = _pending("pending_bucket")
pending_minute: Final = _pending("pending_minute")

# Events that came too late for the tail, by name: what it does not hold yet. See docs/adr/0014.
late_event: Final = sa.Table(
    "late_event",
    METADATA,
    _text("account", required=True),
    sa.Column("occurred_at", INSTANT, nullable=False),
    sa.Column("key", sa.LargeBinary, nullable=False),
    sa.PrimaryKeyConstraint("account", "occurred_at", "key"),
)

# One row. Below `complete_at` every quarter of an hour is rolled up, from there to `tail_complete_at` every minute; a writer
# logs what it writes below `published_at` as pending, and what it writes from `complete_at` to `tail_published_at` as late.
rollup_horizon: Final = sa.Table(
    "rollup_horizon",
    METADATA,
    sa.Column("published_at", INSTANT, nullable=False),
    sa.Column("complete_at", INSTANT, nullable=False),
    sa.Column("tail_published_at", INSTANT, nullable=False, server_default=sa.text("'1970-01-01 00:00+00'")),
    sa.Column("tail_complete_at", INSTANT, nullable=False, server_default=sa.text("'1970-01-01 00:00+00'")),
    sa.CheckConstraint("complete_at <= published_at", name="order"),
    sa.CheckConstraint("tail_complete_at <= tail_published_at", name="tail"),
    sa.Index("rollup_horizon_one_row_idx", sa.text("(true)"), unique=True),
)

# One row: from which instants on what was recorded is kept; the year 1 where nothing was dropped yet. See docs/adr/0010.
retained_range: Final = sa.Table(
    "retained_range",
    METADATA,
    # Writers refuse what occurred before it: nothing below it changes any more.
    sa.Column("taken_from", INSTANT, nullable=False),
    # Every event from it on is there; below it readers look at rollups only.
    sa.Column("raw_from", INSTANT, nullable=False),
    # Every rollup row from it on is there.
    sa.Column("rollups_from", INSTANT, nullable=False),
    # Up to where what lies below `raw_from` and `rollups_from` is dropped: the rest is still to be done.
    sa.Column("raw_dropped_to", INSTANT, nullable=False),
    sa.Column("rollups_dropped_to", INSTANT, nullable=False),
    sa.CheckConstraint(
        "rollups_dropped_to <= rollups_from AND rollups_from <= raw_from "
        "AND raw_dropped_to <= raw_from AND raw_from <= taken_from",
        name="order",
    ),
    sa.Index("retained_range_one_row_idx", sa.text("(true)"), unique=True),
)

# The dimensions that a level is of: an event sets the level of its gauge until the gauge's next event.
GAUGE: Final = ("account", "subscription", "user", "device", "product", "feature", "unit")

# Of each gauge the last event that was given up, unless the level was zero then: what is carried over `raw_from`.
carried_level: Final = sa.Table(
    "carried_level",
    METADATA,
    *(_text(name, required=name in REQUIRED_DIMENSIONS) for name in (*GAUGE, "classification")),
    sa.Column("occurred_at", INSTANT, nullable=False),
    sa.Column("quantity", sa.Numeric, nullable=False),
    sa.Column(
        "gauge",
        sa.LargeBinary,
        sa.Computed('gauge_digest(account, subscription, "user", device, product, feature, unit)', persisted=True),
        primary_key=True,
    ),
    sa.Index(None, "unit", "account"),
    sa.Index(None, "account"),
    sa.Index("carried_level_zero_idx", "occurred_at", postgresql_where=sa.text("quantity = 0")),
)

# What was refused, with its reason. See docs/adr/0006.
rejected_event: Final = sa.Table(
    "rejected_event",
    METADATA,
    sa.Column("id", sa.BigInteger, sa.Identity(always=False), primary_key=True),
    sa.Column("received_at", INSTANT, nullable=False),
    # Of who sent it, the reason and the whole body: the same bad event, sent again and again, is one row.
    sa.Column("digest", sa.LargeBinary, nullable=False, unique=True),
    # The prefix of the key that it was sent with.
    _text("sent_by", required=True),
    _text("source"),
    _text("code", required=True),
    _text("message", required=True),
    _text("path"),
    # What the body is written in, whatever it was sent in.
    _text("media_type", required=True),
    _text("body", required=True),
    # How long the body was before it was cut.
    sa.Column("body_bytes", sa.Integer, nullable=False),
    # Whether the body says all that was sent, so that it can be sent again as it is.
    sa.Column("is_exact", sa.Boolean, nullable=False),
    # What the texts of the row take: the bound in bytes is of these.
    sa.Column("kept_bytes", sa.Integer, nullable=False),
    sa.Index(None, "received_at", "id"),
    sa.Index(None, "sent_by", "received_at", "id"),
)

# One row: the most that the quarantine can hold now. Whoever changes the quarantine locks it first.
quarantine_size: Final = sa.Table(
    "quarantine_size",
    METADATA,
    sa.Column("events", sa.BigInteger, nullable=False),
    sa.Column("bytes", sa.BigInteger, nullable=False),
    sa.Index("quarantine_size_one_row_idx", sa.text("(true)"), unique=True),
)

api_key: Final = sa.Table(
    "api_key",
    METADATA,
    sa.Column("prefix", TEXT, primary_key=True),
    _text("name", required=True),
    sa.Column("digest", sa.LargeBinary, nullable=False, unique=True),
    sa.Column("scopes", postgresql.ARRAY(TEXT), nullable=False),
    sa.Column("accounts", postgresql.ARRAY(TEXT)),
    sa.Column("created_at", INSTANT, nullable=False, server_default=sa.func.now()),
    sa.Column("expires_at", INSTANT),
    sa.Column("revoked_at", INSTANT),
    _text("default_source"),
    sa.Column("last_used_at", INSTANT),
    # The prefix of the key that it was made in the place of; and of the first of these, by which they are one sender.
    _text("replaces"),
    _text("line"),
    # NULL: no limit but everyone's.
    sa.Column("events_per_second_max", sa.Integer),
    sa.Column("burst_events_max", sa.Integer),
    sa.Column("request_events_max", sa.Integer),
    sa.Column("request_bytes_max", sa.Integer),
    sa.CheckConstraint(
        "events_per_second_max > 0 AND burst_events_max > 0 "
        "AND (events_per_second_max IS NULL) = (burst_events_max IS NULL)",
        name="rate",
    ),
    sa.CheckConstraint("request_events_max > 0 AND request_bytes_max > 0", name="request"),
)

# What digests of keys are made with, where no setting says it. One row.
server_secret: Final = sa.Table(
    "server_secret",
    METADATA,
    sa.Column("secret", sa.LargeBinary, nullable=False),
    sa.Column("made_at", INSTANT, nullable=False, server_default=sa.func.now()),
    sa.Index("server_secret_one_row_idx", sa.text("(true)"), unique=True),
)

# What keys with a rate may still send, as it was at an instant. See docs/adr/0007.
key_allowance: Final = sa.Table(
    "key_allowance",
    METADATA,
    sa.Column("prefix", TEXT, primary_key=True),
    sa.Column("events", sa.Numeric, nullable=False),
    sa.Column("as_of", INSTANT, nullable=False),
    # Whether the last request was taken: how the statement that decides it tells.
    sa.Column("taken", sa.Boolean, nullable=False),
    prefixes=["UNLOGGED"],
)

# Named figures made of events. All but the name stays as it was first put.
meter: Final = sa.Table(
    "meter",
    METADATA,
    sa.Column("key", TEXT, primary_key=True),
    _text("name", required=True),
    _text("unit", required=True),
    _text("aggregation", required=True),
    # What a UNIQUE_COUNT counts the values of.
    _text("distinct_dimension"),
    # By dimension, `in` or `notIn` a list of values, sorted.
    sa.Column("filter", postgresql.JSONB, nullable=False),
    # NULL: figures are not rounded.
    _text("rounding_mode"),
    sa.Column("rounding_step", sa.Numeric),
    sa.Column("created_at", INSTANT, nullable=False, server_default=sa.func.now()),
    _text("created_by", required=True),
    sa.Column("changed_at", INSTANT, nullable=False, server_default=sa.func.now()),
    _text("changed_by", required=True),
    sa.CheckConstraint("(aggregation = 'UNIQUE_COUNT') = (distinct_dimension IS NOT NULL)", name="distinct"),
    sa.CheckConstraint("rounding_step > 0 AND (rounding_mode IS NULL) = (rounding_step IS NULL)", name="rounding"),
)

# Versions of plans, as they were published; rows are only added.
plan_version: Final = sa.Table(
    "plan_version",
    METADATA,
    _text("plan", required=True),
    sa.Column("version", sa.Integer, nullable=False),
    # The whole plan as rating/definitions.py writes it, decimals as strings.
    sa.Column("definition", postgresql.JSONB, nullable=False),
    # Pairs of keys of prices that can charge the same event; meters do not change, so neither do they.
    sa.Column("overlapping", postgresql.JSONB, nullable=False),
    sa.Column("published_at", INSTANT, nullable=False, server_default=sa.func.now()),
    _text("published_by", required=True),
    sa.PrimaryKeyConstraint("plan", "version"),
    sa.CheckConstraint("version > 0", name="version"),
)

# What is known of a customer besides its usage.
account: Final = sa.Table(
    "account",
    METADATA,
    sa.Column("key", TEXT, primary_key=True),
    _text("name", required=True),
    sa.Column("attributes", postgresql.JSONB, nullable=False),
    sa.Column("created_at", INSTANT, nullable=False, server_default=sa.func.now()),
    _text("created_by", required=True),
    sa.Column("changed_at", INSTANT, nullable=False, server_default=sa.func.now()),
    _text("changed_by", required=True),
)

# Subscriptions: what periods are counted from, which stays, and facts as they are now.
subscription: Final = sa.Table(
    "subscription",
    METADATA,
    sa.Column("key", TEXT, primary_key=True),
    _text("account", required=True),
    _text("currency_code", required=True),
    sa.Column("starts_at", INSTANT, nullable=False),
    _text("time_zone", required=True),
    sa.Column("billing_anchor", INSTANT, nullable=False),
    sa.Column("ends_at", INSTANT),
    sa.Column("trial_ends_at", INSTANT),
    sa.Column("renews_at", INSTANT),
    sa.Column("monthly_amount", sa.Numeric),
    sa.Column("discount_percent", sa.Numeric, nullable=False),
    sa.Column("attributes", postgresql.JSONB, nullable=False),
    sa.Column("created_at", INSTANT, nullable=False, server_default=sa.func.now()),
    _text("created_by", required=True),
    sa.Column("changed_at", INSTANT, nullable=False, server_default=sa.func.now()),
    _text("changed_by", required=True),
    sa.CheckConstraint("starts_at < ends_at", name="end"),
    sa.CheckConstraint("monthly_amount >= 0 AND discount_percent >= 0 AND discount_percent <= 100", name="amounts"),
    sa.Index(None, "account"),
)

# From which instant on a subscription is on which plan, with how many seats. What others took the place of is marked, and
# stays on record. See docs/adr/0012.
subscription_terms: Final = sa.Table(
    "subscription_terms",
    METADATA,
    _text("subscription", required=True),
    sa.Column("id", sa.BigInteger, sa.Identity(always=True), nullable=False),
    sa.Column("since", INSTANT, nullable=False),
    _text("plan", required=True),
    # NULL: the version that is in effect where a period begins.
    sa.Column("plan_version", sa.Integer),
    sa.Column("seats", sa.Integer),
    sa.Column("put_at", INSTANT, nullable=False),
    _text("put_by", required=True),
    # NULL: they count.
    sa.Column("replaced_at", INSTANT),
    _text("replaced_by"),
    sa.PrimaryKeyConstraint("subscription", "id"),
    sa.CheckConstraint("seats >= 0", name="seats"),
    sa.CheckConstraint("(replaced_at IS NULL) = (replaced_by IS NULL)", name="replaced"),
    sa.Index(
        "subscription_terms_in_effect_idx",
        "subscription",
        "since",
        unique=True,
        postgresql_where=sa.text("replaced_at IS NULL"),
    ),
)

# What the other facts of subscriptions were before they were changed, field by field, and who changed them.
subscription_change: Final = sa.Table(
    "subscription_change",
    METADATA,
    _text("subscription", required=True),
    sa.Column("id", sa.BigInteger, sa.Identity(always=True), nullable=False),
    sa.Column("changed_at", INSTANT, nullable=False),
    _text("by", required=True),
    sa.Column("before", postgresql.JSONB, nullable=False),
    sa.Column("after", postgresql.JSONB, nullable=False),
    sa.PrimaryKeyConstraint("subscription", "id"),
)

# Statements as they were frozen, with what they were made of; what was voided stays on record. See docs/adr/0013.
statement: Final = sa.Table(
    "statement",
    METADATA,
    sa.Column("id", sa.BigInteger, sa.Identity(always=True), primary_key=True),
    _text("account", required=True),
    _text("subscription", required=True),
    sa.Column("period_from", INSTANT, nullable=False),
    sa.Column("period_to", INSTANT, nullable=False),
    # It carries what came after the subscription's end, and is of no billing period.
    sa.Column("is_closing", sa.Boolean, nullable=False),
    _text("currency_code", required=True),
    sa.Column("total", sa.Numeric, nullable=False),
    # Usage that was acknowledged before is rated.
    sa.Column("as_of", INSTANT, nullable=False),
    # As metering/statements/records.py writes them, decimals as strings.
    sa.Column("lines", postgresql.JSONB, nullable=False),
    sa.Column("evidence", postgresql.JSONB, nullable=False),
    # What credits paid when it was frozen; the total is before them. Final statements of before there were credits have none.
    sa.Column("credits", postgresql.JSONB, nullable=False, server_default=sa.text("'[]'")),
    sa.Column("finalized_at", INSTANT, nullable=False, server_default=sa.func.now()),
    _text("finalized_by", required=True),
    # NULL: it counts.
    sa.Column("voided_at", INSTANT),
    _text("voided_by"),
    _text("void_reason"),
    sa.CheckConstraint("period_from < period_to", name="period"),
    sa.CheckConstraint(
        "(voided_at IS NULL) = (voided_by IS NULL) AND (voided_at IS NULL) = (void_reason IS NULL)", name="void"
    ),
    sa.Index("statement_of_subscription_idx", "subscription", "period_from", "id"),
    sa.Index(None, "account"),
    sa.Index(
        "statement_in_effect_idx",
        "subscription",
        "period_from",
        "period_to",
        unique=True,
        postgresql_where=sa.text("voided_at IS NULL"),
    ),
)

# Credits of accounts. All but the void stays as it was granted; `balance` is what its entries come to, and whoever draws
# locks it first. See docs/adr/0018.
credit_grant: Final = sa.Table(
    "credit_grant",
    METADATA,
    sa.Column("id", sa.BigInteger, sa.Identity(always=True), primary_key=True),
    _text("account", required=True),
    # The caller's, so that granting again is the same grant.
    _text("key", required=True),
    # What the amount is in: a currency, or a quantity of a meter.
    _text("currency_code"),
    _text("meter"),
    sa.Column("amount", sa.Numeric, nullable=False),
    # Whose prices it pays for; all, where there are none.
    sa.Column("meters", postgresql.ARRAY(TEXT), nullable=False),
    sa.Column("priority", sa.Integer, nullable=False),
    sa.Column("overdraft_max", sa.Numeric, nullable=False),
    sa.Column("effective_at", INSTANT, nullable=False),
    sa.Column("expires_at", INSTANT),
    _text("note"),
    sa.Column("granted_at", INSTANT, nullable=False, server_default=sa.func.now()),
    _text("granted_by", required=True),
    sa.Column("voided_at", INSTANT),
    _text("voided_by"),
    _text("void_reason"),
    sa.Column("balance", sa.Numeric, nullable=False, server_default="0"),
    sa.UniqueConstraint("account", "key"),
    sa.CheckConstraint("(currency_code IS NULL) <> (meter IS NULL)", name="unit"),
    sa.CheckConstraint("amount > 0 AND overdraft_max >= 0 AND priority >= 0", name="amount"),
    sa.CheckConstraint("effective_at < expires_at", name="period"),
    sa.CheckConstraint("balance >= -overdraft_max", name="balance"),
    sa.CheckConstraint(
        "(voided_at IS NULL) = (voided_by IS NULL) AND (voided_at IS NULL) = (void_reason IS NULL)", name="void"
    ),
)

# The ledger: what one pot gives, and another takes. Triggers refuse any change of it, and move the balances.
credit_entry: Final = sa.Table(
    "credit_entry",
    METADATA,
    sa.Column("id", sa.BigInteger, sa.Identity(always=True), primary_key=True),
    sa.Column(
        "grant_id", sa.BigInteger, sa.ForeignKey("credit_grant.id", name="credit_entry_grant_id_fkey"), nullable=False
    ),
    _text("source", required=True),
    _text("target", required=True),
    # In what the grant is in.
    sa.Column("amount", sa.Numeric, nullable=False),
    # What it is on the statement, in the statement's currency.
    sa.Column("worth", sa.Numeric),
    # The statement that moved it.
    sa.Column("statement_id", sa.BigInteger, sa.ForeignKey("statement.id", name="credit_entry_statement_id_fkey")),
    # The drawing that it gives back, or draws again.
    sa.Column("drawn_id", sa.BigInteger, sa.ForeignKey("credit_entry.id", name="credit_entry_drawn_id_fkey")),
    sa.Column("effective_at", INSTANT, nullable=False),
    sa.Column("booked_at", INSTANT, nullable=False, server_default=sa.func.now()),
    _text("booked_by", required=True),
    sa.CheckConstraint("amount > 0 AND worth > 0", name="amount"),
    sa.CheckConstraint(
        "(source, target) IN (('ISSUED', 'GRANT'), ('GRANT', 'STATEMENT'), ('STATEMENT', 'GRANT'))", name="pots"
    ),
    sa.CheckConstraint(
        "(source = 'ISSUED') = (statement_id IS NULL) AND (source = 'ISSUED') = (worth IS NULL) "
        "AND (source <> 'STATEMENT' OR drawn_id IS NOT NULL) AND (source <> 'ISSUED' OR drawn_id IS NULL)",
        name="statement",
    ),
    sa.Index(None, "grant_id", "effective_at"),
    sa.Index(None, "statement_id"),
    sa.Index(None, "drawn_id"),
)

# Rules that raise alerts, and the alerts that they raised: one row for each crossing. See docs/adr/0024.
alert_rule: Final = sa.Table(
    "alert_rule",
    METADATA,
    sa.Column("key", TEXT, primary_key=True),
    _text("name", required=True),
    # As metering/alerts/rules.py writes it, decimals as strings.
    sa.Column("definition", postgresql.JSONB, nullable=False),
    # NULL: all.
    sa.Column("accounts", postgresql.ARRAY(TEXT)),
    sa.Column("enabled", sa.Boolean, nullable=False),
    # Counts the changes of what it says: alerts of an earlier one are closed.
    sa.Column("revision", sa.Integer, nullable=False, server_default="1"),
    # Why it cannot be evaluated now.
    _text("fault"),
    # Every period that was over then was looked at.
    sa.Column("evaluated_to", INSTANT),
    sa.Column("created_at", INSTANT, nullable=False, server_default=sa.func.now()),
    sa.Column("changed_at", INSTANT, nullable=False, server_default=sa.func.now()),
    _text("changed_by", required=True),
)
alert: Final = sa.Table(
    "alert",
    METADATA,
    # By chance: ids that count up would tell how many others have.
    sa.Column("id", sa.Uuid, primary_key=True),
    sa.Column("rule", TEXT, sa.ForeignKey("alert_rule.key", name="alert_rule_fkey"), nullable=False),
    sa.Column("revision", sa.Integer, nullable=False),
    _text("measure", required=True),
    _text("subject", required=True),
    sa.Column("dimensions", postgresql.JSONB, nullable=False),
    # Whose it is, as far as it is somebody's: by these a caller's reach is held.
    _text("account"),
    _text("subscription"),
    _text("user"),
    sa.Column("period_from", INSTANT, nullable=False),
    sa.Column("period_to", INSTANT, nullable=False),
    sa.Column("value", sa.Numeric, nullable=False),
    # What the value is a share of, where the threshold is one.
    sa.Column("whole", sa.Numeric),
    sa.Column("threshold", sa.Numeric, nullable=False),
    sa.Column("raised_at", INSTANT, nullable=False),
    # NULL: it is open.
    sa.Column("resolved_at", INSTANT),
    _text("resolution"),
    sa.Column("resolved_value", sa.Numeric),
    sa.CheckConstraint("period_from < period_to", name="period"),
    sa.CheckConstraint(
        "(resolved_at IS NULL) = (resolution IS NULL) AND (resolved_value IS NULL OR resolved_at IS NOT NULL)",
        name="resolved",
    ),
    sa.Index(
        "alert_open_idx",
        "rule",
        "period_from",
        # Digests: subjects may be longer than an index takes.
        sa.text("hashtextextended(subject, 0)"),
        sa.text("hashtextextended(subject, 1)"),
        unique=True,
        postgresql_where=sa.text("resolved_at IS NULL"),
    ),
    sa.Index(None, "rule", "period_from"),
    sa.Index(None, "raised_at", "id"),
)

# Where notifications are sent. The address in full, and the secrets, are in `encrypted`.
destination: Final = sa.Table(
    "destination",
    METADATA,
    sa.Column("id", sa.BigInteger, sa.Identity(always=True), primary_key=True),
    _text("key", required=True),
    _text("kind", required=True),
    # What of it is shown.
    _text("address", required=True),
    sa.Column("encrypted", sa.LargeBinary, nullable=False),
    # Which it takes; all, where there are none.
    sa.Column("types", postgresql.ARRAY(TEXT), nullable=False),
    sa.Column("enabled", sa.Boolean, nullable=False),
    sa.Column("has_bearer", sa.Boolean, nullable=False, server_default=sa.false()),
    # Since when nothing was taken that was sent there.
    sa.Column("failing_since", INSTANT),
    # Until when it asked to be sent nothing.
    sa.Column("not_before", INSTANT),
    # When, and why, we gave it up; nobody's wish.
    sa.Column("disabled_at", INSTANT),
    _text("disabled_reason"),
    sa.Column("created_at", INSTANT, nullable=False, server_default=sa.func.now()),
    sa.Column("changed_at", INSTANT, nullable=False, server_default=sa.func.now()),
    _text("changed_by", required=True),
    sa.UniqueConstraint("key"),
    sa.CheckConstraint("(disabled_at IS NULL) = (disabled_reason IS NULL)", name="disabled"),
)

# The outbox: what is to be told, in order; and to whom, with what became of it.
notification: Final = sa.Table(
    "notification",
    METADATA,
    sa.Column("sequence", sa.BigInteger, sa.Identity(always=True), primary_key=True),
    sa.Column("id", sa.Uuid, nullable=False),
    _text("type", required=True),
    _text("subject", required=True),
    # A JSON object as it was published: what is signed is the same at every try.
    _text("data", required=True),
    sa.Column("published_at", INSTANT, nullable=False, server_default=sa.func.now()),
    sa.UniqueConstraint("id"),
    sa.Index(None, "published_at"),
)
delivery: Final = sa.Table(
    "delivery",
    METADATA,
    sa.Column("destination_id", sa.BigInteger, sa.ForeignKey("destination.id", name="delivery_destination_id_fkey")),
    sa.Column(
        "sequence",
        sa.BigInteger,
        sa.ForeignKey("notification.sequence", name="delivery_sequence_fkey", ondelete="CASCADE"),
    ),
    _text("subject", required=True),
    sa.Column("state", TEXT, nullable=False, server_default="PENDING"),
    sa.Column("attempts", sa.Integer, nullable=False, server_default="0"),
    sa.Column("due_at", INSTANT, nullable=False),
    sa.Column("first_attempt_at", INSTANT),
    sa.Column("finished_at", INSTANT),
    sa.PrimaryKeyConstraint("destination_id", "sequence"),
    sa.CheckConstraint(
        "state IN ('PENDING', 'DELIVERED', 'FAILED') AND (state = 'PENDING') = (finished_at IS NULL)", name="state"
    ),
    sa.Index(None, "sequence"),
    sa.Index("delivery_due_idx", "destination_id", "due_at", postgresql_where=sa.text("state = 'PENDING'")),
    sa.Index(
        "delivery_order_idx",
        "destination_id",
        sa.text("hashtextextended(subject, 0)"),
        "sequence",
        postgresql_where=sa.text("state = 'PENDING'"),
    ),
)
delivery_attempt: Final = sa.Table(
    "delivery_attempt",
    METADATA,
    sa.Column("id", sa.BigInteger, sa.Identity(always=True), primary_key=True),
    sa.Column("destination_id", sa.BigInteger, nullable=False),
    sa.Column("sequence", sa.BigInteger, nullable=False),
    sa.Column("attempted_at", INSTANT, nullable=False),
    sa.Column("milliseconds", sa.Integer, nullable=False),
    # What was answered; or why nothing was.
    sa.Column("status", sa.Integer),
    _text("fault"),
    sa.ForeignKeyConstraint(
        ["destination_id", "sequence"],
        ["delivery.destination_id", "delivery.sequence"],
        name="delivery_attempt_delivery_fkey",
        ondelete="CASCADE",
    ),
    sa.Index("delivery_attempt_delivery_idx", "destination_id", "sequence"),
)

# When background work was done last and by which process, and what it failed of last and how often in a row: whoever operates
# the service sees that it goes on.
background_loop: Final = sa.Table(
    "background_loop",
    METADATA,
    sa.Column("name", TEXT, primary_key=True),
    # When it ended well last; null where it never did.
    sa.Column("ran_at", INSTANT),
    sa.Column("failed_at", INSTANT),
    _text("fault"),
    sa.Column("started_at", INSTANT),
    sa.Column("failures", sa.Integer, nullable=False, server_default=sa.text("0")),
    _text("fault_code"),
    _text("process"),
    sa.Column("led_since", INSTANT),
)


def _of_subject() -> list[sa.Column[Any]]:
    # Whose it is: an account, a subscription or a user, and its key; the account is the owner's, or the account itself.
    return [
        _text("account", required=True),
        sa.Column("sequence", sa.BigInteger, sa.Identity(always=True), nullable=False),
        _text("subject", required=True),
        _text("key", required=True),
    ]


def _learned() -> list[sa.Column[Any]]:
    return [
        sa.Column("recorded_at", INSTANT, nullable=False, server_default=sa.func.clock_timestamp()),
        _text("recorded_by", required=True),
    ]


_ANY_SUBJECT: Final = "subject IN ('ACCOUNT', 'SUBSCRIPTION', 'USER')"

# Values that somebody told us of a subject: surveys, tickets, a pulse. Rows are only added; `at` is when it was so.
signal: Final = sa.Table(
    "signal",
    METADATA,
    *_of_subject(),
    _text("name", required=True),
    sa.Column("value", sa.Double, nullable=False),
    sa.Column("at", INSTANT, nullable=False),
    _text("source", required=True),
    _text("external_id"),
    _text("note"),
    sa.Column("expires_at", INSTANT),
    *_learned(),
    # Hashes: of the source and its id, or of all that it says; and of all that it says.
    sa.Column("identity", sa.LargeBinary, nullable=False),
    sa.Column("content", sa.LargeBinary, nullable=False),
    sa.PrimaryKeyConstraint("account", "sequence"),
    sa.UniqueConstraint("account", "identity"),
    sa.CheckConstraint(_ANY_SUBJECT, name="subject"),
    sa.Index("signal_of_subject_idx", "account", "subject", "key", "name", "at"),
    sa.Index(None, "at"),
)

# From when on a subject has which attributes; a JSON null is that it has none of the name any more.
attribute_fact: Final = sa.Table(
    "attribute_fact",
    METADATA,
    *_of_subject(),
    _text("name", required=True),
    sa.Column("value", postgresql.JSONB, nullable=False),
    sa.Column("at", INSTANT, nullable=False),
    *_learned(),
    sa.PrimaryKeyConstraint("account", "sequence"),
    sa.CheckConstraint(_ANY_SUBJECT, name="subject"),
    sa.Index("attribute_fact_of_subject_idx", "account", "subject", "key", "name", "at"),
)

# What became of accounts and subscriptions.
outcome: Final = sa.Table(
    "outcome",
    METADATA,
    *_of_subject(),
    _text("kind", required=True),
    sa.Column("at", INSTANT, nullable=False),
    # By how much recurring revenue of a month moved.
    sa.Column("mrr_delta", sa.Numeric),
    _text("currency_code"),
    _text("reason"),
    _text("source", required=True),
    _text("external_id"),
    *_learned(),
    sa.Column("identity", sa.LargeBinary, nullable=False),
    sa.Column("content", sa.LargeBinary, nullable=False),
    sa.PrimaryKeyConstraint("account", "sequence"),
    sa.UniqueConstraint("account", "identity"),
    sa.CheckConstraint("subject IN ('ACCOUNT', 'SUBSCRIPTION')", name="subject"),
    sa.CheckConstraint(
        "kind IN ('RENEWED', 'CHURNED', 'CONTRACTED', 'EXPANDED', 'CONVERTED', 'TRIAL_LOST')", name="kind"
    ),
    sa.CheckConstraint("(mrr_delta IS NULL) = (currency_code IS NULL)", name="amount"),
    sa.Index("outcome_of_subject_idx", "account", "subject", "key", "at"),
)

# Scorecards as they were published; rows are only added. Those of health/defaults.py are in force without being here.
scorecard: Final = sa.Table(
    "scorecard",
    METADATA,
    _text("key", required=True),
    sa.Column("version", sa.Integer, nullable=False),
    _text("subject", required=True),
    _text("purpose", required=True),
    # As health/definitions.py reads it.
    sa.Column("definition", postgresql.JSONB, nullable=False),
    sa.Column("published_at", INSTANT, nullable=False, server_default=sa.func.clock_timestamp()),
    _text("published_by", required=True),
    sa.PrimaryKeyConstraint("key", "version"),
    sa.CheckConstraint("version > 0", name="version"),
    sa.CheckConstraint(_ANY_SUBJECT, name="subject"),
)

# What is usual among those whom a version of a scorecard scores, from a day on: computed once in a month, and then kept. The path
# of a measure as a JSON list.
scorecard_prior: Final = sa.Table(
    "scorecard_prior",
    METADATA,
    _text("key", required=True),
    sa.Column("version", sa.Integer, nullable=False),
    sa.Column("since", sa.Date, nullable=False),
    _text("path", required=True),
    sa.Column("prior", sa.Double, nullable=False),
    sa.Column("peers", sa.Integer, nullable=False),
    sa.Column("computed_at", INSTANT, nullable=False, server_default=sa.func.clock_timestamp()),
    sa.PrimaryKeyConstraint("key", "version", "since", "path"),
)

# What is known of each metric of a subject on a day, as it was measured last.
measured: Final = sa.Table(
    "measured",
    METADATA,
    _text("account", required=True),
    _text("subject", required=True),
    _text("key", required=True),
    sa.Column("as_of", sa.Date, nullable=False),
    sa.Column("computed_at", INSTANT, nullable=False),
    # As metering/health/records.py writes them, by metric.
    sa.Column("metrics", postgresql.JSONB, nullable=False),
    sa.PrimaryKeyConstraint("account", "subject", "key", "as_of"),
    sa.CheckConstraint(_ANY_SUBJECT, name="subject"),
    # Lists read everybody of a day.
    sa.Index("measured_of_day_idx", "as_of", "subject"),
)

# Scores of days, with their reasons. A day that is computed anew is another row: what was known before stays on record.
health: Final = sa.Table(
    "health",
    METADATA,
    _text("account", required=True),
    _text("subject", required=True),
    _text("key", required=True),
    _text("purpose", required=True),
    sa.Column("as_of", sa.Date, nullable=False),
    sa.Column("computed_at", INSTANT, nullable=False),
    _text("scorecard", required=True),
    sa.Column("version", sa.Integer, nullable=False),
    # NULL: too little is known.
    sa.Column("score", sa.Double),
    _text("band", required=True),
    sa.Column("coverage", sa.Double, nullable=False),
    sa.Column("baseline", sa.Double, nullable=False),
    # Before caps and overrides.
    sa.Column("raw", sa.Double, nullable=False),
    # As metering/health/records.py writes them.
    sa.Column("drivers", postgresql.JSONB, nullable=False),
    sa.Column("adjustment", postgresql.JSONB),
    sa.PrimaryKeyConstraint("account", "subject", "key", "purpose", "as_of", "computed_at"),
    sa.CheckConstraint(_ANY_SUBJECT, name="subject"),
)

# A person's word on one score: bounds with a reason and an end. Rows are only added.
health_override: Final = sa.Table(
    "health_override",
    METADATA,
    *_of_subject(),
    _text("purpose", required=True),
    sa.Column("lowest", sa.Double),
    sa.Column("highest", sa.Double),
    _text("reason", required=True),
    sa.Column("set_on", sa.Date, nullable=False),
    sa.Column("expires_on", sa.Date, nullable=False),
    *_learned(),
    sa.PrimaryKeyConstraint("account", "sequence"),
    sa.CheckConstraint(_ANY_SUBJECT, name="subject"),
    sa.CheckConstraint("set_on < expires_on", name="period"),
    sa.CheckConstraint("lowest IS NOT NULL OR highest IS NOT NULL", name="bounds"),
    sa.Index("health_override_of_subject_idx", "account", "subject", "key", "purpose", "expires_on"),
)

# Whose scores are to be computed anew, from which day on. Append-only; the scorer deletes what it worked off.
health_dirty: Final = sa.Table(
    "health_dirty",
    METADATA,
    sa.Column("id", sa.BigInteger, sa.Identity(always=True), primary_key=True),
    _text("account", required=True),
    sa.Column("since", sa.Date, nullable=False),
    sa.Column("marked_at", INSTANT, nullable=False, server_default=sa.func.clock_timestamp()),
    sa.Index(None, "account"),
)

# The days on which everybody was scored; of one that is not done yet, through which account it is.
health_day: Final = sa.Table(
    "health_day",
    METADATA,
    sa.Column("as_of", sa.Date, primary_key=True),
    sa.Column("started_at", INSTANT, nullable=False, server_default=sa.func.clock_timestamp()),
    _text("through"),
    sa.Column("completed_at", INSTANT),
)

# What was usual among all customers on a day, as metering/health/norms.py writes it: computed once, and then kept.
health_norms: Final = sa.Table(
    "health_norms",
    METADATA,
    sa.Column("as_of", sa.Date, primary_key=True),
    sa.Column("computed_at", INSTANT, nullable=False, server_default=sa.func.clock_timestamp()),
    sa.Column("norms", postgresql.JSONB, nullable=False),
    # How many events of the 28 days before were rolled up then, and whether all of these days were. NULL: that is not known.
    sa.Column("events", sa.BigInteger),
    sa.Column("is_complete", sa.Boolean, nullable=False, server_default=sa.true()),
)

# Early warnings: from when to when something was so of a subject. What a day that was scored again no longer has is marked.
warning: Final = sa.Table(
    "warning",
    METADATA,
    sa.Column("id", postgresql.UUID, primary_key=True),
    _text("type", required=True),
    # EVERYONE, without an account and a key, where it is of all customers.
    _text("subject", required=True),
    _text("account"),
    _text("key"),
    # What tells warnings of one type and subject apart: the band, the champion.
    _text("about", required=True),
    sa.Column("as_of", sa.Date, nullable=False),
    sa.Column("last_on", sa.Date, nullable=False),
    sa.Column("evidence", postgresql.JSONB, nullable=False),
    sa.Column("thresholds_version", sa.Integer, nullable=False),
    sa.Column("raised_at", INSTANT, nullable=False),
    # NULL: nobody was told, for somebody had been lately, or it was so before anybody was scored.
    sa.Column("told_at", INSTANT),
    sa.Column("withdrawn_at", INSTANT),
    sa.CheckConstraint("as_of <= last_on", name="days"),
    sa.CheckConstraint(
        "(account IS NULL) = (subject = 'EVERYONE') AND (account IS NULL) = (key IS NULL)", name="subject"
    ),
    sa.Index(None, "account", "last_on"),
    sa.Index(None, "as_of", "id"),
)

# On how many subjects of a kind an eye was kept on a day.
warning_watch: Final = sa.Table(
    "warning_watch",
    METADATA,
    sa.Column("as_of", sa.Date, nullable=False),
    _text("subject", required=True),
    sa.Column("subjects", sa.BigInteger, nullable=False),
    sa.PrimaryKeyConstraint("as_of", "subject"),
)

# From when on what is alarming. Versions never change; before the first one the defaults of health/alarms.py hold.
warning_thresholds: Final = sa.Table(
    "warning_thresholds",
    METADATA,
    sa.Column("version", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("thresholds", postgresql.JSONB, nullable=False),
    sa.Column("put_at", INSTANT, nullable=False, server_default=sa.func.clock_timestamp()),
    _text("put_by", required=True),
)

# What was done for customers, and what it was to move. Content is a hash of all that it says but for when it ended.
intervention: Final = sa.Table(
    "intervention",
    METADATA,
    _text("key", required=True),
    _text("kind", required=True),
    # Of which kind all of its audience is.
    _text("subject", required=True),
    sa.Column("started_on", sa.Date, nullable=False),
    sa.Column("ended_on", sa.Date),
    _text("metric", required=True),
    sa.Column("window_days", sa.Integer, nullable=False),
    sa.Column("holdout_percent", sa.Double, nullable=False),
    _text("segment_by"),
    # As health/needs.py has it.
    sa.Column("need", postgresql.JSONB),
    _text("note"),
    sa.Column("content", sa.LargeBinary, nullable=False),
    *_learned(),
    sa.PrimaryKeyConstraint("key"),
    sa.CheckConstraint(_ANY_SUBJECT, name="subject"),
    sa.CheckConstraint("ended_on IS NULL OR ended_on >= started_on", name="period"),
)

# Whom it was meant for; who is held out was left alone, by lot.
intervention_audience: Final = sa.Table(
    "intervention_audience",
    METADATA,
    sa.Column("intervention", TEXT, sa.ForeignKey("intervention.key", name="intervention_audience_intervention_fkey")),
    _text("account", required=True),
    _text("key", required=True),
    sa.Column("held_out", sa.Boolean, nullable=False),
    sa.PrimaryKeyConstraint("intervention", "account", "key"),
)

# Who changed what, and when. Triggers write it, and refuse any change of it. See docs/security.md.
audit_entry: Final = sa.Table(
    "audit_entry",
    METADATA,
    sa.Column("id", sa.BigInteger, sa.Identity(always=True), primary_key=True),
    sa.Column("changed_at", INSTANT, nullable=False, server_default=sa.func.clock_timestamp()),
    _text("by", required=True),
    _text("kind", required=True),
    _text("action", required=True),
    # NULL: it is no account's. No subject: a user, who is not named here.
    _text("account"),
    _text("subject"),
    # Field by field: only what changed.
    sa.Column("before", postgresql.JSONB),
    sa.Column("after", postgresql.JSONB),
    sa.Index(None, "kind", "subject", "id"),
    sa.Index(None, "account", "id"),
    sa.Index(None, "changed_at"),
    # As `audit.list_entries` asks for who signed.
    sa.Index("audit_entry_signer_id_idx", sa.text(r"""COALESCE("substring"(by, ' \(([^()]*)\)$'::text), by)"""), "id"),
)

# What the demo loaded, so that starting it again does not send a year of events once more.
demo_load: Final = sa.Table(
    "demo_load",
    METADATA,
    sa.Column("through", sa.Date, primary_key=True),
    # NULL while it is being loaded: a load that was broken off goes on with the same year.
    sa.Column("loaded_at", INSTANT),
)


class Rollup(msgspec.Struct, frozen=True):
    """A rollup: one row for each bucket and combination of its dimensions, with sum, count, minimum and maximum."""

    name: str
    width_seconds: int
    dimensions: tuple[str, ...]
    # What it is made from: the events, or a rollup that holds as much and less of it to read.
    source: str

    @property
    def has_account(self) -> bool:
        """Whether it tells accounts apart: what is pending is known by account."""
        return "account" in self.dimensions


def narrowest(rollups: Sequence[Rollup], needed: AbstractSet[str]) -> Rollup:
    """The first of these rollups, which are in order from the narrowest on, that has every dimension that is needed."""
    return next(rollup for rollup in rollups if needed <= set(rollup.dimensions))


MINUTE_SECONDS: Final = 60
QUARTER_HOUR_SECONDS: Final = 900
DAY_SECONDS: Final = 86_400

_OF_EVERYONE: Final = ("product", "feature", "classification", "unit")
_BY_PRODUCT: Final = ("account", *_OF_EVERYONE)
_BY_SUBSCRIPTION: Final = ("account", "subscription", "product", "unit")

QUARTER_HOUR: Final = Rollup("usage_quarter_hour", QUARTER_HOUR_SECONDS, DIMENSIONS, "event")
QUARTER_HOUR_OF_EVERYONE: Final = Rollup(
    "usage_quarter_hour_of_everyone", QUARTER_HOUR_SECONDS, _OF_EVERYONE, "usage_quarter_hour"
)
QUARTER_HOUR_BY_SUBSCRIPTION: Final = Rollup(
    "usage_quarter_hour_by_subscription", QUARTER_HOUR_SECONDS, _BY_SUBSCRIPTION, "usage_quarter_hour"
)
QUARTER_HOUR_BY_PRODUCT: Final = Rollup(
    "usage_quarter_hour_by_product",
    QUARTER_HOUR_SECONDS,
    ("account", "product", "unit"),
    "usage_quarter_hour_by_subscription",
)
QUARTER_HOUR_BY_ACCOUNT: Final = Rollup(
    "usage_quarter_hour_by_account", QUARTER_HOUR_SECONDS, ("account", "unit"), "usage_quarter_hour_by_product"
)
DAY: Final = Rollup("usage_day", DAY_SECONDS, DIMENSIONS, "usage_quarter_hour")
DAY_BY_PRODUCT: Final = Rollup("usage_day_by_product", DAY_SECONDS, _BY_PRODUCT, "usage_day")
DAY_BY_ACCOUNT: Final = Rollup("usage_day_by_account", DAY_SECONDS, ("account", "unit"), "usage_day_by_product")
DAY_OF_EVERYONE: Final = Rollup("usage_day_of_everyone", DAY_SECONDS, _OF_EVERYONE, "usage_day_by_product")

# Of each width from the narrowest on: the first one that has the dimensions of a question answers it.
QUARTER_HOUR_ROLLUPS: Final = (
    QUARTER_HOUR_OF_EVERYONE,
    QUARTER_HOUR_BY_ACCOUNT,
    QUARTER_HOUR_BY_PRODUCT,
    QUARTER_HOUR_BY_SUBSCRIPTION,
    QUARTER_HOUR,
)
DAILY_ROLLUPS: Final = (
    DAY_OF_EVERYONE,
    DAY_BY_ACCOUNT,
    DAY_BY_PRODUCT,
    Rollup("usage_day_by_subscription", DAY_SECONDS, _BY_SUBSCRIPTION, "usage_day"),
    Rollup("usage_day_by_user", DAY_SECONDS, ("account", "user", "product", "unit"), "usage_day"),
    Rollup("usage_day_by_device", DAY_SECONDS, ("account", "device", "product", "unit"), "usage_day"),
    DAY,
)
# In the order in which they are made: each after its source.
ROLLUPS: Final = (*reversed(QUARTER_HOUR_ROLLUPS), DAY, DAY_BY_PRODUCT, *DAILY_ROLLUPS[3:6], *DAILY_ROLLUPS[:2])

# The tail's, plain tables on every engine. By subscription and of everyone they are added to with every step, also to the minute
# that is not over yet; the others hold whole minutes.
MINUTE: Final = Rollup("usage_minute", MINUTE_SECONDS, DIMENSIONS, "event")
MINUTE_BY_SUBSCRIPTION: Final = Rollup("usage_minute_by_subscription", MINUTE_SECONDS, _BY_SUBSCRIPTION, "event")
MINUTE_BY_ACCOUNT: Final = Rollup(
    "usage_minute_by_account", MINUTE_SECONDS, ("account", "unit"), "usage_minute_by_subscription"
)
MINUTE_OF_EVERYONE: Final = Rollup(
    "usage_minute_of_everyone", MINUTE_SECONDS, ("product", "unit"), "usage_minute_by_subscription"
)
WHOLE_MINUTES: Final = (MINUTE, MINUTE_BY_ACCOUNT)
# From the narrowest on, as above.
STEPPED_MINUTES: Final = (MINUTE_OF_EVERYONE, MINUTE_BY_SUBSCRIPTION)
MINUTE_ROLLUPS: Final = (MINUTE_OF_EVERYONE, MINUTE_BY_ACCOUNT, MINUTE_BY_SUBSCRIPTION, MINUTE)


def _rollup_table(rollup: Rollup) -> sa.Table:
    # On TimescaleDB these are continuous aggregates, so they are no part of METADATA; names and columns are the same.
    return sa.Table(
        rollup.name,
        sa.MetaData(),
        sa.Column("bucket", INSTANT, nullable=False),
        *(_text(name, required=name in REQUIRED_DIMENSIONS) for name in rollup.dimensions),
        sa.Column("quantity", sa.Numeric, nullable=False),
        sa.Column("events", sa.BigInteger, nullable=False),
        sa.Column("minimum", sa.Numeric, nullable=False),
        sa.Column("maximum", sa.Numeric, nullable=False),
    )


ROLLUP_TABLES: Final = {rollup.name: _rollup_table(rollup) for rollup in (*ROLLUPS, *MINUTE_ROLLUPS)}


class Partitioned(msgspec.Struct, frozen=True):
    """A table that is cut by time: partitions on PostgreSQL, chunks on TimescaleDB, of the same width."""

    table: str
    column: str
    width_days: int
    # How much longer it is kept than the events: an identity's guarding row lies on the day before its event.
    kept_longer_days: int = 0


# A week: narrow enough to drop by, wide enough that a year is not a thousand partitions to plan over.
PARTITIONED_EVENT: Final = Partitioned("event", "occurred_at", 7)
PARTITIONED_IDENTITY: Final = Partitioned("event_identity", "day", 7, kept_longer_days=1)
PARTITIONED_QUARTER_HOUR: Final = Partitioned("usage_quarter_hour", "bucket", 28)
# What was recorded, as it was recorded; and that with what is made of it.
PARTITIONED_RAW: Final = (PARTITIONED_EVENT, PARTITIONED_IDENTITY)
PARTITIONED: Final = (*PARTITIONED_RAW, PARTITIONED_QUARTER_HOUR)
