-- name: insert_outcomes
-- Record those of these outcomes that are new, and tell them. $1 accounts, $2 what they are known by, $3 what they say, $4 by
-- whom; $5 kinds of subjects, $6 their keys, $7 kinds, $8 when, $9 amounts, $10 currencies, $11 reasons, $12 sources,
-- $13 external ids.
INSERT INTO outcome (
    account, identity, content, recorded_by, subject, key, kind, at, mrr_delta, currency_code, reason, source, external_id
)
SELECT account, identity, content, $4, subject, key, kind, at, mrr_delta, currency_code, reason, source, external_id
FROM unnest(
    $1::text[], $2::bytea[], $3::bytea[], $5::text[], $6::text[], $7::text[], $8::timestamptz[], $9::numeric[], $10::text[],
    $11::text[], $12::text[], $13::text[]
) AS told (account, identity, content, subject, key, kind, at, mrr_delta, currency_code, reason, source, external_id)
ON CONFLICT (account, identity) DO NOTHING
RETURNING account, identity;

-- name: find_contents
-- What the outcomes say that are known by these. $1 accounts, $2 what they are known by.
SELECT kept.account, kept.identity, kept.content
FROM unnest($1::text[], $2::bytea[]) AS asked (account, identity)
JOIN outcome AS kept ON kept.account = asked.account AND kept.identity = asked.identity;
