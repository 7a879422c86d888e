"""Two services behind nginx on one database, as deploy/nginx has it: what one machine does, many do."""

import asyncio
import gzip
import ipaddress
import json
import signal
import socket
import ssl
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime, timedelta
from http.client import HTTPResponse
from pathlib import Path
from typing import Any, Final

import asyncpg
import httpx2
import msgspec
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from websockets.sync.client import connect

from metering.ingest.encodings import zstd
from metering.ingest.readers import READERS
from metering.limits import LIMITS
from tests.acceptance.load import Load
from tests.acceptance.nginx import Nginx, needs_nginx, nginx_before
from tests.acceptance.processes import Front, Home, Service, home_in, until
from tests.conftest import ADMIN_KEY, ENGINES, Server, bearer, make_key, usage_event

pytestmark = needs_nginx

WAIT_SECONDS: Final = 30.0
# A promise of docs/operating.md, and so a bound of what is right: not of how fast it is.
REVOKED_SECONDS_MAX: Final = 5.0
USAGE: Final = """
query ($account: String!) {
  usage(query: { period: { from: "2026-03-01T00:00:00Z", to: "2026-04-01T00:00:00Z" },
                 filter: { account: { in: [$account] } } }) { ... on UsageReport { totals { quantity events } } }
}
"""
LIVE: Final = """
subscription ($account: String!) {
  usageTotals(query: { period: { from: "2026-03-01T00:00:00Z", to: "2026-04-01T00:00:00Z" },
                       filter: { account: { in: [$account] } } }, everySeconds: 1) { quantity }
}
"""
CREATE_KEY: Final = """
mutation { createApiKey(input: { name: "passing", scopes: [USAGE_READ] }) { ... on CreatedApiKey { secret key { prefix } } } }
"""
REVOKE_KEY: Final = "mutation ($prefix: String!) { revokeApiKey(prefix: $prefix) { revokedAt } }"
CLOUD_EVENT: Final = {
    "specversion": "1.0",
    "type": "com.example.usage",
    "source": "/gateway",
    "time": "2026-03-01T12:00:00Z",
    "data": {"account": "formats", "product": "maps", "unit": "call"},
}


class Many:
    """Two services on one database, and the nginx before them."""

    def __init__(self, home: Home, database_url: str) -> None:
        self.home, self.database_url = home, database_url
        self.services = [self.launch(), self.launch()]
        for service in self.services:
            service.await_ready()
        self.nginx = Nginx(home.directory / "nginx", [service.address for service in self.services])
        self.front = Front(self.nginx.address)

    def launch(self, port: int = 0) -> Service:
        """Start a service on the database."""
        return self.home.launch(METERING_DATABASE_URL=self.database_url, METERING_PORT=str(port))

    def start_again(self, place: int) -> None:
        """Start a service that has ended, where it was."""
        port = self.services[place].port
        self.services[place] = self.launch(port).await_ready()

    def await_both(self, path: str, status: int, since: int) -> None:
        """Wait until both services have answered this path with this status, in the lines of nginx's log from this one on."""
        addresses = {service.address.removeprefix("http://") for service in self.services}
        until(
            lambda: (
                addresses
                <= {
                    line["upstream"]
                    for line in self.nginx.logged()[since:]
                    if (line["path"], line["status"]) == (path, status)
                }
            ),
            WAIT_SECONDS,
        )

    def end(self) -> None:
        """End nginx; the services end with their home."""
        self.front.close()
        self.nginx.stop()


@pytest.fixture(scope="module", params=ENGINES)
def many(
    request: pytest.FixtureRequest, servers: dict[str, Server], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Many]:
    """Two services behind nginx, for tests that write for accounts of their own."""
    with servers[request.param].cloned() as url, home_in(tmp_path_factory.mktemp("many")) as home:
        made = Many(home, url)
        try:
            yield made
        finally:
            made.end()


def bodies() -> list[tuple[dict[str, str], Any]]:
    """A body of one event in every format and encoding that there is: its headers and its content."""

    def event(number: int) -> dict[str, Any]:
        return usage_event(number, account="formats")

    def cloud(number: int) -> dict[str, Any]:
        return {**CLOUD_EVENT, "id": f"cloud-{number}"}

    lines = (piece for piece in (msgspec.json.encode(event(2))[:20], msgspec.json.encode(event(2))[20:], b"\n"))
    attributes = {f"ce-{name}": value for name, value in cloud(3).items() if isinstance(value, str)}
    plain = [
        ("application/json", msgspec.json.encode([event(1)])),
        ("application/x-ndjson", b"".join(lines)),
        ("application/msgpack", msgspec.msgpack.encode([event(3)])),
        ("application/cloudevents+json", msgspec.json.encode(cloud(1))),
        ("application/cloudevents-batch+json", msgspec.json.encode([cloud(2)])),
    ]
    assert {kind for kind, _ in plain} == READERS.keys()
    coded = msgspec.json.encode(event(4)), msgspec.json.encode(event(5))
    return [
        *(({"Content-Type": kind}, body) for kind, body in plain),
        ({"Content-Type": "application/json", **attributes}, msgspec.json.encode(CLOUD_EVENT["data"])),
        ({"Content-Type": "application/json", "Content-Encoding": "gzip"}, gzip.compress(coded[0])),
        ({"Content-Type": "application/json", "Content-Encoding": "zstd"}, zstd.compress(coded[1])),
    ]


# ---------------------------------------------------------------- services that come and go


# The first one: it compares all that the database has with what it sent.
def test_services_come_and_go_under_a_load(many: Many) -> None:
    """One service is killed, the other one stopped, each is started again: the one that is left answers, and nothing is lost.

    A client that keeps sending meets no fault but 502 or 503 with Retry-After, while it happens.
    """
    load = Load(datetime.now(UTC))
    with load.upon(many.front, loaders=2):
        for place, number in enumerate((signal.SIGKILL, signal.SIGTERM)):
            load.await_acknowledged(3)
            many.services[place].signal(number)
            many.services[place].ended()
            before = len(many.nginx.logged())
            load.await_acknowledged(3)
            assert [[]] * 5 == [many.front.ask(USAGE, account="nobody")["usage"]["totals"] for _ in range(5)]
            many.start_again(place)
            # The other one may go only when nginx has found this one again.
            many.await_both("/v1/events", 200, before)
    load.resend(many.services[0])
    load.check_acknowledged(many.services[1], many.database_url)


# ---------------------------------------------------------------- events


def test_every_body_passes_and_is_counted_once(many: Many) -> None:
    """Each format and encoding gets its receipt through nginx, from both services, and counts once whoever hears of it again."""
    sent = bodies()
    before = len(many.nginx.logged())
    with httpx2.Client(base_url=many.nginx.address, timeout=WAIT_SECONDS, trust_env=False) as client:
        receipts = [
            [client.post("/v1/events", content=body, headers={**headers, **bearer(ADMIN_KEY)}).json() for _ in range(3)]
            for headers, body in sent
        ]

    first = {"accepted": 1, "duplicates": 0, "rejected": []}
    again = {"accepted": 0, "duplicates": 1, "rejected": []}
    assert [[first, again, again]] * len(sent) == receipts
    many.await_both("/v1/events", 200, before)
    for each in (many.front, *many.services):
        totals = each.ask(USAGE, account="formats")["usage"]["totals"]
        assert [{"quantity": str(len(sent)), "events": str(len(sent))}] == totals


class RawRequest:
    """A request that is written piece by piece, as none of the usual clients does."""

    def __init__(self, nginx: Nginx, path: str, *headers: str, key: str = ADMIN_KEY) -> None:
        self._socket = socket.create_connection(("127.0.0.1", nginx.port), WAIT_SECONDS)
        lines = [f"POST {path} HTTP/1.1", "Host: metering.test", f"Authorization: Bearer {key}", *headers]
        self._socket.sendall("\r\n".join([*lines, "", ""]).encode())

    def chunk(self, body: bytes) -> None:
        """Send a piece of the body; there may be more."""
        self._socket.sendall(b"%x\r\n%s\r\n" % (len(body), body))

    def answer(self) -> tuple[int, Any]:
        """The status and the body of the answer, whatever is still to be sent."""
        with self._socket, HTTPResponse(self._socket) as response:
            response.begin()
            return response.status, json.loads(response.read())


def test_a_body_is_passed_on_while_it_arrives(many: Many) -> None:
    """A body of lines that has one too many is refused by the service before its end was sent: nginx does not gather it."""
    _, key = make_key(many.database_url, request_events_max=1)
    request = RawRequest(
        many.nginx, "/v1/events", "Content-Type: application/x-ndjson", "Transfer-Encoding: chunked", key=key
    )
    for number in (1, 2):
        request.chunk(msgspec.json.encode(usage_event(number, account="arriving")) + b"\n")

    status, problem = request.answer()
    assert (413, "too_many_events") == (status, problem["code"])


@pytest.mark.parametrize(
    ("path", "bytes_max"), [("/v1/events", LIMITS.body_bytes_max), ("/graphql", LIMITS.graphql_body_bytes_max)]
)
def test_what_is_too_large_is_told_as_the_service_tells_it(many: Many, path: str, bytes_max: int) -> None:
    """A body that says that it is a byte larger than the limit is refused by nginx, as a problem with the service's code."""
    status, problem = RawRequest(
        many.nginx, path, "Content-Type: application/json", f"Content-Length: {bytes_max + 1}"
    ).answer()

    assert (413, 413, "body_too_large") == (status, problem["status"], problem["code"])


# ---------------------------------------------------------------- live questions


class Stream:
    """The events of a live question, as they come."""

    def __init__(self, response: httpx2.Response) -> None:
        self._lines = response.iter_lines()

    def next(self) -> Any:
        """The body of the next event that has one."""
        return next(json.loads(line[6:]) for line in self._lines if line.startswith("data: {"))


@contextmanager
def streaming(address: str, account: str, key: str = ADMIN_KEY, tls: ssl.SSLContext | None = None) -> Iterator[Stream]:
    """A live question as a stream of events."""
    headers = {"Accept": "text/event-stream", **bearer(key)}
    body = {"query": LIVE, "variables": {"account": account}}
    with (
        httpx2.Client(timeout=WAIT_SECONDS, trust_env=False, verify=tls or True) as client,
        client.stream("POST", f"{address}/graphql", json=body, headers=headers) as response,
    ):
        assert 200 == response.status_code
        yield Stream(response)


@contextmanager
def over_websocket(port: int, account: str, tls: ssl.SSLContext | None = None) -> Iterator[Iterator[Any]]:
    """The answers of a live question over a WebSocket."""
    address = f"{'ws' if tls is None else 'wss'}://127.0.0.1:{port}/graphql"
    with connect(address, subprotocols=["graphql-transport-ws"], ssl=tls, proxy=None) as socket_:  # type: ignore[list-item]  # a NewType of str
        socket_.send(json.dumps({"type": "connection_init", "payload": bearer(ADMIN_KEY)}))
        assert "connection_ack" == json.loads(socket_.recv(WAIT_SECONDS))["type"]
        asked = {"query": LIVE, "variables": {"account": account}}
        socket_.send(json.dumps({"type": "subscribe", "id": "1", "payload": asked}))
        yield (json.loads(socket_.recv(WAIT_SECONDS))["payload"] for _ in range(10))


def totals(*quantities: str) -> dict[str, Any]:
    """What a live question answers with."""
    return {"usageTotals": [{"quantity": quantity} for quantity in quantities]}


def test_live_questions_hear_of_what_any_service_took(many: Many) -> None:
    """Streams and a WebSocket through nginx answer at once, and again for each event, whichever of the two services took it."""
    with (
        streaming(many.nginx.address, "live") as first,
        streaming(many.nginx.address, "live") as second,
        over_websocket(many.nginx.port, "live") as third,
    ):
        assert [totals()] * 3 == [first.next()["data"], second.next()["data"], next(third)["data"]]
        for number, service in enumerate(many.services, start=1):
            service.send(usage_event(number, account="live"))
            assert [totals(str(number))] * 3 == [first.next()["data"], second.next()["data"], next(third)["data"]]


# ---------------------------------------------------------------- keys


def test_a_rate_holds_for_both_together(many: Many) -> None:
    """What one service took of a key's allowance is gone for the other: a burst once, and 429 from both after it."""
    _, key = make_key(many.database_url, events_per_second_max=1, burst_events_max=1_000)
    batch = [usage_event(number, account="rated") for number in range(1_000)]
    before = len(many.nginx.logged())
    answers = [many.front.post("/v1/events", batch, key=key) for _ in range(5)]

    assert [200, 429, 429, 429, 429] == [answer.status_code for answer in answers]
    assert all(0 < int(answer.headers["Retry-After"]) <= 1_000 for answer in answers[1:])
    many.await_both("/v1/events", 429, before)


def test_a_revoked_key_is_refused_by_both(many: Many) -> None:
    """A key that both services know is revoked by one: within five seconds of that both refuse it, and its streams have ended:
    one of each service, and one through nginx.
    """
    made = many.front.ask(CREATE_KEY)["createApiKey"]
    key, prefix = made["secret"], made["key"]["prefix"]

    def statuses() -> list[int]:
        asked = {"query": USAGE, "variables": {"account": "nobody"}}
        return [service.post("/graphql", asked, key=key).status_code for service in many.services]

    with ExitStack() as stack:
        streams = [stack.enter_context(streaming(each.address, "nobody", key)) for each in (many.front, *many.services)]
        assert [totals()] * 3 == [stream.next()["data"] for stream in streams]
        assert [200, 200] == statuses()
        revoked_at = time.monotonic()
        assert many.front.ask(REVOKE_KEY, prefix=prefix)["revokeApiKey"]["revokedAt"]
        until(lambda: [401, 401] == statuses(), REVOKED_SECONDS_MAX)
        assert [["UNAUTHENTICATED"]] * 3 == [
            [error["extensions"]["code"] for error in stream.next()["errors"]] for stream in streams
        ]
        assert time.monotonic() < revoked_at + REVOKED_SECONDS_MAX


# ---------------------------------------------------------------- services that are not there


def test_a_service_that_is_not_ready_is_passed_over(many: Many, servers: dict[str, Server], tmp_path: Path) -> None:
    """One service runs on a schema that is too old: /readyz through nginx finds the other one, and so do requests after it."""
    with servers["postgres"].cloned() as other:
        unready = many.home.launch(METERING_DATABASE_URL=other).await_ready()
        asyncio.run(set_back(other))
        with nginx_before(tmp_path / "nginx", [unready.address, many.services[0].address]) as nginx:
            front = Front(nginx.address)
            # Whichever of the two it asks first.
            ready = [front.get("/readyz").status_code for _ in range(2)]
            answers = [front.post("/graphql", {"query": "{ service { status } }"}).json() for _ in range(4)]
            front.close()
        unready.kill()

    assert [200, 200] == ready
    assert "FAIL" not in [answer["data"]["service"]["status"] for answer in answers]


async def set_back(database_url: str) -> None:
    """Let a database say that it was migrated to the first revision only."""
    connection = await asyncpg.connect(database_url)
    try:
        await connection.execute("UPDATE alembic_version SET version_num = '0001'")
    finally:
        await connection.close()


def test_nobody_there_is_told_as_a_problem(tmp_path: Path) -> None:
    """Where no service answers, clients get 502 with a problem and Retry-After; and what is measured is not shown at all."""
    with (
        nginx_before(tmp_path / "nginx", ["http://127.0.0.1:1"]) as nginx,
        httpx2.Client(base_url=nginx.address, timeout=WAIT_SECONDS, trust_env=False) as client,
    ):
        away = client.post("/v1/events", json=usage_event(), headers=bearer(ADMIN_KEY))
        metrics = client.get("/metrics")

    assert (502, "1", "service_away") == (away.status_code, away.headers["Retry-After"], away.json()["code"])
    assert "application/problem+json" == away.headers["Content-Type"]
    assert 404 == metrics.status_code


# ---------------------------------------------------------------- TLS


def certificate_in(folder: Path) -> tuple[Path, Path]:
    """A certificate for this machine that signs itself, and its key."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "127.0.0.1")])
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(hours=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), critical=False)
        .sign(key, hashes.SHA256())
    )
    paths = folder / "fullchain.pem", folder / "privkey.pem"
    paths[0].write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    paths[1].write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    return paths


def test_tls_is_spoken_by_the_other_site_file(many: Many, tmp_path: Path) -> None:
    """With site.tls.conf in the place of site.conf and a reload: questions, streams and WebSockets over TLS, and HSTS."""
    certificate, key = certificate_in(tmp_path)
    tls = ssl.create_default_context(cafile=certificate)
    with nginx_before(tmp_path / "nginx", [service.address for service in many.services]) as nginx:
        port = nginx.speak_tls(certificate, key)
        address = f"https://127.0.0.1:{port}"
        with httpx2.Client(timeout=WAIT_SECONDS, trust_env=False, verify=tls) as client:
            livez = client.get(f"{address}/livez")
            moved = client.get(f"{address}/graphql/")
        with streaming(address, "tls", tls=tls) as stream, over_websocket(port, "tls", tls) as answers:
            assert [totals()] * 2 == [stream.next()["data"], next(answers)["data"]]

    assert (200, {"status": "PASS"}) == (livez.status_code, livez.json())
    assert livez.headers["Strict-Transport-Security"].startswith("max-age=")
    assert f"{address}/graphql" == moved.headers["Location"]
