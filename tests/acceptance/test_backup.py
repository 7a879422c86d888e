"""docs/backup.md, run as it is written: what was backed up is there again, in a server that was empty, and goes on."""

import asyncio
import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import asyncpg

from metering.store.embedded import EmbeddedServer
from tests.acceptance.load import Load, settled
from tests.acceptance.processes import Home, Service, home_in, server_like, until
from tests.conftest import Api, Server, bearer, clean_environment, metering_program, running, usage_event
from tests.graphql_api.test_opaque_ids import NODE, NUMBERED, fill, opaque_in
from tests.graphql_api.test_statements import FINALIZE, LIST, ask

GUIDE: Final = (Path(__file__).parents[2] / "docs" / "backup.md").read_text(encoding="utf-8")
KEY_SECRET: Final = "a secret that is kept apart from backups"
_COMMANDS_SECONDS_MAX: Final = 120

CREATE_KEY: Final = """
mutation { createApiKey(input: {name: "a producer", scopes: [USAGE_WRITE, USAGE_READ]}) {
  ... on CreatedApiKey { secret key { prefix } }
} }
"""
REVOKE_KEY: Final = "mutation ($prefix: String!) { revokeApiKey(prefix: $prefix) { prefix } }"
PUT_DESTINATION: Final = """
mutation {
  putDestination(input: {key: "team", kind: WEBHOOK, url: "https://example.com/hooks", types: ["alert"]}) {
    __typename
  }
}
"""
# What is kept of a destination is decrypted, and encrypted anew with another secret in it.
ROTATE_DESTINATION: Final = """
mutation { rotateDestinationSecret(input: {key: "team"}) {
  ... on PutDestinationSuccess { destination { address } } ... on Conflict { message }
} }
"""
BOOKS: Final = """
{
  usage(query: {period: {from: "2026-01-01T00:00:00Z", to: "2026-12-01T00:00:00Z"}, groupBy: [ACCOUNT, USER, UNIT]}) {
    ... on UsageReport { groups(first: 100, orderBy: {field: KEY, direction: ASC}) {
      nodes { key { account user unit } totals { unit quantity events } }
    } }
  }
  apiKeys { nodes { prefix name scopes } }
  meters { nodes { key name } }
}
"""


def commands_under(heading: str) -> str:
    """The commands below a heading of the guide."""
    section = re.split(rf"^#+ {re.escape(heading)}\n", GUIDE, flags=re.MULTILINE)[1]
    own = re.split(r"^#+ ", section, maxsplit=1, flags=re.MULTILINE)[0]
    return "".join(re.findall(r"^```sh\n(.*?)^```", own, re.DOTALL | re.MULTILINE))


class Operator:
    """Who follows the guide: at one server, with a folder for backups."""

    def __init__(self, server: EmbeddedServer, backups: Path, database: str = "metering", **variables: str) -> None:
        self.server = server
        self.url = server.url(database)
        self._environment = clean_environment(
            PGHOST=self.url.partition("host=")[2],
            PGUSER="postgres",
            PGDATABASE=database,
            BACKUPS=str(backups),
            METERING_DATABASE_URL=self.url,
            METERING_KEY_SECRET=KEY_SECRET,
            PATH=os.pathsep.join([str(server._bin_dir), str(Path(metering_program()).parent), os.environ["PATH"]]),
            **variables,
        )

    def follows(self, heading: str) -> str:
        """Do what stands below a heading, and return what was answered; a command that fails, fails the test."""
        commands = commands_under(heading)
        assert commands, f"docs/backup.md has no commands under {heading!r}"
        done = subprocess.run(
            ["bash", "-euo", "pipefail", "-c", commands],
            env=self._environment,
            capture_output=True,
            text=True,
            timeout=_COMMANDS_SECONDS_MAX,
            check=False,
        )
        assert done.returncode == 0, f"{heading}: {done.stdout}{done.stderr}"
        return done.stdout

    def asks(self, statement: str) -> Any:
        """Run a statement, and return the first value that it answers."""

        async def fetch() -> Any:
            connection = await asyncpg.connect(self.url)
            try:
                return await connection.fetchval(statement)
            finally:
                await connection.close()

        return asyncio.run(fetch())


@contextmanager
def started(server: EmbeddedServer) -> Iterator[EmbeddedServer]:
    """A server that runs as long as the block."""
    server.start()
    try:
        yield server
    finally:
        server.stop()


def like(server: EmbeddedServer, directory: Path) -> EmbeddedServer:
    """Another server of the same programs and settings; nothing is made yet."""
    return EmbeddedServer(directory, server._bin_dir, server._settings)


def serve(home: Home, operator: Operator) -> Service:
    """The service on an operator's server; its refresher is always at work."""
    return home.serve(
        METERING_DATABASE_URL=operator.url, METERING_KEY_SECRET=KEY_SECRET, METERING_REFRESH_SECONDS="0.05"
    )


def test_every_command_of_the_guide_is_run() -> None:
    """The headings of docs/backup.md that have commands are those that the tests below follow."""
    followed = set(re.findall(r'follows\("([^"]+)"\)', Path(__file__).read_text(encoding="utf-8")))
    headings = re.findall(r"^#+ (.+)$", GUIDE, re.MULTILINE)

    assert {heading for heading in headings if commands_under(heading)} == followed


def test_an_instant_is_restored_into_an_empty_server(servers: dict[str, Server], engine: str, tmp_path: Path) -> None:
    """A base backup is taken under a load and events are lost later: restored is what was acknowledged up to the instant, all of
    it and nothing else; its figures agree, and service, clients and keys go on.
    """
    load = Load(datetime.now(UTC))
    backups = tmp_path / "backups"
    with home_in(tmp_path) as home:
        with server_like(servers[engine], tmp_path / "lost") as lost:
            operator = Operator(lost, backups)
            operator.follows("Archive the log")
            lost.stop()
            lost.start()
            service = serve(home, operator)
            key = service.ask(CREATE_KEY)["createApiKey"]
            with load.upon(service, loaders=1):
                load.await_acknowledged(2)
                operator.follows("Take a base backup")
                until(lambda: list(backups.glob("wal/*.backup")), 30)
                operator.follows("Remove old log")
                load.await_acknowledged(2)
                acknowledged = set(load.acknowledged)
                instant = operator.asks("SELECT clock_timestamp()::text")
                sent = set(load.sent)
                load.await_acknowledged(2)
            service.ask(REVOKE_KEY, prefix=key["key"]["prefix"])
            operator.asks("DELETE FROM event")
            service.stop()
        shutil.rmtree(tmp_path / "lost")

        anew = like(lost, tmp_path / "anew")
        restorer = Operator(anew, backups, DATA=str(tmp_path / "anew" / "postgres" / "data"), INSTANT=instant)
        restorer.follows("Restore an instant")
        with started(anew):
            assert "agree with their events" in restorer.follows("After a restore")
            found = settled(restorer.url).keys()
            assert (acknowledged - found, found - sent) == (set(), set())

            load.acknowledged = acknowledged
            service = serve(home, restorer)
            load.check_acknowledged(service, restorer.url)
            assert service.post("/v1/events", [], key=key["secret"]).status_code == 200
            load.resend(service)
            load.check_everything(service, restorer.url)
            restorer.follows("After a restore")
            service.stop()


def keep_books(api: Api) -> str:
    """Something of each kind, and the secret of a producer's key."""
    fill(api)
    api.ask(PUT_DESTINATION)
    secret: str = api.ask(CREATE_KEY)["createApiKey"]["secret"]
    return secret


def books(api: Api) -> tuple[Any, ...]:
    """What is answered of all that was kept; drafts are computed anew, as of each moment."""
    frozen = [each for each in api.ask(LIST)["statements"]["nodes"] if each["status"] != "DRAFT"]
    assert frozen
    return api.ask(BOOKS), frozen, list(opaque_in(api.ask(NUMBERED)))


def test_a_dump_is_restored_into_an_empty_server(
    database_url: str, servers: dict[str, Server], engine: str, tmp_path: Path
) -> None:
    """Answers, ids, keys and what is encrypted are in another server as they were, columns too; there the service goes on.
    Without the secret that is kept apart neither key nor destination is of use.
    """
    server = servers[engine].server
    source = Operator(server, tmp_path, database_url.partition("@/")[2].partition("?")[0])
    with running(database_url, key_secret=KEY_SECRET, refresh_seconds=0.05) as api:
        key = keep_books(api)
        until(lambda: source.asks("SELECT count(*) FROM usage_day"), 30)
        if engine == "timescaledb":
            assert source.asks("SELECT count(compress_chunk(chunk)) FROM show_chunks('event') chunk")
        kept = books(api)
        source.follows("Dump")

    with started(like(server, tmp_path / "anew")) as anew:
        restorer = Operator(anew, tmp_path, "restored")
        if engine == "timescaledb":
            restorer.follows("Restore a dump of TimescaleDB")
        else:
            restorer.follows("Restore a dump")
        assert "agree with their events" in restorer.follows("After a restore")
        with running(restorer.url, key_secret=KEY_SECRET, refresh_seconds=0.05) as api:
            assert kept == books(api)
            assert all(api.ask(NODE, {"id": id})["node"]["id"] == id for name, id in kept[2] if name == "id")
            receipt = api.send([usage_event(1, subscription="s-1", quantity="2.5", user="x"), usage_event(20)], key=key)
            assert {"accepted": 1, "duplicates": 1, "rejected": []} == receipt
            assert ask(api, FINALIZE, at="2026-04-10T00:00:00Z")["id"] not in dict(map(reversed, kept[2]))
            assert {"address": "https://example.com/…"} == destination(api)["destination"]
        restorer.follows("After a restore")
        with running(restorer.url) as api:
            assert 401 == api.client.post("/v1/events", json=[usage_event(21)], headers=bearer(key)).status_code
            assert "METERING_KEY_SECRET" in destination(api)["message"]


def destination(api: Api) -> Any:
    """What is answered where what is kept of a destination has to be read."""
    return api.ask(ROTATE_DESTINATION)["rotateDestinationSecret"]
