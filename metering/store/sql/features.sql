-- name: list_features
-- reach: account
-- What was used in a year of each feature of each product: by how many users and accounts in 28 days and in the 28 before, on how
-- many days; how many users and accounts the product had in the 28 days; and how many accounts are entitled to a feature of the
-- name, and did not use it in the 28 days. A feature that somebody is entitled to and nobody used is of no product. $1 accounts, or
-- NULL for all; $2 the day; $3 the day to look back to; $4 the end of the rollups' last day; $5 their horizon, $6 whether anything
-- is pending; $7 and $8 service accounts, by account and user; $9 and $10 who is entitled to what, by account and feature.
WITH of_user AS MATERIALIZED (
    SELECT product, feature, account, "user", min(day) AS first_on, max(day) AS last_on,
           coalesce(bit_count(bit_or(set_bit(repeat('0', 28)::varbit, day - ($2::date - 28), 1))
               FILTER (WHERE day >= $2::date - 28)), 0) AS days,
           bool_or(day < $2::date - 28 AND day >= $2::date - 56) AS was_before,
           coalesce(sum(events) FILTER (WHERE day >= $2::date - 28), 0) AS events
    FROM usage_of_days($1::text[], $3::date, $2::date, $4::timestamptz, $5::timestamptz, $6::boolean)
    WHERE is_use AND (account, coalesce("user", '')) NOT IN (SELECT * FROM unnest($7::text[], $8::text[]))
    GROUP BY product, feature, account, "user"
), of_product AS (
    SELECT product, count(DISTINCT (account, "user")) FILTER (WHERE "user" IS NOT NULL) AS product_users,
           count(DISTINCT account) AS product_accounts
    FROM of_user WHERE days > 0
    GROUP BY product
), of_feature AS (
    SELECT product, feature, count(*) FILTER (WHERE days > 0 AND "user" IS NOT NULL) AS users,
           count(*) FILTER (WHERE was_before AND "user" IS NOT NULL) AS users_before,
           coalesce(sum(days) FILTER (WHERE "user" IS NOT NULL), 0)::bigint AS user_days,
           sum(events)::bigint AS events,
           count(DISTINCT account) FILTER (WHERE days > 0) AS accounts, min(first_on) AS first_on, max(last_on) AS last_on
    FROM of_user WHERE feature IS NOT NULL
    GROUP BY product, feature
), entitlement AS (
    SELECT feature, count(*) AS entitled, count(*) FILTER (WHERE used.account IS NULL) AS unused
    FROM (SELECT DISTINCT account, feature FROM unnest($9::text[], $10::text[]) AS sold (account, feature)) AS sold
    LEFT JOIN (SELECT DISTINCT account, feature FROM of_user WHERE days > 0) AS used USING (account, feature)
    GROUP BY feature
)
SELECT product, feature, users, users_before, user_days, events, accounts, first_on, last_on,
       coalesce(product_users, 0) AS product_users, coalesce(product_accounts, 0) AS product_accounts,
       coalesce(entitled, 0) AS entitled, coalesce(unused, 0) AS unused
FROM of_feature LEFT JOIN of_product USING (product) LEFT JOIN entitlement USING (feature)
UNION ALL
SELECT NULL, feature, 0, 0, 0, 0, 0, NULL, NULL, 0, 0, entitled, unused
FROM entitlement WHERE feature NOT IN (SELECT feature FROM of_feature);
