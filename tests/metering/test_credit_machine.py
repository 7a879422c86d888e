"""Whatever happens to an account with credits: its books balance, nothing is overdrawn, and statements are what they were."""

from collections.abc import Awaitable, Callable
from contextlib import suppress
from datetime import timedelta
from decimal import Decimal
from fractions import Fraction
from typing import Final

from hypothesis import given, settings
from hypothesis import strategies as st

from metering.errors import ConflictError, NotFoundError
from metering.limits import LIMITS
from metering.statements.batch import Month, bill
from metering.statements.finalize import finalize_statement
from metering.statements.history import FinalStatement, StatementStatus
from metering.store.pool import Database
from rating.money import currency_of
from tests.conftest import Server
from tests.metering.billing import BASE, BILLING_KEY, CALLS, TIERS, listed, take_back
from tests.metering.catalog import draft, meter, order, play, publish, put
from tests.metering.crediting import check_books, give, ledger, revoke
from tests.metering.test_statement_machine import DAYS, END, SEATS, START, Books

CODES: Final = ("EUR", "JPY", "KWD")


class CreditBooks(Books):
    """Two subscriptions of one account, and the credits that both draw on."""

    def __init__(self, database: Database, code: str) -> None:
        super().__init__(database)
        self.code = code
        self.grants = 0

    async def begin(self) -> None:
        """Two plans in the currency, and the subscriptions."""
        await meter(self.database, "calls")
        await publish(self.database, draft(BASE, SEATS, CALLS, TIERS, currency_code=self.code))
        await publish(self.database, draft(CALLS, TIERS, key="light", currency_code=self.code))
        await put(self.database, self.order)
        await put(self.database, order(key="s-2", starts_at=START, ends_at=END, seats=1))

    async def give(self, day: int, amount: int) -> None:
        """A grant from a day on: of money or of calls, for ever or for some weeks, some that may be overdrawn."""
        currency = currency_of(self.code)
        assert currency is not None
        self.grants += 1
        fields: dict[str, object] = {
            "effective_at": START + timedelta(days=day),
            "expires_at": START + timedelta(days=day + 10 * (amount % 5)) if amount % 5 else None,
            "priority": amount % 3,
        }
        if amount % 4 == 0:
            await give(self.database, f"g-{self.grants}", str(amount), meter="calls", **fields)
            return
        overdraft = currency.quantum * amount if amount % 7 == 0 else Decimal(0)
        only = ("calls",) if amount % 6 == 1 else ()
        granted = f"{currency.quantum * amount:f}" if amount % 2 else str(amount)
        fields |= {"currency_code": self.code, "overdraft_max": overdraft, "meters": only}
        await give(self.database, f"g-{self.grants}", granted, **fields)

    async def revoke(self, number: int, _: int) -> None:
        """Void a grant, once."""
        with suppress(ConflictError, NotFoundError):
            await revoke(self.database, f"g-{number}")

    async def freeze_other(self, day: int, _: int) -> None:
        """Freeze a statement of the other subscription."""
        await finalize_statement(self.database, "s-2", START + timedelta(days=day), BILLING_KEY, LIMITS)

    async def run(self, month: int, _: int) -> None:
        """Freeze a month of both."""
        async for _page in bill(self.database, Month(2025, month), LIMITS, by="a run", finalize=True):
            pass

    async def void(self, number: int, _: int) -> None:
        """Take a statement back, unless later ones built on what it drew or gave back."""
        finals = await listed(self.database, status=StatementStatus.FINAL)
        for each in finals[number:][:1]:
            assert isinstance(each, FinalStatement)
            with suppress(ConflictError):
                await take_back(self.database, each)

    async def owed(self) -> Fraction:
        """What all statements of the first subscription come to that count, with what credits paid of them."""
        worth = Fraction(0)
        of_it = [
            each
            for each in await listed(self.database, subscriptions=["s-1"])
            if each.status is not StatementStatus.VOID
        ]
        for statement in of_it:
            worth += Fraction(statement.owed.amount)
            worth -= sum((Fraction(line.amount.amount) for line in statement.credits), Fraction(0))
        return worth


CHANGES: Final = st.one_of(
    st.tuples(st.just(CreditBooks.give), st.integers(0, DAYS - 1), st.integers(1, 60)),
    st.tuples(st.just(CreditBooks.give), st.integers(0, 40), st.integers(1, 60)),
    st.tuples(st.just(CreditBooks.record), st.integers(0, DAYS - 2), st.integers(1, 9)),
    st.tuples(st.just(CreditBooks.freeze), st.integers(0, DAYS - 1), st.just(0)),
    st.tuples(st.just(CreditBooks.freeze_other), st.integers(0, DAYS - 1), st.just(0)),
    st.tuples(st.just(CreditBooks.run), st.integers(1, 5), st.just(0)),
    st.tuples(st.just(CreditBooks.change), st.integers(0, 3), st.integers(0, 9)),
    st.tuples(st.just(CreditBooks.void), st.integers(0, 5), st.just(0)),
    st.tuples(st.just(CreditBooks.revoke), st.integers(1, 4), st.just(0)),
    st.tuples(st.just(CreditBooks.put), st.integers(0, DAYS - 1), st.integers(0, 3)),
)


def test_credits_through_any_history(servers: dict[str, Server], engine: str) -> None:
    """Grants of money and of calls, statements frozen alone and by month, late and corrected usage, voids of both: all pots
    together hold zero, each grant is what was granted less what was drawn, expired and voided, at no instant below what it
    allows; totals with what credits paid are one rating of all events, to the minor unit.
    """
    server = servers[engine]

    @settings(max_examples=10, deadline=None)
    @given(st.sampled_from(CODES), st.lists(CHANGES, min_size=4, max_size=14))
    def lived_through(code: str, changes: list[tuple[Callable[..., Awaitable[None]], int, int]]) -> None:
        async def scenario(database: Database) -> None:
            books = CreditBooks(database, code)
            await books.begin()
            for change, *numbers in changes:
                await change(books, *numbers)
            assert await books.rated() == await books.owed()
            await check_books(database)
            assert all(each.effective_at <= each.booked_at or each.statement is None for each in await ledger(database))

        with server.cloned() as url:
            play(url, scenario)

    lived_through()
