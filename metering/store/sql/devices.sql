-- name: list_shares
-- reach: account
-- On which devices there was usage in 28 days: of each device (NULL: not said) how many days of users, users and events; and of
-- the most used ones up to how many features the most typical come first. The last row, whose rank is NULL, is of all together,
-- with how many users were on several. $1 accounts, or NULL for all; $2 the day; $3 the end of the rollups' last day; $4 their
-- horizon, $5 whether anything is pending; $6 and $7 service accounts, by account and user; $8 how many devices.
WITH of_day AS MATERIALIZED (
    SELECT account, "user", device, feature, day, sum(events) AS events, bool_or(is_use) AND "user" IS NOT NULL AS is_active
    FROM usage_of_days($1::text[], $2::date - 28, $2::date, $3::timestamptz, $4::timestamptz, $5::boolean)
    WHERE (account, coalesce("user", '')) NOT IN (SELECT * FROM unnest($6::text[], $7::text[]))
    GROUP BY account, "user", device, feature, day
), of_device AS (
    SELECT device, count(DISTINCT (account, "user", day)) FILTER (WHERE is_active) AS active_days,
           count(DISTINCT (account, "user")) FILTER (WHERE is_active) AS users, sum(events) AS events,
           row_number() OVER (ORDER BY sum(events) DESC, device NULLS LAST) AS rank
    FROM of_day GROUP BY device
), of_user AS (
    SELECT account, "user", count(DISTINCT device) + max((device IS NULL)::integer) AS devices
    FROM of_day WHERE is_active GROUP BY account, "user"
), feature AS (
    SELECT device, feature, sum(events) AS events FROM of_day WHERE feature IS NOT NULL GROUP BY device, feature
), known AS (
    SELECT device, feature, events, sum(events) OVER (PARTITION BY device) AS of_device,
           sum(events) OVER (PARTITION BY feature) AS of_feature, sum(events) OVER () AS of_all
    FROM feature
), listed AS (
    SELECT device, array_agg(feature ORDER BY lift DESC, feature) AS features, array_agg(lift ORDER BY lift DESC, feature) AS lifts
    FROM (
        SELECT device, feature, (events / of_device / (of_feature / of_all))::float8 AS lift FROM known
    ) AS lifted
    GROUP BY device
)
SELECT rank, of_device.device, active_days, users, events, coalesce(features, '{}') AS features, coalesce(lifts, '{}') AS lifts
FROM of_device LEFT JOIN listed ON listed.device IS NOT DISTINCT FROM of_device.device
WHERE rank <= $8
UNION ALL
SELECT NULL, NULL, coalesce((SELECT sum(active_days) FROM of_device), 0), (SELECT count(*) FROM of_user),
       coalesce((SELECT sum(events) FROM of_device), 0), '{}',
       ARRAY[(SELECT count(*) FILTER (WHERE devices > 1) FROM of_user)::float8]
ORDER BY rank;
