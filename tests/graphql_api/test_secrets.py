"""Secrets are in no log and in no answer, whatever fails: each is marked here, and everything that is said is looked through."""

import asyncio
import logging
import re
import socket
import sys
import threading
from collections.abc import Callable, Iterator
from io import StringIO
from typing import Any, Final

import asyncpg
import jwt
import pytest
from starlette.websockets import WebSocketDisconnect

from metering.config import Settings, read_settings
from metering.errors import ConfigurationError, DatabaseUnavailableError
from metering.limits import LIMITS
from metering.outbox.destinations import DestinationKind
from metering.store.pool import Database
from metering.telemetry import configure_logs
from tests.conftest import ENGINES, Api, Server, bearer, running
from tests.graphql_api.test_notifications import PUT
from tests.graphql_api.worlds import TOKENS, token
from tests.metering.catalog import play
from tests.metering.outbox.posting import posting
from tests.metering.outbox.receiver import Received, receiving

# In each secret there is this, so one search finds them all.
MARK: Final = "hushhush"
KEY: Final = f"an-admin-key-{MARK}-of-characters"
KEPT: Final = {
    "bootstrap_key": KEY,
    "key_secret": f"the secret of the service, {MARK}, long enough",
    "jwt_secret": f"a secret that is shared, {MARK}, long enough too",
    "jwt_issuer": TOKENS["jwt_issuer"],
    "jwt_audience": TOKENS["jwt_audience"],
    "log_level": "debug",
}
ASKED: Final = {"query": "{ apiKeys { nodes { prefix } } }"}
CREDENTIALS: Final = (
    f"Bearer {MARK}",
    f"Bearer mk_{MARK}_{MARK}",
    f"Basic {MARK}",
    f"{MARK}",
    f"Bearer ey{MARK}.{MARK}.{MARK}",
    "Bearer " + jwt.encode({"sub": MARK}, f"another secret, {MARK}, and it is long enough", "HS256"),
    "Bearer " + token(scope=MARK, user=MARK),
    "Bearer ey" + "x" * LIMITS.token_bytes_max + f".{MARK}.{MARK}",
)
DESTINATIONS: Final = (
    {"url": f"https://{MARK}:{MARK}@example.com/"},
    {"url": f"https://example.com/ {MARK}"},
    {"url": f"ftp://example.com/{MARK}"},
    {"url": f"https://example.com:99999/{MARK}#{MARK}"},
    {"url": f"http://127.0.0.1/{MARK}"},
    {"url": f"https://example.com/{MARK}", "bearer": f"{MARK} {MARK}"},
    {"url": f"https://example.com/{MARK}", "bearer": MARK},
    {"bearer": f"{MARK}"},
    {"url": f"https://example.org/{MARK}"},
)


@pytest.fixture
def said(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> Iterator[Callable[[], str]]:
    """Everything that was logged since, of any level, or that libraries say by themselves."""
    caplog.set_level(logging.WARNING)
    log = StringIO()
    monkeypatch.setattr(sys, "stderr", log)
    configure_logs("debug")
    yield lambda: caplog.text + log.getvalue()
    monkeypatch.undo()
    # Others log after this test.
    configure_logs("error")


@pytest.fixture
def web(servers: dict[str, Server], said: Callable[[], str]) -> Iterator[tuple[str, Api]]:
    """The service with marked secrets, which logs all that it ever does; after its log is captured."""
    assert said is not None
    with servers[ENGINES[0]].cloned() as url, running(url, **KEPT) as api:
        yield url, api


def test_refused_credentials_are_not_repeated(web: tuple[str, Api], said: Callable[[], str]) -> None:
    """A key or token that is not good is in no answer and no line: over HTTP, over a WebSocket, and in an address."""
    _, api = web
    answers = []
    for credential in CREDENTIALS:
        headers = {"Authorization": credential}
        answers += [
            api.client.post("/graphql", json=ASKED, headers=headers),
            api.client.post("/v1/events", json=[{}], headers=headers),
        ]
        with api.client.websocket_connect("/graphql", subprotocols=["graphql-transport-ws"]) as session:
            session.send_json({"type": "connection_init", "payload": headers})
            with pytest.raises(WebSocketDisconnect) as refused:
                session.receive_json()
        assert MARK not in str(refused.value.reason)
    answers.append(api.client.get(f"/graphql?query={{__typename}}&access_token={MARK}"))
    log = said()

    assert {401, 200} == {each.status_code for each in answers}
    assert [] == [each.text for each in answers if MARK in each.text]
    assert '"path":"/graphql"' in log
    assert MARK not in log


def test_addresses_and_bearers_of_destinations_are_not_repeated(web: tuple[str, Api], said: Callable[[], str]) -> None:
    """Whether it is taken or refused: of an address the host alone is told, and of a bearer nothing."""
    _, api = web
    answers = [
        api.client.post(
            "/graphql",
            json={"query": PUT, "variables": {"input": {"key": "team", "kind": kind, **given}}},
            headers=bearer(KEY),
        )
        for given in DESTINATIONS
        for kind in ("WEBHOOK", "SLACK")
    ]

    assert any('"PutDestinationSuccess"' in each.text for each in answers)
    assert [] == [each.text for each in answers if MARK in each.text]
    assert MARK not in said()


def test_what_breaks_is_logged_without_secrets(web: tuple[str, Api], said: Callable[[], str]) -> None:
    """Rows that the database refuses, and a column that is gone: masked or named in the answer, told in the log; no secret in
    either, though each was on its way to the database.
    """
    url, api = web
    api.ask("{ service { status } }", key=KEY)
    _break(url, "ALTER TABLE destination ADD CONSTRAINT broken CHECK (key <> 'team')")
    _break(url, "ALTER TABLE api_key ADD CONSTRAINT broken CHECK (name <> 'made')")
    given = {"key": "team", "kind": "WEBHOOK", "url": f"https://example.com/{MARK}", "bearer": MARK}
    put = api.answer(PUT, {"input": given}, key=KEY)
    create = 'mutation { createApiKey(input: { name: "made", scopes: [ADMIN] }) { __typename } }'
    created = api.answer(create, key=KEY)
    _break(url, "ALTER TABLE api_key RENAME COLUMN digest TO gone")
    answers = [
        str(put),
        str(created),
        api.client.post("/graphql", json=ASKED, headers=bearer(f"mk_{MARK}")).text,
        api.client.post("/v1/events", json=[{}], headers=bearer(f"mk_{MARK}")).text,
    ]
    log = said()

    assert ["INTERNAL"] * 2 == [each["errors"][0]["extensions"]["code"] for each in (put, created)]
    assert 2 == log.count("graphql_failed")
    assert 2 <= log.count("violates check constraint")
    # What is made just now is in no row that is told either.
    assert not re.search("mk_[0-9a-f]{8}_|whsec_", log)
    assert [] == [each for each in answers if MARK in each]
    assert MARK not in log


def _break(url: str, statement: str) -> None:
    async def run() -> None:
        connection = await asyncpg.connect(url)
        try:
            await connection.execute(statement)
        finally:
            await connection.close()

    asyncio.run(run())


def test_a_delivery_that_fails_tells_no_secret(servers: dict[str, Server], said: Callable[[], str]) -> None:
    """Nobody listens, nobody is known by that name, what is answered is no HTTP: the log of deliveries and that of the service
    say so, without path, bearer or signing secret, and without what was answered.
    """

    async def nonsense(_received: Received) -> str:
        return f"nonsense {MARK}\r\n\r\n"

    async def scenario(database: Database) -> None:
        async with posting(database) as post, receiving(nonsense) as receiver:
            urls = [
                f"http://127.0.0.1:{_free_port()}/{MARK}",
                f"http://does-not-exist.invalid/{MARK}",
                f"{receiver.url}/{MARK}",
            ]
            secrets = [
                (await post.put(f"hook-{number}", url, DestinationKind.WEBHOOK, bearer=MARK)).secret
                for number, url in enumerate(urls)
            ]
            await post.publish()
            assert await post.dispatcher.run()
            told = [
                attempt.fault
                for number in range(len(urls))
                for each in await post.log(f"hook-{number}")
                for attempt in each.attempts
            ]
            log = said()
            assert len(urls) == len(told)
            assert len(urls) == log.count("delivery_failed")
            for secret in (MARK, *secrets):
                assert secret is not None
                assert secret not in log
                assert secret not in str(told)

    with servers[ENGINES[0]].cloned() as url:
        play(url, scenario)


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
        return port


def test_settings_that_are_wrong_are_named_and_not_shown() -> None:
    """A secret that is too short, an address with a password that is none: the fault names the variable alone."""
    given = {
        "METERING_DATABASE_URL": f"mysql://metering:{MARK}@db/metering",
        "METERING_BOOTSTRAP_KEY": f"{MARK} ?",
        "METERING_KEY_SECRET": MARK,
        "METERING_JWT_SECRET": MARK,
        "METERING_JWT_JWKS": f"http://{MARK}:{MARK}@issuer.test/",
        "METERING_JWT_ISSUER": "i",
        "METERING_JWT_AUDIENCE": "a",
    }
    with pytest.raises(ConfigurationError) as refused:
        read_settings(given)

    assert len(refused.value.faults) == 5
    assert MARK not in str(refused.value)


def test_a_database_that_refuses_is_told_without_its_password(run_cli: Any) -> None:
    """A server that is away, and one that hangs up: command line and pool say where it is wrong, without the password."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]

        def hang_up() -> None:
            for _ in range(2):
                connection, _address = listener.accept()
                connection.close()

        closing = threading.Thread(target=hang_up, daemon=True)
        closing.start()
        url = f"postgresql://metering:{MARK}@127.0.0.1:{port}/metering"
        with pytest.raises(DatabaseUnavailableError) as refused:
            asyncio.run(Database.connect(Settings(database_url=url), LIMITS))
    done = run_cli(
        "keys", "list", METERING_DATABASE_URL=f"postgresql://metering:{MARK}@127.0.0.1:{_free_port()}/metering"
    )

    assert done.returncode != 0
    assert MARK not in done.stdout + done.stderr + str(refused.value) + repr(refused.value.__cause__)
