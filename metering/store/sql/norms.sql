-- name: find_norms
-- reach: everyone
-- The norms of a day, if they are kept. $1 the day.
SELECT norms::text AS norms FROM health_norms WHERE as_of = $1;

-- name: keep_norms
-- Keep the norms of a day unless there are some, and say what is kept. $1 the day, $2 the norms as JSON.
INSERT INTO health_norms AS kept (as_of, norms) VALUES ($1, $2::jsonb)
ON CONFLICT (as_of) DO UPDATE SET norms = kept.norms
RETURNING norms::text AS norms;
