-- name: lock_account
-- Nobody else grants credit to this account until we have committed. $1 account.
SELECT pg_advisory_xact_lock(hashtextextended('credits of ' || $1::text, 0));

-- name: count_grants
-- How many grants an account was ever given. $1 account.
SELECT count(*) FROM credit_grant WHERE account = $1;

-- name: find_grant
-- The grant of this account and key, if there is one.
SELECT * FROM credit_grant WHERE account = $1 AND key = $2;

-- name: find_grant_by_id
-- The grant of this id, if there is one. Credits are a whole account's.
-- reach: account
SELECT * FROM credit_grant WHERE id = $1;

-- name: insert_grant
-- Make a grant, with nothing in it yet. $1 account, $2 key, $3 currency or $4 meter, $5 amount, $6 meters, $7 priority,
-- $8 overdraft, $9 from and $10 until when it pays, $11 note, $12 by whom.
INSERT INTO credit_grant (
    account, key, currency_code, meter, amount, meters, priority, overdraft_max, effective_at, expires_at, note, granted_by
)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12)
RETURNING *;

-- name: issue
-- Put a grant's credit into it. $1 the grant.
INSERT INTO credit_entry (grant_id, source, target, amount, effective_at, booked_by)
SELECT id, 'ISSUED', 'GRANT', amount, effective_at, granted_by FROM credit_grant WHERE id = $1;

-- name: void_grant
-- Take a grant back; no row where it is not there, or was. $1 account, $2 key, $3 by whom, $4 reason.
UPDATE credit_grant SET voided_at = now(), voided_by = $3, void_reason = $4
WHERE account = $1 AND key = $2 AND voided_at IS NULL
RETURNING *;

-- name: list_drawable
-- The grants of these accounts that something can be drawn on. $1 accounts.
-- reach: account
SELECT * FROM credit_grant WHERE account = ANY ($1::text[]) AND voided_at IS NULL AND balance > -overdraft_max;

-- name: lock_grants
-- These grants as they are now, those that were voided too; nobody else moves them until we have committed. In one order, so
-- that two who lock many do not wait for each other. $1 ids.
SELECT id, balance, voided_at FROM credit_grant WHERE id = ANY ($1::bigint[]) ORDER BY id FOR UPDATE;

-- name: list_drawn
-- What final statements of these subscriptions drew and was not given back, the newest first. $1 subscriptions.
-- reach: account, subscription
SELECT drawn.id, drawn.grant_id, statement.subscription, statement.currency_code, credit_grant.key, credit_grant.meter,
       drawn.effective_at, drawn.amount - back.amount AS amount, drawn.worth - back.worth AS worth
FROM statement
JOIN credit_entry AS drawn ON drawn.statement_id = statement.id AND drawn.source = 'GRANT' AND drawn.drawn_id IS NULL
JOIN credit_grant ON credit_grant.id = drawn.grant_id
CROSS JOIN LATERAL (
    SELECT coalesce(sum(CASE WHEN source = 'STATEMENT' THEN amount ELSE -amount END), 0) AS amount,
           coalesce(sum(CASE WHEN source = 'STATEMENT' THEN worth ELSE -worth END), 0) AS worth
    FROM credit_entry WHERE drawn_id = drawn.id
) AS back
WHERE statement.subscription = ANY ($1::text[]) AND statement.voided_at IS NULL AND drawn.worth > back.worth
ORDER BY drawn.id DESC;

-- name: list_moved
-- What a statement drew and gave back; of what it drew also how much others gave back. $1 the statement.
SELECT moved.id, moved.grant_id, credit_grant.key, moved.source, moved.amount, moved.worth, moved.drawn_id,
       moved.effective_at, back.worth AS given_back
FROM credit_entry AS moved
JOIN credit_grant ON credit_grant.id = moved.grant_id
CROSS JOIN LATERAL (
    SELECT coalesce(sum(CASE WHEN source = 'STATEMENT' THEN worth ELSE -worth END), 0) AS worth
    FROM credit_entry WHERE drawn_id = moved.id
) AS back
WHERE moved.statement_id = $1
ORDER BY moved.id;

-- name: book
-- Add entries to the ledger. $1 grants, $2 which pots give and $3 take, $4 amounts, $5 what they are worth, $6 statements,
-- $7 the drawings that are given back, $8 as of when, $9 by whom.
INSERT INTO credit_entry (grant_id, source, target, amount, worth, statement_id, drawn_id, effective_at, booked_by)
SELECT grant_id, source, target, amount, worth, statement_id, drawn_id, effective_at, $9
FROM unnest($1::bigint[], $2::text[], $3::text[], $4::numeric[], $5::numeric[], $6::bigint[], $7::bigint[],
            $8::timestamptz[]) WITH ORDINALITY
    AS made (grant_id, source, target, amount, worth, statement_id, drawn_id, effective_at, place)
ORDER BY place;

-- name: read_balances
-- Grants of an account as they were at an instant, by all that is booked: what was put into them, and what was drawn and not
-- given back. $1 account, $2 the instant.
-- reach: account
SELECT credit_grant.*, moved.issued, moved.drawn
FROM credit_grant
CROSS JOIN LATERAL (
    SELECT coalesce(sum(amount) FILTER (WHERE source = 'ISSUED'), 0) AS issued,
           coalesce(sum(CASE source WHEN 'GRANT' THEN amount WHEN 'STATEMENT' THEN -amount END), 0) AS drawn
    FROM credit_entry WHERE grant_id = credit_grant.id AND effective_at <= $2
) AS moved
WHERE account = $1
ORDER BY key;

-- name: list_entries
-- The ledger of an account in order of time: what is booked, and what left grants when they expired or were voided, which is
-- what is in them still. $1 account, $2 now, $3 the instant, $4 whether it left so, and $5 the id that they come after, or
-- NULL; $6 how many.
-- reach: account
SELECT * FROM (
    SELECT entry.effective_at, false AS is_end, entry.id, entry.source, entry.target, entry.amount, entry.worth,
           statement.currency_code AS worth_currency, entry.statement_id, entry.booked_at, entry.booked_by,
           held.key, held.currency_code, held.meter
    FROM credit_grant AS held
    JOIN credit_entry AS entry ON entry.grant_id = held.id
    LEFT JOIN statement ON statement.id = entry.statement_id
    WHERE held.account = $1
    UNION ALL
    SELECT ended.at, true, held.id, 'GRANT',
           CASE WHEN held.voided_at < held.expires_at OR held.expires_at IS NULL THEN 'VOIDED' ELSE 'EXPIRED' END,
           held.balance, NULL, NULL, NULL, ended.at, held.voided_by, held.key, held.currency_code, held.meter
    FROM credit_grant AS held
    CROSS JOIN LATERAL (SELECT greatest(held.effective_at, least(held.expires_at, held.voided_at)) AS at) AS ended
    WHERE held.account = $1 AND held.balance > 0 AND ended.at <= $2
      AND (held.expires_at IS NOT NULL OR held.voided_at IS NOT NULL)
) AS entries
WHERE $3::timestamptz IS NULL OR (effective_at, is_end, id) > ($3, $4::boolean, $5::bigint)
ORDER BY effective_at, is_end, id
LIMIT $6;
