"""What amounts are shared out by is held within a bound: many statements are taken some at a time, one that is too large is
refused, and the answer is the same.
"""

from decimal import Decimal
from typing import Final

import msgspec
import pytest

from metering.aggregations import Aggregation
from metering.errors import InvalidInputError, TooLargeError
from metering.events import Dimension
from metering.limits import LIMITS, Limits
from metering.periods import Period
from metering.statements.charges import Charges, read_charges
from metering.statements.explain import Comparison, Explained, compare, explain_charges
from metering.statements.simulations import Simulated, SimulationOrder, check_order, simulate
from metering.store.pool import Database
from metering.store.snapshot import Snapshot
from rating.periods import Period as RatingPeriod
from rating.plans import PlanPrice
from rating.prices import PerUnit
from tests.metering.billing import BASE, CALLS, call, freeze, use
from tests.metering.catalog import draft, meter, order, play, publish, put
from tests.metering.test_charges import question
from tests.rating.tables import at

SPRING: Final = Period(at("2025-01-01"), at("2025-04-01"))
FEBRUARY: Final = RatingPeriod(at("2025-02-01"), at("2025-03-01"))
MARCH: Final = RatingPeriod(at("2025-03-01"), at("2025-04-01"))
USERS: Final = 5
# Two prices on one meter: five users have ten shares in a month's statement.
AGAIN: Final = msgspec.structs.replace(CALLS, key="again")


def holding(shares: int, **limits: int) -> Limits:
    """Limits under which so many shares are held."""
    return msgspec.structs.replace(LIMITS, shares_max=shares, **limits)


async def customers(database: Database, *prices: PlanPrice, discount: int = 5) -> None:
    """Four subscriptions of acme with a discount, each with five users in each of three months; one is frozen."""
    await meter(database, "calls")
    await publish(database, draft(BASE, *prices))
    number = 0
    for subscription in ("s-1", "s-2", "s-3", "s-4"):
        given = {"starts_at": SPRING.start, "ends_at": SPRING.end, "discount_percent": Decimal(discount)}
        await put(database, order(key=subscription, **given))
        events = []
        for month in (1, 2, 3):
            for user in range(USERS):
                number += 1
                of = f"{subscription}-{user}"
                events.append(call(number, f"2025-{month:02}-10", str(number), subscription=subscription, user=of))
        await use(database, *events)
    await freeze(database, "2025-02-10", "s-2")


async def charged(database: Database, limits: Limits, by: Dimension = Dimension.USER) -> Charges:
    """All charges of the spring."""
    async with Snapshot(database) as snapshot:
        return await read_charges(snapshot, question([by], SPRING), limits)


async def explained(database: Database, limits: Limits, by: Dimension = Dimension.USER) -> Explained:
    """Why March differs from February."""
    wanted = Comparison(
        account="acme", before=FEBRUARY, after=MARCH, by=(by,), top=limits.page_rows_max, currency_code=None
    )
    async with Snapshot(database) as snapshot:
        return await explain_charges(snapshot, compare(wanted, limits), limits)


def test_many_statements_are_taken_some_at_a_time(database_url: str) -> None:
    """With as many shares as one statement has, the answers are those of a bound that nothing reaches."""

    async def scenario(database: Database) -> None:
        await customers(database, CALLS, AGAIN)
        everything = holding(10**6)
        for shares in (10, 11, 25, 119):
            assert await charged(database, everything) == await charged(database, holding(shares))
            assert await explained(database, everything) == await explained(database, holding(shares))
        assert 4 * USERS + 1 == len((await charged(database, everything)).groups)

    play(database_url, scenario)


def test_a_statement_with_more_shares_is_refused(database_url: str) -> None:
    """With one share less it is refused, with what to ask instead; that is answered, for nothing has to be shared out."""

    async def scenario(database: Database) -> None:
        await customers(database, CALLS, AGAIN)
        with pytest.raises(
            TooLargeError, match=r"10 points; one answer may have 9.*by account and subscription"
        ) as caught:
            await charged(database, holding(9))
        assert (10, 9) == (caught.value.points, caught.value.maximum)
        with pytest.raises(InvalidInputError, match="by account and subscription") as refused:
            await explained(database, holding(9))
        assert [("input",)] == [issue.path for issue in refused.value.issues]
        assert 4 == len((await charged(database, holding(1), Dimension.SUBSCRIPTION)).groups)
        assert 4 == len((await explained(database, holding(1), Dimension.SUBSCRIPTION)).explanation.parts)

    play(database_url, scenario)


def test_without_a_discount_a_line_is_shared_at_a_time(database_url: str) -> None:
    """Where no discount follows the shares of all lines, so many are held as one line has."""

    async def scenario(database: Database) -> None:
        await customers(database, CALLS, AGAIN, discount=0)
        assert await charged(database, holding(10**6)) == await charged(database, holding(USERS))
        assert await explained(database, holding(10**6)) == await explained(database, holding(USERS))
        with pytest.raises(TooLargeError, match="5 points; one answer may have 4"):
            await charged(database, holding(USERS - 1))

    play(database_url, scenario)


def test_simulations_by_user_hold_no_more(database_url: str) -> None:
    """Subscriptions that together have too many shares are simulated by halves; one alone with too many is refused."""

    async def simulated(database: Database, limits: Limits) -> list[Simulated]:
        wanted = SimulationOrder(plan="team", start=SPRING.start, end=SPRING.end, by_user=True)
        async with Snapshot(database) as snapshot:
            simulation = await check_order(snapshot, wanted, limits)
            return [each async for batch in simulate(snapshot, simulation, limits) for each in batch]

    async def scenario(database: Database) -> None:
        await customers(database, CALLS)
        found = await simulated(database, holding(10**6))
        assert ["s-1", "s-2", "s-3", "s-4"] == [each.rows[0].subscription for each in found]
        assert all(USERS + 1 == len(each.rows) for each in found)
        for shares in (15, 16, 59):
            assert found == await simulated(database, holding(shares))
        with pytest.raises(TooLargeError, match="one answer may have 14"):
            await simulated(database, holding(14))

    play(database_url, scenario)


@pytest.mark.parametrize("aggregation", [Aggregation.SUM, Aggregation.MAX, Aggregation.UNIQUE_COUNT])
def test_reading_stops_where_no_more_is_held(database_url: str, aggregation: Aggregation) -> None:
    """Where more usage is behind an amount than is held, reading ends, and the same snapshot answers the next question."""

    async def scenario(database: Database) -> None:
        await meter(database, "any", aggregation)
        await customers(database, PlanPrice(key="any", meter="any", price=PerUnit(Decimal(1))))
        async with Snapshot(database) as snapshot:
            for _ in range(2):
                with pytest.raises(TooLargeError, match="one answer may have 4"):
                    await read_charges(snapshot, question([Dimension.USER], SPRING), holding(4))
            found = await read_charges(snapshot, question([Dimension.USER], SPRING), holding(15))
        assert await charged(database, LIMITS) == found

    play(database_url, scenario)


def test_more_parts_than_are_held_are_refused(database_url: str) -> None:
    """A difference of more parts than one answer may have points is refused, with what to narrow."""

    async def scenario(database: Database) -> None:
        await customers(database, CALLS, discount=0)
        parts = len((await explained(database, LIMITS)).explanation.parts)
        # Twenty users, and what is owed for time, which came to nothing.
        assert 4 * USERS == parts
        assert parts == len((await explained(database, holding(100, points_max=parts + 1))).explanation.parts)
        with pytest.raises(InvalidInputError, match="fewer dimensions") as refused:
            await explained(database, holding(100, points_max=parts))
        assert [("input", "by")] == [issue.path for issue in refused.value.issues]

    play(database_url, scenario)
