-- name: find_priors
-- reach: everyone
-- The newest priors of each scorecard that hold on a day. $1 the day.
SELECT prior.key, prior.version, prior.since, prior.path, prior.prior
FROM scorecard_prior AS prior
WHERE prior.since = (
    SELECT max(each.since) FROM scorecard_prior AS each
    WHERE each.key = prior.key AND each.version = prior.version AND each.since <= $1
);

-- name: list_priors
-- reach: everyone
-- All priors that a version of a scorecard ever had, the earliest first. $1 key, $2 version.
SELECT since, path, prior FROM scorecard_prior WHERE key = $1 AND version = $2 ORDER BY since;

-- name: keep_priors
-- Freeze the priors of a version from a day on, unless there are some of that day. $1 key, $2 version, $3 the day; $4 paths as
-- JSON, $5 priors, $6 how many peers each is of.
INSERT INTO scorecard_prior (key, version, since, path, prior, peers)
SELECT $1, $2, $3, path, prior, peers
FROM unnest($4::text[], $5::float8[], $6::integer[]) AS found (path, prior, peers)
ON CONFLICT DO NOTHING;

-- name: list_measured
-- reach: account
-- What was measured last, in the week up to a day, of those in these accounts whom a scorecard scored. $1 accounts, $2 kind of
-- subjects, $3 purpose, $4 the scorecard's key, $5 the day.
SELECT DISTINCT ON (health.account, health.key) health.as_of, measured.metrics
FROM health
JOIN measured
  ON measured.account = health.account AND measured.subject = health.subject AND measured.key = health.key
 AND measured.as_of = health.as_of
WHERE health.account = ANY ($1::text[]) AND health.subject = $2 AND health.purpose = $3 AND health.scorecard = $4
  AND health.as_of > $5::date - 7 AND health.as_of <= $5 AND health.band <> 'churned'
ORDER BY health.account, health.key, health.as_of DESC;
