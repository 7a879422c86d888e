-- name: read_revision
-- The revision that the database was migrated to.
SELECT version_num FROM alembic_version;

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
