-- name: read_load
-- The year that the demo's loading was begun with, and when it was finished.
SELECT through, loaded_at FROM demo_load ORDER BY through LIMIT 1;

-- name: begin_load
-- Loading the year up to this day begins.
INSERT INTO demo_load (through) VALUES ($1) ON CONFLICT DO NOTHING;

-- name: finish_load
-- The year up to this day is loaded.
UPDATE demo_load SET loaded_at = now() WHERE through = $1;
