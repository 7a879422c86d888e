"""`unmetCommitments`: whose minimums will not be reached at today's pace, in weeks of which a half is over."""

import asyncio
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from fractions import Fraction
from math import floor
from typing import Any, Final

import msgspec
import pytest

from metering.accounts import AccountOrder, put_account
from metering.keys import KeyRing, Scope
from metering.limits import LIMITS
from metering.store.snapshot import Snapshot
from rating.billing_periods import BillingInterval
from rating.plans import PlanPrice
from rating.prices import Flat, PerUnit
from tests.conftest import ENGINES, Api, Server, running, usage_event
from tests.metering.catalog import KEY, draft, meter, order, publish, put
from tests.metering.scored import resting
from tests.metering.test_exactness import connect

ASKED: Final = """
query ($filter: AccountFilter! = {}, $first: Int! = 50, $after: String) {
  unmetCommitments(filter: $filter, first: $first, after: $after) {
    totalCount asOf pageInfo { hasNextPage endCursor }
    nodes {
      account { key attributes } subscription plan period { from to } passed short { amount currencyCode }
      commitments { price committed { amount } used { amount } expected { amount } short { amount } }
      figures { band seats }
    }
  }
}
"""
DAY: Final = timedelta(days=1)
BASE: Final = PlanPrice(key="base", price=Flat(Decimal(10)))
HALF: Final = PlanPrice(key="calls", meter="calls", price=PerUnit(Decimal("0.5")))
# What each account is on, and how many days ago that began: the week that runs began half a week, or a day, ago.
SOLD: Final = {
    "small": ("committed", 10.5),
    "enough": ("committed", 10.5),
    "new": ("committed", 8.0),
    "lean": ("lean", 3.5),
    "free": ("free", 3.5),
    "dollars": ("dollars", 17.5),
}
# Calls a day ago; and of one also in the week before, which is over.
USED: Final = {"small": "20", "enough": "95", "lean": "10", "free": "1"}


class World(msgspec.Struct, frozen=True):
    """A service, its address, and the secrets of a key that is bound to an account, and of one for scores alone."""

    api: Api
    url: str
    bound: str
    scores: str

    def unmet(self, **variables: Any) -> Any:
        """The list."""
        return self.api.ask(ASKED, variables)["unmetCommitments"]


async def sell(url: str, now: datetime) -> tuple[str, str]:
    """Plans by the week, with a minimum of a price, of the plan, of both and of none."""
    database = await connect(url)
    try:
        await meter(database, "calls")
        weekly = {"interval": BillingInterval.WEEK}
        at_least_40 = msgspec.structs.replace(HALF, minimum_amount=Decimal(40))
        await publish(database, draft(BASE, at_least_40, key="committed", minimum_amount=Decimal(100), **weekly))
        await publish(database, draft(HALF, key="lean", minimum_amount=Decimal(62), **weekly))
        await publish(database, draft(BASE, HALF, key="free", **weekly))
        await publish(database, draft(BASE, key="dollars", currency_code="USD", minimum_amount=Decimal(30), **weekly))
        for account, (plan, days) in SOLD.items():
            contract = order(key=f"{account} s", account=account, plan=plan, starts_at=now - days * DAY, seats=3)
            await put(database, contract)
        await put_account(database, AccountOrder(key="small", name="Small", attributes={"segment": "smb"}), KEY, LIMITS)
        keys = KeyRing(database)
        _, bound = await keys.create("bound", [Scope.HEALTH_READ, Scope.CHARGES_READ], ["small"])
        _, scores = await keys.create("scores", [Scope.HEALTH_READ])
    finally:
        await database.close()
    return bound, scores


@pytest.fixture(scope="module", params=ENGINES)
def world(request: pytest.FixtureRequest, servers: dict[str, Server]) -> Iterator[World]:
    """One world on each engine, which no test changes."""
    now = datetime.now(UTC)
    with servers[request.param].cloned() as url:
        bound, scores = asyncio.run(sell(url, now))
        with resting(url), running(url) as api:
            used = [(account, calls, 1.0) for account, calls in USED.items()]
            receipt = api.send(
                [
                    usage_event(
                        id=f"{account} {days}",
                        account=account,
                        subscription=f"{account} s",
                        quantity=calls,
                        occurred_at=f"{now - days * DAY:%FT%TZ}",
                    )
                    for account, calls, days in [*used, ("small", "1000", 8.0)]
                ]
            )
            assert [] == receipt["rejected"]
            yield World(api, url, bound, scores)


def at_pace(calls: int, node: Any, as_of: str) -> Decimal:
    """What so many calls will come to by the end of a part, at 0.5 each, in cents."""
    start, end, now = (datetime.fromisoformat(text) for text in (node["period"]["from"], node["period"]["to"], as_of))
    whole, so_far = ((end - start) // timedelta.resolution, (now - start) // timedelta.resolution)
    amount = Fraction(calls, 2) * whole / so_far
    return Decimal(floor(amount * 100 + Fraction(1, 2))) / 100


def shown(node: Any) -> list[tuple[str | None, list[Decimal]]]:
    """The commitments of a row: of each its price, and what is used, expected, short and committed."""
    names = ("used", "expected", "short", "committed")
    return [(each["price"], [Decimal(each[name]["amount"]) for name in names]) for each in node["commitments"]]


def test_who_will_not_use_what_is_committed(world: World) -> None:
    """20 calls at 0.5 in half a week are 10 EUR and will be 20, of 40 that are committed; with a base of 10 that is 50 of 100. By
    currency, who is short of most comes first. Who uses enough, or is committed to nothing, or began a day ago, is not told.
    """
    report = world.unmet()
    small, lean, dollars = report["nodes"]
    calls, few = (at_pace(int(USED[node["account"]["key"]]), node, report["asOf"]) for node in (small, lean))

    assert ["small s", "lean s", "dollars s"] == [node["subscription"] for node in report["nodes"]]
    assert ["committed", "lean", "dollars"] == [node["plan"] for node in report["nodes"]]
    assert abs(calls - 20) < 1
    assert [
        ("calls", [Decimal(10), calls, 40 - calls, Decimal(40)]),
        (None, [Decimal(50), Decimal(50), Decimal(50), Decimal(100)]),
    ] == shown(small)
    assert [(None, [Decimal(5), few, 62 - few, Decimal(62)])] == shown(lean)
    assert [(None, [Decimal(10), Decimal(10), Decimal(20), Decimal(30)])] == shown(dollars)
    assert [(90 - calls, "EUR"), (62 - few, "EUR"), (Decimal(20), "USD")] == [
        (Decimal(node["short"]["amount"]), node["short"]["currencyCode"]) for node in report["nodes"]
    ]
    assert (3, {"segment": "smb"}, {"band": "unknown", "seats": None}) == (
        report["totalCount"],
        small["account"]["attributes"],
        small["figures"],
    )
    assert all(Decimal("0.5") <= Decimal(node["passed"]) < Decimal("0.6") for node in report["nodes"])


def test_commitments_are_filtered_and_paged(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """Kept to accounts as lists are; page by page they are the same list, and a page of one takes as many statements as all."""
    kept: list[tuple[dict[str, Any], list[str]]] = [
        ({"text": "A"}, ["small s", "lean s", "dollars s"]),
        ({"text": "Small"}, ["small s"]),
        ({"attributes": {"segment": "smb"}}, ["small s"]),
        ({"band": ["healthy"]}, []),
        ({"renewsBefore": "2100-01-01T00:00:00Z"}, []),
    ]
    for filters, names in kept:
        assert names == [node["subscription"] for node in world.unmet(filter=filters)["nodes"]], filters
    asked: list[str] = []
    fetch = Snapshot.fetch

    async def counted(snapshot: Snapshot, statement: str, *arguments: Any, **options: Any) -> list[Any]:
        asked.append(statement)
        return await fetch(snapshot, statement, *arguments, **options)

    monkeypatch.setattr(Snapshot, "fetch", counted)
    whole = world.unmet()
    of_all, after = len(asked), None
    for place, node in enumerate(whole["nodes"]):
        asked.clear()
        page = world.unmet(first=1, after=after)
        after = page["pageInfo"]["endCursor"]
        assert of_all == len(asked)
        assert [node["subscription"]] == [each["subscription"] for each in page["nodes"]]
        assert (place < 2) is page["pageInfo"]["hasNextPage"]


def test_who_may_ask_for_commitments(world: World) -> None:
    """Amounts need CHARGES_READ besides; who is bound to accounts sees none; a page that cannot be is refused by its path,
    and more than one answer has time for is too large.
    """
    refused = world.api.answer(ASKED, key=world.scores)["errors"][0]["extensions"]
    forged = world.api.answer(ASKED, {"first": 0})["errors"][0]["extensions"]

    assert "FORBIDDEN" == refused["code"]
    assert [] == world.api.ask(ASKED, key=world.bound)["unmetCommitments"]["nodes"]
    assert [["first"]] == [issue["path"] for issue in forged["issues"]]
    with running(world.url, msgspec.structs.replace(LIMITS, simulation_subscriptions_max=3)) as api:
        assert "TOO_LARGE" == api.answer(ASKED)["errors"][0]["extensions"]["code"]
