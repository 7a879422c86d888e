-- name: find_newest
-- reach: everyone
-- The thresholds of warnings that are in force; no row where those from the start are.
SELECT version, thresholds::text AS thresholds, put_at FROM warning_thresholds ORDER BY version DESC LIMIT 1;

-- name: find_of_day
-- reach: everyone
-- The thresholds of warnings that were in force as a day ended; no row where those from the start were. $1 the instant after it.
SELECT version, thresholds::text AS thresholds, put_at FROM warning_thresholds
WHERE put_at < $1
ORDER BY version DESC
LIMIT 1;

-- name: insert_thresholds
-- Have thresholds in force. $1 the version, $2 thresholds as JSON, $3 by whom.
INSERT INTO warning_thresholds (version, thresholds, put_by) VALUES ($1, $2::jsonb, $3)
RETURNING version, thresholds::text AS thresholds, put_at;
