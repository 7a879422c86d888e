-- name: note_run
-- Background work of this name was done. $1 name, $2 when, $3 when it began, $4 by which process.
INSERT INTO background_loop AS loop (name, ran_at, started_at, process, led_since) VALUES ($1, $2, $3, $4, $3)
ON CONFLICT (name) DO UPDATE
SET ran_at = greatest(loop.ran_at, excluded.ran_at), started_at = excluded.started_at, failures = 0,
    process = excluded.process,
    led_since = CASE WHEN loop.process = excluded.process THEN loop.led_since ELSE excluded.led_since END;

-- name: note_failure
-- Background work of this name failed. $1 name, $2 when, $3 when it began, $4 in which process, $5 by which code, $6 of what.
INSERT INTO background_loop AS loop (name, failed_at, started_at, process, led_since, failures, fault_code, fault)
VALUES ($1, $2, $3, $4, $3, 1, $5, $6)
ON CONFLICT (name) DO UPDATE
SET failed_at = excluded.failed_at, started_at = excluded.started_at, failures = loop.failures + 1,
    fault_code = excluded.fault_code, fault = excluded.fault, process = excluded.process,
    led_since = CASE WHEN loop.process = excluded.process THEN loop.led_since ELSE excluded.led_since END;

-- name: keep_lead
-- A word now and then on the session that holds the lead: one that is lost is noticed by it.
SELECT 1;

-- name: list_all
-- The loops of these names, and all others that ever ran, each with how far behind it is: the refresher by the end of the
-- tail, scoring by the oldest change that no score knows of, deliveries by what fell due first, any other by its last run. $1 names.
SELECT name, ran_at, failed_at, coalesce(failures, 0) AS failures, fault_code, fault, started_at, process, led_since,
       CASE
           WHEN started_at IS NULL THEN NULL
           WHEN name = 'refresh' THEN greatest(now() - (SELECT tail_complete_at FROM rollup_horizon), '0')
           WHEN name = 'scoring' THEN greatest(now() - (SELECT marked_at FROM health_dirty ORDER BY id LIMIT 1), '0')
           WHEN name = 'deliveries' THEN greatest(now() - (
               SELECT min(greatest(due_at, not_before)) FROM first_delivery
               JOIN destination ON destination.id = first_delivery.destination_id AND enabled AND disabled_at IS NULL
           ), '0')
           -- Nobody knows how far behind one is that never ended well: it failed, which is told besides.
           WHEN ran_at IS NOT NULL THEN greatest(now() - ran_at, '0')
       END AS lag
FROM (SELECT each COLLATE "C" AS name FROM unnest($1::text[]) AS each) AS known FULL JOIN background_loop USING (name)
ORDER BY name;
