"""Ids and cursors hold no number that counts up over all accounts: who has two does not learn what lies between."""

import asyncio
from base64 import urlsafe_b64decode
from collections.abc import Iterator
from typing import Any, Final

import msgspec
import pytest

from graphql_api.nodes import sealed_id
from metering.config import Settings
from metering.key_digests import kept_secret
from metering.limits import LIMITS
from metering.seal import Seal
from metering.store.pool import Database
from tests.conftest import Api, running, usage_event
from tests.graphql_api.test_credits import grant
from tests.graphql_api.test_statements import FINALIZE, VOID, ask, sell

NUMBERED: Final = """{
  statements { edges { cursor node { id } } }
  rejectedEvents { edges { cursor node { id } } }
  creditLedger(account: "acme") { edges { cursor node { id: statement } } }
  creditBalance(account: "acme") { ... on CreditBalance { grants { grant { id } } } }
}"""
NODE: Final = "query ($id: ID!) { node(id: $id) { id } }"
# The kinds of rows that are numbered over all accounts and have ids.
KINDS: Final = ("Statement", "RejectedEvent", "CreditGrant")


def fill(api: Api) -> None:
    """Something of each kind: a statement that credits paid, one that was voided, a draft, and an event that was refused."""
    sell(api)
    grant(api)
    voided = ask(api, FINALIZE)
    api.ask(VOID, {"id": voided["id"], "reason": "a slip"})
    ask(api, FINALIZE)
    api.send(usage_event(9, unit=None))


def opaque_in(value: Any) -> Iterator[tuple[str, str]]:
    """Every id and cursor of an answer, each with which of the two it is."""
    if isinstance(value, list):
        for each in value:
            yield from opaque_in(each)
    elif isinstance(value, dict):
        for name, inner in value.items():
            if name in {"id", "cursor"} and inner is not None:
                yield name, inner
            yield from opaque_in(inner)


def numbers_in(value: Any) -> list[int]:
    """Every whole number in what was decoded, however deep."""
    if isinstance(value, list):
        return [number for each in value for number in numbers_in(each)]
    return [value] if isinstance(value, int) and not isinstance(value, bool) else []


def test_no_id_holds_a_number(api: Api) -> None:
    """Ids and cursors of statements, rejected events, grants and entries, taken apart, have no number in them."""
    fill(api)
    found = list(opaque_in(api.ask(NUMBERED)))
    decoded = [msgspec.json.decode(urlsafe_b64decode(text + "=" * (-len(text) % 4))) for _, text in found]

    assert {*KINDS, "DraftStatement"} == {
        each[0] for (name, _), each in zip(found, decoded, strict=True) if name == "id"
    }
    assert [] == numbers_in(decoded)


@pytest.mark.parametrize("settings", [{}, {"key_secret": "a secret of the service's own, of many bytes"}])
def test_ids_stay_good(database_url: str, settings: dict[str, str]) -> None:
    """An id is found again by a process that starts later, also where the secret that digests are made with was set since."""
    with running(database_url) as api:
        fill(api)
        ids = [text for name, text in opaque_in(api.ask(NUMBERED)) if name == "id"]
    with running(database_url, **settings) as later:
        assert all(later.ask(NODE, {"id": each})["node"]["id"] for each in ids)
        assert ids == [text for name, text in opaque_in(later.ask(NUMBERED)) if name == "id"]


def test_only_this_service_seals(api: Api, database_url: str) -> None:
    """A number that somebody else has sealed is nobody's, though there is such a row; one that is sealed here is that row's."""
    fill(api)
    ours, theirs = Seal(asyncio.run(secret_of(database_url))), Seal(b"a guess")
    for kind in KINDS:
        known = [
            number for number in range(1, 5) if api.ask(NODE, {"id": sealed_id(kind, number, ours)})["node"] is not None
        ]
        assert known, kind
        assert all(api.ask(NODE, {"id": sealed_id(kind, number, theirs)})["node"] is None for number in known)


async def secret_of(database_url: str) -> bytes:
    """The secret that the service has kept."""
    database = await Database.connect(Settings(database_url=database_url), LIMITS)
    try:
        return await kept_secret(database)
    finally:
        await database.close()
