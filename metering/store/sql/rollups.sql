-- name: read_horizon
-- Where the rollups stand and what is retained, in the snapshot that the answer is read from, and when that was taken.
SELECT now() AS as_of, complete_at, raw_from, rollups_from,
       EXISTS (SELECT FROM pending_bucket WHERE bucket < complete_at) AS has_pending
FROM rollup_horizon CROSS JOIN retained_range;

-- name: publish_horizon
-- From now on writers log as pending what they write below $1.
UPDATE rollup_horizon SET published_at = $1 WHERE published_at < $1;

-- name: complete_horizon
-- Every hour below $1 is rolled up.
UPDATE rollup_horizon SET complete_at = $1 WHERE complete_at < $1;

-- name: writers_at_work
-- The writers that hold the lock now, as transactions of a session. $1: the lock.
SELECT virtualtransaction
FROM pg_locks
WHERE locktype = 'advisory' AND granted AND mode = 'ShareLock' AND objsubid = 1
  AND database = (SELECT oid FROM pg_database WHERE datname = current_database())
  AND (classid::bigint << 32 | objid::bigint) = $1;

-- name: read_pending
-- Pending log entries of hours that were rolled up, close together in time. $1: at most so many. There are none of hours
-- whose events may be gone (docs/adr/0010), and if there were, rolling them up would erase what the rollup has.
SELECT id, account, bucket FROM pending_bucket
WHERE bucket < (SELECT complete_at FROM rollup_horizon) AND bucket >= (SELECT raw_from FROM retained_range)
ORDER BY bucket LIMIT $1;

-- name: delete_pending
-- Forget log entries that are worked off. $1: their ids.
DELETE FROM pending_bucket WHERE id = ANY ($1::bigint[]);

-- name: count_pending
-- How much is waiting to be worked off, and since when the rollups are complete.
SELECT (SELECT count(*) FROM pending_bucket) AS pending, complete_at, now() AS now FROM rollup_horizon;
