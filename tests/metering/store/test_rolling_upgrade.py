"""One release beside the next one: which schemas a release works on, and what it says of itself on the others."""

import asyncio
from typing import Any

import alembic.script
import asyncpg
import pytest

from metering.store import migrate
from tests.conftest import Api, running, usage_event


def execute(url: str, *statements: str) -> None:
    """Do to a database what the migrations of another release would."""

    async def run() -> None:
        connection = await asyncpg.connect(url)
        try:
            for statement in statements:
                await connection.execute(statement)
        finally:
            await connection.close()

    asyncio.run(run())


def tightened_by(revision: str | None) -> str:
    """The statement by which a migration notes the last one that took something away."""
    return f"COMMENT ON TABLE alembic_version IS '{migrate.tightening(revision)}'"


def at(revision: str) -> str:
    """The statement by which a migration notes itself."""
    return f"UPDATE alembic_version SET version_num = '{revision}'"


def readiness(api: Api) -> tuple[int, str]:
    """The status of /readyz, and what it says of the migrations."""
    response = api.client.get("/readyz")
    (check,) = [each for each in response.json()["checks"] if each["name"] == "migrations"]
    return response.status_code, check["status"]


def test_a_release_goes_on_and_starts_anew_on_what_the_next_one_added_to(database_url: str) -> None:
    """The next release's `pre` migrations run under a service: it stays ready, takes events, answers, and can be restarted."""
    usage = (
        '{ usage(query: { period: { from: "2026-03-01T00:00:00Z", to: "2026-04-01T00:00:00Z" } }) '
        "{ ... on UsageReport { totals { events } } } }"
    )
    with running(database_url) as api:
        assert (200, "PASS") == readiness(api)
        execute(
            database_url,
            "ALTER TABLE api_key ADD COLUMN of_the_next_release text NOT NULL DEFAULT ''",
            "CREATE TABLE of_the_next_release (id int PRIMARY KEY)",
            at("9999"),
        )
        assert (200, "WARN") == readiness(api)
        assert 1 == api.send(usage_event(1))["accepted"]

    assert "9999" == migrate.upgrade(database_url)
    with running(database_url) as api:
        assert (200, "WARN") == readiness(api)
        assert 1 == api.send(usage_event(2))["accepted"]
        assert [{"events": "2"}] == api.ask(usage)["usage"]["totals"]


@pytest.mark.parametrize(
    "statements",
    [
        pytest.param([at("9999"), tightened_by("9999")], id="taken from by a newer release"),
        pytest.param([at("9999"), "COMMENT ON TABLE alembic_version IS NULL"], id="of a newer one that says nothing"),
        pytest.param([at("0001")], id="not migrated yet"),
    ],
)
def test_a_release_is_not_ready_on_another_schema(database_url: str, statements: list[str]) -> None:
    """Where something was taken away, or is not there yet, /readyz is 503: what routes by it asks others."""
    with running(database_url) as api:
        execute(database_url, *statements)
        assert (503, "FAIL") == readiness(api)


def test_what_was_tightened_is_noted_by_each_migration(empty_database_url: str) -> None:
    """After every migration, up and down, the database says which `post` was the last, for releases that know fewer."""

    async def noted() -> Any:
        connection = await asyncpg.connect(empty_database_url)
        try:
            return await connection.fetchval("SELECT obj_description('alembic_version'::regclass, 'pg_class')")
        finally:
            await connection.close()

    def last_post(head: str) -> str:
        scripts = alembic.script.ScriptDirectory.from_config(migrate._config("")).walk_revisions(head=head)
        return migrate.tightening(next((each.revision for each in scripts if "_post_" in each.path), None))

    migrate.upgrade(empty_database_url)
    assert last_post("head") == asyncio.run(noted())
    execute(empty_database_url, tightened_by("9999"))
    migrate.downgrade(empty_database_url, "0018")
    assert last_post("0018") == asyncio.run(noted())
