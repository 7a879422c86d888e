"""All statements of a real database together are one rating of its events, whatever happens to it."""

from collections.abc import Awaitable, Callable
from datetime import datetime, timedelta
from decimal import Decimal
from fractions import Fraction
from typing import Final

import msgspec
from hypothesis import given, settings
from hypothesis import strategies as st

from metering.limits import LIMITS
from metering.rated_meters import read_rated_meters
from metering.statements.finalize import finalize_statement
from metering.statements.history import FinalStatement, StatementStatus
from metering.store.pool import Database
from metering.store.snapshot import Snapshot
from metering.subscriptions import SubscriptionOrder, read_rated
from rating.meters import Figure
from rating.plans import PlanPrice
from rating.prices import PerSeat
from rating.statements import statement_of
from rating.subscriptions import billing_periods, parts_of
from tests.conftest import Server
from tests.metering.billing import (
    BASE,
    BILLING_KEY,
    CALLS,
    TIERS,
    call,
    correct,
    listed,
    offer,
    roll_up,
    take_back,
    use,
)
from tests.metering.catalog import draft, order, play, publish, put

START: Final = datetime.fromisoformat("2025-01-01T00:00:00+00:00")
DAYS: Final = 150
# Some months, which have all been over for long.
END: Final = START + timedelta(days=DAYS)
SEATS: Final = PlanPrice(key="seats", price=PerSeat(Decimal(7)))


class Books:
    """A subscription in a database, and the usage that it was sent, as it is in effect."""

    def __init__(self, database: Database) -> None:
        self.database = database
        self.usage: dict[int, tuple[datetime, int]] = {}
        self.order: SubscriptionOrder = order(starts_at=START, ends_at=END, seats=2)

    async def begin(self) -> None:
        """Two plans, and a subscription to one of them."""
        await offer(self.database, BASE, SEATS, CALLS, TIERS, ends_at=END, seats=2)
        await publish(self.database, draft(CALLS, TIERS, key="light"))

    async def record(self, day: int, calls: int) -> None:
        """An event, late or not."""
        number = len(self.usage)
        occurred_at = START + timedelta(days=day, hours=number)
        self.usage[number] = (occurred_at, calls)
        await use(self.database, call(number, occurred_at, str(calls)))

    async def change(self, number: int, calls: int) -> None:
        """Correct an event to another quantity, or void it; a void one stays as it is."""
        if number in self.usage and self.usage[number][1] not in {0, calls}:
            self.usage[number] = (self.usage[number][0], calls)
            await correct(self.database, number, str(calls) if calls else None)

    async def roll_up(self, _: int, __: int) -> None:
        """Roll up."""
        await roll_up(self.database)

    async def freeze(self, day: int, _: int) -> None:
        """Freeze the statement of a day; all of them are over."""
        await finalize_statement(self.database, "s-1", START + timedelta(days=day), BILLING_KEY, LIMITS)

    async def void(self, number: int, _: int) -> None:
        """Take a statement back."""
        finals = await listed(self.database, status=StatementStatus.FINAL)
        for each in finals[number:][:1]:
            assert isinstance(each, FinalStatement)
            await take_back(self.database, each)

    async def put(self, day: int, seats: int) -> None:
        """Other seats from a day on, also in the past; with one seat on another plan."""
        since = START + timedelta(days=day)
        plan = "light" if seats == 1 else "team"
        self.order = msgspec.structs.replace(self.order, plan=plan, seats=seats, effective_at=since)
        await put(self.database, self.order)

    async def owed(self) -> Fraction:
        """What all statements come to that count."""
        statements = [each for each in await listed(self.database) if each.status is not StatementStatus.VOID]
        return sum((Fraction(each.total.amount) for each in statements), Fraction(0))

    async def rated(self) -> Fraction:
        """One rating of everything."""
        async with Snapshot(self.database) as snapshot:
            (found,), _ = await read_rated(snapshot, 1, until=END, keys=["s-1"])
            meters = await read_rated_meters(snapshot, ["calls"])
        total = Fraction(0)
        for period in billing_periods(found.terms, END):
            figures = {}
            for part in parts_of(found.terms, period):
                inside = [calls for at, calls in self.usage.values() if part.period.start <= at < part.period.end]
                figures["calls", part.period] = Figure(Decimal(sum(inside)), len(inside))
            total += Fraction(statement_of(found.terms, period, figures, meters).total.amount)
        return total


CHANGES: Final = st.one_of(
    st.tuples(st.just(Books.record), st.integers(0, DAYS - 2), st.integers(1, 9)),
    st.tuples(st.just(Books.freeze), st.integers(0, DAYS - 1), st.just(0)),
    st.tuples(st.just(Books.freeze), st.integers(0, DAYS - 1), st.just(0)),
    st.tuples(st.just(Books.change), st.integers(0, 3), st.integers(0, 9)),
    st.tuples(st.just(Books.void), st.integers(0, 3), st.just(0)),
    st.tuples(st.just(Books.put), st.integers(0, DAYS - 1), st.integers(0, 3)),
    st.tuples(st.just(Books.roll_up), st.just(0), st.just(0)),
)


def test_all_statements_together_are_one_rating(servers: dict[str, Server], engine: str) -> None:
    """Late events, corrections, voids, seats and plans put for the past, freezing in any order and taking back: the final
    statements, the drafts and the closing one come to what one rating of all events does, to the cent.
    """
    server = servers[engine]

    @settings(max_examples=12, deadline=None)
    @given(st.lists(CHANGES, min_size=2, max_size=12))
    def lived_through(changes: list[tuple[Callable[..., Awaitable[None]], int, int]]) -> None:
        async def scenario(database: Database) -> None:
            books = Books(database)
            await books.begin()
            for change, *numbers in changes:
                await change(books, *numbers)
            assert await books.rated() == await books.owed()

        with server.cloned() as url:
            play(url, scenario)

    lived_through()
