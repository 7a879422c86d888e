-- name: read_range
-- What is retained, up to where the rest is dropped, how far the rollups are, and the server's clock.
SELECT taken_from, raw_from, rollups_from, raw_dropped_to, rollups_dropped_to, complete_at, now() AS now
FROM retained_range CROSS JOIN rollup_horizon;

-- name: take_none_below
-- From now on writers refuse what occurred before $1.
UPDATE retained_range SET taken_from = $1 WHERE taken_from < $1;

-- name: has_pending_below
-- Whether anything below $1 is still to be rolled up anew.
SELECT EXISTS (SELECT FROM pending_bucket WHERE bucket < $1);

-- name: carry_levels
-- Before events are given up: of each gauge that has some, the last one, in the place of an earlier one. $1 from, $2 to.
INSERT INTO carried_level (
    account, occurred_at, subscription, "user", device, product, feature, classification, unit, quantity
)
SELECT DISTINCT ON (account, subscription, "user", device, product, feature, unit)
    account, occurred_at, subscription, "user", device, product, feature, classification, unit, quantity
FROM event
WHERE occurred_at >= $1 AND occurred_at < $2 AND NOT voided
ORDER BY account, subscription, "user", device, product, feature, unit, occurred_at DESC, key DESC
ON CONFLICT (gauge) DO UPDATE
SET occurred_at = excluded.occurred_at, classification = excluded.classification, quantity = excluded.quantity;

-- name: carry_no_zeros
-- A gauge at zero carries nothing. $1 from when on it was set.
DELETE FROM carried_level WHERE quantity = 0 AND occurred_at >= $1;

-- name: keep_raw_from
-- From now on readers look for events from $1 on only.
UPDATE retained_range SET raw_from = $1 WHERE raw_from < $1;

-- name: keep_rollups_from
-- From now on readers look for rollup rows from $1 on only.
UPDATE retained_range SET rollups_from = $1 WHERE rollups_from < $1;

-- name: readers_at_work
-- The transactions of this database that hold a snapshot now.
SELECT pid, xact_start FROM pg_stat_activity
WHERE datname = current_database() AND backend_type = 'client backend' AND backend_xmin IS NOT NULL
  AND pid <> pg_backend_pid();

-- name: drop_corrections
-- Forget what events before $1 said before they were corrected.
DELETE FROM event_correction WHERE occurred_at < $1;

-- name: raw_dropped
-- All that is below $1 of what was recorded is dropped.
UPDATE retained_range SET raw_dropped_to = $1 WHERE raw_dropped_to < $1;

-- name: rollups_dropped
-- All that is below $1 of the rollups is dropped.
UPDATE retained_range SET rollups_dropped_to = $1 WHERE rollups_dropped_to < $1;

-- name: blocks_others
-- Whether anybody waits for what this session does. $1: the session's process.
SELECT EXISTS (SELECT FROM pg_locks WHERE NOT granted AND $1 = ANY (pg_blocking_pids(pid)));
