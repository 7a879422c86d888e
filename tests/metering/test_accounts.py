"""Accounts: what is known of a customer is kept as it is put."""

import asyncio
from typing import Any

import msgspec
import pytest

from metering.accounts import Account, AccountOrder, put_account
from metering.errors import ForbiddenError, InvalidInputError
from metering.health.customers import Customer, find_customer
from metering.keys import ApiKey
from metering.limits import LIMITS
from metering.store.pool import Database
from metering.store.snapshot import Snapshot
from tests.metering.catalog import BOUND_KEY, KEY, OTHER_KEY, play, rows

ACME = AccountOrder(key="acme", name="Acme", attributes={"segment": "smb", "seats": 1.5, "tags": ["a", None]})
AUDIT = "SELECT created_by, changed_by, changed_at > created_at FROM account"


async def put(database: Database, order: AccountOrder, key: ApiKey = KEY) -> Account:
    """Put an account."""
    return await put_account(database, order, key, LIMITS)


def test_an_account_is_put_and_changed(database_url: str) -> None:
    """An account is found as it was put last; the same again writes nothing, and who changed it is on record."""

    async def scenario(database: Database) -> None:
        made = await put(database, ACME)
        again = msgspec.structs.replace(ACME, attributes=dict(reversed(ACME.attributes.items())))
        assert made == await put(database, again, OTHER_KEY)
        assert [("finance (mk_finance)", "finance (mk_finance)", False)] == await rows(database, AUDIT)
        changed = await put(database, AccountOrder(key="acme", name="Acme Ltd"), OTHER_KEY)
        async with Snapshot(database) as snapshot:
            found = [await find_customer(snapshot, key) for key in ("acme", "nobody", "\0")]

        assert ACME.attributes == msgspec.json.decode(made.attributes)
        assert Account("acme", "Acme Ltd", "{}", made.created_at) == changed
        assert [Customer("acme", "Acme Ltd", "{}"), None, None] == found
        assert [("finance (mk_finance)", "product (mk_product)", True)] == await rows(database, AUDIT)

    play(database_url, scenario)


def nested(levels: int) -> dict[str, Any]:
    """An object of so many levels: lists in each other."""
    value: list[Any] = []
    for _ in range(levels - 2):
        value = [value]
    return {"a": value}


@pytest.mark.parametrize(
    "attributes",
    [
        {"a": "\\u0000"},
        {"a": "\\\\u0000", "b\\": "u0000"},
        {"a": "x" * (LIMITS.attributes_bytes_max - len('{"a":""}'))},
        nested(LIMITS.attributes_depth_max),
        {"a": 10**30, "b": -1.5, "c": [True, False, None]},
    ],
)
def test_what_attributes_may_hold(database_url: str, attributes: dict[str, Any]) -> None:
    """Backslashes in front of a u and zeros are no NUL; attributes may be as long as the limit, and numbers are numbers."""

    async def scenario(database: Database) -> None:
        made = await put(database, msgspec.structs.replace(ACME, attributes=attributes))
        assert attributes == msgspec.json.decode(made.attributes)

    play(database_url, scenario)


def test_accounts_that_are_put_at_once(database_url: str) -> None:
    """Of several who put one account at once all find it, and one of their names holds."""

    async def scenario(database: Database) -> None:
        wanted = [AccountOrder(key="acme", name=f"Acme {number % 2}") for number in range(8)]
        put_at_once = await asyncio.gather(*(put(database, each) for each in wanted))
        assert [each.name for each in wanted] == [each.name for each in put_at_once]
        assert 1 == len({each.created_at for each in put_at_once})
        assert [(1,)] == await rows(database, "SELECT count(*) FROM account")

    play(database_url, scenario)


@pytest.mark.parametrize(
    ("fields", "paths"),
    [
        *(({"key": text}, ["key"]) for text in ("", " ", "a\0", "a" * 257)),
        *(({"name": text}, ["name"]) for text in ("", "a\0", "a" * 257)),
        ({"attributes": nested(LIMITS.attributes_depth_max + 1)}, ["attributes"]),
        ({"attributes": nested(2_000)}, ["attributes"]),
        ({"attributes": {"a": "x" * LIMITS.attributes_bytes_max}}, ["attributes"]),
        ({"key": "", "name": "", "attributes": {"a": "\0"}}, ["key", "name", "attributes"]),
    ],
)
def test_faults_of_an_account(database_url: str, fields: dict[str, Any], paths: list[str]) -> None:
    """What cannot be an account is refused with all that is wrong, each by its path."""

    async def scenario(database: Database) -> None:
        with pytest.raises(InvalidInputError) as raised:
            await put(database, msgspec.structs.replace(ACME, **fields))
        assert [("input", path) for path in paths] == [issue.path for issue in raised.value.issues]

    play(database_url, scenario)


def test_a_key_of_some_accounts_puts_none(database_url: str) -> None:
    """A key that is bound to accounts may not say what is known of them."""

    async def scenario(database: Database) -> None:
        with pytest.raises(ForbiddenError, match="bound to accounts"):
            await put(database, ACME, BOUND_KEY)

    play(database_url, scenario)
