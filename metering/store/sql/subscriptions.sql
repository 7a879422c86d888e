-- name: insert_subscription
-- Make a subscription; no row where its key is taken. $1 key, $2 account, $3 currency, $4 starts_at, $5 time zone,
-- $6 billing anchor, $7 ends_at, $8 trial_ends_at, $9 renews_at, $10 monthly amount, $11 discount percent,
-- $12 attributes as JSON, $13 by whom.
INSERT INTO subscription (
    key, account, currency_code, starts_at, time_zone, billing_anchor, ends_at, trial_ends_at, renews_at,
    monthly_amount, discount_percent, attributes, created_by, changed_by
)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $13)
ON CONFLICT (key) DO NOTHING
RETURNING *;

-- name: lock_subscription
-- The subscription of this key; nobody else changes it until we have committed.
SELECT * FROM subscription WHERE key = $1 FOR UPDATE;

-- name: read_clock
-- What time it is now: later than whatever was committed by those who held the lock before.
SELECT clock_timestamp();

-- name: change_facts
-- Put these facts in effect. $1 key, $2 ends_at, $3 trial_ends_at, $4 renews_at, $5 monthly amount, $6 discount percent,
-- $7 attributes as JSON, $8 when, $9 by whom.
UPDATE subscription
SET ends_at = $2, trial_ends_at = $3, renews_at = $4, monthly_amount = $5, discount_percent = $6, attributes = $7,
    changed_at = $8, changed_by = $9
WHERE key = $1
RETURNING *;

-- name: record_change
-- Who changed which facts. $1 subscription, $2 when, $3 by whom, $4 before, $5 after.
INSERT INTO subscription_change (subscription, changed_at, by, before, after) VALUES ($1, $2, $3, $4, $5);

-- name: replace_terms
-- What was put for an instant and later does not count any more. $1 subscription, $2 the instant, $3 when, $4 by whom.
UPDATE subscription_terms SET replaced_at = $3, replaced_by = $4
WHERE subscription = $1 AND since >= $2 AND replaced_at IS NULL;

-- name: insert_terms
-- From an instant on. $1 subscription, $2 since, $3 plan, $4 version or NULL, $5 seats or NULL, $6 when, $7 by whom.
INSERT INTO subscription_terms (subscription, since, plan, plan_version, seats, put_at, put_by)
VALUES ($1, $2, $3, $4, $5, $6, $7);

-- name: list_terms
-- reach: account, subscription
-- The terms that count of these subscriptions, in order of time. $1 subscriptions.
SELECT subscription, since, plan, plan_version, seats FROM subscription_terms
WHERE subscription = ANY ($1::text[]) AND replaced_at IS NULL
ORDER BY subscription, since;

-- name: list_subscriptions
-- reach: account, subscription
-- Subscriptions by key. $1 their keys, or NULL; $2 their accounts, or NULL; $3 the key that they come after, or NULL;
-- $4 how many.
SELECT * FROM subscription
WHERE ($1::text[] IS NULL OR key = ANY ($1))
  AND ($2::text[] IS NULL OR account = ANY ($2))
  AND ($3::text IS NULL OR key > $3)
ORDER BY key
LIMIT $4;

-- name: count_by_currency
-- How many subscriptions there are in each currency that live in a period. $1 their keys and $2 their accounts, or NULL; $3 and
-- $4 the period.
-- reach: account, subscription
SELECT currency_code, count(*) AS subscriptions FROM subscription
WHERE ($1::text[] IS NULL OR key = ANY ($1)) AND ($2::text[] IS NULL OR account = ANY ($2))
  AND starts_at < $4 AND (ends_at IS NULL OR ends_at > $3)
GROUP BY currency_code
ORDER BY currency_code;
