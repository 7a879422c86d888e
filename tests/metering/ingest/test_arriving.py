"""Bodies that come slowly: they have their time and their share of memory, and hold nothing that others need."""

import asyncio
import gzip
import select
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import httpx2
import msgspec
import pytest
import uvicorn
from hypothesis import given
from hypothesis import strategies as st

from graphql_api.app import create_app
from metering.config import Settings
from metering.errors import BodiesFullError, BodyError
from metering.ingest.arriving import Bodies
from metering.limits import Limits
from tests.acceptance.processes import until
from tests.conftest import ADMIN_KEY, Server, bearer, make_key, usage_event
from tests.strategies import MANY

PATIENCE_SECONDS = 30.0


class Web:
    """A service on a port of this machine."""

    def __init__(self, port: int, database_url: str) -> None:
        self.port = port
        self.database_url = database_url
        self.client = httpx2.Client(base_url=f"http://127.0.0.1:{port}", timeout=PATIENCE_SECONDS, trust_env=False)

    def post(self, key: str, body: bytes, **headers: str) -> httpx2.Response:
        """POST events as NDJSON."""
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        sent = {**bearer(key), "Content-Type": "application/x-ndjson", **named}
        return self.client.post("/v1/events", content=body, headers=sent)

    def begin(
        self, key: str, body: bytes, path: str = "/v1/events", kind: str = "application/x-ndjson"
    ) -> socket.socket:
        """A request that has begun: the headers promise more than this part of the body, which is all that comes."""
        connection = socket.create_connection(("127.0.0.1", self.port), PATIENCE_SECONDS)
        head = f"POST {path} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {key}\r\nContent-Type: {kind}\r\n"
        connection.sendall(f"{head}Content-Length: 100000\r\n\r\n".encode() + body)
        return connection


@contextmanager
def listening(url: str, limits: Limits) -> Iterator[Web]:
    """The service with these limits, behind the server that it is shipped with."""
    settings = Settings(database_url=url, bootstrap_key=ADMIN_KEY, log_level="error", refresh_seconds=3_600.0)
    config = uvicorn.Config(create_app(settings, limits), log_level="error", access_log=False, lifespan="on")
    server = uvicorn.Server(config)
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
        thread.start()
        web = Web(listener.getsockname()[1], url)
        try:
            until(lambda: server.started, PATIENCE_SECONDS)
            yield web
        finally:
            web.client.close()
            server.should_exit = True
            thread.join(PATIENCE_SECONDS)


@pytest.fixture(scope="module")
def web(servers: dict[str, Server]) -> Iterator[Web]:
    """A service whose bodies have a second, and 10,000 bytes together; how bodies come is no matter of the engine."""
    url = servers["postgres"].clone()
    with listening(url, Limits(body_seconds_max=1, body_bytes_max=8_000, bodies_bytes_max=10_000)) as started:
        yield started
    servers["postgres"].drop(url)


def line(number: int, size: int = 0) -> bytes:
    """An event as a line of NDJSON, padded to this size."""
    return msgspec.json.encode(usage_event(number)).ljust(size - 1) + b"\n"


def answer(connection: socket.socket) -> tuple[int, dict[str, str], Any]:
    """The status, headers and problem with which a request is answered, and that the connection is closed after it."""
    with connection:
        received = b"".join(iter(lambda: connection.recv(65_536), b""))
    head, _, body = received.partition(b"\r\n\r\n")
    status, *fields = head.decode().split("\r\n")
    headers = {name.lower(): value.strip() for name, _, value in (field.partition(":") for field in fields)}
    return int(status.split()[1]), headers, msgspec.json.decode(body)


# ---------------------------------------------------------------- time


@pytest.mark.parametrize(
    ("path", "kind"),
    [("/v1/events", "application/x-ndjson"), ("/graphql", "application/json")],
    ids=["events", "graphql"],
)
def test_a_body_that_stops_is_answered_and_its_connection_closed(web: Web, path: str, kind: str) -> None:
    """A body that does not arrive in its time is answered 408; the connection ends with it."""
    status, headers, problem = answer(web.begin(ADMIN_KEY, line(1), path, kind))

    assert (408, "body_too_slow") == (status, problem["code"])
    assert ("application/problem+json", "close") == (headers["content-type"], headers["connection"])
    assert "within 1 seconds" in problem["detail"]


def test_a_body_that_comes_a_byte_at_a_time_holds_nobody_up(web: Web) -> None:
    """Bytes that go on coming buy no time, and as long as they come all others are answered as ever."""
    slow = web.begin(ADMIN_KEY, b"")
    slow.settimeout(0.05)
    answered = 0
    received = b""
    while not received:
        try:
            received = slow.recv(65_536)
        except TimeoutError:
            slow.sendall(b" ")
            assert 200 == web.post(ADMIN_KEY, line(answered)).status_code
            answered += 1
    slow.close()

    assert received.startswith(b"HTTP/1.1 408")
    assert answered > 0


def test_a_body_that_arrives_in_time_is_taken(web: Web) -> None:
    """A body in many parts within its time is one body; what is done with it afterwards is not counted as its time."""
    whole = b"".join(line(number) for number in range(1_000, 1_020))
    with socket.create_connection(("127.0.0.1", web.port), PATIENCE_SECONDS) as connection:
        head = f"POST /v1/events HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {ADMIN_KEY}\r\n"
        head += f"Content-Type: application/x-ndjson\r\nContent-Length: {len(whole)}\r\nConnection: close\r\n\r\n"
        connection.sendall(head.encode())
        for start in range(0, len(whole), 100):
            connection.sendall(whole[start : start + 100])
        received = b"".join(iter(lambda: connection.recv(65_536), b""))

    assert received.startswith(b"HTTP/1.1 200")
    assert received.endswith(b'{"accepted":20,"duplicates":0,"rejected":[]}')


# ---------------------------------------------------------------- memory


def test_who_holds_too_much_is_refused_and_the_others_are_not(web: Web) -> None:
    """A key whose slow bodies hold more than is left gets 503 with Retry-After; others get in, and so does it later."""
    _, slow = make_key(web.database_url)
    _, other = make_key(web.database_url)
    refused, begun = refused_beside(lambda: web.begin(slow, line(1, 4_000)), lambda: web.post(slow, line(2, 4_000)))
    taken = web.post(other, line(3, 4_000))
    status, _, _ = answer(begun)

    assert "bodies_full" == refused.json()["code"]
    assert ("1", "application/problem+json") == (refused.headers["retry-after"], refused.headers["content-type"])
    assert 200 == taken.status_code, taken.text
    assert 408 == status
    assert 200 == web.post(slow, line(2, 4_000)).status_code


def refused_beside(
    begin: Callable[[], socket.socket], post: Callable[[], httpx2.Response]
) -> tuple[httpx2.Response, socket.socket]:
    """The answer to a request that is refused for another one that has begun; and the connection of that."""
    begun = begin()

    def refused() -> httpx2.Response | None:
        nonlocal begun
        # One that came while another was being written was sent away itself.
        if select.select([begun], [], [], 0)[0]:
            begun.close()
            begun = begin()
        response = post()
        return response if response.status_code == 503 else None

    return until(refused, PATIENCE_SECONDS), begun


def test_compressed_bodies_are_counted_as_what_they_become(web: Web) -> None:
    """A few compressed bytes hold what they are without their encoding."""
    _, key = make_key(web.database_url)
    packed = gzip.compress(line(1, 4_000))
    assert len(packed) < 400
    # Cut off before its trailer: all of it has come out, and it is not over.
    head = f"POST /v1/events HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {key}\r\nContent-Encoding: gzip\r\n"
    head += f"Content-Type: application/x-ndjson\r\nContent-Length: {len(packed)}\r\n\r\n"

    def begun() -> socket.socket:
        connection = socket.create_connection(("127.0.0.1", web.port), PATIENCE_SECONDS)
        connection.sendall(head.encode() + packed[:-8])
        return connection

    refused, connection = refused_beside(begun, lambda: web.post(key, packed, Content_Encoding="gzip"))
    status, _, _ = answer(connection)

    assert "bodies_full" == refused.json()["code"]
    assert 408 == status


@MANY
@given(pieces=st.lists(st.tuples(st.sampled_from("abc"), st.integers(0, 60)), max_size=40))
def test_the_share_of_a_sender(pieces: list[tuple[str, int]]) -> None:
    """Never more than the limit is held; a sender is refused only for what is more than still free; all is given back."""
    bodies = Bodies(Limits(bodies_bytes_max=100))
    held = dict.fromkeys("abc", 0)

    async def scenario() -> None:
        async with bodies.arriving("a") as a, bodies.arriving("b") as b, bodies.arriving("c") as c:
            for sender, size in pieces:
                free = 100 - sum(held.values())
                try:
                    {"a": a, "b": b, "c": c}[sender].add(size)
                except BodiesFullError:
                    assert size
                    assert held[sender] + size > free
                else:
                    held[sender] += size
                    assert held[sender] <= free or not size
                assert sum(held.values()) <= 100
        async with bodies.arriving("d") as whole:
            whole.add(100)

    asyncio.run(scenario())


def test_what_fails_gives_back_what_it_held() -> None:
    """A body that is given up, for whatever reason, holds nothing any more."""
    bodies = Bodies(Limits(bodies_bytes_max=100, body_seconds_max=0))

    async def fail() -> None:
        async with bodies.arriving("a") as body:
            body.add(100)
            raise ValueError

    async def be_late() -> None:
        async with bodies.arriving("a") as body:
            body.add(100)
            await asyncio.Event().wait()

    async def in_time() -> None:
        async with bodies.arriving("a") as body:
            body.arrived()
            body.add(100)
            # A time-out of something else is not the body's.
            async with asyncio.timeout(0):
                await asyncio.Event().wait()

    for scenario, error in ((fail, ValueError), (be_late, BodyError), (in_time, TimeoutError)):
        with pytest.raises(error):
            asyncio.run(scenario())
