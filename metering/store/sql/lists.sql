-- name: find_scored_day
-- reach: everyone
-- The last day, up to one, on which everybody was scored; NULL where there was none. $1 the day.
SELECT max(as_of) AS as_of FROM health_day WHERE completed_at IS NOT NULL AND as_of <= $1;

-- name: list_subjects
-- reach: account
-- A page of the subjects that a rule is about, by what was measured of each last, and how many there are. Who shows most signs
-- comes first, then who ranks first, what has no rank last. What was measured is looked at once of everybody, and brought
-- together with facts only of those who are shown: it is unpacked each time. $1 accounts within reach, or NULL; $2 kind of
-- subject; measured $3 from a day on, and $4 up to a day; $5 what is required of metrics and $6 of facts, and $7 each sign, of
-- metrics alone, as SQL/JSON paths with $8 thresholds; $9 how many signs at least; $10 the metric that ranks, and $11 1 upwards, -1 downwards; whether $12 lowest
-- scores and $13 quiet days are asked for; kept are accounts with $14 bands, $15 attributes that contain this JSON, $16 a part
-- of key or name, $17 a renewal before an instant, or NULL; the page comes after $18 an account, $19 a key, $20 signs and
-- $21 a rank, or NULL; $22 how many; $23 the instant after the day; $24 signals by which somebody speaks with us.
WITH candidate AS MATERIALIZED (
    SELECT account, key, as_of, (metrics #>> ARRAY[$10::text, 'value'])::float8 AS rank, (
               SELECT count(*)::integer FROM unnest($7::text[]::jsonpath[]) AS sign (path)
               WHERE jsonb_path_match(metrics, path, $8::jsonb, true)
           ) AS signs
    FROM measured
    WHERE subject = $2 AND as_of >= $3 AND as_of <= $4 AND ($1::text[] IS NULL OR account = ANY ($1))
      AND jsonb_path_match(metrics, $5::text::jsonpath, $8, true)
      AND ($3 = $4 OR NOT EXISTS (
          SELECT FROM measured AS later
          WHERE later.account = measured.account AND later.subject = measured.subject AND later.key = measured.key
            AND later.as_of > measured.as_of AND later.as_of <= $4
      ))
), whole AS MATERIALIZED (
    SELECT asked.account, account.name, coalesce(account.attributes, '{}') AS attributes, latest.score,
           coalesce(latest.band, 'unknown') AS band, steady.lowest, quiet.days AS quiet_days
    FROM (SELECT DISTINCT account FROM candidate) AS asked
    LEFT JOIN account ON account.key = asked.account
    LEFT JOIN LATERAL (
        SELECT score, band FROM health
        WHERE health.account = asked.account AND subject = 'ACCOUNT' AND health.key = asked.account AND purpose = 'health'
          AND as_of <= $4
        ORDER BY as_of DESC, computed_at DESC
        LIMIT 1
    ) AS latest ON true
    LEFT JOIN LATERAL (
        SELECT CASE WHEN min(as_of) <= $4::date - 77 THEN min(coalesce(score, 0)) END AS lowest
        FROM (
            SELECT DISTINCT ON (as_of) as_of, score FROM health
            WHERE $12::boolean AND health.account = asked.account AND subject = 'ACCOUNT' AND health.key = asked.account
              AND purpose = 'health' AND as_of > $4::date - 84 AND as_of <= $4
            ORDER BY as_of, computed_at DESC
        ) AS of_day
    ) AS steady ON true
    LEFT JOIN LATERAL (
        SELECT $4::date - (max(at) AT TIME ZONE 'UTC')::date AS days FROM signal
        WHERE $13::boolean AND signal.account = asked.account AND name = ANY ($24::text[]) AND at < $23
    ) AS quiet ON true
), known AS MATERIALIZED (
    SELECT candidate.*, name, whole.attributes, jsonb_strip_nulls(jsonb_build_object(
               'account_score', CASE WHEN score IS NOT NULL THEN jsonb_build_object('value', score) END,
               'account_score_lowest_84d', CASE WHEN lowest IS NOT NULL THEN jsonb_build_object('value', lowest) END,
               'quiet_days', CASE WHEN quiet_days IS NOT NULL THEN jsonb_build_object('value', quiet_days) END,
               'discount_percent',
               CASE WHEN discount_percent IS NOT NULL THEN jsonb_build_object('value', discount_percent) END
           )) AS facts
    FROM candidate
    JOIN whole ON whole.account = candidate.account
    LEFT JOIN subscription ON $2 = 'SUBSCRIPTION' AND subscription.key = candidate.key
    WHERE signs >= $9::integer AND band <> 'churned' AND (subscription.ends_at IS NULL OR subscription.ends_at >= $23)
      AND ($14::text[] IS NULL OR band = ANY ($14))
      AND ($15::jsonb IS NULL OR whole.attributes @> $15)
      AND ($16::text IS NULL OR position(lower($16) IN lower(candidate.account || ' ' || coalesce(name, ''))) > 0)
      AND ($17::timestamptz IS NULL OR EXISTS (
          SELECT FROM subscription AS contract
          WHERE contract.account = candidate.account AND starts_at < $23 AND (ends_at IS NULL OR ends_at >= $23)
            AND renews_at < $17
      ))
), placed AS MATERIALIZED (
    SELECT account, key, as_of, name, attributes, facts, signs,
           coalesce(rank, (facts #>> ARRAY[$10, 'value'])::float8) * $11::integer AS place
    FROM known
    WHERE jsonb_path_match(facts, $6::text::jsonpath, $8, true)
), page AS (
    SELECT * FROM placed
    WHERE $18::text IS NULL
       OR signs < $20::integer
       OR signs = $20 AND (
           place > $21::float8
           OR place IS NULL AND ($21 IS NOT NULL OR (account, key) > ($18, $19::text))
           OR place = $21 AND (account, key) > ($18, $19)
       )
    ORDER BY signs DESC, place, account, key
    LIMIT $22
)
SELECT total.subjects, page.account, page.key, page.as_of, name, attributes, metrics || facts AS facts, signs, place
FROM (SELECT count(*) AS subjects FROM placed) AS total
LEFT JOIN page ON true
LEFT JOIN measured
  ON measured.account = page.account AND measured.subject = $2 AND measured.key = page.key AND measured.as_of = page.as_of
ORDER BY signs DESC, place, page.account, page.key;

-- name: read_figures
-- reach: account
-- The key figures of accounts as of a day: seats and the change of usage as they were measured last, the score, and of the
-- subscriptions that run the first renewal, and amounts of a month by currency, as text. $1 accounts; measured $2 from a day on,
-- and $3 up to a day; $4 the instant after it.
SELECT asked.account, newest.seats, newest.usage_change, latest.score, coalesce(latest.band, 'unknown') AS band,
       contract.renews_at, paid.amounts
FROM unnest($1::text[]) AS asked (account)
LEFT JOIN LATERAL (
    SELECT (metrics #>> '{seats,value}')::float8::integer AS seats, (metrics #>> '{trend,value}')::float8 AS usage_change
    FROM measured
    WHERE measured.account = asked.account AND subject = 'ACCOUNT' AND measured.key = asked.account AND as_of >= $2
      AND as_of <= $3
    ORDER BY as_of DESC
    LIMIT 1
) AS newest ON true
LEFT JOIN LATERAL (
    SELECT score, band FROM health
    WHERE health.account = asked.account AND subject = 'ACCOUNT' AND health.key = asked.account AND purpose = 'health'
      AND as_of <= $3
    ORDER BY as_of DESC, computed_at DESC
    LIMIT 1
) AS latest ON true
LEFT JOIN LATERAL (
    SELECT min(renews_at) AS renews_at FROM subscription
    WHERE subscription.account = asked.account AND starts_at < $4 AND (ends_at IS NULL OR ends_at >= $4)
) AS contract ON true
LEFT JOIN LATERAL (
    SELECT jsonb_object_agg(currency_code, amount ORDER BY currency_code) AS amounts
    FROM (
        SELECT currency_code, sum(monthly_amount)::text AS amount FROM subscription
        WHERE subscription.account = asked.account AND starts_at < $4 AND (ends_at IS NULL OR ends_at >= $4)
          AND monthly_amount IS NOT NULL
        GROUP BY currency_code
    ) AS of_currency
) AS paid ON true;

-- name: list_trials
-- reach: everyone
-- How trials of the last year that are over went on, by the signs that they showed on their last day: which signs, how many
-- trials, and how many of these are or were paid for. $1 each sign as an SQL/JSON path with $2 thresholds; $3 the day; $4 days
-- of grace after a trial.
SELECT signs, count(*) AS trials, count(*) FILTER (WHERE is_closed) AS closed
FROM (
    SELECT ends_at IS NULL OR ends_at > trial_ends_at + make_interval(days => $4::integer) AS is_closed,
           (SELECT array_agg(coalesce(jsonb_path_match(metrics, path::jsonpath, $2::jsonb, true), false) ORDER BY number)
            FROM unnest($1::text[]) WITH ORDINALITY AS sign (path, number)) AS signs
    FROM subscription AS contract
    JOIN measured
      ON measured.account = contract.account AND measured.subject = 'SUBSCRIPTION' AND measured.key = contract.key
     AND measured.as_of = (trial_ends_at AT TIME ZONE 'UTC')::date - 1
    WHERE trial_ends_at < ($3::date - $4)::timestamp AT TIME ZONE 'UTC'
      AND trial_ends_at >= ($3::date - 364)::timestamp AT TIME ZONE 'UTC'
) AS trial
GROUP BY signs;

-- name: list_values
-- reach: account
-- What accounts use most in 28 days: of features, products and users those with most days times users. $1 accounts, or NULL
-- for all; $2 the day; $3 the end of the rollups' last day; $4 their horizon, $5 whether anything is pending; $6 and $7 service
-- accounts, by account and user; $8 how many of each.
WITH used AS MATERIALIZED (
    SELECT account, "user", product, feature, day
    FROM usage_of_days($1::text[], $2::date - 28, $2::date, $3::timestamptz, $4::timestamptz, $5::boolean)
    WHERE is_use AND (account, coalesce("user", '')) NOT IN (SELECT * FROM unnest($6::text[], $7::text[]))
    GROUP BY account, "user", product, feature, day
), of_name AS (
    SELECT account, kind, name, count(DISTINCT day) AS days, count(DISTINCT "user") AS users
    FROM used CROSS JOIN LATERAL (
        VALUES (1, 'feature', feature), (2, 'product', product), (3, 'user', "user")
    ) AS thing (number, kind, name)
    WHERE name IS NOT NULL
    GROUP BY account, number, kind, name
), ranked AS (
    SELECT *, row_number() OVER (PARTITION BY account, kind ORDER BY days * greatest(users, 1) DESC, name) AS place FROM of_name
)
SELECT account, kind, name, days, users FROM ranked WHERE place <= $8 ORDER BY account, kind, place;

-- name: list_product_pairs
-- reach: everyone
-- How many customers use a product, and how many use another one too; a product with itself tells how many use it. By whole
-- days that are rolled up. $1 from; $2 to.
WITH used AS MATERIALIZED (
    SELECT DISTINCT account, product FROM usage_day_by_product WHERE bucket >= $1 AND bucket < $2
)
SELECT one.product AS used, other.product AS offered, count(*) AS customers,
       (SELECT count(DISTINCT account) FROM used) AS all_customers
FROM used AS one JOIN used AS other ON other.account = one.account
GROUP BY one.product, other.product
ORDER BY one.product, other.product;

-- name: list_cross_sells
-- reach: everyone
-- A page of accounts with a product that they do not use and that goes best with what they use, the strongest first, and how many
-- there are. Usage $1 from and $2 to; $3 the day, and $4 the least score; $5 products that are used, $6 what goes with them, and
-- $7 how strongly; kept are accounts with $8 bands, $9 attributes that contain this JSON, $10 a part of key or name, $11 a
-- renewal before an instant, or NULL; the page comes after $12 an account, $13 a product and $14 a rank, or NULL; $15 how many.
WITH used AS MATERIALIZED (
    SELECT account, array_agg(DISTINCT product) AS products FROM usage_day_by_product
    WHERE bucket >= $1 AND bucket < $2
    GROUP BY account
), best AS (
    SELECT DISTINCT ON (used.account, offer.offered) used.account, offer.offered AS product, offer.number::integer AS number,
           -offer.lift AS place
    FROM used JOIN unnest($5::text[], $6::text[], $7::float8[]) WITH ORDINALITY AS offer (used, offered, lift, number)
      ON offer.used = ANY (products) AND offer.offered <> ALL (products)
    ORDER BY used.account, offer.offered, offer.number
), placed AS MATERIALIZED (
    SELECT best.*, account.name, coalesce(account.attributes, '{}') AS attributes
    FROM best
    LEFT JOIN account ON account.key = best.account
    LEFT JOIN LATERAL (
        SELECT score, band FROM health
        WHERE health.account = best.account AND subject = 'ACCOUNT' AND health.key = best.account AND purpose = 'health'
          AND as_of <= $3
        ORDER BY as_of DESC, computed_at DESC
        LIMIT 1
    ) AS latest ON true
    WHERE (score IS NULL OR score >= $4) AND coalesce(band, 'unknown') <> 'churned'
      AND ($8::text[] IS NULL OR coalesce(band, 'unknown') = ANY ($8))
      AND ($9::jsonb IS NULL OR coalesce(account.attributes, '{}') @> $9)
      AND ($10::text IS NULL OR position(lower($10) IN lower(best.account || ' ' || coalesce(account.name, ''))) > 0)
      AND ($11::timestamptz IS NULL OR EXISTS (
          SELECT FROM subscription AS contract
          WHERE contract.account = best.account AND starts_at < $2 AND (ends_at IS NULL OR ends_at >= $2) AND renews_at < $11
      ))
), page AS (
    SELECT * FROM placed
    WHERE $12::text IS NULL OR place > $14::float8 OR place = $14 AND (account, product) > ($12, $13::text)
    ORDER BY place, account, product
    LIMIT $15
)
SELECT total.subjects, page.*
FROM (SELECT count(*) AS subjects FROM placed) AS total LEFT JOIN page ON true
ORDER BY place, account, product;

-- name: keep_accounts
-- reach: everyone
-- Of accounts those that are kept, with name and attributes. $1 accounts; $2 the day, and $3 the instant after it; kept are those
-- with $4 bands, $5 attributes that contain this JSON, $6 a part of key or name, $7 a renewal before an instant, or NULL.
SELECT asked.account, account.name, coalesce(account.attributes, '{}') AS attributes
FROM unnest($1::text[]) AS asked (account)
LEFT JOIN account ON account.key = asked.account
LEFT JOIN LATERAL (
    SELECT band FROM health
    WHERE health.account = asked.account AND subject = 'ACCOUNT' AND health.key = asked.account AND purpose = 'health'
      AND as_of <= $2
    ORDER BY as_of DESC, computed_at DESC
    LIMIT 1
) AS latest ON true
WHERE ($4::text[] IS NULL OR coalesce(band, 'unknown') = ANY ($4))
  AND ($5::jsonb IS NULL OR coalesce(account.attributes, '{}') @> $5)
  AND ($6::text IS NULL OR position(lower($6) IN lower(asked.account || ' ' || coalesce(account.name, ''))) > 0)
  AND ($7::timestamptz IS NULL OR EXISTS (
      SELECT FROM subscription AS contract
      WHERE contract.account = asked.account AND starts_at < $3 AND (ends_at IS NULL OR ends_at >= $3) AND renews_at < $7
  ));
