"""What the tests of statements share: usage of a subscription, corrected and voided, and a short way to ask and to freeze."""

from collections.abc import Sequence
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any, Final

from metering.corrections import CorrectionOrder, correct_event
from metering.events import UsageEvent
from metering.ingest.admit import Admission, admit
from metering.keys import ApiKey, Scope
from metering.limits import LIMITS
from metering.rollups.refresh import Refresher
from metering.statements.finalize import finalize_statement, void_statement
from metering.statements.history import FinalStatement
from metering.statements.kept import Chosen
from metering.statements.read import Statement, read_statements, statement_at
from metering.store.event_log import EventLog
from metering.store.pool import Database
from metering.store.snapshot import Snapshot
from rating.plans import PlanPrice
from rating.prices import Flat, Graduated, PerUnit, Tier
from tests.metering.catalog import KEY, draft, meter, order, publish, put
from tests.rating.tables import at

BILLING_KEY: Final = ApiKey(
    prefix="mk_billing",
    name="billing",
    scopes=frozenset({Scope.CHARGES_READ, Scope.CHARGES_WRITE}),
    accounts=None,
    created_at=at("2025-01-01"),
    expires_at=None,
    revoked_at=None,
)
BASE: Final = PlanPrice(key="base", price=Flat(Decimal(10)))
CALLS: Final = PlanPrice(key="calls", meter="calls", price=PerUnit(Decimal("0.333")))
TIERS: Final = PlanPrice(
    key="tiers", meter="calls", price=Graduated((Tier(Decimal(5), Decimal(1), Decimal(1)), Tier(None, Decimal(2))))
)


def call(number: int, occurred_at: str | datetime, quantity: str = "1", **fields: Any) -> UsageEvent:
    """An event of the subscription s-1 of acme."""
    given: dict[str, Any] = {
        "account": "acme",
        "subscription": "s-1",
        "product": "maps",
        "unit": "call",
        "quantity": Decimal(quantity),
        **fields,
    }
    instant = at(occurred_at) if isinstance(occurred_at, str) else occurred_at
    return UsageEvent(id=f"event-{number}", source="test", occurred_at=instant, **given)


async def use(database: Database, *events: UsageEvent) -> None:
    """Record usage."""
    now = max(event.occurred_at for event in events) + timedelta(days=1)
    admitted, rejected = admit(events, Admission(limits=LIMITS, now=now, restamp_window=timedelta(hours=1)))
    assert not rejected
    await EventLog(database, LIMITS).append([(event, now) for _, event in admitted])


async def correct(database: Database, number: int, quantity: str | None = None, **values: Any) -> None:
    """Give an event another quantity, or other values; void it where neither is given."""
    changed = {**values, **({} if quantity is None else {"quantity": Decimal(quantity)})}
    wanted = CorrectionOrder(
        account="acme",
        source="test",
        event_id=f"event-{number}",
        occurred_at=None,
        reason="a test",
        void=not changed,
        values=changed,
    )
    await correct_event(database, wanted, KEY, LIMITS)


async def roll_up(database: Database) -> None:
    """Roll up everything that is old enough."""
    while await Refresher(database).run() is None:
        pass


async def offer(database: Database, *prices: PlanPrice, **fields: Any) -> None:
    """A plan `team` in EUR on the meter `calls`, and the subscription s-1 of acme to it from 2025 on, with these fields."""
    await meter(database, "calls")
    await publish(database, draft(*(prices or (BASE, CALLS, TIERS))))
    await put(database, order(**{"starts_at": at("2025-01-01"), **fields}))


async def ask(database: Database, instant: str, subscription: str = "s-1") -> Statement:
    """The statement that an instant belongs to."""
    async with Snapshot(database) as snapshot:
        return await statement_at(snapshot, subscription, at(instant), LIMITS)


async def freeze(database: Database, instant: str, subscription: str = "s-1") -> FinalStatement:
    """Freeze the statement that an instant belongs to."""
    return await finalize_statement(database, subscription, at(instant), BILLING_KEY, LIMITS)


async def take_back(database: Database, statement: FinalStatement, reason: str = "a mistake") -> FinalStatement:
    """Void a statement."""
    return await void_statement(database, statement.id, reason, BILLING_KEY, LIMITS)


async def listed(database: Database, **chosen: Any) -> Sequence[Statement]:
    """All statements that are chosen."""
    async with Snapshot(database) as snapshot:
        found, has_more = await read_statements(snapshot, Chosen(**chosen), 1_000, None, LIMITS)
    assert not has_more
    return found


def shown(statement: Statement) -> list[str]:
    """Lines as a reader sees them: which price, for what, how much; an adjustment with the period that it is for."""
    return [
        f"{each.line.origin.price} {each.line.kind.value}"
        f"{'' if each.adjusts is None else f' of {each.adjusts.start:%b}'} {each.line.amount.amount}"
        for each in statement.lines
    ]


def adjustments(statement: Statement) -> list[str]:
    """The adjustments among them."""
    return [text for each, text in zip(statement.lines, shown(statement), strict=True) if each.adjusts is not None]
