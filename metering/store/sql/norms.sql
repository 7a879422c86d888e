-- name: find_norms
-- reach: everyone
-- The norms of a day, if they are kept; when they were computed, and whether the day before was rolled up to its end by then.
-- $1 the day; $2 when norms were computed that are known already, and are not sent once more, or NULL.
SELECT CASE WHEN computed_at IS DISTINCT FROM $2::timestamptz THEN norms::text END AS norms, computed_at, is_complete
FROM health_norms WHERE as_of = $1;

-- name: count_events
-- reach: everyone
-- How many events of the 28 days before a day are rolled up. $1 the day.
SELECT coalesce(sum(events), 0)::bigint AS events FROM usage_day_of_everyone
WHERE bucket >= ($1::date - 28)::timestamp AT TIME ZONE 'UTC' AND bucket < $1::date::timestamp AT TIME ZONE 'UTC';

-- name: keep_norms
-- Keep the norms of a day unless there are some, but for those that were computed at an instant and do not hold; say when these
-- were computed, no row where others are kept. $1 the day, $2 the norms as JSON, $3 how many events of the 28 days before it were
-- rolled up, $4 whether all of these days were, $5 the instant, or NULL.
INSERT INTO health_norms AS kept (as_of, norms, events, is_complete) VALUES ($1, $2::jsonb, $3, $4)
ON CONFLICT (as_of) DO UPDATE
    SET norms = excluded.norms, events = excluded.events, is_complete = excluded.is_complete,
        computed_at = excluded.computed_at
    WHERE kept.computed_at = $5
RETURNING computed_at;

-- name: forget_outdated
-- Forget the norms of days that a load has changed since: of the 28 days before, so large a share of events more are rolled up
-- now. Whoever was measured against them is to be scored anew. $1 the first day, $2 the share.
WITH of_day AS MATERIALIZED (
    SELECT (bucket AT TIME ZONE 'UTC')::date AS day, sum(events) AS events
    FROM usage_day_of_everyone
    WHERE bucket >= ($1::date - 28)::timestamp AT TIME ZONE 'UTC'
    GROUP BY 1
), counted AS (
    SELECT kept.as_of, kept.events AS events_then, coalesce(sum(of_day.events), 0) AS events_now
    FROM health_norms AS kept LEFT JOIN of_day ON of_day.day >= kept.as_of - 28 AND of_day.day < kept.as_of
    -- Those of a day that was not over are made anew when it is, unless they say that nobody had sent anything.
    WHERE kept.as_of >= $1 AND kept.events IS NOT NULL AND (kept.is_complete OR kept.events = 0)
    GROUP BY kept.as_of, kept.events
), outdated AS (
    DELETE FROM health_norms AS kept USING counted
    WHERE kept.as_of = counted.as_of AND events_now - events_then > $2::float8 * events_then
    RETURNING kept.as_of
), marked AS (
    INSERT INTO health_dirty (account, since)
    SELECT health.account, min(health.as_of) FROM health JOIN outdated ON health.as_of = outdated.as_of - 1
    GROUP BY health.account
)
SELECT as_of FROM outdated ORDER BY as_of;
