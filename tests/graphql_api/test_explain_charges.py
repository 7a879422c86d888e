"""`explainCharges` through HTTP: why a bill is higher, and whose usage it is, as a client sees it."""

from datetime import datetime
from decimal import Decimal
from typing import Any, Final

import pytest

from metering.keys import Scope
from tests.conftest import Api, make_key, usage_event
from tests.graphql_api.test_charges import charges, eur
from tests.graphql_api.test_plans import publish
from tests.graphql_api.test_statements import FINALIZE, MARCH, PUT_METER, ask
from tests.graphql_api.test_subscriptions import bound_key, put

EXPLAIN: Final = """
query ($input: ExplainChargesInput!) {
  explainCharges(input: $input) {
    __typename
    ... on ChargesExplanation {
      before { amount currencyCode } after { amount currencyCode } difference { amount currencyCode } asOf
      parts {
        cause key { account subscription user device product feature classification unit }
        amount { amount currencyCode } quantityBefore quantityAfter unit
      }
      remainder { amount currencyCode }
    }
    ... on InvalidInput { code message issues { path message } }
    ... on NotFound { code message }
  }
}
"""
FEBRUARY: Final = {"from": "2026-02-01T00:00:00Z", "to": "2026-03-01T00:00:00Z"}
NULLS: Final = dict.fromkeys(
    ["account", "subscription", "user", "device", "product", "feature", "classification", "unit"]
)


def explain(api: Api, key: str | None = None, **fields: Any) -> Any:
    """Why March differs from February by user, unless something else is asked."""
    given = {"account": "acme", "period": MARCH, "comparedWith": FEBRUARY, "by": ["USER"], **fields}
    return (api.ask(EXPLAIN, {"input": given}) if key is None else api.ask(EXPLAIN, {"input": given}, key=key))[
        "explainCharges"
    ]


def part(cause: str, amount: str, quantities: tuple[str, str] | None = None, **key: str) -> dict[str, Any]:
    """A part of the answer."""
    before, after = quantities or (None, None)
    return {
        "cause": cause,
        "key": {**NULLS, **key},
        "amount": {"amount": amount, "currencyCode": "EUR"},
        "quantityBefore": before,
        "quantityAfter": after,
        "unit": None if quantities is None else "call",
    }


def sell(api: Api) -> None:
    """10.00 a month, two seats at 4.00, and calls at 0.20; from March on a seat more, and calls at 0.25."""
    api.ask(PUT_METER)
    base = {"key": "base", "price": {"flat": {"amount": "10"}}}
    seats = {"key": "seats", "price": {"perSeat": {"unitPrice": "4"}}}
    for price, since in (("0.20", "2026-01-01T00:00:00Z"), ("0.25", MARCH["from"])):
        calls = {"key": "calls", "meter": "calls", "price": {"perUnit": {"unitPrice": price}}}
        publish(api, base, seats, calls, effectiveFrom=since)
    put(api, seats=2, endsAt="2026-05-01T00:00:00Z")
    put(api, seats=3, endsAt="2026-05-01T00:00:00Z", effectiveAt=MARCH["from"])
    calls_made = [
        ("2026-02-10T00:00:00Z", "100", "ann"),
        ("2026-02-11T00:00:00Z", "50", "bob"),
        ("2026-03-10T00:00:00Z", "160", "ann"),
        ("2026-03-11T00:00:00Z", "40", "cleo"),
    ]
    api.send(
        [
            usage_event(number, subscription="s-1", occurred_at=at, quantity=quantity, user=user)
            for number, (at, quantity, user) in enumerate(calls_made)
        ]
    )


def test_a_worked_example(api: Api) -> None:
    """48.00 become 72.00: each part by cause and user, with the quantities of usage; the largest first."""
    sell(api)
    answer = explain(api)

    # 150 calls at 0.20, 10.00 and 8.00; then 200 calls at 0.25, 10.00 and 12.00.
    assert (eur("48.00"), eur("72.00"), eur("24.00"), eur("0.00")) == tuple(
        [answer[name]] for name in ("before", "after", "difference", "remainder")
    )
    assert [
        part("VOLUME", "12.00", ("100", "160"), user="ann"),
        part("VOLUME", "-10.00", ("50", "0"), user="bob"),
        part("VOLUME", "8.00", ("0", "40"), user="cleo"),
        part("PRICE", "8.00", ("100", "160"), user="ann"),
        part("RECURRING", "4.00"),
        part("PRICE", "2.00", ("0", "40"), user="cleo"),
    ] == answer["parts"]
    assert charges(api)["totals"] == [answer["after"]]
    assert charges(api, period=FEBRUARY)["totals"] == [answer["before"]]
    assert datetime.fromisoformat(answer["asOf"]) <= datetime.fromisoformat(charges(api)["asOf"])


def test_parts_by_any_dimensions(api: Api) -> None:
    """By none there is a part for each cause; by several they are told apart by all of them."""
    sell(api)
    assert [
        part("VOLUME", "10.00", ("150", "200")),
        part("PRICE", "10.00", ("150", "200")),
        part("RECURRING", "4.00"),
    ] == explain(api, by=[])["parts"]
    by_all = explain(api, by=["ACCOUNT", "SUBSCRIPTION", "USER", "PRODUCT", "UNIT"])["parts"]
    who = {"account": "acme", "subscription": "s-1"}
    what = {**who, "product": "maps", "unit": "call"}
    assert part("VOLUME", "12.00", ("100", "160"), user="ann", **what) == by_all[0]
    assert part("RECURRING", "4.00", **who) in by_all


def test_the_largest_parts_and_a_remainder(api: Api) -> None:
    """With `top`, the largest parts are told and all others are one remainder."""
    sell(api)
    whole = explain(api)
    for top in range(1, 7):
        answer = explain(api, top=top)
        told = [Decimal(each["amount"]["amount"]) for each in answer["parts"]]
        assert whole["parts"][:top] == answer["parts"]
        assert Decimal("24.00") == sum(told) + Decimal(answer["remainder"]["amount"])


def test_final_statements_and_their_adjustments(api: Api) -> None:
    """A frozen month is compared as it was charged; what became of it later is an adjustment of the month that carries it."""
    sell(api)
    for month in (1, 2, 3):
        ask(api, FINALIZE, at=f"2026-{month:02}-10T00:00:00Z")
    api.send([usage_event(9, subscription="s-1", occurred_at="2026-03-20T00:00:00Z", quantity="100", user="ann")])
    april = {"from": MARCH["to"], "to": "2026-05-01T00:00:00Z"}

    assert "24.00" == explain(api)["difference"]["amount"]
    assert [
        part("VOLUME", "-50.00", ("200", "0")),
        part("ADJUSTMENT", "25.00"),
    ] == explain(api, period=april, comparedWith=MARCH, by=[])["parts"]


@pytest.mark.parametrize(
    ("given", "paths"),
    [
        ({"period": {"from": MARCH["to"], "to": MARCH["from"]}}, [["input", "period", "to"]]),
        ({"comparedWith": {"from": "1800-01-01T00:00:00Z", "to": MARCH["from"]}}, [["input", "comparedWith"]]),
        ({"by": ["USER", "DEVICE", "USER"]}, [["input", "by"]]),
        ({"top": 0, "currencyCode": "XXX"}, [["input", "top"], ["input", "currencyCode"]]),
        ({"top": 1_001, "by": ["UNIT"] * 9}, [["input", "by"], ["input", "top"]]),
        ({"currencyCode": "USD"}, [["input", "currencyCode"]]),
    ],
)
def test_wrong_questions(api: Api, given: dict[str, Any], paths: list[list[str]]) -> None:
    """What cannot be asked is InvalidInput, with the ways to all of it."""
    sell(api)
    answer = explain(api, **given)

    assert ("InvalidInput", "INVALID_INPUT") == (answer["__typename"], answer["code"])
    assert paths == [issue["path"] for issue in answer["issues"]]


def test_each_currency_by_itself(api: Api) -> None:
    """Of an account that is charged in two currencies each is explained by itself; which ones there are, the problem says."""
    sell(api)
    publish(api, {"key": "base", "price": {"flat": {"amount": "500"}}}, key="yen", currencyCode="JPY")
    put(api, key="s-2", plan="yen", startsAt=MARCH["from"], endsAt="2026-05-01T00:00:00Z")
    (issue,) = explain(api)["issues"]
    yen = explain(api, currencyCode="JPY")

    assert "EUR, JPY" in issue["message"]
    assert {"amount": "24.00", "currencyCode": "EUR"} == explain(api, currencyCode="EUR")["difference"]
    assert [{"amount": "500", "currencyCode": "JPY"}] * 2 == [yen["difference"], yen["parts"][0]["amount"]]


def test_scope_and_bound_keys(api: Api, database_url: str) -> None:
    """It needs CHARGES_READ; an account that a key is not bound to is not there for it, like one that nobody knows."""
    sell(api)
    _, reader = make_key(database_url, Scope.CHARGES_READ)
    _, other = make_key(database_url, Scope.USAGE_READ, Scope.CHARGES_WRITE)
    given = {"account": "acme", "period": MARCH, "comparedWith": FEBRUARY, "by": []}
    refused = api.answer(EXPLAIN, {"input": given}, key=other)
    bound = bound_key(database_url, Scope.CHARGES_READ)

    assert ["FORBIDDEN"] == [error["extensions"]["code"] for error in refused["errors"]]
    assert "24.00" == explain(api, key=reader)["difference"]["amount"]
    assert "24.00" == explain(api, key=bound)["difference"]["amount"]
    put(api, key="s-9", account="other", endsAt="2026-05-01T00:00:00Z")
    assert "ChargesExplanation" == explain(api, account="other")["__typename"]
    for key, account in ((bound, "other"), (bound, "nobody"), (reader, "nobody")):
        answer = explain(api, key=key, account=account)
        message = f"There is no account {account!r} with a subscription: nothing is charged to it."
        assert ("NotFound", "NOT_FOUND", message) == (answer["__typename"], answer["code"], answer["message"])
