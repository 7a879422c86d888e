-- name: publish_beside_others
-- Nobody publishes of all subjects at once until we have committed; others may publish beside us.
SELECT pg_advisory_xact_lock_shared(hashtextextended('notifications', 0));

-- name: publish_alone
-- Nobody else publishes anything until we have committed: one lock, where there may be no room for one of each subject.
SELECT pg_advisory_xact_lock(hashtextextended('notifications', 0));

-- name: take_turns
-- Nobody else publishes of these subjects until we have committed: their notifications become visible in their order. Everybody
-- takes subjects in order of their names. $1 subjects.
SELECT pg_advisory_xact_lock(hashtextextended('notifications of ' || subject, 0))
FROM (SELECT subject FROM unnest($1::text[]) AS each (subject) ORDER BY subject COLLATE "C") AS in_order;

-- name: publish
-- Add a notification, and a delivery for each destination that takes it. What we gave up goes on waiting there, what somebody
-- switched off gets nothing; one that is being deleted is waited for, and gets nothing either. $1 id, $2 type, $3 subject,
-- $4 data, $5 by then it is due.
WITH published AS (
    INSERT INTO notification (id, type, subject, data, published_at) VALUES ($1, $2, $3, $4, $5)
    RETURNING sequence, type, subject, published_at
), queued AS (
    INSERT INTO delivery (destination_id, sequence, subject, due_at)
    SELECT destination.id, published.sequence, published.subject, published.published_at
    FROM published
    JOIN destination ON destination.enabled AND (
        cardinality(destination.types) = 0
        OR EXISTS (
            SELECT FROM unnest(destination.types) AS taken (type)
            WHERE published.type = taken.type OR starts_with(published.type, taken.type || '.')
        )
    )
    FOR KEY SHARE OF destination
)
SELECT sequence FROM published;

-- name: forget_older
-- Forget notifications that were published before $1, with their deliveries and attempts; say how many. At most $2 at once.
WITH forgotten AS (
    DELETE FROM notification WHERE sequence IN (
        SELECT sequence FROM notification WHERE published_at < $1 ORDER BY sequence LIMIT $2
    )
    RETURNING sequence
)
SELECT count(*) FROM forgotten;
