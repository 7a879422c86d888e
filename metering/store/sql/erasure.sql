-- name: take_out_any
-- TimescaleDB takes as many rows out of its columnstore in this transaction as there are; nothing else knows of this.
SELECT set_config('timescaledb.max_tuples_decompressed_per_dml_transaction', '0', true);

-- name: has_events
-- Whether a user has events that were received before an instant. $1 account, $2 user, $3 the instant.
SELECT EXISTS (SELECT FROM event WHERE account = $1 AND "user" = $2 AND received_at < $3);

-- name: list_devices
-- The devices of a user that no other user of the account has, by all that is kept. $1 account, $2 user.
SELECT device FROM (
    (
        SELECT device FROM event WHERE account = $1 AND "user" = $2 AND device IS NOT NULL
        UNION SELECT device FROM usage_day WHERE account = $1 AND "user" = $2 AND device IS NOT NULL
        UNION SELECT device FROM carried_level WHERE account = $1 AND "user" = $2 AND device IS NOT NULL
        -- And those of which it was said before an event was corrected, or since.
        UNION SELECT said.device
        FROM event_correction AS made JOIN event AS of USING (account, occurred_at, key),
             LATERAL (VALUES (made.before ->> 'device'), (made.after ->> 'device')) AS said (device)
        WHERE made.account = $1 AND said.device IS NOT NULL
          AND (of."user" = $2 OR made.before ->> 'user' = $2 OR made.after ->> 'user' = $2)
    )
    EXCEPT SELECT device FROM event WHERE account = $1 AND "user" IS DISTINCT FROM $2
    EXCEPT SELECT device FROM usage_day WHERE account = $1 AND "user" IS DISTINCT FROM $2
    EXCEPT SELECT device FROM carried_level WHERE account = $1 AND "user" IS DISTINCT FROM $2
) AS own;

-- name: rename_events
-- Give events to somebody else, without their attributes; say how many. $1 account, $2 user, $3 who it is from now on, $4
-- devices with what they are from now on, as JSON.
WITH renamed AS (
    UPDATE event SET "user" = $3, device = coalesce($4::jsonb ->> device, device), attributes = NULL
    WHERE account = $1 AND "user" = $2
    RETURNING 1
)
SELECT count(*) FROM renamed;

-- name: rename_levels
-- And the levels that they left behind which were given up. Parameters as above.
UPDATE carried_level SET "user" = $3, device = coalesce($4::jsonb ->> device, device) WHERE account = $1 AND "user" = $2;

-- name: forget_earlier_attributes
-- Forget the attributes of events that were given to somebody else before: they were this user's. $1 account, $2 user.
UPDATE event SET attributes = NULL
FROM event_correction AS made
WHERE made.account = $1 AND (made.before ->> 'user' = $2 OR made.after ->> 'user' = $2)
  AND event.account = $1 AND event.occurred_at = made.occurred_at AND event.key = made.key AND event.attributes IS NOT NULL;

-- name: forget_corrected_attributes
-- Forget the attributes that a user's events had before they were corrected, or since. Before the events are given to
-- somebody else. $1 account, $2 user.
UPDATE event_correction AS made SET before = before - 'attributes', after = after - 'attributes'
WHERE account = $1 AND before ? 'attributes' AND (
    EXISTS (
        SELECT FROM event AS of
        WHERE of.account = made.account AND of.occurred_at = made.occurred_at AND of.key = made.key AND of."user" = $2
    )
    OR EXISTS (
        SELECT FROM event_correction AS other
        WHERE other.account = made.account AND other.occurred_at = made.occurred_at AND other.key = made.key
          AND (other.before ->> 'user' = $2 OR other.after ->> 'user' = $2)
    )
);

-- name: rename_corrections
-- The same of what events said before they were corrected, and afterwards. Parameters as above.
UPDATE event_correction
SET before = before
        || CASE WHEN before ->> 'user' = $2 THEN jsonb_build_object('user', $3::text) ELSE '{}' END
        || jsonb_strip_nulls(jsonb_build_object('device', $4::jsonb ->> (before ->> 'device'))),
    after = after
        || CASE WHEN after ->> 'user' = $2 THEN jsonb_build_object('user', $3::text) ELSE '{}' END
        || jsonb_strip_nulls(jsonb_build_object('device', $4::jsonb ->> (after ->> 'device')))
WHERE account = $1 AND (
    before ->> 'user' = $2 OR after ->> 'user' = $2
    OR $4::jsonb ? (before ->> 'device') OR $4::jsonb ? (after ->> 'device')
);

-- name: forget_rejected
-- Forget refused events of a user; of what was cut, whoever's it is. $1 what names the user in a body, $2 what names the
-- account, as regular expressions.
DELETE FROM rejected_event WHERE body ~ $1 AND (body ~ $2 OR NOT is_exact);

-- name: forget_signals
-- Forget what was told of a user. $1 account, $2 user.
DELETE FROM signal WHERE account = $1 AND subject = 'USER' AND key = $2;

-- name: forget_attributes
-- And what was said of the user. $1 account, $2 user.
DELETE FROM attribute_fact WHERE account = $1 AND subject = 'USER' AND key = $2;

-- name: forget_overrides
-- And anybody's word on the user's score. $1 account, $2 user.
DELETE FROM health_override WHERE account = $1 AND subject = 'USER' AND key = $2;

-- name: forget_measured
-- And what was measured of the user. $1 account, $2 user.
DELETE FROM measured WHERE account = $1 AND subject = 'USER' AND key = $2;

-- name: forget_scores
-- And the user's scores. $1 account, $2 user.
DELETE FROM health WHERE account = $1 AND subject = 'USER' AND key = $2;

-- name: forget_alerts
-- And alerts of the user, and of these devices. $1 account, $2 user, $3 devices.
DELETE FROM alert
WHERE account = $1 AND (
    "user" = $2
    OR EXISTS (SELECT FROM jsonb_array_elements(dimensions) AS each WHERE each ->> 0 = 'device' AND each ->> 1 = ANY ($3::text[]))
);

-- name: forget_warnings
-- And warnings of the user, and those of the account that were raised because of the user. $1 account, $2 user.
DELETE FROM warning
WHERE account = $1 AND ((subject = 'USER' AND key = $2) OR evidence ->> 'user' = $2);

-- name: forget_in_measured
-- Whom the loss of a champion was measured by. $1 account, $2 user.
UPDATE measured
SET metrics = jsonb_set(metrics, '{champion_lost,users}', (metrics #> '{champion_lost,users}') - $2)
WHERE account = $1 AND subject = 'ACCOUNT' AND metrics #> '{champion_lost,users}' ? $2;

-- name: forget_audience
-- That something was done for the user. $1 account, $2 user.
DELETE FROM intervention_audience AS meant USING intervention
WHERE meant.intervention = intervention.key AND intervention.subject = 'USER' AND meant.account = $1 AND meant.key = $2;

-- name: forget_notifications
-- And what was told, or is to be told, of these; with its deliveries. $1 account, $2 user, $3 devices.
DELETE FROM notification
WHERE (
        data::jsonb #>> '{dimensions,account}' = $1
        AND (data::jsonb #>> '{dimensions,user}' = $2 OR data::jsonb #>> '{dimensions,device}' = ANY ($3::text[]))
    )
   OR (
       data::jsonb ->> 'account' = $1
       AND ((data::jsonb ->> 'subject' = 'USER' AND data::jsonb ->> 'key' = $2) OR data::jsonb #>> '{evidence,user}' = $2)
   );
