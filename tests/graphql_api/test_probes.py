"""GET /livez and /readyz: what they say depends on the service, and nothing that accounts do shows in it."""

import asyncio
from collections.abc import Iterator
from typing import Any

import asyncpg
import pytest

from metering.config import Settings
from metering.limits import LIMITS
from metering.probes import Readiness, Status, read_readiness
from metering.store.pool import Database
from tests.acceptance.processes import until
from tests.conftest import ENGINES, Api, Server, running

# What several accounts did: events that came late, a rule that cannot be evaluated, notifications that nobody takes, a loop
# that fails of an account.
BUSY = """
INSERT INTO pending_bucket (account, bucket) SELECT 'acme-' || each, '2026-03-01' FROM generate_series(1, 4321) AS each;
INSERT INTO alert_rule (key, name, definition, enabled, fault, changed_by)
VALUES ('of acme', 'Of acme', '{}', true, 'acme has 4321 subjects', 'test');
INSERT INTO destination (key, kind, address, encrypted, types, enabled, changed_by, disabled_at, disabled_reason)
VALUES ('team', 'WEBHOOK', 'https://acme.test', '', '{}', true, 'test', now(), 'acme answered 410'),
       ('other', 'WEBHOOK', 'https://acme.test', '', '{}', true, 'test', NULL, NULL);
INSERT INTO notification (id, type, subject, data, published_at)
SELECT gen_random_uuid(), 'alert.raised', 'account/acme', '{}', now() - interval '4321 s' FROM generate_series(1, 4321);
INSERT INTO delivery (destination_id, sequence, subject, due_at)
SELECT destination.id, sequence, subject, published_at FROM notification, destination WHERE destination.key = 'other';
INSERT INTO background_loop (name, started_at, failed_at, failures, fault_code, fault)
VALUES ('refresh', now(), now(), 4321, 'internal', 'of acme'), ('alerts', now(), now(), 4321, 'internal', 'of acme')
ON CONFLICT (name) DO UPDATE SET failures = 4321, fault = 'of acme', failed_at = now();
"""


@pytest.fixture
def url(servers: dict[str, Server]) -> Iterator[str]:
    """A database of this test's own."""
    with servers[ENGINES[0]].cloned() as address:
        yield address


def run(url: str, statements: str) -> None:
    """Run statements."""

    async def sent() -> None:
        connection = await asyncpg.connect(url)
        try:
            await connection.execute(statements)
        finally:
            await connection.close()

    asyncio.run(sent())


async def read(url: str) -> Readiness:
    """What a process would say of this database that has nothing else to do with it."""
    database = await Database.connect(Settings(database_url=url), LIMITS)
    try:
        return await read_readiness(database)
    finally:
        await database.close()


def checks(api: Api) -> tuple[int, str, dict[str, tuple[str, str]]]:
    """What /readyz says to anybody: its HTTP status, its own, and each check's status and words."""
    response = api.client.get("/readyz")
    said: dict[str, Any] = response.json()
    return (
        response.status_code,
        said["status"],
        {each["name"]: (each["status"], each["detail"]) for each in said["checks"]},
    )


def test_ready_says_what_is_wrong_and_tells_nobody_of_accounts(url: str) -> None:
    """Where all is well every check passes; what goes wrong in the background is a warning, with 200, in words that are the same
    however much of which account is behind it; whoever reaches everything is told the numbers.
    """
    with running(url, work=False) as api:
        idle = checks(api)
        run(url, BUSY)
        busy = checks(api)
        text = api.client.get("/readyz").text
        inside = {
            each["name"]: each["detail"]
            for each in api.ask("{ service { checks { name detail } } }")["service"]["checks"]
        }
        outside = api.ask("{ service { checks { name detail } } }", key=None)["service"]["checks"]

    assert (200, "WARN") == idle[:2]
    assert (200, "WARN") == busy[:2]
    assert {"database", "migrations", "rollups", "background", "notifications"} == set(busy[2])
    assert ("WARN", "it is not done, or fails") == idle[2]["background"] == busy[2]["background"]
    assert ("WARN", "rules are not evaluated, or notifications not sent") == busy[2]["notifications"]
    assert idle[2]["rollups"] == busy[2]["rollups"]
    assert [] == [hidden for hidden in ("acme", "4321", "4,321") if hidden in text]
    assert "4,321 pending" in inside["rollups"]
    assert "refresh failed 4,321 times in a row: of acme" in inside["background"]
    assert "what is due waits for 4,3" in inside["notifications"]
    assert {None} == {each["detail"] for each in outside}


def test_ready_and_alive_say_different_things(servers: dict[str, Server]) -> None:
    """A database that is not of this release, or gone, makes a process not ready, and says which; it is alive all the same."""
    server = servers[ENGINES[0]]
    url = server.clone()
    with running(url) as api:
        # Until rollups are kept for the first time, they are behind.
        until(lambda: checks(api)[:2] == (200, "PASS"), 30)
        run(url, "UPDATE alembic_version SET version_num = '0001'")
        older = checks(api)
        server.drop(url)
        gone = checks(api)
        alive = api.client.get("/livez")

    assert (503, "FAIL") == older[:2]
    assert ("FAIL", "PASS") == (older[2]["migrations"][0], older[2]["database"][0])
    assert "0001" in older[2]["migrations"][1]
    assert (503, "FAIL", {"database": ("FAIL", "it does not answer")}) == gone
    assert (200, {"status": "PASS"}) == (alive.status_code, alive.json())


def test_a_table_that_is_missing_is_told_from_another_release(url: str) -> None:
    """A schema of this release that lacks a table makes the database useless; of another's, only the revision is wrong."""
    run(url, "ALTER TABLE alert_rule RENAME TO gone")
    (missing,) = asyncio.run(read(url)).checks
    run(url, "UPDATE alembic_version SET version_num = '0001'")
    other = {check.name: check.status for check in asyncio.run(read(url)).checks}

    assert ("database", Status.FAIL) == (missing.name, missing.status)
    assert "alert_rule" in missing.detail
    assert {"database": Status.PASS, "migrations": Status.FAIL, "rollups": Status.PASS} == other


def test_a_new_database_has_nothing_to_roll_up(url: str) -> None:
    """Before the first refresh nothing is behind; that nobody works in the background is said, and nothing else."""
    checks = {check.name: check for check in asyncio.run(read(url)).checks}
    assert (Status.PASS, "nothing to roll up yet, 0 pending") == (checks["rollups"].status, checks["rollups"].detail)
    assert {"background"} == {name for name, check in checks.items() if check.status is not Status.PASS}
