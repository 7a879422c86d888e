-- name: enter
-- Count what is about to be kept, and be the only one who changes the quarantine until the transaction ends. The counts
-- are the most that it can hold: what is kept already is counted again. $1 events, $2 bytes.
UPDATE quarantine_size SET events = events + $1, bytes = bytes + $2 RETURNING events, bytes;

-- name: remove
-- These rejected events go. $1: their ids.
DELETE FROM rejected_event WHERE id = ANY ($1::bigint[]) RETURNING id;

-- name: remove_twins
-- Rejected events go that say what another one is about to say. $1: their digests.
DELETE FROM rejected_event WHERE digest = ANY ($1::bytea[]);

-- name: keep
-- Keep what was refused; what is kept already was received again. An id is given where a row stays the same one.
INSERT INTO rejected_event (
    id, received_at, digest, sent_by, source, code, message, path, media_type, body, body_bytes, is_exact, kept_bytes
)
SELECT coalesce(id, nextval(pg_get_serial_sequence('rejected_event', 'id'))), received_at, digest, sent_by, source, code,
       message, path, media_type, body, body_bytes, is_exact, kept_bytes
FROM unnest(
    $1::bigint[], $2::timestamptz[], $3::bytea[], $4::text[], $5::text[], $6::text[], $7::text[], $8::text[], $9::text[],
    $10::text[], $11::integer[], $12::boolean[], $13::integer[]
) WITH ORDINALITY AS refused (
    id, received_at, digest, sent_by, source, code, message, path, media_type, body, body_bytes, is_exact, kept_bytes,
    position
)
ORDER BY position
ON CONFLICT (digest) DO UPDATE
SET received_at = greatest(rejected_event.received_at, excluded.received_at), message = excluded.message;

-- name: trim
-- Forget what finds no room. Rows take their places sender by sender, the newest of each first: who holds least is served
-- first, so that nobody's flood costs what others hold. $1: room in events, $2: room in bytes.
WITH own AS (
    SELECT id, received_at, kept_bytes,
           sum(kept_bytes / $2::float8 + 1 / $1::float8) OVER (
               PARTITION BY sent_by ORDER BY received_at DESC, id DESC ROWS UNBOUNDED PRECEDING
           ) AS share
    FROM rejected_event
), together AS (
    SELECT id, row_number() OVER place AS events, sum(kept_bytes) OVER place AS bytes
    FROM own
    WINDOW place AS (ORDER BY share, received_at DESC, id DESC ROWS UNBOUNDED PRECEDING)
)
DELETE FROM rejected_event USING together
WHERE rejected_event.id = together.id AND (together.events > $1::float8 OR together.bytes > $2::float8);

-- name: recount
-- Count what is there.
UPDATE quarantine_size
SET (events, bytes) = (SELECT count(*), coalesce(sum(kept_bytes), 0) FROM rejected_event);

-- name: has_older
-- Whether anything was received before this instant. $1: the instant.
SELECT EXISTS (SELECT FROM rejected_event WHERE received_at < $1);

-- name: forget_older
-- Forget what was received before this instant, and count it off. $1: the instant.
WITH gone AS (
    DELETE FROM rejected_event WHERE received_at < $1 RETURNING kept_bytes
), counted AS (
    SELECT count(*) AS events, coalesce(sum(kept_bytes), 0) AS bytes FROM gone
)
UPDATE quarantine_size SET events = quarantine_size.events - counted.events, bytes = quarantine_size.bytes - counted.bytes
FROM counted
RETURNING counted.events;

-- name: list_rejected
-- reach: account
-- Rejected events, newest first. $1 by which key or NULL, $2 source or NULL, $3 code or NULL, $4 and $5 behind which place
-- or NULL, $6 how many.
SELECT id, received_at, source, code, message, path, body, body_bytes FROM rejected_event
WHERE ($1::text IS NULL OR sent_by = $1) AND ($2::text IS NULL OR source = $2) AND ($3::text IS NULL OR code = $3)
  AND ($4::timestamptz IS NULL OR (received_at, id) < ($4, $5::bigint))
ORDER BY received_at DESC, id DESC
LIMIT $6;

-- name: find_rejected
-- reach: account
-- One rejected event. $1 id, $2 by which key or NULL.
SELECT id, received_at, source, code, message, path, body, body_bytes FROM rejected_event
WHERE id = $1 AND ($2::text IS NULL OR sent_by = $2);

-- name: find_to_retry
-- What is needed to send these again. $1 ids, $2 by which key or NULL.
SELECT id, sent_by, media_type, body, body_bytes, is_exact FROM rejected_event
WHERE id = ANY ($1::bigint[]) AND ($2::text IS NULL OR sent_by = $2);
