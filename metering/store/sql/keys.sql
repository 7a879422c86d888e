-- name: make_secret
-- Keep this secret of the service, where there is none yet. $1: the secret.
INSERT INTO server_secret (secret) VALUES ($1) ON CONFLICT DO NOTHING;

-- name: read_secret
-- The secret of the service. In a statement of its own: after somebody else's was committed.
SELECT secret FROM server_secret;

-- name: insert_key
-- Add a key; nothing happens when the same secret, or a key of this prefix, is there already.
INSERT INTO api_key (
    prefix, name, digest, scopes, accounts, expires_at, default_source,
    events_per_second_max, burst_events_max, request_events_max, request_bytes_max, replaces, line
)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13)
ON CONFLICT DO NOTHING
RETURNING prefix, name, scopes, accounts, created_at, expires_at, revoked_at, default_source,
    events_per_second_max, burst_events_max, request_events_max, request_bytes_max, last_used_at, replaces, line;

-- name: list_keys
-- Keys, the newest first. $1 the prefix of the key that they come after, or NULL; $2 how many, or NULL for all.
SELECT prefix, name, scopes, accounts, created_at, expires_at, revoked_at, default_source,
    events_per_second_max, burst_events_max, request_events_max, request_bytes_max, last_used_at, replaces, line
FROM api_key
WHERE $1::text IS NULL OR (created_at, prefix) < (SELECT created_at, prefix FROM api_key WHERE prefix = $1)
ORDER BY created_at DESC, prefix DESC
LIMIT $2::bigint;

-- name: find_key
-- The key of one of these digests, when it may be used now, and how long it lasts. A secret that was kept twice, with one
-- digest and with another one, is revoked with either. $1: the digests.
SELECT prefix, name, scopes, accounts, created_at, expires_at, revoked_at, default_source,
    events_per_second_max, burst_events_max, request_events_max, request_bytes_max, last_used_at, replaces, line,
    digest, extract(epoch FROM expires_at - now())::float8 AS lasts_seconds
FROM api_key
WHERE digest = ANY ($1::bytea[]) AND (expires_at IS NULL OR expires_at > now())
  AND NOT EXISTS (SELECT FROM api_key AS twin WHERE twin.digest = ANY ($1::bytea[]) AND twin.revoked_at IS NOT NULL)
LIMIT 1;

-- name: is_known
-- Whether there is a key of one of these digests, whatever became of it. $1: the digests.
SELECT EXISTS (SELECT FROM api_key WHERE digest = ANY ($1::bytea[]));

-- name: lock_key
-- The key of this prefix, and whether it is revoked or has expired; nobody else changes it until we have committed.
SELECT prefix, name, scopes, accounts, created_at, expires_at, revoked_at, default_source,
    events_per_second_max, burst_events_max, request_events_max, request_bytes_max, last_used_at, replaces, line,
    revoked_at IS NOT NULL OR coalesce(expires_at <= now(), false) AS is_over
FROM api_key
WHERE prefix = $1
FOR UPDATE;

-- name: end_key
-- The key of this prefix ends after this time, if it does not end before. $1 prefix, $2 the time.
UPDATE api_key SET expires_at = least(expires_at, now() + $2::interval) WHERE prefix = $1;

-- name: revoke_key
-- Revoke a key by its prefix; a revoked one stays revoked since when it was.
UPDATE api_key SET revoked_at = coalesce(revoked_at, now())
WHERE prefix = $1
RETURNING prefix, name, scopes, accounts, created_at, expires_at, revoked_at, default_source,
    events_per_second_max, burst_events_max, request_events_max, request_bytes_max, last_used_at, replaces, line;

-- name: write_uses
-- These keys were used so many seconds ago. In one order, so that two who write do not wait for each other.
-- $1 prefixes, $2 seconds.
UPDATE api_key SET last_used_at = used.at
FROM (
    SELECT api_key.prefix, clock_timestamp() - make_interval(secs => noted.seconds) AS at
    FROM unnest($1::text[], $2::float8[]) AS noted (prefix, seconds)
    JOIN api_key USING (prefix)
    ORDER BY api_key.prefix
    FOR UPDATE OF api_key
) AS used
WHERE api_key.prefix = used.prefix AND (api_key.last_used_at IS NULL OR api_key.last_used_at < used.at);
