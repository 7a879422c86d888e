-- name: list_attributes
-- reach: account
-- What is known of subjects at the beginning of a day: of each attribute the newest fact. $1 accounts, or NULL for all; $2 the
-- day; $3 the names that are asked for.
SELECT DISTINCT ON (account, subject, key, name) account, subject, key, name, value::text AS value
FROM attribute_fact
WHERE ($1::text[] IS NULL OR account = ANY ($1)) AND at < $2::date::timestamp AT TIME ZONE 'UTC' AND name = ANY ($3::text[])
ORDER BY account, subject, key, name, at DESC, sequence DESC;

-- name: list_contracts
-- reach: account
-- Subscriptions that had begun by a day, with the seats that were held then, and their mean over the window or as much of it
-- as they lived. $1 accounts, or NULL for all; $2 the day; $3 days of the window.
SELECT contract.account, contract.key, (starts_at AT TIME ZONE 'UTC')::date AS starts_on,
       coalesce(ends_at <= bound.window_end, false) AS is_over, (trial_ends_at AT TIME ZONE 'UTC')::date AS trial_ends_on,
       (renews_at AT TIME ZONE 'UTC')::date AS renews_on, monthly_amount, currency_code, held.seats, held.mean_seats
FROM subscription AS contract
CROSS JOIN (
    SELECT $2::date::timestamp AT TIME ZONE 'UTC' AS window_end,
           ($2::date - $3::integer)::timestamp AT TIME ZONE 'UTC' AS window_start
) AS bound
CROSS JOIN LATERAL (
    SELECT (array_agg(seats ORDER BY since DESC))[1] AS seats,
           (sum(seats * seconds) FILTER (WHERE seconds > 0)
               / nullif(sum(seconds) FILTER (WHERE seconds > 0 AND seats IS NOT NULL), 0))::float8 AS mean_seats
    FROM (
        SELECT since, seats, extract(epoch FROM
            coalesce(lead(since) OVER (ORDER BY since), bound.window_end) - greatest(since, bound.window_start)) AS seconds
        FROM subscription_terms AS terms
        WHERE terms.subscription = contract.key AND replaced_at IS NULL AND since < bound.window_end
    ) AS in_turn
) AS held
WHERE ($1::text[] IS NULL OR contract.account = ANY ($1)) AND starts_at < bound.window_end
ORDER BY contract.key;

-- name: list_lives
-- reach: account
-- On which days accounts, subscriptions and users were active, as a row of 0 and 1 from the day on that is looked back to; how
-- many of their events are of the set-up; how many there were in 28 days, and how many of these say that something is wrong; and
-- on which subscriptions a user was. $1 accounts, or NULL for all; $2 the day;
-- $3 the day to look back to; $4 the end of the rollups' last day; $5 their horizon, $6 whether anything is pending; $7 and
-- $8 service accounts, by account and user: what they do is nobody's activity. Days are brought together as bits: there are
-- as many rows as users then, and not as many as their days.
WITH of_user AS MATERIALIZED (
    SELECT account, subscription, "user",
           bit_or(set_bit(repeat('0', $2::date - $3::date)::varbit, day - $3::date, 1)) FILTER (WHERE is_use) AS days,
           sum(events) AS events, sum(events) FILTER (WHERE classification = 'setup') AS setup_events,
           sum(events) FILTER (WHERE day >= $2::date - 28) AS window_events,
           sum(events) FILTER (
               WHERE day >= $2::date - 28 AND classification IN ('error', 'failure', 'help')
           ) AS trouble_events
    FROM usage_of_days($1::text[], $3::date, $2::date, $4::timestamptz, $5::timestamptz, $6::boolean)
    WHERE (account, coalesce("user", '')) NOT IN (SELECT * FROM unnest($7::text[], $8::text[]))
    GROUP BY account, subscription, "user"
)
SELECT account, subject, key, coalesce(bit_or(days)::text, '') AS days, sum(events)::bigint AS events,
       coalesce(sum(setup_events), 0)::bigint AS setup_events,
       coalesce(sum(window_events), 0)::bigint AS window_events,
       coalesce(sum(trouble_events), 0)::bigint AS trouble_events,
       coalesce(array_agg(DISTINCT subscription)
           FILTER (WHERE subject = 'USER' AND subscription IS NOT NULL AND days IS NOT NULL), '{}') AS subscriptions
FROM of_user CROSS JOIN LATERAL (
    VALUES ('ACCOUNT', account), ('SUBSCRIPTION', subscription), ('USER', "user")
) AS subject_of (subject, key)
WHERE key IS NOT NULL
GROUP BY account, subject, key;

-- name: list_uses
-- reach: account
-- What list_lives says of subjects, and which features they used: on which day first, which in the window, how evenly, and how
-- far that is from the mix of the twelve weeks before. The divergence is Jensen and Shannon's, with half an event added to each
-- feature. The parameters are those of list_lives. Both in one statement, for what takes time are the year's rows.
WITH of_user AS MATERIALIZED (
    SELECT account, subscription, "user", product, feature,
           bit_or(set_bit(repeat('0', $2::date - $3::date)::varbit, day - $3::date, 1)) FILTER (WHERE is_use) AS days,
           min(day) FILTER (WHERE is_use) AS first_on, max(day) FILTER (WHERE is_use) AS last_on,
           max(day) FILTER (WHERE is_use AND day < $2::date - 28) AS last_before_on,
           sum(events) AS events, sum(events) FILTER (WHERE classification = 'setup') AS setup_events,
           sum(events) FILTER (WHERE day >= $2::date - 28) AS window_events,
           sum(events) FILTER (
               WHERE day >= $2::date - 28 AND classification IN ('error', 'failure', 'help')
           ) AS trouble_events,
           sum(events) FILTER (WHERE day >= $2::date - 112 AND day < $2::date - 28) AS events_before
    FROM usage_of_days($1::text[], $3::date, $2::date, $4::timestamptz, $5::timestamptz, $6::boolean)
    WHERE (account, coalesce("user", '')) NOT IN (SELECT * FROM unnest($7::text[], $8::text[]))
    GROUP BY account, subscription, "user", product, feature
), of_part AS (
    SELECT account, subscription, "user", bit_or(days) AS days, sum(events) AS events, sum(setup_events) AS setup_events,
           sum(window_events) AS window_events, sum(trouble_events) AS trouble_events
    FROM of_user
    GROUP BY account, subscription, "user"
), of_life AS (
    SELECT account, subject, key, coalesce(bit_or(days)::text, '') AS days, sum(events)::bigint AS events,
           coalesce(sum(setup_events), 0)::bigint AS setup_events,
           coalesce(sum(window_events), 0)::bigint AS window_events,
           coalesce(sum(trouble_events), 0)::bigint AS trouble_events,
           coalesce(array_agg(DISTINCT subscription)
               FILTER (WHERE subject = 'USER' AND subscription IS NOT NULL AND days IS NOT NULL), '{}') AS subscriptions
    FROM of_part CROSS JOIN LATERAL (
        VALUES ('ACCOUNT', account), ('SUBSCRIPTION', subscription), ('USER', "user")
    ) AS subject_of (subject, key)
    WHERE key IS NOT NULL
    GROUP BY account, subject, key
), of_subject AS MATERIALIZED (
    SELECT account, subject, key, product, feature, first_on, last_on, last_before_on,
           coalesce(window_events, 0)::float8 AS events, coalesce(events_before, 0)::float8 AS events_before
    FROM of_user CROSS JOIN LATERAL (
        VALUES ('ACCOUNT', account), ('SUBSCRIPTION', subscription), ('USER', "user")
    ) AS subject_of (subject, key)
    WHERE key IS NOT NULL
), of_feature AS (
    SELECT account, subject, key, feature, min(first_on) AS first_on, max(last_on) AS last_on,
           max(last_before_on) AS last_before_on, sum(events) AS events, sum(events_before) AS events_before
    FROM of_subject WHERE feature IS NOT NULL
    GROUP BY account, subject, key, feature
), total AS (
    SELECT *, sum(events) OVER same AS all_events, sum(events_before) OVER same AS all_before,
           count(*) FILTER (WHERE events + events_before > 0) OVER same / 2.0::float8 AS added
    FROM of_feature
    WINDOW same AS (PARTITION BY account, subject, key)
), share AS (
    SELECT *, (events + 0.5) / nullif(all_events + added, 0) AS p, (events_before + 0.5) / nullif(all_before + added, 0) AS q
    FROM total
), of_features AS (
    SELECT account, subject, key, max(all_events) AS events, max(all_before) AS events_before,
           array_agg(feature ORDER BY feature) FILTER (WHERE first_on IS NOT NULL) AS features,
           array_agg(first_on ORDER BY feature) FILTER (WHERE first_on IS NOT NULL) AS first_uses,
           array_agg(feature ORDER BY feature) FILTER (WHERE last_on >= $2::date - 28) AS used,
           count(*) FILTER (WHERE last_before_on >= $2::date - 56) AS used_before,
           exp(-sum(events / all_events * ln(events / all_events)) FILTER (WHERE events > 0)) AS effective,
           sum((p * ln(2 * p / (p + q)) + q * ln(2 * q / (p + q))) / (2 * ln(2::float8)))
               FILTER (WHERE events + events_before > 0) AS divergence
    FROM share
    GROUP BY account, subject, key
), of_products AS (
    SELECT account, subject, key, array_agg(DISTINCT product ORDER BY product) AS products
    FROM of_subject WHERE last_on >= $2::date - 90
    GROUP BY account, subject, key
)
SELECT account, subject, key, of_life.days, of_life.events, setup_events, window_events, trouble_events, subscriptions,
       coalesce(of_features.events, 0) AS feature_events, coalesce(of_features.events_before, 0) AS feature_events_before,
       coalesce(features, '{}') AS features, coalesce(first_uses, '{}') AS first_uses, coalesce(used, '{}') AS used,
       coalesce(used_before, 0) AS used_before, coalesce(products, '{}') AS products, effective, divergence
FROM of_life LEFT JOIN of_features USING (account, subject, key) LEFT JOIN of_products USING (account, subject, key);

-- name: list_offered_features
-- reach: everyone
-- What products offer, as far as usage tells: the features that one account in twenty used of those that used the product, in
-- 90 days. $1 the day; $2 the end of the rollups' last day; $3 their horizon, $4 whether anything is pending.
WITH of_account AS (
    SELECT product, feature, account FROM usage_of_days(NULL, $1::date - 90, $1::date, $2::timestamptz, $3::timestamptz, $4::boolean)
    WHERE is_use
    GROUP BY product, feature, account
), of_product AS (
    SELECT product, count(DISTINCT account) AS accounts FROM of_account GROUP BY product
), of_feature AS (
    SELECT product, feature, count(*) AS accounts FROM of_account WHERE feature IS NOT NULL GROUP BY product, feature
)
SELECT product, array_agg(feature ORDER BY feature) AS features
FROM of_feature JOIN of_product USING (product)
WHERE of_feature.accounts * 20 >= of_product.accounts
GROUP BY product;

-- name: find_last_day
-- reach: everyone
-- The last day of the window on which anything came in from anybody; NULL where nothing did. $1 the day; $2 the end of the
-- rollups' last day; $3 their horizon, $4 whether anything is pending.
SELECT max(day) AS last_on FROM usage_of_days(NULL, $1::date - 28, $1::date, $2::timestamptz, $3::timestamptz, $4::boolean);

-- name: list_people
-- reach: account
-- How the usage of 28 days is spread over users. $1 accounts, or NULL for all; $2 the day; $3 the end of the rollups' last
-- day; $4 their horizon, $5 whether anything is pending; $6 and $7 service accounts, by account and user; $8 and $9 users
-- who are not expected, in the same way; $10 subjects, $11 their accounts, $12 their keys, $13 how many users are expected
-- of each, $14 their seats or NULL. Zeros fill up what is expected, and the seats.
WITH of_part AS (
    SELECT account, subscription, "user",
           bit_or(set_bit(repeat('0', 56)::varbit, day - ($2::date - 56), 1)) FILTER (WHERE is_use) AS days,
           sum(events) FILTER (WHERE day >= $2::date - 28) AS events,
           min(device) FILTER (WHERE is_use AND day >= $2::date - 28) AS one_device,
           max(device) FILTER (WHERE is_use AND day >= $2::date - 28) AS other_device
    FROM usage_of_days($1::text[], $2::date - 56, $2::date, $3::timestamptz, $4::timestamptz, $5::boolean)
    WHERE "user" IS NOT NULL AND (account, "user") NOT IN (SELECT * FROM unnest($6::text[], $7::text[]))
    GROUP BY account, subscription, "user"
), of_user AS (
    SELECT account, subject, key, "user", coalesce(bit_count(substring(bit_or(days) FROM 29)), 0)::float8 AS days,
           coalesce(bit_count(substring(bit_or(days) FROM 1 FOR 28)), 0) AS days_before,
           coalesce(sum(events), 0)::float8 AS events, min(one_device) < max(other_device) AS has_several_devices,
           (account, "user") NOT IN (SELECT * FROM unnest($8::text[], $9::text[])) AS is_expected
    FROM of_part CROSS JOIN LATERAL (VALUES ('ACCOUNT', account), ('SUBSCRIPTION', subscription)) AS subject_of (subject, key)
    WHERE key IS NOT NULL
    GROUP BY account, subject, key, "user"
), ranked AS (
    SELECT *,
           row_number() OVER (PARTITION BY account, subject, key, days > 0 AND is_expected ORDER BY days) AS place,
           row_number() OVER (PARTITION BY account, subject, key, days > 0 ORDER BY events) AS place_by_events,
           sum(days) OVER (PARTITION BY account, subject, key ORDER BY days DESC, "user" ROWS UNBOUNDED PRECEDING) AS held,
           sum(days) OVER same AS all_days,
           count(*) FILTER (WHERE days > 0) OVER same AS active,
           count(*) FILTER (WHERE days > 0 AND is_expected) OVER same AS active_expected
    FROM of_user
    WINDOW same AS (PARTITION BY account, subject, key)
), placed AS (
    SELECT ranked.*, greatest(expected, active_expected) AS expected_size,
           greatest(expected, active_expected) - active_expected + place AS place_of_expected,
           greatest(seats, active) AS seat_size, greatest(seats, active) - active + place_by_events AS place_of_seat
    FROM ranked LEFT JOIN unnest($10::text[], $11::text[], $12::text[], $13::bigint[], $14::bigint[])
        AS subject_of (subject, account, key, expected, seats) USING (subject, account, key)
)
SELECT account, subject, key, count(*) FILTER (WHERE days > 0) AS active,
       count(*) FILTER (WHERE days_before > 0) AS active_before,
       count(*) FILTER (WHERE days > 0 AND days_before > 0) AS retained,
       avg(days / 28) FILTER (WHERE days > 0) AS stickiness,
       count(*) FILTER (WHERE days >= 20) AS power_users, count(*) FILTER (WHERE days >= 8 AND days < 20) AS core_users,
       count(*) FILTER (WHERE days > 0 AND days < 8) AS casual_users,
       (coalesce(sum(days) FILTER (WHERE days > 0 AND is_expected AND place_of_expected = (expected_size + 1) / 2), 0)
        + coalesce(sum(days) FILTER (WHERE days > 0 AND is_expected AND place_of_expected = (expected_size + 2) / 2), 0)) / 2
           AS median_days,
       percentile_cont(0.5) WITHIN GROUP (ORDER BY events) FILTER (WHERE days > 0) AS median_events,
       max(events) FILTER (WHERE days > 0) / nullif(sum(events) FILTER (WHERE days > 0), 0) AS top_share,
       sum(days) * sum(days) / nullif(sum(days * days), 0) AS effective,
       count(*) FILTER (WHERE days > 0 AND 2 * (held - days) < all_days) AS bus_factor,
       CASE WHEN max(seat_size) > 1 THEN
           (2 * sum(place_of_seat * events) FILTER (WHERE days > 0)
                / nullif(max(seat_size) * sum(events) FILTER (WHERE days > 0), 0)
            - (max(seat_size) + 1)::float8 / max(seat_size)) * max(seat_size) / (max(seat_size) - 1)
       END AS gini,
       count(*) FILTER (WHERE days > 0 AND has_several_devices) AS several_devices
FROM placed
GROUP BY account, subject, key;

-- name: list_weeks
-- reach: account
-- How far a subject's usage has dropped below its own weeks, and where it is going. $1 accounts, or NULL for all; $2 the
-- day; $3 the end of the rollups' last day; $4 their horizon, $5 whether anything is pending; $6 subjects, $7 their
-- accounts, $8 their keys, $9 of how many whole weeks before the day each is looked at; $10 the dispersion that is typical,
-- $11 and $12 what all did together over four weeks and over one: NULL for what these accounts say. The formulas are those
-- of health/drops.py.
WITH of_user AS (
    SELECT account, subscription, "user", ($2::date - 1 - day) / 7 AS week, sum(events) AS events
    FROM usage_of_days($1::text[], $2::date - 112, $2::date, $3::timestamptz, $4::timestamptz, $5::boolean)
    GROUP BY 1, 2, 3, 4
), of_week AS (
    SELECT account, subject, key, week, sum(events)::float8 AS events
    FROM of_user CROSS JOIN LATERAL (
        VALUES ('ACCOUNT', account), ('SUBSCRIPTION', subscription), ('USER', "user")
    ) AS subject_of (subject, key)
    WHERE key IS NOT NULL
    GROUP BY account, subject, key, week
), grid AS MATERIALIZED (
    SELECT subject, account, key, week, coalesce(events, 0) AS events
    FROM unnest($6::text[], $7::text[], $8::text[], $9::integer[]) AS subject_of (subject, account, key, weeks)
    CROSS JOIN LATERAL generate_series(0, weeks - 1) AS of_subject (week)
    LEFT JOIN of_week USING (subject, account, key, week)
), figure AS (
    SELECT subject, account, key,
           count(*) FILTER (WHERE week >= 4)::float8 AS weeks, avg(events) FILTER (WHERE week >= 4) AS mean,
           var_samp(events) FILTER (WHERE week >= 4) AS variance, sum(events) FILTER (WHERE week < 4) AS four_weeks,
           count(*) FILTER (WHERE week BETWEEN 3 AND 14)::float8 AS fast_weeks,
           avg(events) FILTER (WHERE week BETWEEN 3 AND 14) AS fast_mean,
           var_samp(events) FILTER (WHERE week BETWEEN 3 AND 14) AS fast_variance,
           percentile_cont(0.5) WITHIN GROUP (ORDER BY events) FILTER (WHERE week BETWEEN 3 AND 14) AS fast_median,
           sum(events) FILTER (WHERE week = 0) AS one_week,
           array_agg(ln(events + 0.5) ORDER BY week) FILTER (WHERE week < 12) AS logs
    FROM grid
    GROUP BY subject, account, key
), own AS MATERIALIZED (
    SELECT *, weeks >= 8 AS is_long_enough, (variance - mean) / greatest(mean, 1) ^ 2 AS dispersion,
           (fast_variance - fast_mean) / greatest(fast_mean, 1) ^ 2 AS fast_dispersion,
           ln(four_weeks + 0.5) - ln(4 * mean + 0.5) AS change, ln(one_week + 0.5) - ln(fast_median + 0.5) AS fast_change
    FROM figure
    WHERE cardinality(logs) >= 8
), usual AS (
    SELECT coalesce($10::float8, percentile_cont(0.5) WITHIN GROUP (ORDER BY dispersion) FILTER (WHERE mean > 20), 0.03)
               AS usual_dispersion,
           coalesce($11::float8, CASE WHEN count(*) >= 30 THEN percentile_cont(0.5) WITHIN GROUP (ORDER BY change) END, 0)
               AS usual_change,
           coalesce($12::float8, CASE WHEN count(*) >= 30 THEN percentile_cont(0.5) WITHIN GROUP (ORDER BY fast_change) END, 0)
               AS usual_fast_change
    FROM own
    WHERE subject = 'ACCOUNT' AND is_long_enough
), spread AS (
    SELECT *, greatest(0.005, (weeks * least(1, mean / 20) * least(greatest(dispersion, 0), 2) + 6 * usual_dispersion)
               / (weeks * least(1, mean / 20) + 6)) AS variability,
           greatest(0.005, (fast_weeks * least(1, fast_mean / 20) * least(greatest(fast_dispersion, 0), 2)
               + 6 * usual_dispersion) / (fast_weeks * least(1, fast_mean / 20) + 6)) AS fast_variability
    FROM own CROSS JOIN usual
), pair AS MATERIALIZED (
    SELECT later, earlier
    FROM generate_series(1, 11) AS later CROSS JOIN LATERAL generate_series(later + 1, 12) AS earlier
)
SELECT subject, account, key,
       CASE WHEN is_long_enough THEN
           (usual_change - change) / sqrt((1 / (4 * mean + 0.5) + 0.4 * variability) * (1 + 4 / weeks))
       END AS drop_z,
       CASE WHEN is_long_enough THEN
           (usual_fast_change - fast_change)
               / sqrt((1 / (fast_median + 0.5) + fast_variability) * (1 + 1.57 / fast_weeks))
       END AS drop_z_week,
       exp(4 * (
           SELECT percentile_cont(0.5) WITHIN GROUP (ORDER BY (logs[later] - logs[earlier]) / (earlier - later))
           FROM pair WHERE earlier <= cardinality(logs)
       )) - 1 AS trend, usual_dispersion, usual_change, usual_fast_change
FROM spread;

-- name: list_signals
-- reach: account
-- The newest signal of each name, subject and respondent, before a day, and how many of it there were in 28 days. Who answers
-- for an account or a subscription is told apart by source and external id. $1 accounts, or NULL for all; $2 the day; $3 the
-- names that are asked for; $4 of these, the ones that everybody answers.
SELECT DISTINCT ON (account, subject, key, name, respondent)
       account, subject, key, name, value, at, expires_at,
       count(*) FILTER (WHERE at >= ($2::date - 28)::timestamp AT TIME ZONE 'UTC')
           OVER (PARTITION BY account, subject, key, name, respondent) AS lately
FROM (
    SELECT *, CASE WHEN name = ANY ($4::text[]) AND subject <> 'USER'
                   THEN source || ' ' || coalesce(external_id, sequence::text) END AS respondent
    FROM signal
    WHERE ($1::text[] IS NULL OR account = ANY ($1)) AND at < $2::date::timestamp AT TIME ZONE 'UTC' AND name = ANY ($3::text[])
) AS told
ORDER BY account, subject, key, name, respondent, at DESC, sequence DESC;

-- name: find_told
-- reach: everyone
-- Which of these names anybody was told of in 180 days. $1 the day; $2 the names.
SELECT DISTINCT name FROM signal
WHERE name = ANY ($2::text[]) AND at < $1::date::timestamp AT TIME ZONE 'UTC'
    AND at >= ($1::date - 180)::timestamp AT TIME ZONE 'UTC';
