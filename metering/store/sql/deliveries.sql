-- name: find_due
-- What is to be sent now: of each subject at a destination the first that is not finished, where it is due. $1 the instant,
-- $2 at most so many for a destination, $3 at most so many; $4 and $5 what is being sent (destinations, sequences).
SELECT destination.id AS destination_id, destination.key, destination.kind, destination.encrypted,
       due.sequence, due.subject, due.attempts, due.first_attempt_at,
       notification.id, notification.type, notification.data, notification.published_at
FROM destination
CROSS JOIN LATERAL (
    SELECT * FROM first_delivery AS delivery
    WHERE delivery.destination_id = destination.id AND delivery.due_at <= $1
      AND NOT EXISTS (
          SELECT FROM unnest($4::bigint[], $5::bigint[]) AS sent (destination_id, sequence)
          WHERE sent.destination_id = delivery.destination_id AND sent.sequence = delivery.sequence
      )
    ORDER BY delivery.due_at, delivery.sequence
    LIMIT greatest(0, $2::bigint - (SELECT count(*) FROM unnest($4::bigint[]) AS busy (id) WHERE busy.id = destination.id))
) AS due
JOIN notification ON notification.sequence = due.sequence
WHERE destination.enabled AND destination.disabled_at IS NULL AND coalesce(destination.not_before <= $1, true)
ORDER BY due.due_at, due.sequence
LIMIT $3;

-- name: record_attempt
-- Note one attempt. $1 destination, $2 sequence, $3 when, $4 milliseconds, $5 the status or $6 why there is none.
INSERT INTO delivery_attempt (destination_id, sequence, attempted_at, milliseconds, status, fault)
VALUES ($1, $2, $3, $4, $5, $6);

-- name: hold_pending
-- How often a delivery was tried; nobody else changes it until we have committed. No row where it is not pending any more.
-- $1 destination, $2 sequence.
SELECT attempts FROM delivery WHERE destination_id = $1 AND sequence = $2 AND state = 'PENDING' FOR UPDATE;

-- name: finish
-- What became of a delivery that is pending. $1 destination, $2 sequence, $3 the state, $4 attempts, $5 when it was tried,
-- $6 when it is due again.
UPDATE delivery
SET state = $3, attempts = $4, first_attempt_at = coalesce(first_attempt_at, $5),
    due_at = coalesce($6, due_at), finished_at = CASE WHEN $3 = 'PENDING' THEN NULL ELSE $5::timestamptz END
WHERE destination_id = $1 AND sequence = $2 AND state = 'PENDING';

-- name: list_deliveries
-- Deliveries to a destination, the newest notification first. $1 its key, $2 the state, $3 the sequence that they come after,
-- or NULL; $4 how many.
SELECT notification.sequence, notification.id, notification.type, notification.subject, notification.published_at,
       delivery.destination_id, delivery.state, delivery.attempts,
       greatest(delivery.due_at, destination.not_before) AS due_at, delivery.finished_at
FROM destination
JOIN delivery ON delivery.destination_id = destination.id
JOIN notification ON notification.sequence = delivery.sequence
WHERE destination.key = $1 AND ($2::text IS NULL OR delivery.state = $2)
  AND ($3::bigint IS NULL OR delivery.sequence < $3)
ORDER BY delivery.sequence DESC
LIMIT $4;

-- name: list_attempts
-- The attempts of deliveries to one destination, in order. $1 destination, $2 sequences.
SELECT sequence, attempted_at, milliseconds, status, fault FROM delivery_attempt
WHERE destination_id = $1 AND sequence = ANY ($2::bigint[])
ORDER BY id;

-- name: replay
-- Send again what was published from $2 on and before $3, where destination $1 takes it: as if it had just been published. With
-- $4 what was delivered stays delivered. What waits goes on waiting, and is due at once. $5 now. Says how many.
WITH chosen AS (
    SELECT destination.id AS destination_id, notification.sequence, notification.subject
    FROM destination
    JOIN notification ON notification.published_at >= $2 AND notification.published_at < $3 AND (
        cardinality(destination.types) = 0
        OR EXISTS (
            SELECT FROM unnest(destination.types) AS taken (type)
            WHERE notification.type = taken.type OR starts_with(notification.type, taken.type || '.')
        )
    )
    WHERE destination.id = $1
), queued AS (
    INSERT INTO delivery (destination_id, sequence, subject, due_at)
    SELECT destination_id, sequence, subject, $5::timestamptz FROM chosen
    ON CONFLICT (destination_id, sequence) DO UPDATE
    SET state = 'PENDING', attempts = 0, due_at = excluded.due_at, first_attempt_at = NULL, finished_at = NULL
    WHERE NOT ($4::boolean AND delivery.state = 'DELIVERED')
    RETURNING sequence
)
SELECT count(*) FROM queued;

-- name: forget_all
-- Forget all deliveries to a destination, with their attempts; say how many were waiting. $1 destination.
WITH forgotten AS (
    DELETE FROM delivery WHERE destination_id = $1 RETURNING state
)
SELECT count(*) FILTER (WHERE state = 'PENDING') FROM forgotten;

-- name: make_due
-- What waits for a destination is tried at once, by its schedule from the beginning. $1 destination, $2 now.
UPDATE delivery SET due_at = $2, attempts = 0, first_attempt_at = NULL
WHERE destination_id = $1 AND state = 'PENDING';
