-- name: list_open
-- The alerts of a rule that are open. $1 the rule.
SELECT * FROM alert WHERE rule = $1 AND resolved_at IS NULL ORDER BY raised_at, id;

-- name: list_raised
-- For which subjects an alert of a rule was raised in some periods. $1 rule, $2 when the periods begin.
SELECT DISTINCT subject, period_from FROM alert WHERE rule = $1 AND period_from = ANY ($2::timestamptz[]);

-- name: raise_alert
-- Add an alert. $1 id, $2 rule, $3 revision, $4 measure, $5 subject, $6 dimensions, $7 account, $8 subscription, $9 user,
-- $10 and $11 the period, $12 value, $13 whole, $14 threshold, $15 when.
INSERT INTO alert (
    id, rule, revision, measure, subject, dimensions, account, subscription, "user", period_from, period_to, value, whole,
    threshold, raised_at
)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15);

-- name: resolve_alert
-- Close an alert; no row where it is closed. $1 id, $2 when, $3 why, $4 the value, where it is known.
UPDATE alert SET resolved_at = $2, resolution = $3, resolved_value = $4
WHERE id = $1 AND resolved_at IS NULL
RETURNING id;

-- name: list_alerts
-- Alerts within a reach, the newest first. $1 to $3 the reach; $4 the rule, $5 the account, $6 whether open ones only, and
-- $7 which measures; $8 and $9 when the alert that they come after was raised, and its id, or NULL; $10 how many.
-- reach: account, subscription, user
SELECT * FROM alert
WHERE ($1::text[] IS NULL OR account = ANY ($1)) AND ($2::text[] IS NULL OR subscription = ANY ($2))
  AND ($3::text IS NULL OR "user" = $3)
  AND ($4::text IS NULL OR rule = $4) AND ($5::text IS NULL OR account = $5)
  AND (NOT $6::boolean OR resolved_at IS NULL) AND measure = ANY ($7::text[])
  AND ($8::timestamptz IS NULL OR (raised_at, id) < ($8, $9::uuid))
ORDER BY raised_at DESC, id DESC
LIMIT $10;

-- name: forget_older
-- Forget alerts that were closed before $1; say how many. At most $2 at once.
WITH forgotten AS (
    DELETE FROM alert WHERE id IN (SELECT id FROM alert WHERE resolved_at < $1 LIMIT $2) RETURNING id
)
SELECT count(*) FROM forgotten;
