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
