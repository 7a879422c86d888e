-- name: lock_rule
-- The rule of this key, if there is one; nobody else changes it until we have committed.
SELECT * FROM alert_rule WHERE key = $1 FOR UPDATE;

-- name: count_rules
-- How many there are.
SELECT count(*) FROM alert_rule;

-- name: insert_rule
-- Make a rule; no row where the key is taken. $1 key, $2 name, $3 what it says, $4 accounts, $5 enabled, $6 by whom.
INSERT INTO alert_rule (key, name, definition, accounts, enabled, changed_by)
VALUES ($1, $2, $3, $4, $5, $6)
ON CONFLICT (key) DO NOTHING
RETURNING *;

-- name: change_rule
-- Change a rule; what it raised when it said something else is of an earlier revision then. $1 to $6 as above.
UPDATE alert_rule
SET name = $2, definition = $3, accounts = $4, enabled = $5, changed_by = $6, changed_at = now(), fault = NULL,
    revision = revision + CASE
        WHEN (definition, accounts, enabled) IS DISTINCT FROM ($3::jsonb, $4::text[], $5::boolean) THEN 1 ELSE 0 END
WHERE key = $1
RETURNING *;

-- name: list_rules
-- Rules by key. Who reaches some accounts sees those that are of them alone. $1 to $3 the reach, $4 the key that they come
-- after, or NULL; $5 how many.
-- reach: account, subscription, user
SELECT * FROM alert_rule
WHERE ($1::text[] IS NULL OR accounts <@ $1) AND $2::text[] IS NULL AND $3::text IS NULL AND ($4::text IS NULL OR key > $4)
ORDER BY key
LIMIT $5;

-- name: list_all
-- All rules, in the order in which they are evaluated; those that are switched off, too, for what they raised is closed.
SELECT * FROM alert_rule ORDER BY key;

-- name: note_evaluated
-- Every period that was over at an instant was looked at. $1 key, $2 the instant.
UPDATE alert_rule SET evaluated_to = greatest(evaluated_to, $2::timestamptz) WHERE key = $1;

-- name: note_fault
-- Why a rule cannot be evaluated, or that it can be. $1 key, $2 the fault.
UPDATE alert_rule SET fault = $2 WHERE key = $1 AND fault IS DISTINCT FROM $2;
