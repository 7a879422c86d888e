"""Every bound of the service, in one place, with units in the names."""

from datetime import UTC, datetime, timedelta
from typing import Final

import msgspec


class Limits(msgspec.Struct, frozen=True, kw_only=True):
    """What one request, one event and one process may hold. Each field is enforced, and each refusal names it."""

    # One request
    body_bytes_max: int = 16 * 1024 * 1024
    body_events_max: int = 10_000
    # Several gzip members or zstd frames in a row are one body; millions of empty ones would only cost time.
    body_members_max: int = 1_000
    # What is looked at field by field takes many times its size in memory; no event comes near it.
    looked_at_bytes_max: int = 1024 * 1024

    # All bodies that are arriving at a process or wait to be written: what slow clients, and a slow database, may cost us.
    # No sender may hold more than is still free.
    body_seconds_max: int = 60
    bodies_bytes_max: int = 256 * 1024 * 1024

    # One key's rate and burst: what the fields that tell them, and the database, can hold by far.
    key_rate_events_max: int = 1_000_000_000

    # Who may: so long a process relies on what it was told of a key or a token, and of so many of each.
    key_cache_seconds: float = 3.0
    key_cache_keys_max: int = 10_000
    key_uses_seconds: float = 60.0
    key_overlap_days_max: int = 365
    token_bytes_max: int = 8 * 1024

    # The keys of a token's issuer.
    jwks_bytes_max: int = 256 * 1024
    jwks_keys_max: int = 100
    jwks_fetch_seconds_max: int = 5
    jwks_fresh_seconds: int = 300
    jwks_stale_seconds_max: int = 3_600
    jwks_retry_seconds: int = 10

    # One event
    name_chars_max: int = 256
    quantity_digits_max: int = 38
    quantity_fraction_digits_max: int = 18
    attributes_bytes_max: int = 4 * 1024
    occurred_at_min: datetime = datetime(1970, 1, 1, tzinfo=UTC)
    occurred_ahead_max: timedelta = timedelta(hours=1)

    # One account, one subscription
    attributes_depth_max: int = 20
    # A change of plan or seats every day for almost three years.
    subscription_terms_max: int = 1_000

    # A balance shows all of an account's grants: one a month for eighty years.
    account_grants_max: int = 1_000

    # What is told of customers in one request, and scores that are computed anew when something comes late: as far back as the
    # windows of most metrics reach, so many accounts together.
    request_signals_max: int = 1_000
    health_restated_days_max: int = 28
    health_page_accounts: int = 200
    # Of these pages so many at once, one of them being kept, and so many before the scorer rests.
    health_pages_at_once: int = 2
    health_run_pages: int = 4

    # What was done for customers, and what it did: how many one intervention is meant for, with how many others those treated
    # are compared at most, and how many who would fall are shown by name.
    intervention_subjects_max: int = 5_000
    intervention_compared_max: int = 5_000
    scorecard_movers_max: int = 100
    # A back-test holds the scores of that many outcomes, of no more days than these, so many together.
    backtest_outcomes_max: int = 2_000
    backtest_days_max: int = 1_096
    backtest_page_outcomes: int = 100

    # One correction
    reason_chars_max: int = 1_000

    # Erasing a user: how long it waits for whoever makes rollups.
    erasure_wait_seconds_max: int = 30

    # The writer: how many events may wait, whatever their bytes; and what one transaction writes.
    queue_events_max: int = 50_000
    batch_events_max: int = 5_000
    # A transaction holds a handful of locks for each week that it writes into, and the server has room for so many in all.
    batch_weeks_max: int = 100
    writers: int = 2
    writer_retries_max: int = 20

    # The quarantine: what was refused is kept, the oldest goes first.
    rejected_events_max: int = 100_000
    rejected_bytes_max: int = 256 * 1024 * 1024
    rejected_age_max: timedelta = timedelta(days=30)
    # An event of the largest names and attributes takes less than 20 KiB as JSON.
    rejected_body_bytes_max: int = 20 * 1024
    rejected_text_chars_max: int = 1_000

    # One question: wide enough for any usage, narrow enough that no calendar runs out.
    asked_from_min: datetime = datetime(1900, 1, 1, tzinfo=UTC)
    asked_to_max: datetime = datetime(2200, 1, 1, tzinfo=UTC)

    # One answer
    page_rows_max: int = 1_000
    points_max: int = 100_000
    # Amounts are shared out among all combinations of dimensions, whatever they are asked by; a share takes about a kilobyte.
    shares_max: int = 250_000
    filter_values_max: int = 1_000
    graphql_tokens_max: int = 5_000
    graphql_depth_max: int = 20
    # Fragments expanded. A page of twenty charts takes 800 selections, the introspection of all tools 200.
    graphql_selections_max: int = 1_000
    # What validation costs grows with the square of it: a field that stands so often in one place is compared pair by pair.
    graphql_repeats_max: int = 10
    graphql_aliases_max: int = 100
    graphql_root_fields_max: int = 20
    graphql_directives_max: int = 5
    graphql_errors_max: int = 20
    # Rows of all pages of one operation, those of pages inside of pages for each row around them: a hundred accounts, each
    # with a page of users. A row is a kilobyte or two while it is answered, and all of them are written in one turn.
    graphql_rows_max: int = 10_000
    # All statements of one operation together.
    graphql_seconds_max: int = 60
    graphql_body_bytes_max: int = 1024 * 1024
    # Documents that were understood are kept. One takes a hundred times its text in memory, the densest three hundred times.
    graphql_documents_max: int = 500
    graphql_documents_bytes_max: int = 128 * 1024
    statement_seconds_max: int = 30

    # Questions and changes at work on the database, beside the writers, the worker, probes and keys: so many connections of
    # the pool are left to those.
    connections_kept: int = 4
    door_waiting_max: int = 200
    door_seconds_max: int = 10

    # Live questions: connections stay open, and questions are asked again and again, a few at a time.
    live_connections_max: int = 1_000
    live_questions_max: int = 200
    live_questions_per_key_max: int = 20
    live_reads_max: int = 2
    live_seconds_min: int = 1
    live_seconds_max: int = 3_600
    live_begin_seconds_max: int = 10
    live_send_seconds_max: int = 30
    live_silence_seconds_max: int = 15

    # Scores of customers, which nobody waits for: a page of the largest ones reads what a day has brought so far.
    scoring_statement_seconds_max: int = 600

    # The command line, beside the service: it may read for long, and holds no more than this.
    unattended_statement_seconds_max: int = 3_600
    drift_rows_max: int = 10
    export_buckets_max: int = 1_000_000
    export_rows_held_max: int = 10_000

    # Statements: so many subscriptions are looked at together, and held.
    statement_page_subscriptions: int = 500

    # A simulation, and commitments: of as many as one answer has time for, over no more periods than are held; by user, so many
    # subscriptions are looked at together, for each may have thousands of users.
    simulation_subscriptions_max: int = 2_000
    simulation_days_max: int = 366
    simulation_user_page_subscriptions: int = 50

    # Figures: recurring revenue by period of the calendar, of ten years of months;
    revenue_periods_max: int = 120
    # and plans that every subscription is rated on.
    fit_plans_max: int = 50
    # Ways and users at once are read from events, each of which is put in order.
    sessions_days_max: int = 92
    sessions_events_max: int = 250_000

    # Alerts: rules, and the subjects that one of them holds open or looks through; how long what was closed is kept.
    alert_rules_max: int = 200
    alert_subjects_max: int = 10_000
    alert_days_max: int = 400
    # Of periods that are over: those that ended so long ago are looked at for what came late, and always the last one; and so
    # many of those that ended while nobody evaluated.
    alert_late_seconds_max: int = 600
    alert_periods_max: int = 500

    # Notifications, and where they are sent: so many at once in a process, and at once to one destination.
    notification_bytes_max: int = 20 * 1024
    notification_days_max: int = 30
    # Who publishes of more in one transaction holds one lock of all subjects in the place of one for each: PostgreSQL has room
    # for some thousands, of everybody.
    notification_subjects_max: int = 200
    destinations_max: int = 100
    destination_types_max: int = 50
    destination_url_chars_max: int = 2_000
    destination_bearer_chars_max: int = 2_000
    destination_secrets_max: int = 5
    destination_deliveries_max: int = 8
    deliveries_max: int = 64
    delivery_seconds_max: int = 15
    # Of an answer so much is read at most, and none of it is kept.
    delivery_answer_bytes_max: int = 64 * 1024
    delivery_fault_chars_max: int = 500

    # One answer to Prometheus, which gives up after ten seconds: it is told that the database is away.
    scrape_seconds_max: int = 5

    # Spans, where traces are collected: so many wait in a process, and further ones are dropped; so many are sent together, so
    # often; and how long that may take, at the end of the process too.
    trace_spans_max: int = 4_096
    trace_batch_spans_max: int = 512
    trace_gather_seconds: int = 2
    trace_export_seconds_max: int = 5
    trace_flush_seconds_max: int = 2

    # Waiting
    database_connect_seconds_max: int = 10
    write_seconds_max: int = 20
    # Half of it is for answers, then a second each for what is being written, background work and uses of keys.
    shutdown_seconds_max: int = 10
    closing_seconds_max: int = 1
    retry_after_seconds: int = 1


LIMITS: Final = Limits()
