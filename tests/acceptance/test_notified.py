"""From usage to a team that is told: over real processes, which are killed in the midst of it."""

import threading
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Final

import msgspec
import pytest

from metering.outbox.signature import is_genuine, secret_bytes
from tests.acceptance.processes import Home, until
from tests.conftest import Server, usage_event

_METER: Final = """
mutation { putMeter(input: {key: "calls", name: "Calls", unit: "call"}) { __typename } }
"""
_RULE: Final = """
mutation {
  putAlertRule(input: {
    key: "many-calls", name: "Many calls", measure: {quantity: {meter: "calls", bucket: DAY}}, threshold: "10"
  }) { __typename ... on Problem { message } }
}
"""
_DESTINATION: Final = """
mutation ($url: String!) {
  putDestination(input: {key: "team", kind: WEBHOOK, url: $url}) {
    __typename ... on PutDestinationSuccess { secret } ... on Problem { message }
  }
}
"""
_STATE: Final = """
{ destinations { nodes { waiting } } deliveries(destination: "team") { nodes { state attempts { status } } } }
"""


class Team:
    """A server in this process that takes what it is told, once it is willing to."""

    def __init__(self) -> None:
        self.willing = threading.Event()
        self.received: list[tuple[dict[str, str], bytes]] = []
        team = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                team.received.append(({name.lower(): value for name, value in self.headers.items()}, body))
                team.willing.wait()
                self.send_response(204)
                self.end_headers()

            def log_message(self, *_arguments: Any) -> None:
                """Say nothing."""

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self._thread = threading.Thread(target=self.server.serve_forever, daemon=True)
        self._thread.start()

    @property
    def url(self) -> str:
        """Where it listens."""
        return f"http://127.0.0.1:{self.server.server_port}/hooks"

    def close(self) -> None:
        """Stop."""
        self.willing.set()
        self.server.shutdown()
        self.server.server_close()
        self._thread.join()


@pytest.fixture
def team() -> Iterator[Team]:
    """A team that is not willing yet."""
    made = Team()
    yield made
    made.close()


def test_a_kill_in_the_midst_of_deliveries_loses_nothing(
    tmp_path: Path, servers: dict[str, Server], team: Team
) -> None:
    """A service is killed while what it sent is not answered: the next one sends all of it again, by the same ids, and what was
    recorded meanwhile raises its alert as well; each is genuine.
    """
    home = Home(tmp_path)
    with servers["postgres"].cloned() as url:
        settings = {
            "METERING_DATABASE_URL": url,
            "METERING_NOTIFY_SECONDS": "0.1",
            "METERING_WEBHOOK_ALLOW_PRIVATE": "true",
            "METERING_WEBHOOK_ALLOW_HTTP": "true",
        }
        try:
            first = home.serve(**settings)
            for document in (_METER, _RULE):
                first.ask(document)
            secret = first.ask(_DESTINATION, url=team.url)["putDestination"]["secret"]
            first.send([_used(number, account) for number, account in enumerate(("acme", "beta"))])
            until(lambda: len(team.received) == 2, 30)
            first.send([_used(2, "gamma")])
            first.kill()
            sent_before = len(team.received)
            team.willing.set()
            second = home.serve(**settings)
            until(lambda: second.ask(_STATE)["destinations"]["nodes"] == [{"waiting": "0"}] and _is_all(team), 30)
            log = second.ask(_STATE)["deliveries"]["nodes"]
            second.stop()
        finally:
            home.end()

    ids = [headers["webhook-id"] for headers, _ in team.received]
    assert {"acme", "beta", "gamma"} == {_account(body) for _, body in team.received}
    assert set(ids[:sent_before]) <= set(ids[sent_before:])
    assert 3 == len(set(ids)) == len(log)
    assert [("DELIVERED", 204)] * 3 == [(each["state"], each["attempts"][-1]["status"]) for each in log]
    assert all(is_genuine(secret_bytes(secret), headers, body, time.time()) for headers, body in team.received)


def _is_all(team: Team) -> bool:
    return {"acme", "beta", "gamma"} == {_account(body) for _, body in team.received}


def _used(number: int, account: str) -> dict[str, Any]:
    now = datetime.now(UTC)
    return usage_event(number, account=account, quantity="10", occurred_at=now.isoformat())


def _account(body: bytes) -> Any:
    return msgspec.json.decode(body)["data"]["dimensions"]["account"]
