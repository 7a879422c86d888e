-- name: read_state
-- Everything that readiness is told of: a row for each loop that ever ran, or one without. Without parameters, so that a
-- session plans it once: what is looked for in it (the lead's lock, names of loops) is looked for by whoever reads it.
SELECT (SELECT version_num FROM alembic_version) AS revision, now() AS now, complete_at,
       (SELECT count(*) FROM pending_bucket) + (SELECT count(*) FROM pending_minute) + (SELECT count(*) FROM late_event)
           AS pending,
       ARRAY(
           SELECT classid::bigint << 32 | objid::bigint FROM pg_locks
           WHERE locktype = 'advisory' AND granted AND objsubid = 1
             AND database = (SELECT oid FROM pg_database WHERE datname = current_database())
       ) AS locks,
       EXISTS (SELECT FROM alert_rule WHERE enabled) AS has_rules,
       (SELECT count(*) FROM alert_rule WHERE enabled AND fault IS NOT NULL) AS faulty_rules,
       (SELECT count(*) FROM destination WHERE disabled_at IS NOT NULL) AS given_up,
       (SELECT min(greatest(due_at, not_before)) FROM first_delivery
        JOIN destination ON destination.id = first_delivery.destination_id AND enabled AND disabled_at IS NULL) AS due_at,
       name, ran_at, failures, fault
FROM rollup_horizon LEFT JOIN background_loop ON true
ORDER BY name;

-- name: read_state_of_any_release
-- What readiness is told of where the schema is another release's.
SELECT (SELECT version_num FROM alembic_version) AS revision, now() AS now, complete_at,
       (SELECT count(*) FROM pending_bucket) + (SELECT count(*) FROM pending_minute) + (SELECT count(*) FROM late_event)
           AS pending
FROM rollup_horizon;

-- name: read_gauges
-- How far behind rollups and deliveries are, how much waits, and whether somebody works in the background. $1 the lead's lock.
SELECT greatest(now() - complete_at, '0') AS rollup_lag,
       greatest(now() - tail_complete_at, '0') AS tail_lag,
       (SELECT count(*) FROM pending_bucket) + (SELECT count(*) FROM pending_minute) + (SELECT count(*) FROM late_event)
           AS pending,
       (SELECT count(*) FROM delivery WHERE state = 'PENDING') AS deliveries,
       (SELECT coalesce(greatest(now() - min(greatest(due_at, not_before)), '0'), '0') FROM first_delivery
        JOIN destination ON destination.id = first_delivery.destination_id AND enabled AND disabled_at IS NULL)
           AS delivery_lag,
       EXISTS (
           SELECT FROM pg_locks
           WHERE locktype = 'advisory' AND granted AND objsubid = 1
             AND database = (SELECT oid FROM pg_database WHERE datname = current_database())
             AND (classid::bigint << 32 | objid::bigint) = $1
       ) AS is_led
FROM rollup_horizon;
