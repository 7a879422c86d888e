-- name: list_scorecards
-- reach: everyone
-- Every version of every scorecard that was published, the oldest first.
SELECT * FROM scorecard ORDER BY key, version;

-- name: insert_scorecard
-- Publish a version, and say when that was. $1 key, $2 version, $3 kind of subject, $4 purpose, $5 definition, $6 by whom.
INSERT INTO scorecard (key, version, subject, purpose, definition, published_by)
VALUES ($1, $2, $3, $4, $5, $6)
RETURNING published_at;

-- name: mark_scored
-- Have everybody scored anew who has a score of the last days: another card is in force.
INSERT INTO health_dirty (account, since)
SELECT DISTINCT account, (now() AT TIME ZONE 'UTC')::date FROM health
WHERE as_of >= (now() AT TIME ZONE 'UTC')::date - 7;

-- name: list_customers
-- reach: account
-- The accounts behind one by key that were put, or have a subscription or usage between two instants. $1 the key, or NULL;
-- $2 and $3 the instants; $4 how many; $5 of these accounts, or NULL.
SELECT account FROM (
    SELECT key AS account FROM account WHERE ($1::text IS NULL OR key > $1) AND ($5::text[] IS NULL OR key = ANY ($5))
    UNION
    SELECT account FROM subscription
    WHERE ($1::text IS NULL OR account > $1) AND ($5::text[] IS NULL OR account = ANY ($5))
    UNION
    SELECT account FROM usage_day_by_account
    WHERE bucket >= $2 AND bucket < $3 AND ($1::text IS NULL OR account > $1)
      AND ($5::text[] IS NULL OR account = ANY ($5))
) AS customer
ORDER BY account
LIMIT $4;

-- name: list_contracts
-- reach: account
-- The subscriptions of these accounts that have started by an instant, with their plan at it. $1 accounts, $2 the instant.
SELECT subscription.account, subscription.key, starts_at, trial_ends_at, renews_at, ends_at, monthly_amount,
       terms.plan, time_zone
FROM subscription
CROSS JOIN LATERAL (
    SELECT plan FROM subscription_terms AS each
    WHERE each.subscription = subscription.key AND each.replaced_at IS NULL
    ORDER BY each.since > $2, CASE WHEN each.since > $2 THEN each.since END, each.since DESC
    LIMIT 1
) AS terms
WHERE subscription.account = ANY ($1::text[]) AND starts_at < $2
ORDER BY subscription.account, subscription.key;

-- name: list_users
-- reach: account, user
-- The users of these accounts that have usage between two instants, or of whom something was said by then. $1 accounts, $2 and
-- $3 the instants.
SELECT DISTINCT account, "user" FROM usage_day_by_user
WHERE account = ANY ($1::text[]) AND bucket >= $2 AND bucket < $3 AND "user" IS NOT NULL
UNION
SELECT account, key FROM attribute_fact WHERE account = ANY ($1::text[]) AND subject = 'USER' AND at < $3
ORDER BY account, "user";

-- name: list_attributes
-- reach: account
-- What these accounts and all in them are said to be at an instant. $1 accounts, $2 the instant.
SELECT DISTINCT ON (account, subject, key, name) account, subject, key, name, value
FROM attribute_fact
WHERE account = ANY ($1::text[]) AND at < $2
ORDER BY account, subject, key, name, at DESC, recorded_at DESC, sequence DESC;

-- name: list_overrides
-- reach: account
-- What people said on scores of these accounts, and of all in them, that holds on a day. $1 accounts, $2 the day.
SELECT account, subject, key, purpose, lowest, highest, reason, set_on, expires_on
FROM health_override
WHERE account = ANY ($1::text[]) AND set_on <= $2 AND expires_on > $2
ORDER BY account, sequence;

-- name: insert_override
-- Keep a person's word on a score. $1 account, $2 kind of subject, $3 key, $4 purpose, $5 lowest, $6 highest, $7 reason, $8 since
-- which day, $9 before which day, $10 by whom.
INSERT INTO health_override (account, subject, key, purpose, lowest, highest, reason, set_on, expires_on, recorded_by)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10);

-- name: find_scores
-- reach: account
-- The scores of subjects as of a day, or of the last day before it that has one, as they were known at an instant. $1 accounts,
-- $2 kinds of subjects, $3 keys, $4 purposes, $5 days, $6 instants or NULL for all that is known; one row for each.
SELECT asked.position - 1 AS position, found.*
FROM unnest($1::text[], $2::text[], $3::text[], $4::text[], $5::date[], $6::timestamptz[])
    WITH ORDINALITY AS asked (account, subject, key, purpose, as_of, known_at, position)
CROSS JOIN LATERAL (
    SELECT health.* FROM health
    WHERE health.account = asked.account AND health.subject = asked.subject AND health.key = asked.key
      AND health.purpose = asked.purpose AND health.as_of <= asked.as_of
      AND (asked.known_at IS NULL OR health.computed_at <= asked.known_at)
    ORDER BY health.as_of DESC, health.computed_at DESC
    LIMIT 1
) AS found;

-- name: list_history
-- reach: account
-- The scores of subjects on the days of a period, each as it was last computed by an instant. $1 accounts, $2 kinds of subjects,
-- $3 keys, $4 purposes, $5 first days, $6 the days after the last ones, $7 instants or NULL.
SELECT DISTINCT ON (asked.position, health.as_of)
       asked.position - 1 AS position, health.as_of, health.score, health.band, health.version, health.scorecard
FROM unnest($1::text[], $2::text[], $3::text[], $4::text[], $5::date[], $6::date[], $7::timestamptz[])
    WITH ORDINALITY AS asked (account, subject, key, purpose, start, finish, known_at, position)
JOIN health
  ON health.account = asked.account AND health.subject = asked.subject AND health.key = asked.key
 AND health.purpose = asked.purpose AND health.as_of >= asked.start AND health.as_of < asked.finish
 AND (asked.known_at IS NULL OR health.computed_at <= asked.known_at)
ORDER BY asked.position, health.as_of, health.computed_at DESC;

-- name: find_measured
-- reach: account
-- What was measured of subjects on days. $1 accounts, $2 kinds of subjects, $3 keys, $4 days; one row for each that there is.
SELECT asked.position - 1 AS position, measured.metrics
FROM unnest($1::text[], $2::text[], $3::text[], $4::date[])
    WITH ORDINALITY AS asked (account, subject, key, as_of, position)
JOIN measured
  ON measured.account = asked.account AND measured.subject = asked.subject AND measured.key = asked.key
 AND measured.as_of = asked.as_of;

-- name: put_measured
-- Keep what was measured on a day. $1 the day, $2 when; $3 accounts, $4 kinds of subjects, $5 keys, $6 metrics as JSON.
INSERT INTO measured (account, subject, key, as_of, computed_at, metrics)
SELECT account, subject, key, $1, $2, metrics
FROM unnest($3::text[], $4::text[], $5::text[], $6::jsonb[]) AS found (account, subject, key, metrics)
ORDER BY account, subject, key
ON CONFLICT (account, subject, key, as_of) DO UPDATE SET computed_at = excluded.computed_at, metrics = excluded.metrics;

-- name: insert_scores
-- Keep the scores of a day that are others than they were known to be, and say how many. $1 the day, $2 when; $3 accounts,
-- $4 kinds of subjects, $5 keys, $6 purposes, $7 scorecards, $8 versions, $9 scores, $10 bands, $11 coverages, $12 baselines,
-- $13 raw scores, $14 drivers as JSON, $15 adjustments as JSON or NULL.
WITH inserted AS (
    INSERT INTO health (
        account, subject, key, purpose, as_of, computed_at, scorecard, version, score, band, coverage, baseline, raw,
        drivers, adjustment
    )
    SELECT found.account, found.subject, found.key, found.purpose, $1, $2, found.scorecard, found.version, found.score,
           found.band, found.coverage, found.baseline, found.raw, found.drivers, found.adjustment
    FROM unnest(
        $3::text[], $4::text[], $5::text[], $6::text[], $7::text[], $8::int[], $9::float8[], $10::text[], $11::float8[],
        $12::float8[], $13::float8[], $14::jsonb[], $15::jsonb[]
    ) AS found (
        account, subject, key, purpose, scorecard, version, score, band, coverage, baseline, raw, drivers, adjustment
    )
    LEFT JOIN LATERAL (
        SELECT * FROM health AS each
        WHERE each.account = found.account AND each.subject = found.subject AND each.key = found.key
          AND each.purpose = found.purpose AND each.as_of = $1
        ORDER BY each.computed_at DESC
        LIMIT 1
    ) AS known ON true
    WHERE (known.scorecard, known.version, known.score, known.band, known.drivers, known.adjustment)
        IS DISTINCT FROM (found.scorecard, found.version, found.score, found.band, found.drivers, found.adjustment)
    RETURNING account
)
SELECT count(*) FROM inserted;

-- name: find_dirty
-- Accounts whose scores are to be computed anew, those first that wait longest, each from which day on. $1 how many.
SELECT account, min(since) AS since, array_agg(id) AS ids
FROM health_dirty
GROUP BY account
ORDER BY min(id)
LIMIT $1;

-- name: delete_dirty
-- Take off the list what was worked off. $1 ids.
DELETE FROM health_dirty WHERE id = ANY ($1::bigint[]);

-- name: read_days
-- The last day on which everybody was scored, and the one that is under way, with the account through which it is.
SELECT (SELECT max(as_of) FROM health_day WHERE completed_at IS NOT NULL) AS completed,
       under_way.as_of AS under_way, under_way.through
FROM (SELECT) AS one LEFT JOIN LATERAL (
    SELECT as_of, through FROM health_day WHERE completed_at IS NULL ORDER BY as_of LIMIT 1
) AS under_way ON true;

-- name: list_scored_days
-- The days from one on, and before another, on which everybody was scored, and the one that is under way: of it some are.
-- $1 and $2 these days.
SELECT as_of FROM health_day WHERE as_of >= $1 AND as_of < $2 ORDER BY as_of;

-- name: begin_day
-- Begin to score everybody on a day.
INSERT INTO health_day (as_of) VALUES ($1) ON CONFLICT (as_of) DO NOTHING;

-- name: move_day
-- Everybody up to an account is scored on a day. $1 the day, $2 the account.
UPDATE health_day SET through = $2 WHERE as_of = $1;

-- name: complete_day
-- Everybody is scored on a day.
UPDATE health_day SET completed_at = clock_timestamp() WHERE as_of = $1 AND completed_at IS NULL;
