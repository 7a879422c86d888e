-- name: insert_key
-- Add a key; nothing happens when the same secret is there already.
INSERT INTO api_key (prefix, name, digest, scopes, accounts, expires_at)
VALUES ($1, $2, $3, $4, $5, $6)
ON CONFLICT (digest) DO NOTHING
RETURNING prefix, name, scopes, accounts, created_at, expires_at, revoked_at;

-- name: list_keys
-- All keys, the newest first.
SELECT prefix, name, scopes, accounts, created_at, expires_at, revoked_at FROM api_key ORDER BY created_at DESC, prefix;

-- name: find_key
-- The key of this digest, when it may be used now.
SELECT prefix, name, scopes, accounts, created_at, expires_at, revoked_at
FROM api_key
WHERE digest = $1 AND revoked_at IS NULL AND (expires_at IS NULL OR expires_at > now());

-- name: revoke_key
-- Revoke a key by its prefix; a revoked one stays revoked since when it was.
UPDATE api_key SET revoked_at = coalesce(revoked_at, now())
WHERE prefix = $1
RETURNING prefix, name, scopes, accounts, created_at, expires_at, revoked_at;
