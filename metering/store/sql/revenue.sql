-- name: list_amounts
-- reach: account
-- What subscriptions brought in each month at some instants: nothing before they start, after they end, and while their trial
-- runs. An amount is what it was then: before the first change after the instant, or as it is now. Where it was never told, it is
-- NULL. $1 accounts, or NULL for all; $2 the instants, in order of time.
SELECT contract.account, contract.key, contract.currency_code,
       array_agg(
           CASE WHEN starts_at > asked.at OR ends_at <= asked.at OR trial_ends_at > asked.at THEN 0
                WHEN was.is_other THEN was.amount ELSE monthly_amount END
           ORDER BY asked.place
       ) AS amounts
FROM subscription AS contract
CROSS JOIN unnest($2::timestamptz[]) WITH ORDINALITY AS asked (at, place)
LEFT JOIN LATERAL (
    SELECT true AS is_other, (before ->> 'monthly_amount')::numeric AS amount FROM subscription_change
    WHERE subscription = contract.key AND changed_at > asked.at AND before ? 'monthly_amount'
    ORDER BY changed_at, id LIMIT 1
) AS was ON true
WHERE ($1::text[] IS NULL OR contract.account = ANY ($1)) AND starts_at <= ($2::timestamptz[])[cardinality($2::timestamptz[])]
GROUP BY contract.account, contract.key, contract.currency_code
ORDER BY contract.key;

-- name: count_trials
-- reach: account
-- How many trials began in a period and had ended long enough before an instant, and how many of these are or were paid for
-- since. $1 accounts, or NULL for all; $2 from; $3 to; $4 the instant less the days of grace; $5 days of grace.
SELECT count(*) AS trials,
       count(*) FILTER (WHERE ends_at IS NULL OR ends_at > trial_ends_at + make_interval(days => $5::integer)) AS converted
FROM subscription
WHERE ($1::text[] IS NULL OR account = ANY ($1)) AND starts_at >= $2 AND starts_at < $3 AND trial_ends_at <= $4;

-- name: list_plans
-- reach: account
-- Which plan each subscription was on last before an instant, as it is known now. $1 accounts, or NULL for all; $2 the instant.
SELECT DISTINCT ON (terms.subscription) contract.account, terms.subscription AS key, terms.plan
FROM subscription_terms AS terms JOIN subscription AS contract ON contract.key = terms.subscription
WHERE ($1::text[] IS NULL OR contract.account = ANY ($1)) AND terms.replaced_at IS NULL AND terms.since < $2::timestamptz
ORDER BY terms.subscription, terms.since DESC, terms.id DESC;

-- name: count_users
-- reach: account
-- How many users were active on the subscriptions of each plan. $1 accounts, or NULL for all; $2 the day to which, $3 the day from
-- which; $4 the end of the rollups' last day; $5 their horizon, $6 whether anything is pending; $7 and $8 service accounts, by
-- account and user; $9, $10 and $11 accounts, subscriptions and plans, side by side.
SELECT plan, count(*) AS users
FROM (
    SELECT DISTINCT plan, account, "user"
    FROM usage_of_days($1::text[], $3::date, $2::date, $4::timestamptz, $5::timestamptz, $6::boolean)
    JOIN unnest($9::text[], $10::text[], $11::text[]) AS sold (account, subscription, plan) USING (account, subscription)
    WHERE is_use AND "user" IS NOT NULL AND (account, "user") NOT IN (SELECT * FROM unnest($7::text[], $8::text[]))
) AS active
GROUP BY plan;
