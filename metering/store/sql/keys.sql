-- name: insert_key
-- Add a key; nothing happens when the same secret is there already.
INSERT INTO api_key (
    prefix, name, digest, scopes, accounts, expires_at, default_source,
    events_per_second_max, burst_events_max, request_events_max, request_bytes_max
)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11)
ON CONFLICT (digest) DO NOTHING
RETURNING prefix, name, scopes, accounts, created_at, expires_at, revoked_at, default_source,
    events_per_second_max, burst_events_max, request_events_max, request_bytes_max;

-- name: list_keys
-- All keys, the newest first.
SELECT prefix, name, scopes, accounts, created_at, expires_at, revoked_at, default_source,
    events_per_second_max, burst_events_max, request_events_max, request_bytes_max
FROM api_key
ORDER BY created_at DESC, prefix;

-- name: find_key
-- The key of this digest, when it may be used now.
SELECT prefix, name, scopes, accounts, created_at, expires_at, revoked_at, default_source,
    events_per_second_max, burst_events_max, request_events_max, request_bytes_max
FROM api_key
WHERE digest = $1 AND revoked_at IS NULL AND (expires_at IS NULL OR expires_at > now());

-- name: revoke_key
-- Revoke a key by its prefix; a revoked one stays revoked since when it was.
UPDATE api_key SET revoked_at = coalesce(revoked_at, now())
WHERE prefix = $1
RETURNING prefix, name, scopes, accounts, created_at, expires_at, revoked_at, default_source,
    events_per_second_max, burst_events_max, request_events_max, request_bytes_max;
