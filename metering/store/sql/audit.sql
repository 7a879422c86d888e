-- name: sign
-- Say who changes what is changed from now on in this transaction, for rows that do not say it themselves. $1: who.
SELECT set_config('metering.by', $1, true);

-- name: note
-- Note what no table watches. $1 by whom, $2 kind, $3 action, $4 account, $5 subject, $6 what as JSON.
INSERT INTO audit_entry (by, kind, action, account, subject, after) VALUES ($1, $2, $3, $4, $5, $6);

-- name: list_entries
-- reach: everyone
-- Entries, the newest first; only who reaches everything asks. $1 kind, $2 account, $3 subject, $4 by whom (as it is signed, or
-- the prefix of a key), $5 from when on, $6 before when; each NULL for all. $7 the id that they come after, or NULL; $8 how
-- many.
SELECT id, changed_at, by, kind, action, account, subject, before, after FROM audit_entry
WHERE ($1::text IS NULL OR kind = $1) AND ($2::text IS NULL OR account = $2) AND ($3::text IS NULL OR subject = $3)
  AND ($4::text IS NULL OR (
      -- Of both the prefix, or else the whole: what there is an index of.
      coalesce(substring(by FROM ' \(([^()]*)\)$'), by) = coalesce(substring($4 FROM ' \(([^()]*)\)$'), $4)
      AND (by = $4 OR right(by, length($4) + 3) = ' (' || $4 || ')')
  ))
  AND ($5::timestamptz IS NULL OR changed_at >= $5) AND ($6::timestamptz IS NULL OR changed_at < $6)
  AND ($7::bigint IS NULL OR id < $7)
ORDER BY id DESC
LIMIT $8;
