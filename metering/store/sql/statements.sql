-- name: list_final
-- reach: account, subscription
-- The final statements of these subscriptions that were not voided. $1 subscriptions.
SELECT * FROM statement WHERE subscription = ANY ($1::text[]) AND voided_at IS NULL;

-- name: list_kept
-- reach: account, subscription
-- Final and voided statements by subscription, period and id. $1 their subscriptions, or NULL; $2 their accounts, or NULL;
-- $3 whether they were voided, or NULL for both; $4 and $5 the period that theirs touch, or NULL; $6 the subscription, $7 the
-- period's beginning and $8 the id that they come after, or NULL; $9 how many.
SELECT * FROM statement
WHERE ($1::text[] IS NULL OR subscription = ANY ($1))
  AND ($2::text[] IS NULL OR account = ANY ($2))
  AND ($3::boolean IS NULL OR (voided_at IS NOT NULL) = $3)
  AND ($4::timestamptz IS NULL OR period_to > $4)
  AND ($5::timestamptz IS NULL OR period_from < $5)
  AND ($6::text IS NULL OR (subscription, period_from, id) > ($6, $7::timestamptz, $8::bigint))
ORDER BY subscription, period_from, id
LIMIT $9;

-- name: find_statement
-- reach: account, subscription
-- The statement of this id.
SELECT * FROM statement WHERE id = $1;

-- name: read_revisions
-- reach: account, subscription
-- What was ever frozen and voided of these subscriptions: both numbers only grow. $1 subscriptions.
SELECT subscription, count(*) AS frozen, count(voided_at) AS voided
FROM statement WHERE subscription = ANY ($1::text[]) GROUP BY subscription;

-- name: lock_subscriptions
-- Nobody else freezes or voids statements of these subscriptions until we have committed; in one order, so that two who lock
-- many do not wait for each other. $1 subscriptions.
SELECT key FROM subscription WHERE key = ANY ($1::text[]) ORDER BY key FOR UPDATE;

-- name: insert_statements
-- Freeze statements. $1 accounts, $2 subscriptions, $3 and $4 their periods, $5 whether they are closing ones, $6 currencies,
-- $7 totals, $8 as of when, $9 lines, $10 evidence and $11 credits as JSON, $12 by whom.
INSERT INTO statement (
    account, subscription, period_from, period_to, is_closing, currency_code, total, as_of, lines, evidence, credits,
    finalized_by
)
SELECT account, subscription, period_from, period_to, is_closing, currency_code, total, as_of, lines::jsonb,
       evidence::jsonb, credits::jsonb, $12
FROM unnest($1::text[], $2::text[], $3::timestamptz[], $4::timestamptz[], $5::boolean[], $6::text[], $7::numeric[],
            $8::timestamptz[], $9::text[], $10::text[], $11::text[])
    AS made (account, subscription, period_from, period_to, is_closing, currency_code, total, as_of, lines, evidence,
             credits)
RETURNING *;

-- name: void_statement
-- Take a final statement back; no row where it is not there, or was. $1 id, $2 by whom, $3 reason.
UPDATE statement SET voided_at = now(), voided_by = $2, void_reason = $3
WHERE id = $1 AND voided_at IS NULL
RETURNING *;

-- name: count_subscriptions
-- How many subscriptions there are.
SELECT count(*) FROM subscription;
