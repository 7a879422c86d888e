-- name: enter_writers
-- Hold, until the transaction ends, the lock by which the refresher knows that we write (docs/adr/0004). $1: the lock.
SELECT pg_advisory_xact_lock_shared($1);

-- name: writers_at_work
-- The writers that hold the lock now, as transactions of a session. $1: the lock.
SELECT virtualtransaction
FROM pg_locks
WHERE locktype = 'advisory' AND granted AND mode = 'ShareLock' AND objsubid = 1
  AND database = (SELECT oid FROM pg_database WHERE datname = current_database())
  AND (classid::bigint << 32 | objid::bigint) = $1;

-- name: read_published
-- The instants between which what we write has to be logged as pending. In a statement of its own: after the lock.
SELECT published_at, complete_at, tail_published_at FROM rollup_horizon;

-- name: read_taken_from
-- The instant below which nothing is recorded or corrected any more. In a statement of its own: after the lock.
SELECT taken_from FROM retained_range;

-- name: find_claims
-- Which of these names are claimed, and with what content. $1 accounts, $2 days, $3 keys, $4 first day, $5 last day.
SELECT wanted.position - 1 AS position, claimed.content
FROM unnest($1::text[], $2::date[], $3::bytea[]) WITH ORDINALITY AS wanted (account, day, key, position)
JOIN event_identity AS claimed
  ON claimed.account = wanted.account AND claimed.day = wanted.day AND claimed.key = wanted.key
WHERE claimed.day BETWEEN $4 AND $5;

-- name: log_pending
-- These quarters of an hour of these accounts got events after they were rolled up. $1 accounts, $2 quarters of an hour.
INSERT INTO pending_bucket (account, bucket)
SELECT account, bucket FROM unnest($1::text[], $2::timestamptz[]) AS logged (account, bucket);

-- name: log_corrected_minute
-- Events of this minute of the tail were corrected. $1 account, $2 minute.
INSERT INTO pending_minute (account, bucket) VALUES ($1, $2);

-- name: log_late
-- These events came too late for the tail. $1 accounts, $2 when they occurred, $3 keys.
INSERT INTO late_event (account, occurred_at, key)
SELECT account, occurred_at, key FROM unnest($1::text[], $2::timestamptz[], $3::bytea[]) AS logged (account, occurred_at, key);

-- name: find_event
-- reach: account, subscription, user
-- The latest event of this name, or the one that occurred at $3. $1 account, $2 key, $3 an instant or NULL; of those within
-- reach: of the accounts $4, the subscriptions $5 and the user $6, or NULL.
SELECT event.*
FROM event_identity AS claimed
JOIN event ON event.account = claimed.account AND event.occurred_at = claimed.occurred_at AND event.key = claimed.key
WHERE claimed.account = $1 AND claimed.key = $2 AND ($3::timestamptz IS NULL OR claimed.occurred_at = $3)
  AND claimed.occurred_at >= (SELECT raw_from FROM retained_range)
  AND ($4::text[] IS NULL OR event.account = ANY ($4)) AND ($5::text[] IS NULL OR event.subscription = ANY ($5))
  AND ($6::text IS NULL OR event."user" = $6)
ORDER BY claimed.occurred_at DESC
LIMIT 1;
