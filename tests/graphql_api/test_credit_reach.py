"""Credits are a whole account's: who reaches less of it sees what they paid on final statements, and nothing else of them."""

from collections.abc import Iterator
from typing import Any, Final

import pytest

from tests.conftest import Api, Server, running
from tests.graphql_api.test_credits import BALANCE, LEDGER, grant
from tests.graphql_api.test_statements import FINALIZE, ask, sell
from tests.graphql_api.worlds import TOKENS, key_for, token

READS: Final = "CHARGES_READ USAGE_READ"
STATEMENT: Final = """
query ($at: DateTime!) { statement(subscription: "s-1", at: $at) {
  __typename
  ... on Statement { status total { amount } totalBeforeCredits { amount } lines { kind creditGrant } }
} }
"""
GRANT_BY_ID: Final = "query ($id: ID!) { node(id: $id) { ... on CreditGrant { key grantedBy voidedBy } } }"
# A period whose draft credits pay, and one that is frozen.
DRAFT: Final = "2026-04-10T00:00:00Z"
FROZEN: Final = "2026-03-10T00:00:00Z"


@pytest.fixture
def paid(servers: dict[str, Server], engine: str) -> Iterator[tuple[Api, str, str]]:
    """A service in which a credit has paid a part of a frozen statement; the id of the grant, and a partner's key."""
    with servers[engine].cloned() as url, running(url, **TOKENS) as api:
        sell(api)
        made = grant(api, credit={"amount": {"amount": "15", "currencyCode": "EUR"}})
        ask(api, FINALIZE)
        yield api, made["id"], key_for(url, "acme")


def shown(api: Api, at: str, caller: str) -> tuple[str, str, set[str]]:
    """What a caller's statement comes to, before credits and after them, and the grants that pay of it."""
    found = api.ask(STATEMENT, {"at": at}, key=caller)["statement"]
    grants = {line["creditGrant"] for line in found["lines"] if line["kind"] == "CREDIT"}
    return found["totalBeforeCredits"]["amount"], found["total"]["amount"], grants


def test_who_reaches_the_account_sees_its_credits(paid: tuple[Api, str, str]) -> None:
    """A bound key, and a token for the account, see balance, ledger, grant and what a draft would draw; not who granted."""
    api, grant_id, partner = paid
    for caller in (partner, token(accounts=["acme"], scope=READS)):
        balance = api.ask(BALANCE, {"account": "acme"}, key=caller)["creditBalance"]
        assert [{"amount": "4.17", "currencyCode": "EUR"}] == balance["amounts"]
        ledger = api.ask(LEDGER, {"account": "acme"}, key=caller)["creditLedger"]["nodes"]
        assert [("ISSUED", None), ("GRANT", None)] == [(each["source"], each["bookedBy"]) for each in ledger]
        node = api.ask(GRANT_BY_ID, {"id": grant_id}, key=caller)["node"]
        assert {"key": "welcome", "grantedBy": None, "voidedBy": None} == node
        assert ("10.83", "0.00", {"welcome"}) == shown(api, FROZEN, caller)
        assert ("10.00", "5.83", {"welcome"}) == shown(api, DRAFT, caller)
    assert api.ask(GRANT_BY_ID, {"id": grant_id})["node"]["grantedBy"].startswith("bootstrap (")


def test_who_reaches_a_subscription_sees_none(paid: tuple[Api, str, str]) -> None:
    """To who is bound to a subscription, also the account's only one, it is as if there were no balance, ledger or grant."""
    api, grant_id, _ = paid
    caller = token(accounts=["acme"], subscriptions=["s-1"], scope=READS)

    assert "NotFound" == api.ask(BALANCE, {"account": "acme"}, key=caller)["creditBalance"]["__typename"]
    ledger = api.ask(LEDGER, {"account": "acme"}, key=caller)["creditLedger"]
    assert ([], [], False) == (ledger["nodes"], ledger["edges"], ledger["pageInfo"]["hasNextPage"])
    assert api.ask(GRANT_BY_ID, {"id": grant_id}, key=caller)["node"] is None


@pytest.mark.parametrize("narrow", [{"user": "x"}, {"subscriptions": ["s-1"], "user": "x"}])
def test_who_reaches_a_user_may_not_ask(paid: tuple[Api, str, str], narrow: dict[str, Any]) -> None:
    """Amounts are no single user's: whatever is asked of credits is FORBIDDEN, and so is a statement with credits."""
    api, grant_id, _ = paid
    caller = token(accounts=["acme"], scope=READS, **narrow)
    asked = [
        (BALANCE, {"account": "acme"}),
        (LEDGER, {"account": "acme"}),
        (GRANT_BY_ID, {"id": grant_id}),
        (STATEMENT, {"at": FROZEN}),
    ]
    for document, variables in asked:
        (error,) = api.answer(document, variables, key=caller)["errors"]
        assert "FORBIDDEN" == error["extensions"]["code"]


def test_a_draft_shows_no_credits_to_who_reaches_less(paid: tuple[Api, str, str]) -> None:
    """What a draft would draw depends on all subscriptions of the account, so it is not shown; what was paid is."""
    api, _, _ = paid
    caller = token(accounts=["acme"], subscriptions=["s-1"], scope=READS)

    assert ("10.00", "10.00", set()) == shown(api, DRAFT, caller)
    assert ("10.83", "0.00", {"welcome"}) == shown(api, FROZEN, caller)
