"""The data plane as one thing: opened with its settings, asked through what it holds, closed in good order."""

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec

from health.scorecards import Scorecard
from metering.accounts import Account, AccountOrder, put_account
from metering.alerts.rules import AlertRule, RuleOrder, put_rule
from metering.allowance import Allowances
from metering.background import allowed_of, background_work
from metering.config import Settings
from metering.corrections import CorrectionOrder, correct_event
from metering.credentials import Credentials
from metering.credits import CreditGrant, GrantOrder, grant_credit, void_grant
from metering.erasure import erase_user
from metering.events import UsageEvent
from metering.gauges import read_gauges
from metering.health.band_migration import Migrated, band_migration
from metering.health.cards import ScorecardDraft, publish_scorecard, read_cards
from metering.health.interventions import Intervention, InterventionOrder, record_intervention
from metering.health.outcomes import OutcomeOrder, record_outcomes
from metering.health.overriding import OverrideOrder, override_health
from metering.health.signals import Recorded, SignalOrder, record_signals, set_pulse
from metering.health.thresholds import PutThresholds, put_thresholds
from metering.health.users import UserOrder, put_user
from metering.ingest.arriving import Bodies
from metering.ingest.batch import Writer
from metering.ingest.bodies import PlainEvents
from metering.ingest.http import EventsEndpoint
from metering.ingest.receipts import Receipt
from metering.ingest.refusals import Refusals
from metering.key_digests import Digests, kept_secret
from metering.key_uses import KeyUses
from metering.keys import Caller, KeyRing
from metering.limits import Limits
from metering.loops import Loop, read_loops
from metering.meters import Definition, Meter, put_meter
from metering.metrics import CONNECTIONS, CONNECTIONS_MAX, QUEUE_EVENTS, Counters, Readings
from metering.notifier import utc_now
from metering.outbox.deliveries import Delivery, DeliveryState, ReplayOrder, read_deliveries, replay
from metering.outbox.destinations import Destinations
from metering.outbox.vault import Vault
from metering.plans import PublishedPlan, publish_plan
from metering.probes import Readiness, read_readiness
from metering.quarantine import RetryOrder, read_retry
from metering.reach import EVERYTHING, Reach
from metering.recorded import RecordedEvent
from metering.retention import ages_of
from metering.seal import Seal
from metering.statements.finalize import finalize_statement, void_statement
from metering.statements.history import FinalStatement
from metering.store.door import Door
from metering.store.event_log import EventLog
from metering.store.pool import Database
from metering.store.snapshot import Snapshot
from metering.subjects import SubjectRef
from metering.subscriptions import Subscription, SubscriptionOrder, put_subscription
from metering.tokens import tokens_of
from rating.plans import Plan

__all__ = ["Service", "Snapshot", "open_service"]


class Service(msgspec.Struct, frozen=True, kw_only=True):
    """What the shell needs of the data plane."""

    limits: Limits
    counters: Counters
    engine: str
    keys: KeyRing
    credentials: Credentials
    events: EventsEndpoint
    bodies: Bodies
    destinations: Destinations
    # For questions and changes, of which so many are at work at a time.
    database: Database
    # For probes, which must be answered all the same.
    unhindered: Database
    # On the numbers of rows, wherever they leave the service.
    seal: Seal

    async def record(self, events: Sequence[UsageEvent], key: Caller) -> Receipt:
        """Take a few events, as the endpoint does. Raises RateLimitedError, WriterFullError or DatabaseUnavailableError."""
        await self.events.spend(key, len(events))
        return await self.events.record(events, key, Refusals(key.sender, PlainEvents(events)))

    async def retry(self, orders: Sequence[RetryOrder], key: Caller) -> Receipt:
        """Send rejected events again, as the endpoint does; see metering/quarantine.py."""
        retry = await read_retry(self.database, orders, key, self.limits)
        await self.events.spend(key, len(retry.decoded))
        return await self.events.record(retry.decoded, key, retry)

    async def correct(self, order: CorrectionOrder, key: Caller) -> RecordedEvent:
        """Correct one event; see metering/corrections.py."""
        return await correct_event(self.database, order, key, self.limits)

    async def erase_user(self, account: str, user: str, key: Caller) -> int:
        """Erase a user of an account; see metering/erasure.py."""
        return await erase_user(self.database, account, user, key, self.limits)

    async def put_meter(self, definition: Definition, key: Caller) -> Meter:
        """Make a meter, or rename it; see metering/meters.py."""
        return await put_meter(self.database, definition, key, self.limits)

    async def publish_plan(self, draft: Plan, key: Caller, *, dry_run: bool) -> PublishedPlan:
        """Publish a plan as its next version, or say what it would be; see metering/plans.py."""
        return await publish_plan(self.database, draft, key, self.limits, dry_run=dry_run)

    async def put_subscription(self, order: SubscriptionOrder, key: Caller) -> Subscription:
        """Make a subscription, or change it; see metering/subscriptions.py."""
        return await put_subscription(self.database, order, key, self.limits)

    async def put_account(self, order: AccountOrder, key: Caller) -> Account:
        """Make an account, or change it; see metering/accounts.py."""
        return await put_account(self.database, order, key, self.limits)

    async def put_user(self, order: UserOrder, key: Caller) -> SubjectRef:
        """Say what is known of a user; see metering/health/users.py."""
        return await put_user(self.database, order, key, self.limits)

    async def record_signals(self, orders: Sequence[SignalOrder], key: Caller) -> Recorded:
        """Record signals; see metering/health/signals.py."""
        return await record_signals(self.database, orders, key, self.limits)

    async def set_pulse(self, order: SignalOrder, key: Caller) -> Recorded:
        """Record a pulse; see metering/health/signals.py."""
        return await set_pulse(self.database, order, key, self.limits)

    async def record_outcomes(self, orders: Sequence[OutcomeOrder], key: Caller) -> Recorded:
        """Record outcomes; see metering/health/outcomes.py."""
        return await record_outcomes(self.database, orders, key, self.limits)

    async def record_intervention(self, order: InterventionOrder, key: Caller) -> Intervention:
        """Record an intervention; see metering/health/interventions.py."""
        return await record_intervention(self.database, order, key, self.limits)

    async def override_health(self, order: OverrideOrder, key: Caller) -> SubjectRef:
        """Bound a score; see metering/health/overriding.py."""
        return await override_health(self.database, order, key, self.limits)

    async def publish_scorecard(
        self, draft: ScorecardDraft, key: Caller, *, dry_run: bool
    ) -> tuple[Scorecard, Migrated]:
        """Publish a scorecard, or say what it would be; and who moves from band to band by it, as of today."""
        # Looked at before it is published: those who have a score have it by the cards that were in force.
        async with self.snapshot(EVERYTHING) as snapshot:
            card = (await publish_scorecard(self.database, draft, key, self.limits, dry_run=True)).card
            today = (await snapshot.horizon()).as_of.astimezone(UTC).date()
            moved = await band_migration(snapshot, await read_cards(snapshot), card, today, self.limits)
        if not dry_run:
            card = (await publish_scorecard(self.database, draft, key, self.limits)).card
        return card, moved

    async def put_warning_thresholds(self, given: Mapping[str, Any], key: Caller) -> PutThresholds:
        """Have other thresholds of early warnings in force; see metering/health/thresholds.py."""
        return await put_thresholds(self.database, given, key)

    async def finalize_statement(self, subscription: str, at: datetime, key: Caller) -> FinalStatement:
        """Freeze a statement; see metering/statements/finalize.py."""
        return await finalize_statement(self.database, subscription, at, key, self.limits)

    async def void_statement(self, statement_id: int, reason: str, key: Caller) -> FinalStatement:
        """Take a final statement back; see metering/statements/finalize.py."""
        return await void_statement(self.database, statement_id, reason, key, self.limits)

    async def grant_credit(self, order: GrantOrder, key: Caller) -> CreditGrant:
        """Grant a credit; see metering/credits.py."""
        return await grant_credit(self.database, order, key, self.limits)

    async def void_credit_grant(self, account: str, grant: str, reason: str, key: Caller) -> CreditGrant:
        """Take a grant back; see metering/credits.py."""
        return await void_grant(self.database, account, grant, reason, key, self.limits)

    async def put_alert_rule(self, order: RuleOrder, key: Caller) -> AlertRule:
        """Make an alert rule, or change it; see metering/alerts/rules.py."""
        return await put_rule(self.database, order, key, self.limits)

    async def deliveries(
        self, destination: str, state: DeliveryState | None, first: int, after: int | None
    ) -> tuple[list[Delivery], bool]:
        """A page of the log of deliveries; see metering/outbox/deliveries.py."""
        return await read_deliveries(self.database, destination, state, first, after)

    async def replay_deliveries(self, order: ReplayOrder, key: Caller) -> int:
        """Send again what a destination was to be told; see metering/outbox/deliveries.py."""
        return await replay(self.database, order, key, utc_now())

    def snapshot(self, reach: Reach) -> Snapshot:
        """One state of the database, for everything that one operation asks; of it, what is within the caller's reach."""
        return Snapshot(self.database, reach)

    async def readiness(self) -> Readiness:
        """Whether it can do its work now."""
        return await read_readiness(self.unhindered)

    async def loops(self) -> list[Loop]:
        """How each loop of background work fares."""
        return await read_loops(self.unhindered)

    async def gauges(self) -> Readings:
        """What is known of the whole service; see metering/gauges.py."""
        return await read_gauges(self.unhindered, self.limits)


@asynccontextmanager
async def open_service(settings: Settings, limits: Limits, counters: Counters | None = None) -> AsyncIterator[Service]:
    """Open everything, and close it in the opposite order: what was taken is written before the pool closes.

    What it counts goes into `counters`.
    """
    counters = counters or Counters()
    async with AsyncExitStack() as stack:
        database = await Database.connect(settings, limits)
        stack.push_async_callback(database.close)
        keys = KeyRing(database, settings.key_secret)
        if settings.bootstrap_key is not None:
            await keys.bootstrap(settings.bootstrap_key)
        uses = KeyUses(database, limits)
        uses.start()
        stack.push_async_callback(uses.close)
        tokens = tokens_of(settings, limits)
        if tokens is not None:
            stack.push_async_callback(tokens.close)
        credentials = Credentials(keys, uses, tokens)
        pools = {"requests": database}
        if settings.work:
            pools["background"] = await stack.enter_async_context(background_work(settings, limits))
        writer = Writer(EventLog(database, limits), limits, counters)
        writer.start()
        stack.push_async_callback(writer.close)
        vault = Vault(Digests(database, settings.key_secret))
        bodies = Bodies(limits)
        window = timedelta(minutes=settings.restamp_window_minutes)
        _read_gauges(counters, writer, pools)
        secret = await kept_secret(database)
        stack.callback(database.close_within, limits.closing_seconds_max)
        yield Service(
            limits=limits,
            counters=counters,
            engine=database.engine.value,
            keys=keys,
            credentials=credentials,
            events=EventsEndpoint(
                writer,
                credentials,
                limits,
                window,
                allowances=Allowances(database),
                bodies=bodies,
                retention=ages_of(settings).events,
                counters=counters,
            ),
            bodies=bodies,
            destinations=Destinations(database, vault, allowed_of(settings), limits, utc_now),
            database=database.behind(Door(settings.pool_connections, limits)),
            unhindered=database,
            seal=Seal(secret),
        )


def _read_gauges(counters: Counters, writer: Writer, pools: Mapping[str, Database]) -> None:
    """Have the counters read what this process holds."""
    counters.read(QUEUE_EVENTS, lambda: {(): writer.events})
    counters.read(
        CONNECTIONS,
        lambda: {(name, state): pools[name].connections[state] for name in pools for state in ("used", "idle")},
    )
    counters.read(CONNECTIONS_MAX, lambda: {(name,): pools[name].connections["max"] for name in pools})
