-- name: list_outcomes
-- reach: account
-- Outcomes that say whether a customer stayed, of days from one on and before another, the earliest first; each with when notice
-- was first given within half a year before. $1 kind of subjects; $2 and $3 the instants; $4 how many; $5 accounts within reach,
-- or NULL.
SELECT outcome.account, outcome.key, outcome.kind, outcome.at, notice.at AS notice_at
FROM outcome
CROSS JOIN LATERAL (
    SELECT min(signal.at) AS at FROM signal
    WHERE signal.account = outcome.account AND signal.name = 'notice' AND signal.at <= outcome.at
      AND signal.at > outcome.at - interval '183 days'
      AND (signal.subject, signal.key) IN ((outcome.subject, outcome.key), ('ACCOUNT', outcome.account))
) AS notice
WHERE outcome.subject = $1 AND outcome.at >= $2 AND outcome.at < $3
  AND outcome.kind IN ('RENEWED', 'CONVERTED', 'CHURNED', 'TRIAL_LOST')
  AND ($5::text[] IS NULL OR outcome.account = ANY ($5))
ORDER BY outcome.at, outcome.account, outcome.sequence
LIMIT $4;

-- name: find_facts
-- reach: account
-- What was measured of subjects on days, or the last time before within 28 days, as far as it had been measured so by an
-- instant: what was measured anew afterwards holds what came late. $1 accounts, $2 kind of subjects, $3 keys, $4 days, $5 instants.
SELECT asked.position - 1 AS position, found.as_of, found.metrics
FROM unnest($1::text[], $3::text[], $4::date[], $5::timestamptz[])
    WITH ORDINALITY AS asked (account, key, as_of, known_at, position)
CROSS JOIN LATERAL (
    SELECT each.as_of, each.metrics FROM measured AS each
    WHERE each.account = asked.account AND each.subject = $2 AND each.key = asked.key
      AND each.as_of <= asked.as_of AND each.as_of > asked.as_of - 28 AND each.computed_at <= asked.known_at
    ORDER BY each.as_of DESC
    LIMIT 1
) AS found;

-- name: find_attributes
-- reach: account
-- What subjects were said to be at instants, as far as it was known then. $1 accounts, $2 kind of subjects, $3 keys,
-- $4 instants.
SELECT asked.position - 1 AS position, fact.name, fact.value
FROM unnest($1::text[], $3::text[], $4::timestamptz[]) WITH ORDINALITY AS asked (account, key, at, position)
JOIN LATERAL (
    SELECT DISTINCT ON (name) name, value FROM attribute_fact AS each
    WHERE each.account = asked.account AND each.subject = $2 AND each.key = asked.key AND each.at <= asked.at
      AND each.recorded_at <= asked.at
    ORDER BY name, at DESC, recorded_at DESC, sequence DESC
) AS fact ON true;
