-- name: list_near
-- Warnings of accounts, of all in them, and of everybody, that may have to do with a day. $1 accounts; $2 and $3 between which
-- days something of them lies.
SELECT id, type, subject, account, key, about, as_of, last_on, told_at, withdrawn_at
FROM warning
WHERE (account = ANY ($1::text[]) OR account IS NULL) AND last_on > $2 AND as_of < $3
ORDER BY as_of, raised_at, id;

-- name: change
-- From when to when warnings were so, and whether they were at all. $1 ids, $2 first days, $3 last days, $4 whether they are
-- withdrawn, $5 when.
UPDATE warning SET as_of = changed.as_of, last_on = changed.last_on,
    withdrawn_at = CASE WHEN changed.is_withdrawn THEN coalesce(withdrawn_at, $5::timestamptz) END
FROM unnest($1::uuid[], $2::date[], $3::date[], $4::boolean[]) AS changed (id, as_of, last_on, is_withdrawn)
WHERE warning.id = changed.id;

-- name: is_after_first_day
-- Whether anybody was watched on an earlier day. $1 the day.
SELECT EXISTS (SELECT FROM warning_watch WHERE as_of < $1);

-- name: insert
-- Raise warnings. $1 the day, $2 when, $3 the version of the thresholds; $4 ids, $5 types, $6 kinds of subjects, $7 accounts,
-- $8 keys, $9 what they are about, $10 evidence as JSON, $11 whether they are told.
INSERT INTO warning (
    id, type, subject, account, key, about, as_of, last_on, evidence, thresholds_version, raised_at, told_at
)
SELECT raised.id, raised.type, raised.subject, raised.account, raised.key, raised.about, $1, $1, raised.evidence, $3,
       $2::timestamptz, CASE WHEN raised.is_told THEN $2::timestamptz END
FROM unnest(
    $4::uuid[], $5::text[], $6::text[], $7::text[], $8::text[], $9::text[], $10::jsonb[], $11::boolean[]
) AS raised (id, type, subject, account, key, about, evidence, is_told);

-- name: watch
-- Add how many subjects were looked at on a day. $1 the day, $2 kinds of subjects, $3 how many of each. A day is one of
-- everybody, too.
INSERT INTO warning_watch AS known (as_of, subject, subjects)
SELECT $1::date, subject, subjects FROM unnest($2::text[], $3::bigint[]) AS watched (subject, subjects)
UNION ALL
SELECT $1::date, 'EVERYONE', 1
ON CONFLICT (as_of, subject) DO UPDATE
    SET subjects = CASE known.subject WHEN 'EVERYONE' THEN 1 ELSE known.subjects + excluded.subjects END;

-- name: list_warnings
-- reach: everyone
-- Warnings, the newest first. $1 types, $2 the account, $3 the day on which, or after which, they were so; each NULL for all;
-- $4 whether withdrawn ones, too; $5 and $6 the first day and the id of the one that they come after, or NULL; $7 how many.
SELECT * FROM warning
WHERE ($1::text[] IS NULL OR type = ANY ($1)) AND ($2::text IS NULL OR account = $2)
  AND ($3::date IS NULL OR last_on >= $3) AND ($4::boolean OR withdrawn_at IS NULL)
  AND ($5::date IS NULL OR (as_of, id) < ($5, $6::uuid))
ORDER BY as_of DESC, id DESC
LIMIT $7;

-- name: list_of_accounts
-- reach: everyone
-- The newest warnings of accounts, and of all in them, that are not withdrawn. $1 accounts, $2 how many of each.
SELECT asked.position - 1 AS position, found.*
FROM unnest($1::text[], $2::int[]) WITH ORDINALITY AS asked (account, count, position)
CROSS JOIN LATERAL (
    SELECT * FROM warning WHERE warning.account = asked.account AND withdrawn_at IS NULL
    ORDER BY as_of DESC, id DESC LIMIT asked.count
) AS found
ORDER BY asked.position, found.as_of DESC, found.id DESC;

-- name: count_rates
-- reach: everyone
-- How many warnings of each type and kind of subject there are from a day on, and how many days of subjects an eye was kept
-- on them. $1 the day.
SELECT raised.type, watched.subject, raised.warnings, watched.subject_days
FROM (
    SELECT subject, sum(subjects)::bigint AS subject_days FROM warning_watch WHERE as_of >= $1 GROUP BY subject
) AS watched
JOIN (
    SELECT type, subject, count(*) AS warnings FROM warning
    WHERE as_of >= $1 AND withdrawn_at IS NULL GROUP BY type, subject
) AS raised USING (subject)
WHERE watched.subject_days > 0
ORDER BY raised.type, watched.subject;
