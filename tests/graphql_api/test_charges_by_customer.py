"""`chargesByCustomer`: what customers were charged, beside a period before; by hand, and against `charges`."""

import asyncio
from decimal import Decimal
from typing import Any, Final

from rating.plans import PlanPrice
from rating.prices import Flat, PerUnit
from tests.conftest import Api, running, usage_event
from tests.metering.catalog import draft, meter, order, publish, put
from tests.metering.test_exactness import connect

ASKED: Final = """
query ($period: PeriodInput!, $before: PeriodInput!, $first: Int! = 50, $after: String) {
  chargesByCustomer(period: $period, comparedWith: $before) {
    ... on InvalidInput { issues { path } }
    ... on CustomerChargesReport {
      totals { ...Change }
      customers(first: $first, after: $after) {
        totalCount pageInfo { hasNextPage endCursor } remainder { ...Change }
        nodes { account before { amount currencyCode } after { amount } difference { amount } }
      }
    }
  }
  charges(query: { period: $period }) { ... on ChargesReport { totals { amount currencyCode } } }
}
fragment Change on ChargesChange { before { amount currencyCode } after { amount } difference { amount } }
"""
MARCH: Final = {"from": "2026-03-01T00:00:00Z", "to": "2026-04-01T00:00:00Z"}
APRIL: Final = {"from": "2026-04-01T00:00:00Z", "to": "2026-05-01T00:00:00Z"}
# Calls in March and in April, at half a euro each.
CALLS: Final = {"one": ("10", "2"), "two": ("4", "0"), "three": ("0", "100")}


async def sell(url: str) -> None:
    """Three customers of a plan by use, one of whom is on a plan in dollars too."""
    database = await connect(url)
    try:
        await meter(database, "calls")
        calls = PlanPrice(key="calls", meter="calls", price=PerUnit(Decimal("0.5")))
        await publish(database, draft(calls))
        flat = PlanPrice(key="base", price=Flat(Decimal(3)))
        await publish(database, draft(flat, key="dollars", currency_code="USD"))
        for account in CALLS:
            await put(database, order(key=account, account=account))
        await put(database, order(key="one-more", account="one", plan="dollars"))
    finally:
        await database.close()


def rows(changes: list[Any]) -> list[tuple[str, ...]]:
    """Customers, or sums of them, as tuples."""
    return [
        (
            *([each["account"]] if "account" in each else []),
            each["before"]["currencyCode"],
            *(each[name]["amount"] for name in ("before", "after", "difference")),
        )
        for each in changes
    ]


def asked(api: Api, **given: Any) -> Any:
    """April, beside March."""
    return api.ask(ASKED, {"period": APRIL, "before": MARCH, **given})


def test_customers_beside_the_month_before(database_url: str) -> None:
    """By currency, the biggest difference first; page plus remainder is the whole, which is what `charges` says of the period."""
    asyncio.run(sell(database_url))
    with running(database_url) as api:
        api.send(
            [
                usage_event(
                    number,
                    account=account,
                    subscription=account,
                    quantity=quantity,
                    occurred_at=at,
                    id=f"{account}{at}",
                )
                for number, (account, calls) in enumerate(CALLS.items())
                for at, quantity in zip(("2026-03-10T00:00:00Z", "2026-04-10T00:00:00Z"), calls, strict=True)
            ]
        )
        answer = asked(api)
        report = answer["chargesByCustomer"]
        assert [
            ("three", "EUR", "0.00", "50.00", "50.00"),
            ("one", "EUR", "5.00", "1.00", "-4.00"),
            ("two", "EUR", "2.00", "0.00", "-2.00"),
            ("one", "USD", "3.00", "3.00", "0.00"),
        ] == rows(report["customers"]["nodes"])
        whole = [("EUR", "7.00", "51.00", "44.00"), ("USD", "3.00", "3.00", "0.00")]
        assert whole == rows(report["totals"])
        assert [("51.00", "EUR"), ("3.00", "USD")] == [tuple(each.values()) for each in answer["charges"]["totals"]]
        page = asked(api, first=2)["chargesByCustomer"]["customers"]
        assert [("EUR", "2.00", "0.00", "-2.00"), ("USD", "3.00", "3.00", "0.00")] == rows(page["remainder"])
        rest = asked(api, first=2, after=page["pageInfo"]["endCursor"])["chargesByCustomer"]["customers"]
        assert [("two", "EUR"), ("one", "USD")] == [each[:2] for each in rows(rest["nodes"])]
        assert (True, False) == (page["pageInfo"]["hasNextPage"], rest["pageInfo"]["hasNextPage"])
        backwards = {"from": APRIL["to"], "to": APRIL["from"]}
        faults = asked(api, before=backwards)["chargesByCustomer"]["issues"]
        assert [["comparedWith", "to"]] == [issue["path"] for issue in faults]
