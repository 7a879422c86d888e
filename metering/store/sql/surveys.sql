-- name: list_candidates
-- reach: account
-- Users who used something in the 28 days before a day, and were not asked lately: a page of them in the order of their lots, which
-- are drawn by a hash, and how many there are. $1 accounts, or NULL for all; $2 the day; $3 the day to look back to; $4 the end of
-- the rollups' last day; $5 their horizon, $6 whether anything is pending; $7 and $8 users that are left out, by account and key;
-- $9 the product and $10 the feature, or NULL; $11 names of signals that say that somebody was asked; $12 from when on nobody was;
-- $13 the lifecycle, or NULL; $14 what lots are drawn with; $15, $16 and $17 the lot, account and key that the page comes after, or
-- NULL; $18 how many.
WITH of_user AS (
    SELECT account, "user" AS key,
           CASE WHEN min(day) >= $2::date - 28 THEN 'NEW' WHEN bool_or(day < $2::date - 28 AND day >= $2::date - 56) THEN 'RETAINED'
                ELSE 'RESURRECTED' END AS lifecycle,
           coalesce(bit_count(bit_or(set_bit(repeat('0', 28)::varbit, day - ($2::date - 28), 1))
               FILTER (WHERE day >= $2::date - 28 AND ($9::text IS NULL OR product = $9)
                   AND ($10::text IS NULL OR feature = $10))), 0) AS days,
           max(day) FILTER (WHERE ($9::text IS NULL OR product = $9) AND ($10::text IS NULL OR feature = $10)) AS last_on
    FROM usage_of_days($1::text[], $3::date, $2::date, $4::timestamptz, $5::timestamptz, $6::boolean)
    WHERE is_use AND "user" IS NOT NULL AND (account, "user") NOT IN (SELECT * FROM unnest($7::text[], $8::text[]))
    GROUP BY account, "user"
), chosen AS (
    SELECT *, encode(sha256(convert_to(concat_ws(chr(31), $14::text, account, key), 'UTF8')), 'hex') AS lot
    FROM of_user
    WHERE days > 0 AND ($13::text IS NULL OR lifecycle = $13)
      AND NOT EXISTS (
          SELECT FROM signal
          WHERE signal.account = of_user.account AND subject = 'USER' AND signal.key = of_user.key
            AND name = ANY ($11::text[]) AND at >= $12::timestamptz
      )
), page AS (
    SELECT * FROM chosen
    WHERE $15::text IS NULL OR (lot, account, key) > ($15, $16::text, $17::text)
    ORDER BY lot, account, key
    LIMIT $18
)
SELECT total.candidates, page.*
FROM (SELECT count(*) AS candidates FROM chosen) AS total LEFT JOIN page ON true
ORDER BY lot, account, key;
