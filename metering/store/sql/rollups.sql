-- name: read_horizon
-- Where the rollups stand and what is retained, in the snapshot that the answer is read from, and when that was taken. From
-- here to its end every statement may take what the session says (pool.py): said here, for a statement of its own would be one
-- more round trip, and without a parameter, for then it is planned once and not for every question.
SELECT set_config('statement_timeout', current_setting('metering.statement_timeout'), true), now() AS as_of, complete_at, tail_complete_at AS tail_at, raw_from, rollups_from,
       EXISTS (SELECT FROM pending_bucket WHERE bucket < complete_at) AS has_pending,
       EXISTS (SELECT FROM pending_minute WHERE bucket >= complete_at AND bucket < tail_complete_at) AS has_pending_minutes,
       EXISTS (SELECT FROM late_event WHERE occurred_at >= complete_at AND occurred_at < tail_complete_at) AS has_late
FROM rollup_horizon CROSS JOIN retained_range;

-- name: read_horizon_and_log
-- Where the rollups stand, and whether there is anything for the tail to take up besides new events.
SELECT complete_at, tail_complete_at,
       EXISTS (SELECT FROM late_event) OR EXISTS (SELECT FROM pending_minute) AS has_logged
FROM rollup_horizon;

-- name: publish_horizon
-- From now on writers log as pending what they write below $1, and as late what they write below $2, the tail's end.
UPDATE rollup_horizon
SET published_at = greatest(published_at, $1), tail_published_at = greatest(tail_published_at, $2)
WHERE published_at < $1 OR tail_published_at < $2;

-- name: complete_horizon
-- Every quarter of an hour below $1 is rolled up. The tail ends there at the earliest.
UPDATE rollup_horizon
SET complete_at = $1, tail_complete_at = greatest(tail_complete_at, $1),
    tail_published_at = greatest(tail_published_at, $1)
WHERE complete_at < $1;

-- name: forget_minutes
-- Minutes below $1 are no longer of the tail. Deleted and not dropped: an older snapshot still reads them.
WITH figures AS (DELETE FROM usage_minute WHERE bucket < $1),
     by_subscription AS (DELETE FROM usage_minute_by_subscription WHERE bucket < $1),
     by_account AS (DELETE FROM usage_minute_by_account WHERE bucket < $1),
     of_everyone AS (DELETE FROM usage_minute_of_everyone WHERE bucket < $1),
     late AS (DELETE FROM late_event WHERE occurred_at < $1)
DELETE FROM pending_minute WHERE bucket < $1;

-- name: complete_tail
-- Every minute below $1 is rolled up; the one that $1 lies in, as far as that.
UPDATE rollup_horizon SET tail_complete_at = $1 WHERE tail_complete_at < $1;

-- name: read_pending
-- Pending log entries of quarters of an hour that were rolled up, close together in time. $1: at most so many. There are
-- none of those whose events may be gone (docs/adr/0010), and if there were, rolling them up would erase what is kept.
SELECT id, account, bucket FROM pending_bucket
WHERE bucket < (SELECT complete_at FROM rollup_horizon) AND bucket >= (SELECT raw_from FROM retained_range)
ORDER BY bucket LIMIT $1;

-- name: read_pending_between
-- Pending log entries of the quarters of an hour from $1 to $2. $3: at most so many.
SELECT id, bucket FROM pending_bucket WHERE bucket >= $1 AND bucket < $2 LIMIT $3;

-- name: is_behind
-- Whether more than $1 entries of quarters of an hour that were rolled up are logged as pending.
SELECT EXISTS (SELECT FROM pending_bucket WHERE bucket < (SELECT complete_at FROM rollup_horizon) OFFSET $1);

-- name: delete_pending
-- Forget log entries that are worked off. $1: their ids.
DELETE FROM pending_bucket WHERE id = ANY ($1::bigint[]);

-- name: drop_pending_minutes
-- Forget which minutes were corrected, and say which.
DELETE FROM pending_minute RETURNING account, bucket;
