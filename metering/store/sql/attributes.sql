-- name: log_attributes
-- From an instant on a subject has these attributes and no others: log what is another than it was, and say since which day.
-- $1 account, $2 kind of subject, $3 its key, $4 attributes as JSON, $5 the instant or NULL for now, $6 by whom.
WITH moment AS MATERIALIZED (
    SELECT coalesce($5::timestamptz, clock_timestamp()) AS at
), known AS (
    SELECT DISTINCT ON (fact.name) fact.name, fact.value
    FROM attribute_fact AS fact, moment
    WHERE fact.account = $1 AND fact.subject = $2 AND fact.key = $3 AND fact.at <= moment.at
    ORDER BY fact.name, fact.at DESC, fact.recorded_at DESC, fact.sequence DESC
), said AS (
    SELECT name, value FROM jsonb_each($4::jsonb) AS each (name, value)
), logged AS (
    INSERT INTO attribute_fact (account, subject, key, name, value, at, recorded_by)
    SELECT $1, $2, $3, name, coalesce(said.value, 'null'), moment.at, $6
    FROM moment, known FULL JOIN said USING (name)
    WHERE coalesce(said.value, 'null') <> coalesce(known.value, 'null')
    RETURNING at
)
SELECT (min(at) AT TIME ZONE 'UTC')::date FROM logged;

-- name: mark_dirty
-- Have the scores of these accounts computed anew. $1 accounts, $2 from which UTC days on, or NULL for today.
INSERT INTO health_dirty (account, since)
SELECT account, coalesce(min(since), (now() AT TIME ZONE 'UTC')::date)
FROM unnest($1::text[], $2::date[]) AS marked (account, since)
GROUP BY account;

-- name: take_turns
-- Hold, until the transaction ends, the lock of a subject; should two share one, they merely wait for each other. $1 its name.
SELECT pg_advisory_xact_lock(hashtextextended($1, 0));

-- name: find_attributes
-- reach: account, user
-- What subjects are said to be at an instant. $1 accounts, $2 kinds of subjects, $3 keys, $4 the instant.
SELECT asked.position - 1 AS position, jsonb_object_agg(fact.name, fact.value) FILTER (WHERE fact.value <> 'null') AS attributes
FROM unnest($1::text[], $2::text[], $3::text[]) WITH ORDINALITY AS asked (account, subject, key, position)
JOIN LATERAL (
    SELECT DISTINCT ON (name) name, value FROM attribute_fact AS each
    WHERE each.account = asked.account AND each.subject = asked.subject AND each.key = asked.key AND each.at <= $4
    ORDER BY name, at DESC, recorded_at DESC, sequence DESC
) AS fact ON true
GROUP BY asked.position;
