"""`putSubscription`, `putAccount` and `node` through HTTP: customers and their subscriptions as a client sees them."""

import asyncio
from typing import Any, Final

import pytest

from metering.config import Settings
from metering.keys import KeyRing, Scope
from metering.limits import LIMITS
from metering.store.pool import Database
from tests.conftest import Api, make_key
from tests.graphql_api.test_plans import publish

FIELDS: Final = """
fragment Fields on SubscriptionFacts {
  id key account plan planVersion startsAt endsAt trialEndsAt renewsAt billingAnchor seats
  monthlyAmount { amount currencyCode } discountPercent timeZone attributes terms { since plan planVersion seats }
}
"""
PUT: Final = f"""
mutation ($input: PutSubscriptionInput!) {{
  putSubscription(input: $input) {{
    __typename
    ...Fields
    ... on InvalidInput {{ code issues {{ path message }} }}
    ... on NotFound {{ code message }}
    ... on Conflict {{ code message }}
  }}
}}
{FIELDS}
"""
ACCOUNT_FIELDS: Final = (
    f"fragment AccountFields on Account {{ id key name attributes subscriptions {{ ...Fields }} }} {FIELDS}"
)
PUT_ACCOUNT: Final = f"""
mutation ($input: PutAccountInput!) {{
  putAccount(input: $input) {{
    __typename
    ...AccountFields
    ... on InvalidInput {{ code issues {{ path message }} }}
  }}
}}
{ACCOUNT_FIELDS}
"""
NODE: Final = f"query ($id: ID!) {{ node(id: $id) {{ __typename ...Fields ...AccountFields }} }} {ACCOUNT_FIELDS}"


def put(api: Api, **fields: Any) -> Any:
    """Put a subscription with these fields instead of the usual ones."""
    given = {"key": "s-1", "account": "acme", "plan": "team", "startsAt": "2026-01-01T00:00:00Z", **fields}
    return api.ask(PUT, {"input": given})["putSubscription"]


def put_account(api: Api, **fields: Any) -> Any:
    """Put an account with these fields instead of the usual ones."""
    return api.ask(PUT_ACCOUNT, {"input": {"key": "acme", "name": "Acme", **fields}})["putAccount"]


def bound_key(database_url: str, *scopes: Scope) -> str:
    """The secret of a key that is bound to acme."""

    async def make() -> str:
        database = await Database.connect(Settings(database_url=database_url), LIMITS)
        try:
            _, secret = await KeyRing(database).create("a partner", scopes, accounts=["acme"])
            return secret
        finally:
            await database.close()

    return asyncio.run(make())


def test_a_subscription_is_put_and_found(api: Api) -> None:
    """What is put is shown alike by the mutation and its id: instants in UTC, money with its digits, terms over time."""
    publish(api)
    made = put(
        api,
        startsAt="2026-01-31T00:00:00+01:00",
        endsAt="2190-01-01T00:00:00Z",
        trialEndsAt="2026-02-10T00:00:00Z",
        renewsAt="2027-01-31T00:00:00Z",
        billingAnchor="2026-02-01T00:00:00Z",
        planVersion=1,
        seats=0,
        monthlyAmount="49.9",
        discountPercent="12.50",
        timeZone="Europe/Berlin",
        attributes={"segment": "smb"},
    )
    expected = {
        "__typename": "SubscriptionFacts",
        "key": "s-1",
        "account": "acme",
        "plan": "team",
        "planVersion": 1,
        "startsAt": "2026-01-30T23:00:00Z",
        "endsAt": "2190-01-01T00:00:00Z",
        "trialEndsAt": "2026-02-10T00:00:00Z",
        "renewsAt": "2027-01-31T00:00:00Z",
        "billingAnchor": "2026-02-01T00:00:00Z",
        "seats": 0,
        "monthlyAmount": {"amount": "49.90", "currencyCode": "EUR"},
        "discountPercent": "12.5",
        "timeZone": "Europe/Berlin",
        "attributes": {"segment": "smb"},
        "terms": [{"since": "2026-01-30T23:00:00Z", "plan": "team", "planVersion": 1, "seats": 0}],
    }

    assert {"id": made["id"], **expected} == made
    assert made == api.ask(NODE, {"id": made["id"]})["node"]


def test_what_is_left_out_is_not_there(api: Api) -> None:
    """Left out or null, there is no end, trial, renewal, amount, number of seats; a put without them clears them."""
    publish(api)
    made = put(api, endsAt="2190-01-01T00:00:00Z", renewsAt="2027-01-01T00:00:00Z", attributes={"a": 1})
    cleared = put(api)
    nulls = ("endsAt", "trialEndsAt", "renewsAt", "planVersion", "seats", "monthlyAmount")
    nothing = put(api, **dict.fromkeys((*nulls, "billingAnchor", "effectiveAt", "discountPercent", "attributes")))

    assert {"a": 1} == made["attributes"]
    assert dict.fromkeys(nulls) == {name: cleared[name] for name in nulls}
    assert ("0", "UTC", {}, "2026-01-01T00:00:00Z") == tuple(
        cleared[name] for name in ("discountPercent", "timeZone", "attributes", "billingAnchor")
    )
    assert cleared == nothing


def test_plan_and_seats_are_those_of_now(api: Api) -> None:
    """A change may be made for the past or scheduled; plan and seats are shown as they are now, and terms as they follow."""
    publish(api)
    publish(api, key="scale")
    put(api, seats=1)
    put(api, seats=2, effectiveAt="2026-02-01T00:00:00Z")
    scheduled = put(api, plan="scale", planVersion=1, effectiveAt="2190-01-01T00:00:00Z")
    again = put(api, seats=2)

    assert ("team", None, 2) == (scheduled["plan"], scheduled["planVersion"], scheduled["seats"])
    assert [
        ("2026-01-01T00:00:00Z", "team", None, 1),
        ("2026-02-01T00:00:00Z", "team", None, 2),
        ("2190-01-01T00:00:00Z", "scale", 1, None),
    ] == [tuple(terms.values()) for terms in scheduled["terms"]]
    # What holds now is no change, so that what is scheduled stays.
    assert scheduled == again


def test_what_cannot_be_put(api: Api) -> None:
    """Faults are told at once with their paths; no such plan is NotFound, another start or currency a Conflict."""
    missing = put(api)
    publish(api)
    publish(api, key="dollars", currencyCode="USD")
    wrong = put(api, key="", seats=-1, timeZone="Europe/Bonn", discountPercent="101", endsAt="2026-01-01T00:00:00Z")
    put(api)
    conflicts = [put(api, startsAt="2026-01-02T00:00:00Z"), put(api, plan="dollars")]

    assert ("NotFound", "NOT_FOUND") == (missing["__typename"], missing["code"])
    assert "publish it first" in missing["message"]
    assert ("InvalidInput", "INVALID_INPUT") == (wrong["__typename"], wrong["code"])
    assert ["key", "seats", "timeZone", "endsAt", "discountPercent"] == [issue["path"][1] for issue in wrong["issues"]]
    assert [("Conflict", "CONFLICT")] * 2 == [(each["__typename"], each["code"]) for each in conflicts]
    assert [["input", "planVersion"]] == [issue["path"] for issue in put(api, planVersion=0)["issues"]]


def test_an_account_has_its_subscriptions(api: Api) -> None:
    """An account is shown as it was put last, with all of its subscriptions by key, and nobody else's."""
    publish(api)
    empty = put_account(api, attributes={"segment": "smb", "tags": ["a"]})
    made = [
        put(api, key=key, account=account) for key, account in (("s-2", "acme"), ("s-1", "acme"), ("s-3", "globex"))
    ]
    renamed = put_account(api, name="Acme Ltd")

    assert ("Account", "acme", "Acme", {"segment": "smb", "tags": ["a"]}, []) == (
        empty["__typename"],
        *(empty[name] for name in ("key", "name", "attributes", "subscriptions")),
    )
    assert ("Acme Ltd", {}) == (renamed["name"], renamed["attributes"])
    assert [made[1]["id"], made[0]["id"]] == [each["id"] for each in renamed["subscriptions"]]
    assert renamed == api.ask(NODE, {"id": renamed["id"]})["node"]


def test_one_operation_shows_what_it_puts(api: Api) -> None:
    """Mutations of one operation follow each other: an account that is put after a subscription has it."""
    publish(api)
    document = """
    mutation ($subscription: PutSubscriptionInput!, $account: PutAccountInput!) {
      before: putAccount(input: $account) { ... on Account { subscriptions { key } } }
      putSubscription(input: $subscription) { __typename }
      after: putAccount(input: $account) { ... on Account { subscriptions { key } } }
    }
    """
    subscription = {"key": "s-1", "account": "acme", "plan": "team", "startsAt": "2026-01-01T00:00:00Z"}
    data = api.ask(document, {"subscription": subscription, "account": {"key": "acme", "name": "Acme"}})

    assert [[], [{"key": "s-1"}]] == [data[name]["subscriptions"] for name in ("before", "after")]


def test_faults_of_an_account(api: Api) -> None:
    """What cannot be an account is InvalidInput with all that is wrong, each by its path."""
    refused = put_account(api, key="", name=" ", attributes={"a": "b" * 5_000})

    assert "InvalidInput" == refused["__typename"]
    assert [["input", name] for name in ("key", "name", "attributes")] == [issue["path"] for issue in refused["issues"]]


@pytest.mark.parametrize(
    ("scope", "allowed"),
    [(Scope.CATALOG_WRITE, {"write"}), (Scope.USAGE_READ, {"read"}), (Scope.CATALOG_READ, set())],
)
def test_scopes_of_customers(api: Api, database_url: str, scope: Scope, allowed: set[str]) -> None:
    """Accounts and subscriptions are put with CATALOG_WRITE, and found by id with USAGE_READ, as usage is."""
    publish(api)
    ids = [put(api)["id"], put_account(api)["id"]]
    _, secret = make_key(database_url, scope)
    puts: list[tuple[str, dict[str, str]]] = [
        (PUT, {"key": "s-1", "account": "acme", "plan": "team", "startsAt": "2026-01-01T00:00:00Z"}),
        (PUT_ACCOUNT, {"key": "acme", "name": "Acme"}),
    ]

    for node_id in ids:
        assert ("read" in allowed) == ("errors" not in api.answer(NODE, {"id": node_id}, key=secret))
    for document, given in puts:
        answer = api.answer(document, {"input": given}, key=secret)
        assert ("write" in allowed) == ("errors" not in answer)
        if "write" not in allowed:
            assert "FORBIDDEN" == answer["errors"][0]["extensions"]["code"]


def test_a_key_of_some_accounts_sees_these(api: Api, database_url: str) -> None:
    """A key that is bound to an account finds it and its subscriptions, nobody else's, and puts nothing."""
    publish(api)
    own = [put(api)["id"], put_account(api)["id"]]
    others = [put(api, key="s-2", account="globex")["id"], put_account(api, key="globex")["id"]]
    secret = bound_key(database_url, Scope.USAGE_READ, Scope.CATALOG_WRITE)

    assert own == [api.ask(NODE, {"id": each}, key=secret)["node"]["id"] for each in own]
    assert [None, None] == [api.ask(NODE, {"id": each}, key=secret)["node"] for each in others]
    answer = api.answer(PUT_ACCOUNT, {"input": {"key": "acme", "name": "Acme"}}, key=secret)
    assert "FORBIDDEN" == answer["errors"][0]["extensions"]["code"]
