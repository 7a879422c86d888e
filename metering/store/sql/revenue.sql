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
