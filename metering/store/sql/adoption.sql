-- name: list_retention
-- reach: account
-- Of the users who first used a feature, how many had it for so many whole weeks, and how many of these used it in that
-- week: week 0 begins with the first use. $1 accounts, or NULL for all; $2 the day; $3 the day to look back to; $4 the end
-- of the rollups' last day; $5 their horizon, $6 whether anything is pending; $7 and $8 service accounts, by account and
-- user; $9 how many weeks.
WITH of_day AS (
    SELECT account, "user", feature, day
    FROM usage_of_days($1::text[], $3::date, $2::date, $4::timestamptz, $5::timestamptz, $6::boolean)
    WHERE is_use AND "user" IS NOT NULL AND feature IS NOT NULL
        AND (account, "user") NOT IN (SELECT * FROM unnest($7::text[], $8::text[]))
    GROUP BY account, "user", feature, day
), aged AS (
    SELECT *, min(day) OVER (PARTITION BY account, "user", feature) AS first_on FROM of_day
), adopted AS (
    SELECT feature, week, count(*) AS users
    FROM (SELECT DISTINCT account, "user", feature, first_on FROM aged) AS adopter
    CROSS JOIN LATERAL generate_series(0, least($9::integer, ($2::date - first_on) / 7) - 1) AS whole (week)
    GROUP BY feature, week
), active AS (
    SELECT feature, week, count(*) AS active
    FROM (
        SELECT DISTINCT account, "user", feature, (day - first_on) / 7 AS week FROM aged
        WHERE first_on + 7 * ((day - first_on) / 7 + 1) <= $2::date
    ) AS used
    GROUP BY feature, week
)
SELECT feature, week, users, coalesce(active, 0) AS active
FROM adopted LEFT JOIN active USING (feature, week)
ORDER BY feature, week;

-- name: count_kept
-- reach: account
-- How many users were there 12 weeks after their first day, and how many of them were active in the last four of these weeks:
-- for each feature of whom used it in the first 14 days, and in the row without one of everybody. Whoever was new in the first
-- four weeks that are looked back to is left out: they may have been there before. The first eight parameters are those of
-- list_retention.
WITH of_day AS (
    SELECT account, "user", feature, day
    FROM usage_of_days($1::text[], $3::date, $2::date, $4::timestamptz, $5::timestamptz, $6::boolean)
    WHERE is_use AND "user" IS NOT NULL AND (account, "user") NOT IN (SELECT * FROM unnest($7::text[], $8::text[]))
    GROUP BY account, "user", feature, day
), life AS (
    SELECT account, "user", first_on, bool_or(day >= first_on + 56 AND day < first_on + 84) AS is_kept
    FROM (SELECT *, min(day) OVER (PARTITION BY account, "user") AS first_on FROM of_day) AS aged
    WHERE first_on >= $3::date + 28 AND first_on <= $2::date - 84
    GROUP BY account, "user", first_on
), tried AS (
    SELECT DISTINCT account, "user", feature, is_kept
    FROM of_day JOIN life USING (account, "user")
    WHERE feature IS NOT NULL AND day < first_on + 14
)
SELECT feature, count(*) AS users, count(*) FILTER (WHERE is_kept) AS kept FROM tried GROUP BY feature
UNION ALL
SELECT NULL, count(*), count(*) FILTER (WHERE is_kept) FROM life;

-- name: list_paths
-- reach: account
-- How often users walk the same way: of each user the pair of features that most of the active days contain one after the
-- other within a session, on how many days, and how many days there were. A session ends with 30 minutes without an event. Read
-- from events. $1 accounts; $2 from; $3 to.
WITH used AS (
    SELECT account, "user", feature, occurred_at, key,
           lag(occurred_at) OVER in_turn AS before_at, lag(feature) OVER in_turn AS before_feature
    FROM event
    WHERE account = ANY ($1::text[]) AND occurred_at >= $2 AND occurred_at < $3 AND NOT voided AND quantity >= 0
        AND classification IS DISTINCT FROM 'background' AND "user" IS NOT NULL AND feature IS NOT NULL
    WINDOW in_turn AS (PARTITION BY account, "user" ORDER BY occurred_at, key)
), of_day AS (
    SELECT account, "user", count(DISTINCT date_bin('1 day', occurred_at, 'epoch')) AS days FROM used GROUP BY account, "user"
), pair AS (
    SELECT account, "user", before_feature, feature, count(DISTINCT date_bin('1 day', occurred_at, 'epoch')) AS days
    FROM used WHERE occurred_at - before_at < interval '30 minutes'
    GROUP BY account, "user", before_feature, feature
)
SELECT DISTINCT ON (account, "user") account, "user" AS key, before_feature AS first_feature, pair.feature AS second_feature,
       coalesce(pair.days, 0) AS days_with, of_day.days AS days
FROM of_day LEFT JOIN pair USING (account, "user")
ORDER BY account, "user", pair.days DESC NULLS LAST, before_feature, pair.feature;

-- name: list_peaks
-- reach: account
-- How many users of an account were there at once, at most: a session lasts from its first event to its last, and as many are
-- there as have begun and not ended. Read from events. The parameters are those of list_paths.
WITH used AS (
    SELECT account, "user", occurred_at,
           occurred_at - lag(occurred_at) OVER (PARTITION BY account, "user" ORDER BY occurred_at) < interval '30 minutes'
               AS goes_on
    FROM event
    WHERE account = ANY ($1::text[]) AND occurred_at >= $2 AND occurred_at < $3 AND NOT voided AND quantity >= 0
        AND classification IS DISTINCT FROM 'background' AND "user" IS NOT NULL
), numbered AS (
    SELECT account, "user", occurred_at, count(*) FILTER (WHERE goes_on IS NOT TRUE) OVER (
        PARTITION BY account, "user" ORDER BY occurred_at ROWS UNBOUNDED PRECEDING) AS number
    FROM used
), session AS (
    SELECT account, min(occurred_at) AS began_at, max(occurred_at) AS ended_at FROM numbered GROUP BY account, "user", number
), step AS (
    -- Who begins at the instant at which another ends is there with that one.
    SELECT account, began_at AS at, 1 AS change FROM session UNION ALL SELECT account, ended_at, -1 FROM session
), present AS (
    SELECT account, sum(change) OVER (PARTITION BY account ORDER BY at, change DESC ROWS UNBOUNDED PRECEDING) AS users FROM step
)
SELECT account, max(users) AS users FROM present GROUP BY account;
