"""`publishPlan`, `plans`, `plan` and `node` through HTTP: the catalog of plans as a client sees it."""

import re
from decimal import Decimal
from pathlib import Path
from typing import Any, Final

import pytest

from graphql_api.pages import encode_cursor
from rating.bounds import TIERS_MAX
from tests.conftest import Api

FIELDS: Final = """
fragment Fields on Plan {
  id key version name currencyCode effectiveFrom interval definition publishedAt overlaps { firstPrice secondPrice }
}
"""
PUBLISH: Final = f"""
mutation ($input: PublishPlanInput!) {{
  publishPlan(input: $input) {{
    __typename
    ...Fields
    ... on InvalidInput {{ code issues {{ path message }} }}
    ... on Conflict {{ code message }}
  }}
}}
{FIELDS}
"""
LIST: Final = f"query {{ plans {{ nodes {{ ...Fields }} }} }} {FIELDS}"
ONE: Final = f"query ($key: String!, $version: Int) {{ plan(key: $key, version: $version) {{ ...Fields }} }} {FIELDS}"
NODE: Final = f"query ($id: ID!) {{ node(id: $id) {{ __typename ...Fields }} }} {FIELDS}"
METER: Final = "mutation ($input: PutMeterInput!) { putMeter(input: $input) { ... on Meter { key } } }"
GUIDE: Final = (Path(__file__).parents[2] / "docs" / "rating.md").read_text(encoding="utf-8")
BASE: Final = {"key": "base", "price": {"flat": {"amount": "49"}}}


def meter(api: Api, key: str, **fields: Any) -> None:
    """Put a meter."""
    api.ask(METER, {"input": {"key": key, "name": key, "unit": "call", **fields}})


def publish(api: Api, *prices: dict[str, Any], **fields: Any) -> Any:
    """Publish a plan with these fields instead of the usual ones."""
    given = {"key": "team", "name": "Team", "currencyCode": "EUR", "effectiveFrom": "2026-01-01T00:00:00+01:00"}
    return api.ask(PUBLISH, {"input": {**given, "prices": prices or [BASE], **fields}})["publishPlan"]


def test_a_plan_is_published_and_found(api: Api) -> None:
    """What is published is shown alike by the mutation, the list, its key and its id, with every field as it was given."""
    meter(api, "calls")
    prices: list[dict[str, Any]] = [
        {
            "key": "calls",
            "meter": "calls",
            "price": {
                "graduated": {
                    "tiers": [
                        {"upTo": "100", "unitPrice": "0.50", "flatPrice": "10"},
                        {"upTo": None, "unitPrice": "0.000000000000000001", "flatPrice": "0"},
                    ],
                    "flatAtZero": False,
                }
            },
            "includedQuantity": "20.5",
            "minimumAmount": "0",
            "maximumAmount": "1000",
            "discountPercent": "12.5",
            "timing": "IN_ADVANCE",
            "prorated": False,
        },
        {
            "key": "packs",
            "meter": "calls",
            "price": {"package": {"size": "10", "packagePrice": "5", "rounding": "HALF_EVEN"}},
        },
    ]
    made = publish(api, *prices, interval="YEAR", minimumAmount="0")
    definition = {
        "key": "team",
        "version": 1,
        "name": "Team",
        "currencyCode": "EUR",
        "effectiveFrom": "2025-12-31T23:00:00Z",
        "interval": "YEAR",
        "minimumAmount": "0",
    }
    usual = {"includedQuantity": "0", "minimumAmount": None, "maximumAmount": None, "discountPercent": "0"}
    usual |= {"timing": "IN_ARREARS", "prorated": True}

    assert "Plan" == made.pop("__typename")
    shown = {name: made[name] for name in definition if name != "minimumAmount"}
    assert {name: value for name, value in definition.items() if name != "minimumAmount"} == shown
    assert {**definition, "prices": [prices[0], {**usual, **prices[1]}]} == made["definition"]
    assert [{"firstPrice": "calls", "secondPrice": "packs"}] == made["overlaps"]
    assert made["publishedAt"].endswith("Z")
    assert made == api.ask(ONE, {"key": "team"})["plan"] == api.ask(ONE, {"key": "team", "version": 1})["plan"]
    assert [made] == api.ask(LIST)["plans"]["nodes"]
    assert {"__typename": "Plan", **made} == api.ask(NODE, {"id": made["id"]})["node"]


@pytest.mark.parametrize(
    ("price", "shown"),
    [
        ({"flat": {"amount": "1"}}, {"amount": "1"}),
        ({"perSeat": {"unitPrice": "1"}}, {"unitPrice": "1"}),
        ({"perUnit": {"unitPrice": 1}}, {"unitPrice": "1"}),
        ({"package": {"size": "1", "packagePrice": "1"}}, {"size": "1", "packagePrice": "1", "rounding": "UP"}),
        ({"percentage": {"rate": "0.029"}}, {"rate": "0.029", "fixedPerEvent": "0"}),
        ({"percentage": {"rate": "0.029", "fixedPerEvent": "0.3"}}, {"rate": "0.029", "fixedPerEvent": "0.3"}),
        ({"dynamic": {}}, {"factor": "1"}),
        *(
            (
                {kind: {"tiers": [{"flatPrice": "1"}]}},
                {"tiers": [{"upTo": None, "unitPrice": "0", "flatPrice": "1"}], "flatAtZero": True},
            )
            for kind in ("graduated", "volume", "stairStep", "graduatedPercentage")
        ),
    ],
)
def test_each_kind_of_price_is_kept(api: Api, price: dict[str, Any], shown: dict[str, Any]) -> None:
    """Each of the ten kinds can be published, and comes back with what was left out."""
    meter(api, "calls")
    (kind,) = price
    on = {} if kind in {"flat", "perSeat"} else {"meter": "calls"}
    made = publish(api, {"key": "p", "price": price, **on})

    assert [{kind: shown}] == [each["price"] for each in made["definition"]["prices"]]


def test_versions(api: Api) -> None:
    """Other content is a next version, the same is the same, and one that would take effect before it is a Conflict."""
    first = publish(api)
    second = publish(api, name="Team 2")
    conflict = publish(api, name="Team 3", effectiveFrom="2025-12-31T22:59:59.999999Z")

    assert second == publish(api, name="Team 2")
    assert ("Conflict", "CONFLICT") == (conflict["__typename"], conflict["code"])
    assert "not before that" in conflict["message"]
    found = [api.ask(ONE, {"key": "team", "version": version})["plan"] for version in (1, 2, None, 3, 0, -1)]
    assert [first["id"], second["id"], second["id"], None, None, None] == [each and each["id"] for each in found]
    assert [2] == [each["version"] for each in api.ask(LIST)["plans"]["nodes"]]
    assert "Team" == api.ask(NODE, {"id": first["id"]})["node"]["name"]


def test_a_dry_run_shows_and_writes_nothing(api: Api) -> None:
    """A dry run answers the version that would be published, or all that is wrong; its id finds nothing."""
    would_be = publish(api, dryRun=True)
    refused = publish(api, {**BASE, "meter": "calls"}, dryRun=True)

    assert (1, None) == (would_be["version"], would_be["publishedAt"])
    assert [["input", "prices", "0", "meter"]] == [issue["path"] for issue in refused["issues"]]
    assert [] == api.ask(LIST)["plans"]["nodes"]
    assert None is api.ask(NODE, {"id": would_be["id"]})["node"]


def test_every_fault_of_a_plan_is_told_with_its_path(api: Api) -> None:
    """A plan that cannot be is InvalidInput with all that is wrong at once; the paths lead from the argument."""
    meter(api, "users", aggregation="UNIQUE_COUNT", distinct="USER")
    publish(api)
    many = [{"upTo": str(bound)} for bound in range(1, TIERS_MAX + 1)]
    refused = publish(
        api,
        {"key": "gap", "meter": "users", "price": {"graduated": {"tiers": [{"upTo": "10"}, {}, {"upTo": "20"}, {}]}}},
        {"key": "falling", "meter": "users", "price": {"volume": {"tiers": [{"upTo": "10"}, {"upTo": "9"}, {}]}}},
        {"key": "closed", "meter": "users", "price": {"stairStep": {"tiers": [{"upTo": "10"}]}}},
        {"key": "many", "meter": "users", "price": {"volume": {"tiers": [*many, {}]}}},
        {"key": "absent", "meter": "nobody", "price": {"perUnit": {"unitPrice": "-0.01"}}},
        {"key": "share", "meter": "users", "price": {"percentage": {"rate": "0.1"}}},
        {"key": "share", "price": {"dynamic": {"factor": "1"}}},
        currencyCode="USD",
        effectiveFrom="1800-01-01T00:00:00Z",
    )

    assert ("InvalidInput", "INVALID_INPUT") == (refused["__typename"], refused["code"])
    assert all(issue["message"] for issue in refused["issues"])
    assert [
        "prices.0.price.graduated.tiers.1.upTo",
        "prices.1.price.volume.tiers.1.upTo",
        "prices.2.price.stairStep.tiers.0.upTo",
        "prices.3.price.volume.tiers",
        "prices.4.meter",
        "prices.4.price.perUnit.unitPrice",
        "prices.6.key",
        "prices.6.meter",
        "effectiveFrom",
        "currencyCode",
        "prices.5.meter",
    ] == [".".join(issue["path"][1:]) for issue in refused["issues"]]
    assert 1 == api.ask(ONE, {"key": "team"})["plan"]["version"]


def test_forged_ids_name_nothing(api: Api) -> None:
    """An id that holds what no plan, subscription or account has names nothing: null, and no error."""
    publish(api)
    forged = [
        ["Plan", "a\0", 1],
        ["Plan", "team", 0],
        ["Plan", "team", 2**31],
        ["Plan", "team", "1"],
        ["Plan", "team"],
        ["SubscriptionFacts", "a\0"],
        ["SubscriptionFacts", "nobody"],
        ["SubscriptionFacts", None],
        ["Account", "a\0"],
        ["Account", "nobody"],
        ["Account"],
    ]

    for name in forged:
        answer = api.ask("query ($id: ID!) { node(id: $id) { id } }", {"id": encode_cursor(name)})
        assert {"node": None} == answer, name


def test_the_guide_does_what_it_shows(api: Api) -> None:
    """Every document of docs/rating.md, one after the other, is answered without a fault, and shows what it says."""
    meter(api, "calls")
    documents = re.findall(r"```graphql\n(.*?)```", GUIDE, re.DOTALL)
    published, put, charged, explained, preview, simulated = (api.ask(document) for document in documents)

    assert ("team", 1, []) == tuple(published["publishPlan"][name] for name in ("key", "version", "overlaps"))
    assert put["putAccount"]["id"]
    assert [{"since": "2026-01-30T23:00:00Z", "plan": "team", "planVersion": None, "seats": 5}] == (
        put["putSubscription"]["terms"]
    )
    # 49 and two seats at 8 for 718 of the 743 hours until 31 March in Berlin, and for 26 of the 720 from there on.
    owed = [{"amount": "65.16", "currencyCode": "EUR"}]
    nobodys = {"key": {"user": None, "product": None}, "totals": owed}
    assert {"totals": owed, "groups": {"nodes": [nobodys], "remainder": []}, "unrated": []} == charged["charges"]
    # Nothing was used, so the time of the trial, for which nothing was owed, is all that tells the two months apart.
    why = explained["explainCharges"]
    before, after, rest = (Decimal(why[name]["amount"]) for name in ("before", "after", "remainder"))
    parts = [(part["cause"], part["key"], Decimal(part["amount"]["amount"])) for part in why["parts"]]
    assert [("RECURRING", {"user": None}, after - before)] == parts
    assert (Decimal("65.16"), 0) == (after, rest)
    assert {"amount": "11.25", "currencyCode": "EUR"} == preview["ratePreview"]["total"]
    # 60 for the same parts of the two months.
    then = {"amount": "60.15", "currencyCode": "EUR"}
    counts = {"paysMore": 0, "paysLess": 1, "unchanged": 0, "otherCurrency": 0}
    assert {"current": owed, "simulated": [then], **counts} == {
        name: each for name, each in simulated["simulatePlan"].items() if name != "rows"
    }
    assert ["-5.01"] == [row["difference"]["amount"] for row in simulated["simulatePlan"]["rows"]["nodes"]]
