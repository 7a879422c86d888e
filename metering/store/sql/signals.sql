-- name: find_owners
-- Whose these subscriptions are. $1 subscriptions.
SELECT key, account FROM subscription WHERE key = ANY ($1::text[]);

-- name: insert_signals
-- Record those of these signals that are new, and tell them. $1 accounts, $2 what they are known by, $3 what they say, $4 by
-- whom; $5 kinds of subjects, $6 their keys, $7 names, $8 values, $9 when, $10 sources, $11 external ids, $12 notes, $13 ends.
INSERT INTO signal (
    account, identity, content, recorded_by, subject, key, name, value, at, source, external_id, note, expires_at
)
SELECT account, identity, content, $4, subject, key, name, value, at, source, external_id, note, expires_at
FROM unnest(
    $1::text[], $2::bytea[], $3::bytea[], $5::text[], $6::text[], $7::text[], $8::float8[], $9::timestamptz[], $10::text[],
    $11::text[], $12::text[], $13::timestamptz[]
) AS told (account, identity, content, subject, key, name, value, at, source, external_id, note, expires_at)
ON CONFLICT (account, identity) DO NOTHING
RETURNING account, identity;

-- name: find_contents
-- What the signals say that are known by these. $1 accounts, $2 what they are known by.
SELECT kept.account, kept.identity, kept.content
FROM unnest($1::text[], $2::bytea[]) AS asked (account, identity)
JOIN signal AS kept ON kept.account = asked.account AND kept.identity = asked.identity;
