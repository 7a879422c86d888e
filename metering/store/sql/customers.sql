-- name: find_customer
-- reach: account, subscription, user
-- The account of this key, if it was put, or has subscriptions or usage that are within reach. $1 key, $2 subscriptions within
-- reach, or NULL; $3 whether no more than one user is.
SELECT $1::text AS key, account.name, coalesce(account.attributes, '{}') AS attributes
FROM (SELECT) AS one LEFT JOIN account ON account.key = $1
WHERE account.key IS NOT NULL
   OR NOT $3::boolean AND EXISTS (
       SELECT FROM subscription WHERE account = $1 AND ($2::text[] IS NULL OR key = ANY ($2))
   )
   OR $2::text[] IS NULL AND NOT $3::boolean AND EXISTS (SELECT FROM usage_day_by_account WHERE account = $1);

-- name: list_customers
-- reach: account, subscription, user
-- A page of customers, and how many there are, in one order of six. $1 accounts, $2 subscriptions within reach, or NULL;
-- $3 whether no more than one user is; $4 since when usage makes a customer; $5 now; $6 today; $7 whether scores are asked for;
-- kept are: $8 bands, $9 attributes that contain this JSON, $10 a part of key or name, $11 a renewal before an instant, or NULL;
-- $12 the order: KEY, SCORE, SCORE_CHANGE, MONTHLY_AMOUNT, RENEWS_AT; $13 1 upwards, -1 downwards; what has no value is last;
-- $14 and $15 the key and the value that the page comes after, or NULL; $16 how many.
WITH customer AS (
    SELECT key FROM account WHERE ($1::text[] IS NULL OR key = ANY ($1))
    UNION
    SELECT account FROM subscription
    WHERE NOT $3::boolean AND ($1::text[] IS NULL OR account = ANY ($1)) AND ($2::text[] IS NULL OR key = ANY ($2))
    UNION
    SELECT account FROM usage_day_by_account
    WHERE $2::text[] IS NULL AND NOT $3::boolean AND bucket >= $4 AND ($1::text[] IS NULL OR account = ANY ($1))
), contract AS (
    SELECT account, min(renews_at) AS renews_at,
           CASE WHEN count(DISTINCT currency_code) = 1 THEN sum(monthly_amount) END AS monthly_amount
    FROM subscription
    WHERE NOT $3::boolean AND ($1::text[] IS NULL OR account = ANY ($1)) AND ($2::text[] IS NULL OR key = ANY ($2))
      AND starts_at <= $5 AND (ends_at IS NULL OR ends_at > $5)
    GROUP BY account
), shown AS (
    SELECT customer.key, account.name, coalesce(account.attributes, '{}') AS attributes, contract.renews_at,
           contract.monthly_amount, latest.score, coalesce(latest.band, 'unknown') AS band,
           latest.score - earlier.score AS score_change
    FROM customer
    LEFT JOIN account ON account.key = customer.key
    LEFT JOIN contract ON contract.account = customer.key
    LEFT JOIN LATERAL (
        SELECT score, band, as_of FROM health
        WHERE $7::boolean AND health.account = customer.key AND subject = 'ACCOUNT' AND health.key = customer.key
          AND purpose = 'health' AND as_of <= $6
        ORDER BY as_of DESC, computed_at DESC
        LIMIT 1
    ) AS latest ON true
    LEFT JOIN LATERAL (
        SELECT score FROM health
        WHERE $7::boolean AND health.account = customer.key AND subject = 'ACCOUNT' AND health.key = customer.key
          AND purpose = 'health' AND as_of <= latest.as_of - 28
        ORDER BY as_of DESC, computed_at DESC
        LIMIT 1
    ) AS earlier ON true
), placed AS (
    SELECT key, name, attributes,
           CASE $12::text
               WHEN 'SCORE' THEN score::numeric
               WHEN 'SCORE_CHANGE' THEN score_change::numeric
               WHEN 'MONTHLY_AMOUNT' THEN monthly_amount
               WHEN 'RENEWS_AT' THEN extract(epoch FROM renews_at)
               ELSE 0
           END AS place
    FROM shown
    WHERE ($8::text[] IS NULL OR band = ANY ($8))
      AND ($9::jsonb IS NULL OR attributes @> $9)
      AND ($10::text IS NULL OR position(lower($10) IN lower(key || ' ' || coalesce(name, ''))) > 0)
      AND ($11::timestamptz IS NULL OR renews_at < $11)
), page AS (
    SELECT key, name, attributes, place FROM placed
    WHERE $14::text IS NULL
       OR place IS NULL AND ($15::numeric IS NOT NULL OR key > $14)
       OR place * $13::int > $15::numeric * $13::int
       OR place = $15::numeric AND CASE WHEN $12 = 'KEY' AND $13 < 0 THEN key < $14 ELSE key > $14 END
    ORDER BY place IS NULL, place * $13::int, CASE WHEN $12 = 'KEY' AND $13 < 0 THEN key END DESC, key
    LIMIT $16
)
SELECT total.customers, page.*
FROM (SELECT count(*) AS customers FROM placed) AS total LEFT JOIN page ON true
ORDER BY place IS NULL, place * $13::int, CASE WHEN $12 = 'KEY' AND $13 < 0 THEN key END DESC, key;

-- name: read_portfolio
-- reach: account
-- Customers by band and by attributes as of a day, and what those that run pay a month, by currency; a row without a currency
-- tells how many they are. By quarter, what is paid stands where its subscription renews, and so is a customer counted in each
-- of these; who has no subscription that runs is in none. $1 accounts within reach, or NULL; $2 purpose; $3 the day; $4 the
-- instant after it; $5 since when usage makes a customer; $6 names of attributes; $7 how many rows at most; $8 whether by the
-- quarter of the renewal.
WITH customer AS (
    SELECT key FROM account WHERE ($1::text[] IS NULL OR key = ANY ($1))
    UNION
    SELECT account FROM subscription WHERE ($1::text[] IS NULL OR account = ANY ($1)) AND starts_at < $4
    UNION
    SELECT account FROM usage_day_by_account
    WHERE bucket >= $5 AND bucket < $4 AND ($1::text[] IS NULL OR account = ANY ($1))
), said AS (
    SELECT account, jsonb_object_agg(name, value) AS attributes
    FROM (
        SELECT DISTINCT ON (account, name) account, name, value
        FROM attribute_fact
        WHERE subject = 'ACCOUNT' AND ($1::text[] IS NULL OR account = ANY ($1)) AND name = ANY ($6::text[]) AND at < $4
        ORDER BY account, name, at DESC, recorded_at DESC, sequence DESC
    ) AS fact
    GROUP BY account
), banded AS (
    SELECT customer.key AS account, coalesce(latest.band, 'unknown') AS band,
           (SELECT coalesce(jsonb_object_agg(name, said.attributes -> name), '{}') FROM unnest($6::text[]) AS asked (name))
               AS key
    FROM customer
    LEFT JOIN said ON said.account = customer.key
    LEFT JOIN LATERAL (
        SELECT band FROM health
        WHERE health.account = customer.key AND subject = 'ACCOUNT' AND health.key = customer.key AND purpose = $2
          AND as_of <= $3
        ORDER BY as_of DESC, computed_at DESC
        LIMIT 1
    ) AS latest ON true
), paid AS (
    SELECT account, currency_code, sum(monthly_amount) AS monthly_amount,
           CASE WHEN $8::boolean THEN date_trunc('quarter', renews_at AT TIME ZONE 'UTC')::date END AS renews_in
    FROM subscription
    WHERE ($1::text[] IS NULL OR account = ANY ($1)) AND starts_at < $4 AND (ends_at IS NULL OR ends_at >= $4)
      AND ($8::boolean OR monthly_amount IS NOT NULL)
    GROUP BY account, currency_code, renews_in
)
SELECT key::text AS key, band, renews_in, paid.currency_code, count(DISTINCT banded.account) AS accounts,
       sum(paid.monthly_amount) AS monthly_amount, grouping(paid.currency_code) = 1 AS is_total
FROM banded LEFT JOIN paid ON paid.account = banded.account
GROUP BY GROUPING SETS ((key, band, renews_in), (key, band, renews_in, paid.currency_code))
ORDER BY key::text, band, renews_in, grouping(paid.currency_code) DESC, paid.currency_code
LIMIT $7;

-- name: list_users
-- reach: account, subscription, user
-- Pages of users by key, each of an account, with the last day on which they used it, when that was as far as events are kept,
-- and how many of the last 28 days they did; and how many users the account has. By the pages' places: $1 the accounts; $9 the
-- keys that they come after, or NULL; $10 how many. Of all of them: $2 today; $3 tomorrow; $4 the day to look back to; $5 up to
-- where days and $6 quarters of an hour are rolled up; $7 subscriptions and $8 the user within reach, or NULL; $11 whether
-- anything is pending.
WITH asked AS (
    SELECT * FROM unnest($1::text[], $9::text[], $10::integer[]) WITH ORDINALITY AS asked (account, after, rows, place)
), used AS MATERIALIZED (
    SELECT account, "user" AS key, max(day) AS last_on,
           count(DISTINCT day) FILTER (WHERE is_use AND day > $2::date - 28) AS days
    FROM usage_of_days($1::text[], $4::date, $3::date, $5::timestamptz, $6::timestamptz, $11::boolean)
    WHERE "user" IS NOT NULL AND ($7::text[] IS NULL OR subscription = ANY ($7)) AND ($8::text IS NULL OR "user" = $8)
    GROUP BY account, "user"
), known AS MATERIALIZED (
    SELECT account, key FROM used
    UNION
    SELECT account, key FROM attribute_fact
    WHERE account = ANY ($1) AND subject = 'USER' AND $7::text[] IS NULL AND ($8::text IS NULL OR key = $8)
)
SELECT asked.place, (SELECT count(*) FROM known WHERE known.account = asked.account) AS users, page.key, page.days,
       coalesce(seen.at, page.last_on::timestamp AT TIME ZONE 'UTC') AS last_used_at
FROM asked
LEFT JOIN LATERAL (
    SELECT known.key, used.last_on, coalesce(used.days, 0) AS days
    FROM known LEFT JOIN used ON used.account = known.account AND used.key = known.key
    WHERE known.account = asked.account AND (asked.after IS NULL OR known.key > asked.after)
    ORDER BY known.key
    LIMIT asked.rows
) AS page ON true
LEFT JOIN LATERAL (
    SELECT max(occurred_at) AS at FROM event
    WHERE account = asked.account AND "user" = page.key AND NOT voided
      AND ($7::text[] IS NULL OR subscription = ANY ($7))
      AND occurred_at >= page.last_on::timestamp AT TIME ZONE 'UTC'
      AND occurred_at < (page.last_on + 1)::timestamp AT TIME ZONE 'UTC'
) AS seen ON true
ORDER BY asked.place, page.key;
