-- name: find_instants
-- When the events of this name occurred. $1 account, $2 key, $3 and $4 the first and last UTC day to look at.
SELECT DISTINCT occurred_at FROM event_identity
WHERE account = $1 AND key = $2 AND day BETWEEN $3 AND $4 AND occurred_at >= (SELECT raw_from FROM retained_range)
ORDER BY occurred_at
LIMIT 2;

-- name: take_turns
-- Nobody else corrects an event of this name until we have committed. By a lock beside the row: one in the columnstore
-- cannot be locked itself. $1: the lock.
SELECT pg_advisory_xact_lock($1);

-- name: read_event
-- reach: account, subscription, user
-- The event as it is now. In a statement of its own: after the lock. $1 account, $2 occurred_at, $3 key.
SELECT * FROM event
WHERE account = $1 AND occurred_at = $2 AND key = $3 AND occurred_at >= (SELECT raw_from FROM retained_range);

-- name: change_event
-- Put these values in effect. $1 account, $2 occurred_at, $3 key, then every value that can be corrected, and voided.
UPDATE event
SET subscription = $4, "user" = $5, device = $6, product = $7, feature = $8, classification = $9, unit = $10,
    quantity = $11, attributes = $12, voided = $13
WHERE account = $1 AND occurred_at = $2 AND key = $3
RETURNING *;

-- name: record_correction
-- Who changed what, and why. $1 account, $2 occurred_at, $3 key, $4 by, $5 reason, $6 voided, $7 before, $8 after.
INSERT INTO event_correction (account, occurred_at, key, by, reason, voided, before, after)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8);

-- name: list_corrections
-- reach: account
-- The corrections made to these events, oldest first. $1 accounts, $2 instants, $3 keys.
SELECT wanted.position - 1 AS position, made.corrected_at, made.by, made.reason, made.voided, made.before, made.after
FROM unnest($1::text[], $2::timestamptz[], $3::bytea[]) WITH ORDINALITY AS wanted (account, occurred_at, key, position)
JOIN event_correction AS made
  ON made.account = wanted.account AND made.occurred_at = wanted.occurred_at AND made.key = wanted.key
ORDER BY wanted.position, made.id;
