-- name: list_uptake
-- reach: account
-- On which days of a year users of a product were active in it, and on which of them they used a feature, as rows of 0 and 1 from
-- the day on that is looked back to. $1 accounts, or NULL for all; $2 the day; $3 the day to look back to; $4 the end of the
-- rollups' last day; $5 their horizon, $6 whether anything is pending; $7 and $8 service accounts, by account and user; $9 the
-- product; $10 the feature.
SELECT account, "user" AS key,
       bit_or(set_bit(repeat('0', $2::date - $3::date)::varbit, day - $3::date, 1))::text AS days,
       coalesce((bit_or(set_bit(repeat('0', $2::date - $3::date)::varbit, day - $3::date, 1))
           FILTER (WHERE feature = $10::text))::text, '') AS used
FROM usage_of_days($1::text[], $3::date, $2::date, $4::timestamptz, $5::timestamptz, $6::boolean)
WHERE is_use AND "user" IS NOT NULL AND product = $9::text
    AND (account, "user") NOT IN (SELECT * FROM unnest($7::text[], $8::text[]))
GROUP BY account, "user"
ORDER BY account, "user";

-- name: compare_answers
-- reach: account
-- The newest answer of each of these users by name, from one day on and before another: how many answered, and the mean, of those
-- who used a feature and of the others. $1 the users' accounts, $2 their keys, $3 whether each used it; $4 from; $5 to; $6 names.
SELECT name, has_used, count(*) AS answers, avg(value) AS mean
FROM (
    SELECT DISTINCT ON (account, key, name) account, key, name, value
    FROM signal
    WHERE subject = 'USER' AND account = ANY ($1::text[]) AND name = ANY ($6::text[])
        AND at >= $4::date::timestamp AT TIME ZONE 'UTC' AND at < $5::date::timestamp AT TIME ZONE 'UTC'
    ORDER BY account, key, name, at DESC, sequence DESC
) AS answer
JOIN unnest($1::text[], $2::text[], $3::boolean[]) AS asked (account, key, has_used) USING (account, key)
GROUP BY name, has_used
ORDER BY name, has_used;
