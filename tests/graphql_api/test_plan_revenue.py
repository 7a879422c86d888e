"""`planRevenue`: what was charged on plans, by whom and for how much; by hand, and against `charges`."""

import asyncio
from collections.abc import Iterator
from decimal import Decimal
from typing import Any, Final

import msgspec
import pytest

from metering.aggregations import Aggregation
from metering.keys import KeyRing, Scope
from rating.plans import PlanPrice
from rating.prices import Flat, PerUnit
from tests.conftest import ENGINES, Api, Server, running, usage_event
from tests.metering.catalog import draft, meter, order, publish, put
from tests.metering.test_exactness import connect
from tests.rating.tables import at

ASKED: Final = """
query ($period: PeriodInput!, $first: Int! = 50, $after: String) {
  planRevenue(period: $period) {
    ... on InvalidInput { issues { path } }
    ... on PlanRevenueReport {
      totals { amount currencyCode }
      plans(first: $first, after: $after) {
        totalCount pageInfo { hasNextPage endCursor } remainder { amount currencyCode }
        nodes {
          plan recurring { amount } usage { amount } adjustments { amount } total { amount currencyCode }
          accounts perAccount { amount } activeUsers perActiveUser { amount }
          meters { meter amount { amount } quantity unitPrice } grossRetention netRetention
        }
      }
    }
  }
  charges(query: { period: $period }) { ... on ChargesReport { totals { amount currencyCode } } }
}
"""
MARCH: Final = ("2026-03-01T00:00:00Z", "2026-04-01T00:00:00Z")
MIDDLE: Final = "2026-03-16T12:00:00Z"
# Account, user, day and calls.
CALLS: Final = [
    *(("a", "u", 3, "20"), ("a", "v", 20, "10"), ("b", "u", 5, "5"), ("c", "w", 6, "8")),
    # Of the second, no price is on the plan that it has by then.
    *(("e", "z", 10, "4"), ("e", "z", 20, "7")),
    *(("d", "x", 7, "1"), ("d", "y", 8, "1")),
]


class World(msgspec.Struct, frozen=True):
    """A service, and the secrets of keys that are bound to an account, and that read no charges."""

    api: Api
    bound: str
    no_charges: str


def flat(amount: int) -> PlanPrice:
    """So much a month."""
    return PlanPrice(key="base", price=Flat(Decimal(amount)))


def metered(of: str, unit_price: str, included: int = 0) -> PlanPrice:
    """So much for each unit of a meter."""
    return PlanPrice(key=of, meter=of, price=PerUnit(Decimal(unit_price)), included_quantity=Decimal(included))


async def sell(url: str) -> tuple[str, str]:
    """Four plans, and who is on them; `e` goes from one to another on 17 March, and amounts of `b` and `c` change then."""
    database = await connect(url)
    try:
        await meter(database, "calls")
        await meter(database, "people", Aggregation.UNIQUE_COUNT, "user")
        await publish(database, draft(flat(10), metered("calls", "0.5", included=10)))
        await publish(database, draft(metered("calls", "1"), key="lean"))
        await publish(database, draft(flat(31), key="bulk"))
        await publish(database, draft(flat(3), metered("people", "1"), key="dollars", currency_code="USD"))
        for account, plan, amount in (("a", "team", 100), ("b", "team", 20), ("c", "lean", 40), ("e", "lean", 10)):
            await put(database, order(key=account, account=account, plan=plan, monthly_amount=Decimal(amount)))
        await put(database, order(key="d", account="d", plan="dollars"))
        moved = order(key="e", account="e", plan="bulk", monthly_amount=Decimal(10), effective_at=at("2026-03-17"))
        await put(database, moved)
        async with database.connection() as connection:
            await connection.execute(
                "INSERT INTO subscription_change (subscription, changed_at, by, before, after) "
                """VALUES ('b', $1, 'test', '{"monthly_amount": "50"}', '{"monthly_amount": "20"}'), """
                """('c', $1, 'test', '{"monthly_amount": "30"}', '{"monthly_amount": "40"}')""",
                at("2026-03-17"),
            )
        ring = KeyRing(database)
        _, bound = await ring.create("bound", [Scope.HEALTH_READ, Scope.CHARGES_READ], ["c"])
        _, no_charges = await ring.create("no charges", [Scope.HEALTH_READ])
    finally:
        await database.close()
    return bound, no_charges


@pytest.fixture(scope="module", params=ENGINES)
def world(request: pytest.FixtureRequest, servers: dict[str, Server]) -> Iterator[World]:
    """One world on each engine; nothing in it is changed."""
    with servers[request.param].cloned() as url:
        bound, no_charges = asyncio.run(sell(url))
        with running(url) as api:
            events = [
                usage_event(
                    number,
                    account=account,
                    subscription=account,
                    user=user,
                    quantity=quantity,
                    occurred_at=f"2026-03-{day:02}T12:00:00Z",
                )
                for number, (account, user, day, quantity) in enumerate(CALLS)
            ]
            assert [] == api.send(events)["rejected"]
            yield World(api, bound, no_charges)


def asked(world: World, start: str = MARCH[0], end: str = MARCH[1], **given: Any) -> Any:
    """What plans brought in, in March unless other instants are given."""
    return world.api.ask(ASKED, {"period": {"from": start, "to": end}, **given})


def test_plans_by_hand(world: World) -> None:
    """Amounts are of the plan whose line it is, users of the plan that a subscription was last on; quantities of both."""
    answer = asked(world)
    nodes = answer["planRevenue"]["plans"]["nodes"]
    amounts = {each["plan"]: tuple(each[name]["amount"] for name in ("recurring", "usage", "total")) for each in nodes}
    assert {
        "team": ("20.00", "10.00", "30.00"),
        "bulk": ("15.00", "0.00", "15.00"),
        "lean": ("0.00", "12.00", "12.00"),
        "dollars": ("3.00", "2.00", "5.00"),
    } == amounts
    assert ["team", "bulk", "lean", "dollars"] == [each["plan"] for each in nodes]
    assert [(2, "15.00", 3, "10.00"), (1, "15.00", 1, "15.00"), (2, "6.00", 1, "12.00"), (1, "5.00", 2, "2.50")] == [
        (each["accounts"], each["perAccount"]["amount"], each["activeUsers"], each["perActiveUser"]["amount"])
        for each in nodes
    ]
    assert [
        [("calls", "10.00", "35", "0.285714")],
        [],
        [("calls", "12.00", "12", "1")],
        [("people", "2.00", None, None)],
    ] == [
        [(of["meter"], of["amount"]["amount"], of["quantity"], of["unitPrice"]) for of in each["meters"]]
        for each in nodes
    ]
    assert [("0.8", "0.8"), (None, None), ("1", "1.25"), (None, None)] == [
        (each["grossRetention"], each["netRetention"]) for each in nodes
    ]
    assert [("57.00", "EUR"), ("5.00", "USD")] == [tuple(each.values()) for each in answer["planRevenue"]["totals"]]
    assert answer["charges"]["totals"] == answer["planRevenue"]["totals"]


def test_periods_side_by_side_add_up(world: World) -> None:
    """However a month is cut, the amounts of each plan add up to those of the month."""
    halves = [asked(world, MARCH[0], MIDDLE), asked(world, MIDDLE, MARCH[1])]
    sums: dict[str, Decimal] = {}
    for half in halves:
        assert half["charges"]["totals"] == half["planRevenue"]["totals"]
        for each in half["planRevenue"]["plans"]["nodes"]:
            sums[each["plan"]] = sums.get(each["plan"], Decimal(0)) + Decimal(each["total"]["amount"])
    whole = asked(world)["planRevenue"]["plans"]["nodes"]
    assert {each["plan"]: Decimal(each["total"]["amount"]) for each in whole} == sums


def test_pages_reach_and_refusals(world: World) -> None:
    """Page plus remainder is the whole; who is bound to an account sees what it was charged; faults are told by their path."""
    first = asked(world, first=2)["planRevenue"]["plans"]
    rest = asked(world, first=2, after=first["pageInfo"]["endCursor"])["planRevenue"]["plans"]
    assert ["team", "bulk", "lean", "dollars"] == [each["plan"] for page in (first, rest) for each in page["nodes"]]
    assert (True, False, 4) == (first["pageInfo"]["hasNextPage"], rest["pageInfo"]["hasNextPage"], rest["totalCount"])
    assert [("12.00", "EUR"), ("5.00", "USD")] == [tuple(each.values()) for each in first["remainder"]]
    variables = {"period": {"from": MARCH[0], "to": MARCH[1]}}
    (own,) = world.api.ask(ASKED, variables, key=world.bound)["planRevenue"]["plans"]["nodes"]
    assert ("lean", "8.00", 1, "8", "1.333333") == (
        *(own["plan"], own["total"]["amount"], own["accounts"], own["meters"][0]["quantity"]),
        own["netRetention"],
    )
    refused = world.api.answer(ASKED, variables, key=world.no_charges)
    assert "FORBIDDEN" == refused["errors"][0]["extensions"]["code"]
    faulty = ASKED.partition("  charges(")[0] + "}"
    backwards = world.api.ask(faulty, {"period": {"from": MARCH[1], "to": MARCH[0]}})
    assert [["period", "to"]] == [issue["path"] for issue in backwards["planRevenue"]["issues"]]
