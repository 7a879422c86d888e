"""Usage by day as measures of health read it, and what was usual among all customers on a day.

Kind: pre (additive; the previous release runs on it)

Usage by day is rollups of whole days, and beside them whatever is not in these yet: a function of one SELECT, which
PostgreSQL and TimescaleDB put in the place of its call. The statements of metering/store/sql/measures.sql then read the rollups
that are there, and no table of their own has to be kept up (docs/adr/0021). Its text is looked up when it is called, so that
later migrations may make rollups anew.
"""

from alembic import op

revision = "0018"
down_revision = "0017"
branch_labels = None
depends_on = None

# A day's rows may be several of the same dimensions: they add up. Days of accounts that have anything pending are read by
# quarters of an hour, these quarters and what is above the horizon from the events; see docs/adr/0004. Where nothing is pending
# at all, saying so saves planning for every partition there is.
_USAGE_OF_DAYS = """
CREATE FUNCTION usage_of_days(
    accounts text[], day_from date, day_to date, days_end timestamptz, complete_at timestamptz,
    has_pending boolean DEFAULT true
)
RETURNS TABLE (
    day date, account text, subscription text, "user" text, device text, product text, feature text,
    classification text, events bigint, is_use boolean
)
LANGUAGE sql STABLE PARALLEL SAFE AS $function$
    WITH late AS MATERIALIZED (
        SELECT DISTINCT account, bucket, date_bin('1 day', bucket, 'epoch') AS day FROM pending_bucket
        WHERE $6 AND bucket >= $2::timestamp AT TIME ZONE 'UTC'
            AND bucket < least($3::timestamp AT TIME ZONE 'UTC', $5) AND ($1 IS NULL OR account = ANY ($1))
    ), late_day AS MATERIALIZED (
        SELECT DISTINCT account, day FROM late WHERE day < $4
    ), part AS (
        SELECT bucket AS at, account, subscription, "user", device, product, feature, classification, events, maximum
        FROM usage_day
        WHERE bucket >= $2::timestamp AT TIME ZONE 'UTC' AND bucket < least($3::timestamp AT TIME ZONE 'UTC', $4)
            AND ($1 IS NULL OR account = ANY ($1)) AND (account, bucket) NOT IN (SELECT account, day FROM late_day)
        UNION ALL
        SELECT bucket, account, subscription, "user", device, product, feature, classification, events, maximum
        FROM usage_quarter_hour
        WHERE bucket >= greatest($2::timestamp AT TIME ZONE 'UTC', $4)
            AND bucket < least($3::timestamp AT TIME ZONE 'UTC', $5)
            AND ($1 IS NULL OR account = ANY ($1)) AND (account, bucket) NOT IN (SELECT account, bucket FROM late)
        UNION ALL
        SELECT quarter.bucket, quarter.account, subscription, "user", device, product, feature, classification, events,
               maximum
        FROM late_day CROSS JOIN LATERAL (
            SELECT * FROM usage_quarter_hour
            WHERE $6 AND account = late_day.account AND bucket >= late_day.day AND bucket < late_day.day + interval '1 day'
            OFFSET 0
        ) AS quarter
        WHERE (quarter.account, quarter.bucket) NOT IN (SELECT account, bucket FROM late)
        UNION ALL
        SELECT raw.occurred_at, raw.account, subscription, "user", device, product, feature, classification, 1, quantity
        FROM late CROSS JOIN LATERAL (
            SELECT * FROM event
            WHERE $6 AND account = late.account AND occurred_at >= late.bucket
                AND occurred_at < late.bucket + interval '15 minutes' AND NOT voided
            OFFSET 0
        ) AS raw
        UNION ALL
        SELECT occurred_at, account, subscription, "user", device, product, feature, classification, 1, quantity
        FROM event
        WHERE occurred_at >= greatest($2::timestamp AT TIME ZONE 'UTC', $5)
            AND occurred_at < $3::timestamp AT TIME ZONE 'UTC'
            AND ($1 IS NULL OR account = ANY ($1)) AND NOT voided
    )
    SELECT (at AT TIME ZONE 'UTC')::date, account, subscription, "user", device, product, feature, classification, events,
           maximum >= 0 AND classification IS DISTINCT FROM 'background'
    FROM part
$function$
"""


_NORMS = """
CREATE TABLE health_norms (
    as_of       date NOT NULL,
    computed_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    norms       jsonb NOT NULL,
    CONSTRAINT health_norms_pkey PRIMARY KEY (as_of)
)
"""


def upgrade() -> None:
    """Make the function, and the table of norms."""
    op.execute(_USAGE_OF_DAYS)
    op.execute(_NORMS)


def downgrade() -> None:
    """Remove both: norms are computed anew from what is there."""
    op.execute("DROP TABLE health_norms")
    op.execute("DROP FUNCTION usage_of_days")
