-- name: insert_meter
-- Make a meter; no row where its key is taken. $1 key, $2 name, $3 unit, $4 aggregation, $5 distinct, $6 filter as JSON,
-- $7 and $8 how figures are rounded, $9 by whom.
INSERT INTO meter (
    key, name, unit, aggregation, distinct_dimension, filter, rounding_mode, rounding_step, created_by, changed_by
)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $9)
ON CONFLICT (key) DO NOTHING
RETURNING *;

-- name: lock_meter
-- The meter of this key; nobody else changes it until we have committed.
SELECT * FROM meter WHERE key = $1 FOR UPDATE;

-- name: rename_meter
-- Give a meter another name. $1 key, $2 name, $3 by whom.
UPDATE meter SET name = $2, changed_at = now(), changed_by = $3 WHERE key = $1 RETURNING *;

-- name: find_meter
-- reach: everyone
-- The meter of this key.
SELECT * FROM meter WHERE key = $1;

-- name: find_meters
-- reach: everyone
-- The meters of these keys. $1 keys.
SELECT * FROM meter WHERE key = ANY ($1::text[]);

-- name: list_meters
-- reach: everyone
-- Meters by key. $1 the key that they come after, or NULL; $2 how many.
SELECT * FROM meter WHERE $1::text IS NULL OR key > $1 ORDER BY key LIMIT $2;
