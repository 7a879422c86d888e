-- name: take_turns
-- Nobody else publishes this plan until we have committed: its versions are counted without gaps. $1: the lock.
SELECT pg_advisory_xact_lock($1);

-- name: insert_version
-- Add a version. $1 plan, $2 version, $3 definition as JSON, $4 overlaps as JSON, $5 by whom.
INSERT INTO plan_version (plan, version, definition, overlapping, published_by)
VALUES ($1, $2, $3, $4, $5)
RETURNING *;

-- name: find_version
-- reach: everyone
-- This version of a plan, or its newest. $1 plan, $2 version or NULL.
SELECT * FROM plan_version
WHERE plan = $1 AND ($2::integer IS NULL OR version = $2)
ORDER BY version DESC
LIMIT 1;

-- name: find_versions
-- reach: everyone
-- These versions of plans. $1 plans, $2 versions, side by side.
SELECT plan_version.* FROM plan_version
JOIN unnest($1::text[], $2::integer[]) AS wanted (plan, version) USING (plan, version);

-- name: list_plans
-- reach: everyone
-- Plans by key, each in its newest version. $1 the key that they come after, or NULL; $2 how many.
SELECT DISTINCT ON (plan) * FROM plan_version
WHERE $1::text IS NULL OR plan > $1
ORDER BY plan, version DESC
LIMIT $2;

-- name: list_versions
-- reach: everyone
-- All versions of these plans, in order. $1 plans.
SELECT definition FROM plan_version WHERE plan = ANY ($1::text[]) ORDER BY plan, version;
