"""`ratePreview` through HTTP: every public fact about a price, as a client is told it."""

from collections.abc import Iterator
from decimal import Decimal
from typing import Any, Final

import pytest

from metering.keys import Scope
from rating.lines import description
from rating.money import rounded
from tests.conftest import Api, Server, make_key, running
from tests.rating.tables import cases, currency, owed, rated

PREVIEW: Final = """
query ($input: RatePreviewInput!) {
  ratePreview(input: $input) {
    __typename
    ... on RatePreview {
      total { amount currencyCode }
      exactTotal
      lines {
        key kind description meter plan planVersion tier period { from } quantity unitPrice
        amount { amount currencyCode } exactAmount
      }
    }
    ... on InvalidInput { code issues { path message } }
  }
}
"""
NUMBERS: Final = ("includedQuantity", "minimumAmount", "maximumAmount", "discountPercent")
ASKED: Final = ("currencyCode", "price", "events", *NUMBERS)


@pytest.fixture(scope="module")
def shared(servers: dict[str, Server]) -> Iterator[Api]:
    """One service for all cases: a preview reads nothing and stores nothing."""
    with next(iter(servers.values())).cloned() as url, running(url) as api:
        yield api


def preview(api: Api, **fields: Any) -> Any:
    """Preview a price with these fields instead of the usual ones."""
    given = {"price": {"perUnit": {"unitPrice": "0.015"}}, "quantity": "1001", **fields}
    return api.ask(PREVIEW, {"input": given})["ratePreview"]


def previewed(api: Api, case: dict[str, Any], quantity: str) -> Any:
    """Preview a case of the tables, with one of its quantities."""
    return preview(api, **{name: case[name] for name in ASKED if name in case}, quantity=quantity)


def decimal(text: str | None) -> Decimal | None:
    """A number of an answer."""
    return None if text is None else Decimal(text)


def compare(shown: dict[str, Any], case: dict[str, Any], quantity: str) -> None:
    """The answer is what the core says of the case: the total, and line by line."""
    lines = rated(case, quantity)
    unit = currency(case["currencyCode"])
    assert "RatePreview" == shown["__typename"]
    assert {"amount": str(rounded(owed(lines), unit).amount), "currencyCode": unit.code} == shown["total"]
    assert sum((line.exact_amount for line in lines), Decimal(0)) == Decimal(shown["exactTotal"])
    assert [
        (line.kind.value, line.tier, line.quantity, line.unit_price, str(line.amount.amount), line.exact_amount)
        for line in lines
    ] == [
        (
            line["kind"],
            line["tier"],
            decimal(line["quantity"]),
            decimal(line["unitPrice"]),
            line["amount"]["amount"],
            decimal(line["exactAmount"]),
        )
        for line in shown["lines"]
    ]
    assert [description(line) for line in lines] == [line["description"] for line in shown["lines"]]


@pytest.mark.parametrize("case", cases("prices"), ids=lambda case: str(case["id"]))
def test_one_price_on_one_quantity(shared: Api, case: dict[str, Any]) -> None:
    """Every price on every quantity comes to what the source says, with the lines that the core says."""
    shown = previewed(shared, case, case["quantity"])

    assert Decimal(case["total"]) == Decimal(shown["total"]["amount"])
    compare(shown, case, case["quantity"])


@pytest.mark.parametrize("case", cases("sequences"), ids=lambda case: str(case["id"]))
def test_quantity_that_changes(shared: Api, case: dict[str, Any]) -> None:
    """Each quantity of a sequence comes to what the source's amounts add up to until then, with the core's lines."""
    billed = Decimal(0)
    for quantity, amount in zip(case["quantities"], case["amounts"], strict=True):
        billed += Decimal(amount)
        shown = previewed(shared, case, quantity)
        assert billed == Decimal(shown["total"]["amount"])
        compare(shown, case, quantity)


@pytest.mark.parametrize("case", cases("sums"), ids=lambda case: str(case["id"]))
def test_quantities_with_a_price_each(shared: Api, case: dict[str, Any]) -> None:
    """Buckets, groups and units that are rated one by one add up to what the source says."""
    amounts = [
        Decimal(previewed(shared, {**each, "currencyCode": case["currencyCode"]}, each["quantity"])["total"]["amount"])
        for each in case["rated"]
    ]

    assert Decimal(case["total"]) == sum(amounts)


def test_what_a_preview_shows(shared: Api) -> None:
    """Money has all of its currency's minor digits, other decimals no zeros behind; lines are of no plan and no period."""
    shown = preview(
        shared,
        currencyCode="EUR",
        quantity="120.0",
        includedQuantity="20",
        discountPercent="10",
        price={"graduated": {"tiers": [{"upTo": "50", "unitPrice": "0.5", "flatPrice": "10"}, {"unitPrice": "0.20"}]}},
    )
    money = {"currencyCode": "EUR"}
    line = {"meter": None, "plan": None, "planVersion": None, "period": None}
    flat = {"tier": None, "quantity": None, "unitPrice": None}

    assert {"amount": "40.50", **money} == shown["total"]
    assert "40.5" == shown["exactTotal"]
    assert [
        ("included", "INCLUDED", "0.00", "0", {"tier": None, "quantity": "20", "unitPrice": None}),
        ("tier-1", "USAGE", "25.00", "25", {"tier": 1, "quantity": "50", "unitPrice": "0.5"}),
        ("tier-1-flat", "USAGE", "10.00", "10", {"tier": 1, "quantity": None, "unitPrice": None}),
        ("tier-2", "USAGE", "10.00", "10", {"tier": 2, "quantity": "50", "unitPrice": "0.2"}),
        ("discount", "DISCOUNT", "-4.50", "-4.5", flat),
    ] == [
        (
            each["key"].removeprefix("preview/"),
            each["kind"],
            each["amount"]["amount"],
            each["exactAmount"],
            {name: each[name] for name in flat},
        )
        for each in shown["lines"]
    ]
    assert [line] * 5 == [{name: each[name] for name in line} for each in shown["lines"]]
    assert "price, tier 2: 50 at 0.2" == shown["lines"][3]["description"]


def test_bounds_of_a_preview(shared: Api) -> None:
    """A minimum or a maximum of zero is one, and null is none; the currency is USD unless another is said."""
    free = preview(shared, maximumAmount="0")
    none = preview(shared, maximumAmount=None, minimumAmount=None)

    assert {"amount": "0.00", "currencyCode": "USD"} == free["total"]
    assert ["USAGE", "MAXIMUM"] == [line["kind"] for line in free["lines"]]
    assert {"amount": "15.02", "currencyCode": "USD"} == none["total"]
    assert "15.015" == none["exactTotal"]


@pytest.mark.parametrize(
    ("code", "amount", "total"), [("JPY", "0.5", "1"), ("KWD", "0.5", "0.500"), ("CLF", "0.00005", "0.0001")]
)
def test_minor_digits(shared: Api, code: str, amount: str, total: str) -> None:
    """An amount is rounded, and written, with as many digits as its currency has."""
    shown = preview(shared, currencyCode=code, price={"flat": {"amount": amount}})

    assert {"amount": total, "currencyCode": code} == shown["total"]


@pytest.mark.parametrize(
    ("fields", "path"),
    [
        ({"currencyCode": "XAU"}, "currencyCode"),
        ({"currencyCode": "\0"}, "currencyCode"),
        ({"quantity": "1E+999999"}, "quantity"),
        ({"quantity": "0." + "0" * 18 + "1"}, "quantity"),
        ({"events": -1}, "events"),
        ({"includedQuantity": "-1"}, "includedQuantity"),
        ({"discountPercent": "100.01"}, "discountPercent"),
        ({"minimumAmount": "2", "maximumAmount": "1"}, "minimumAmount"),
        ({"price": {"perUnit": {"unitPrice": "-1"}}}, "price.perUnit.unitPrice"),
        ({"price": {"volume": {"tiers": []}}}, "price.volume.tiers"),
        ({"price": {"volume": {"tiers": [{"upTo": "5"}]}}}, "price.volume.tiers.0.upTo"),
        ({"price": {"stairStep": {"tiers": [{"unitPrice": "1"}]}}}, "price.stairStep.tiers.0.unitPrice"),
        ({"price": {"package": {"size": "0", "packagePrice": "1"}}}, "price.package.size"),
        (
            {"price": {"graduatedPercentage": {"tiers": [{"flatPrice": "-1"}]}}},
            "price.graduatedPercentage.tiers.0.flatPrice",
        ),
    ],
)
def test_faults_of_a_preview(shared: Api, fields: dict[str, Any], path: str) -> None:
    """What cannot be rated is InvalidInput, with the path from the argument to it."""
    refused = preview(shared, **fields)

    assert ("InvalidInput", "INVALID_INPUT") == (refused["__typename"], refused["code"])
    assert [["input", *path.split(".")]] == [issue["path"] for issue in refused["issues"]]


def test_all_faults_of_a_preview_are_told_at_once(shared: Api) -> None:
    """A preview that is wrong in every way is told all of it."""
    refused = preview(
        shared, currencyCode="EURO", quantity="1E-30", events=-1, price={"flat": {"amount": "-1"}}, includedQuantity="1"
    )

    assert [
        ["input", "currencyCode"],
        ["input", "price", "flat", "amount"],
        ["input", "includedQuantity"],
        ["input", "quantity"],
        ["input", "events"],
    ] == [issue["path"] for issue in refused["issues"]]


@pytest.mark.parametrize(
    "price",
    [{}, {"flat": {"amount": "1"}, "perUnit": {"unitPrice": "1"}}, {"flat": None}, {"perUnit": {"unitPrice": 0.5}}],
)
def test_a_price_is_of_one_kind(shared: Api, price: dict[str, Any]) -> None:
    """No kind, two kinds, and a binary float where a decimal is meant are no input at all."""
    answer = shared.answer(PREVIEW, {"input": {"price": price, "quantity": "1"}})

    assert "errors" in answer
    assert None is answer.get("data")


@pytest.mark.parametrize(("scope", "allowed"), [(Scope.CHARGES_READ, True), (Scope.CATALOG_READ, False)])
def test_a_preview_needs_its_scope(api: Api, database_url: str, scope: Scope, allowed: bool) -> None:  # noqa: FBT001
    """Prices are tried with CHARGES_READ, and with no other scope."""
    _, secret = make_key(database_url, scope)
    answer = api.answer(PREVIEW, {"input": {"price": {"flat": {"amount": "1"}}, "quantity": "0"}}, key=secret)

    assert allowed == ("errors" not in answer)
    if not allowed:
        assert "FORBIDDEN" == answer["errors"][0]["extensions"]["code"]
