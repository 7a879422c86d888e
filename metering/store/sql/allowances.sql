-- name: spend
-- Take $2 events out of a key's allowance, or leave it as it is when it does not hold them and is not full either.
-- $1 the key's prefix, $3 events that come in each second, $4 events that it holds at most, $5 the time, NULL for the
-- database's clock. The clock is read before the row's lock is held, so a later one may have been here first: then no time
-- has passed. Nothing waits for a disk: what a crash forgets is as good as full.
INSERT INTO key_allowance AS allowance (prefix, events, as_of, taken)
SELECT $1, $4::bigint - $2::bigint, coalesce($5::timestamptz, clock_timestamp()), true
FROM set_config('synchronous_commit', 'off', true)
ON CONFLICT (prefix) DO UPDATE SET (events, as_of, taken) = (
    SELECT held - CASE WHEN held >= least($2, $4) THEN $2 ELSE 0 END,
           greatest(allowance.as_of, excluded.as_of),
           held >= least($2, $4)
    FROM (
        SELECT least($4, allowance.events + $3::bigint * greatest(0, extract(epoch FROM excluded.as_of - allowance.as_of)))
    ) AS filled (held)
)
RETURNING events, taken;
