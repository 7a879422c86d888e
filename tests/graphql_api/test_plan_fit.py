"""`planFit`: what subscriptions would owe on other plans; by hand, and as `simulatePlan` says of each plan by itself."""

import asyncio
from collections.abc import Iterator
from decimal import Decimal
from typing import Any, Final

import msgspec
import pytest

from metering.keys import KeyRing, Scope
from metering.limits import LIMITS
from rating.plans import PlanPrice
from rating.prices import Flat, PerUnit
from tests.conftest import ENGINES, Api, Server, running, usage_event
from tests.metering.catalog import draft, meter, order, publish, put
from tests.metering.test_exactness import connect

ASKED: Final = """
query ($input: PlanFitInput!, $first: Int! = 50, $after: String) {
  planFit(input: $input) {
    ... on InvalidInput { issues { path } }
    ... on TooLarge { points maximum }
    ... on PlanFitReport {
      plans wouldSave
      subscriptions(first: $first, after: $after) {
        totalCount pageInfo { hasNextPage endCursor }
        nodes {
          account subscription plan current { amount currencyCode } saving { amount } includedUsed
          offers { plan version amount { amount } difference { amount } }
        }
      }
    }
  }
}
"""
SIMULATED: Final = """
query ($input: SimulatePlanInput!) {
  simulatePlan(input: $input) {
    ... on PlanSimulation { rows { nodes { subscription current { amount } simulated { amount } } } }
  }
}
"""
MARCH: Final = {"from": "2026-03-01T00:00:00Z", "to": "2026-04-01T00:00:00Z"}
SOME_DAYS: Final = {"from": "2026-03-04T10:00:00Z", "to": "2026-04-20T00:00:00Z"}
USED: Final = {"light": "5", "heavy": "100"}


class World(msgspec.Struct, frozen=True):
    """A service, its address, and the secret of a key that is bound to an account."""

    api: Api
    url: str
    bound: str


def flat(amount: int) -> PlanPrice:
    """So much a month."""
    return PlanPrice(key="base", price=Flat(Decimal(amount)))


async def sell(url: str) -> str:
    """Four plans, and a light and a heavy customer of the first, and one of the plan in dollars."""
    database = await connect(url)
    try:
        await meter(database, "calls")
        half = PlanPrice(key="calls", meter="calls", price=PerUnit(Decimal("0.5")), included_quantity=Decimal(10))
        await publish(database, draft(flat(10), half))
        await publish(database, draft(PlanPrice(key="calls", meter="calls", price=PerUnit(Decimal(1))), key="lean"))
        await publish(database, draft(flat(40), key="bulk"))
        await publish(database, draft(flat(30), key="bulk"))
        await publish(database, draft(flat(3), key="dollars", currency_code="USD"))
        for account in USED:
            await put(database, order(key=account, account=account))
        await put(database, order(key="other", account="other", plan="dollars"))
        _, bound = await KeyRing(database).create("bound", [Scope.HEALTH_READ, Scope.CHARGES_READ], ["light"])
    finally:
        await database.close()
    return bound


@pytest.fixture(scope="module", params=ENGINES)
def world(request: pytest.FixtureRequest, servers: dict[str, Server]) -> Iterator[World]:
    """One world on each engine; nothing in it is changed."""
    with servers[request.param].cloned() as url:
        bound = asyncio.run(sell(url))
        with running(url) as api:
            api.send(
                [
                    usage_event(
                        account=account, subscription=account, quantity=quantity, id=f"{account} {day}", occurred_at=day
                    )
                    for account, quantity in USED.items()
                    for day in ("2026-03-10T00:00:00Z", "2026-04-02T00:00:00Z")
                ]
            )
            yield World(api, url, bound)


def fit(world: World, first: int = 50, after: str | None = None, **given: Any) -> Any:
    """How plans fit in March, unless another period is given."""
    return world.api.ask(ASKED, {"input": {"period": MARCH, **given}, "first": first, "after": after})["planFit"]


def test_plan_fit_by_hand(world: World) -> None:
    """Who would save most comes first; the cheapest other plan is named, in its newest version, and none of another currency."""
    report = fit(world)
    heavy, light, other = report["subscriptions"]["nodes"]
    assert (["bulk", "dollars", "lean", "team"], 2) == (report["plans"], report["wouldSave"])
    assert ("heavy", "team", "55.00", "25.00", "10") == shown(heavy)
    assert ("light", "team", "10.00", "5.00", "0.5") == shown(light)
    assert ("other", "dollars", "3.00", "0.00", None) == shown(other)
    assert [("bulk", 2, "30.00", "-25.00"), ("lean", 1, "100.00", "45.00")] == offers(heavy)
    assert [("lean", 1, "5.00", "-5.00"), ("bulk", 2, "30.00", "20.00")] == offers(light)
    assert [] == offers(other)
    page = fit(world, first=2)["subscriptions"]
    rest = fit(world, first=2, after=page["pageInfo"]["endCursor"])["subscriptions"]
    assert [heavy, light, other] == [*page["nodes"], *rest["nodes"]]
    assert (True, False, 3) == (page["pageInfo"]["hasNextPage"], rest["pageInfo"]["hasNextPage"], rest["totalCount"])


def shown(node: Any) -> tuple[Any, ...]:
    """What there is to a subscription but for offers."""
    return (
        node["subscription"],
        node["plan"],
        node["current"]["amount"],
        node["saving"]["amount"],
        node["includedUsed"],
    )


def offers(node: Any) -> list[tuple[Any, ...]]:
    """Its offers."""
    return [
        (each["plan"], each["version"], each["amount"]["amount"], each["difference"]["amount"])
        for each in node["offers"]
    ]


@pytest.mark.parametrize("period", [MARCH, SOME_DAYS], ids=["month", "days"])
def test_fits_are_what_simulations_say(world: World, period: dict[str, str]) -> None:
    """Of a month, and of days that cut billing periods, each side is the one of a simulation of that plan alone."""
    found = {node["subscription"]: node for node in fit(world, period=period)["subscriptions"]["nodes"]}
    for plan in ("bulk", "lean"):
        rows = world.api.ask(SIMULATED, {"input": {"plan": plan, "period": period}})["simulatePlan"]["rows"]["nodes"]
        assert {"light", "heavy"} == {row["subscription"] for row in rows}
        for row in rows:
            node = found[row["subscription"]]
            assert row["current"]["amount"] == node["current"]["amount"]
            assert [row["simulated"]] == [offer["amount"] for offer in node["offers"] if offer["plan"] == plan]


def test_what_is_refused(world: World) -> None:
    """Every fault is told by its path; more ratings than one answer has time for are too large; who is bound sees no plans."""
    backwards = {"from": MARCH["to"], "to": MARCH["from"]}
    assert [["input", "period", "to"], ["input", "plans", "1"]] == [
        issue["path"] for issue in fit(world, period=backwards, plans=["lean", "none"])["issues"]
    ]
    assert ["lean"] == fit(world, plans=["lean"])["plans"]
    assert ["light"] == [node["subscription"] for node in fit(world, account="light")["subscriptions"]["nodes"]]
    refused = world.api.answer(ASKED, {"input": {"period": MARCH}}, key=world.bound)
    assert "FORBIDDEN" == refused["errors"][0]["extensions"]["code"]
    # Two in euros, each rated on four plans, and one in dollars on its own and on itself, as if it were another.
    narrow = msgspec.structs.replace(LIMITS, simulation_subscriptions_max=4, fit_plans_max=4)
    with running(world.url, narrow) as api:
        assert {"points": 10, "maximum": 8} == api.ask(ASKED, {"input": {"period": MARCH}})["planFit"]
    with running(world.url, msgspec.structs.replace(LIMITS, fit_plans_max=3)) as api:
        assert [{"path": ["input", "plans"]}] == api.ask(ASKED, {"input": {"period": MARCH}})["planFit"]["issues"]
