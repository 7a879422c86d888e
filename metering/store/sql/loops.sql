-- name: note_run
-- Background work of this name was done. $1 name, $2 when.
INSERT INTO background_loop (name, ran_at) VALUES ($1, $2)
ON CONFLICT (name) DO UPDATE SET ran_at = greatest(background_loop.ran_at, excluded.ran_at);

-- name: note_failure
-- Background work of this name failed. $1 name, $2 when, $3 of what.
INSERT INTO background_loop (name, ran_at, failed_at, fault) VALUES ($1, $2, $2, $3)
ON CONFLICT (name) DO UPDATE SET failed_at = excluded.failed_at, fault = excluded.fault;

-- name: read_runs
-- When the loops ran last, those that failed since then and of what, and since when what is due waits to be sent.
SELECT now() AS now,
       (SELECT ran_at FROM background_loop WHERE name = 'deliveries') AS delivered_at,
       (SELECT ran_at FROM background_loop WHERE name = 'alerts') AS evaluated_at,
       (SELECT string_agg(name || ' failed: ' || fault, ', ' ORDER BY name) FROM background_loop WHERE failed_at >= ran_at)
           AS failures,
       EXISTS (SELECT FROM alert_rule WHERE enabled) AS has_rules,
       (SELECT count(*) FROM alert_rule WHERE enabled AND fault IS NOT NULL) AS faulty_rules,
       (SELECT count(*) FROM destination WHERE disabled_at IS NOT NULL) AS given_up,
       (SELECT min(due_at) FROM delivery
        JOIN destination ON destination.id = delivery.destination_id AND enabled AND disabled_at IS NULL
        WHERE state = 'PENDING') AS due_at;
