-- name: find_intervention
-- reach: everyone
-- An intervention by its key, with how many it was meant for. $1 the key.
SELECT intervention.*, audience.treated, audience.held_out
FROM intervention
CROSS JOIN LATERAL (
    SELECT count(*) FILTER (WHERE NOT each.held_out) AS treated, count(*) FILTER (WHERE each.held_out) AS held_out
    FROM intervention_audience AS each WHERE each.intervention = intervention.key
) AS audience
WHERE intervention.key = $1;

-- name: list_interventions
-- reach: everyone
-- Interventions by key, with how many each was meant for. $1 the key to begin behind, or NULL; $2 how many.
SELECT intervention.*, audience.treated, audience.held_out
FROM intervention
CROSS JOIN LATERAL (
    SELECT count(*) FILTER (WHERE NOT each.held_out) AS treated, count(*) FILTER (WHERE each.held_out) AS held_out
    FROM intervention_audience AS each WHERE each.intervention = intervention.key
) AS audience
WHERE $1::text IS NULL OR intervention.key > $1
ORDER BY intervention.key
LIMIT $2;

-- name: insert_intervention
-- Record an intervention. $1 key, $2 kind, $3 kind of subjects, $4 first day, $5 last day or NULL, $6 metric, $7 days of the
-- window, $8 percent held out, $9 attribute or NULL, $10 need as JSON or NULL, $11 note or NULL, $12 content, $13 by whom.
INSERT INTO intervention (
    key, kind, subject, started_on, ended_on, metric, window_days, holdout_percent, segment_by, need, note, content,
    recorded_by
)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13);

-- name: insert_audience
-- Whom it was meant for. $1 key; $2 accounts, $3 keys, $4 who is held out.
INSERT INTO intervention_audience (intervention, account, key, held_out)
SELECT $1, account, key, held_out
FROM unnest($2::text[], $3::text[], $4::boolean[]) AS meant (account, key, held_out);

-- name: end_intervention
-- It has ended. $1 key, $2 its last day.
UPDATE intervention SET ended_on = $2 WHERE key = $1;

-- name: list_audience
-- reach: account
-- Whom an intervention was meant for, by account and key. $1 its key; $2 and $3 account and key to begin behind, or NULL;
-- $4 how many; $5 accounts within reach, or NULL.
SELECT account, key, held_out
FROM intervention_audience
WHERE intervention = $1 AND ($2::text IS NULL OR (account, key) > ($2, $3)) AND ($5::text[] IS NULL OR account = ANY ($5))
ORDER BY account, key
LIMIT $4;

-- name: list_values
-- reach: account
-- A metric of subjects on days, or the last time before within a week, of those who were measured around the last day before.
-- $1 accounts, $2 kind of subjects, $3 metric, $4 the last day before; $5 days; no row where it was not measured, and no value
-- where it was unknown.
WITH subject AS (
    SELECT DISTINCT account, key FROM measured
    WHERE account = ANY ($1::text[]) AND subject = $2 AND as_of > $4::date - 7 AND as_of <= $4
)
SELECT subject.account, subject.key, day.place - 1 AS place, (found.metrics -> $3 ->> 'value')::float8 AS value
FROM subject
CROSS JOIN unnest($5::date[]) WITH ORDINALITY AS day (as_of, place)
CROSS JOIN LATERAL (
    SELECT metrics FROM measured AS each
    WHERE each.account = subject.account AND each.subject = $2 AND each.key = subject.key
      AND each.as_of <= day.as_of AND each.as_of > day.as_of - 7
    ORDER BY each.as_of DESC
    LIMIT 1
) AS found;

-- name: list_scores
-- reach: account
-- The same of scores. $1 accounts, $2 kind of subjects, $3 purpose, $4 the last day before; $5 days.
WITH subject AS (
    SELECT DISTINCT account, key FROM health
    WHERE account = ANY ($1::text[]) AND subject = $2 AND purpose = $3 AND as_of > $4::date - 7 AND as_of <= $4
)
SELECT subject.account, subject.key, day.place - 1 AS place, found.score AS value
FROM subject
CROSS JOIN unnest($5::date[]) WITH ORDINALITY AS day (as_of, place)
CROSS JOIN LATERAL (
    SELECT score FROM health AS each
    WHERE each.account = subject.account AND each.subject = $2 AND each.key = subject.key AND each.purpose = $3
      AND each.as_of <= day.as_of AND each.as_of > day.as_of - 7
    ORDER BY each.as_of DESC, each.computed_at DESC
    LIMIT 1
) AS found;
