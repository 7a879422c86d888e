-- name: lock_destination
-- The destination of this key, if there is one; nobody else changes it until we have committed.
SELECT * FROM destination WHERE key = $1 FOR UPDATE;

-- name: insert_destination
-- Make a destination; no row where the key is taken. $1 key, $2 kind, $3 address as it is shown, $4 encrypted, $5 types,
-- $6 enabled, $7 by whom, $8 whether it has a bearer.
INSERT INTO destination (key, kind, address, encrypted, types, enabled, changed_by, has_bearer)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8)
ON CONFLICT (key) DO NOTHING
RETURNING *;

-- name: change_destination
-- Change a destination; it is no longer given up, nor left alone. $1 id, $2 address as it is shown, $3 encrypted, $4 types,
-- $5 enabled, $6 by whom, $7 whether it has a bearer.
UPDATE destination
SET address = $2, encrypted = $3, types = $4, enabled = $5, changed_by = $6, has_bearer = $7, changed_at = now(),
    failing_since = NULL, not_before = NULL, disabled_at = NULL, disabled_reason = NULL
WHERE id = $1
RETURNING *;

-- name: encrypt_destination
-- Keep other secrets. $1 id, $2 encrypted, $3 by whom.
UPDATE destination SET encrypted = $2, changed_by = $3, changed_at = now() WHERE id = $1 RETURNING *;

-- name: delete_destination
-- Forget it, when nothing waits for it any more. $1 id.
DELETE FROM destination WHERE id = $1;

-- name: hold_destination
-- It is not deleted, nor put, until we have committed; no row where it was deleted. What it says now. Before any of its
-- deliveries is locked. $1 id.
SELECT encrypted FROM destination WHERE id = $1 FOR KEY SHARE;

-- name: count_destinations
-- How many there are.
SELECT count(*) FROM destination;

-- name: list_destinations
-- Destinations by key, with what waits for them. $1 the key that they come after, or NULL; $2 how many.
SELECT destination.*, waiting.counted AS waiting
FROM destination
CROSS JOIN LATERAL (
    SELECT count(*) AS counted FROM delivery WHERE destination_id = destination.id AND state = 'PENDING'
) AS waiting
WHERE $1::text IS NULL OR key > $1
ORDER BY key
LIMIT $2;

-- name: note_success
-- Something was taken there. $1 id.
UPDATE destination SET failing_since = NULL WHERE id = $1 AND failing_since IS NOT NULL;

-- name: note_failure
-- Something was not taken there; say since when nothing was. $1 id, $2 when, $3 until when it asked to be sent nothing, or NULL.
UPDATE destination SET failing_since = coalesce(failing_since, $2), not_before = greatest(not_before, $3::timestamptz)
WHERE id = $1
RETURNING failing_since;

-- name: give_up
-- Send nothing there any more, until it is put again; no row where that was so already. $1 id, $2 when, $3 why.
UPDATE destination SET disabled_at = $2, disabled_reason = $3 WHERE id = $1 AND disabled_at IS NULL RETURNING key;
