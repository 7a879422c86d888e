-- name: put_account
-- Make an account, or change it; no row where it is so already. $1 key, $2 name, $3 attributes as JSON, $4 by whom.
INSERT INTO account (key, name, attributes, created_by, changed_by)
VALUES ($1, $2, $3, $4, $4)
ON CONFLICT (key) DO UPDATE
SET name = excluded.name, attributes = excluded.attributes, changed_at = now(), changed_by = excluded.changed_by
WHERE (account.name, account.attributes) IS DISTINCT FROM (excluded.name, excluded.attributes)
RETURNING *;

-- name: find_account
-- The account of this key.
SELECT * FROM account WHERE key = $1;
