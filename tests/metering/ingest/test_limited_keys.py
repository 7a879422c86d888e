"""A limited key over HTTP: what is over its limits is refused, told, and not written, whatever form it comes in."""

import asyncio
import gzip
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

import asyncpg
import httpx2
import msgspec
import pytest

from metering.allowance import Allowances
from metering.config import Settings
from metering.credentials import Credentials
from metering.errors import RateLimitedError, WriterFullError
from metering.events import UsageEvent
from metering.ingest.arriving import Bodies
from metering.ingest.batch import Writer
from metering.ingest.bodies import PlainEvents
from metering.ingest.encodings import zstd
from metering.ingest.http import EventsEndpoint
from metering.ingest.refusals import Refusals
from metering.key_uses import KeyUses
from metering.keys import ApiKey, Caller, KeyRing
from metering.limits import LIMITS, Limits
from metering.store.event_log import EventLog
from metering.store.pool import Database
from tests.conftest import ADMIN_KEY, Api, bearer, make_key, running, usage_event

# After a request of 1,000 events at a rate of 1 a second nothing is taken for a quarter of an hour: no test takes as long.
OVERDRAWN = 1_000


def send(api: Api, key: str, events: object, **params: str) -> httpx2.Response:
    """POST events as JSON."""
    response: httpx2.Response = api.client.post("/v1/events", json=events, headers=bearer(key), params=params)
    return response


def recorded(database_url: str) -> int:
    """How many events the database holds."""

    async def count() -> int:
        connection = await asyncpg.connect(database_url)
        try:
            found: int = await connection.fetchval("SELECT count(*) FROM event")
            return found
        finally:
            await connection.close()

    return asyncio.run(count())


def batch(first: int, count: int, **fields: Any) -> list[dict[str, Any]]:
    """So many events from this number on."""
    return [usage_event(number, **fields) for number in range(first, first + count)]


# ---------------------------------------------------------------- the rate


def test_what_is_over_the_rate_is_refused_and_not_written(api: Api, database_url: str) -> None:
    """Up to the burst all is taken; then 429 says when to come again, nothing of it is written, and others are not held."""
    _, key = make_key(database_url, events_per_second_max=1, burst_events_max=5)
    _, other = make_key(database_url, events_per_second_max=1, burst_events_max=5)
    first = send(api, key, batch(0, OVERDRAWN))
    refused = send(api, key, batch(OVERDRAWN, 1))

    assert (200, OVERDRAWN) == (first.status_code, first.json()["accepted"])
    assert (429, "rate_limited") == (refused.status_code, refused.json()["code"])
    assert "application/problem+json" == refused.headers["content-type"]
    # 995 are owed, and one more is asked for; a little of it has come in since.
    assert 900 < int(refused.headers["retry-after"]) <= 996
    assert f'"events";r=0;t={refused.headers["retry-after"]}' == refused.headers["ratelimit"]
    assert OVERDRAWN == recorded(database_url)
    assert 200 == send(api, other, batch(OVERDRAWN, 1)).status_code
    assert 200 == send(api, ADMIN_KEY, batch(OVERDRAWN + 1, 1)).status_code


def test_headers_stand_on_every_answer_of_a_limited_key(api: Api, database_url: str) -> None:
    """200, 422 and 429 tell the policy and what is left; a key without a rate is told nothing."""
    _, key = make_key(database_url, events_per_second_max=1, burst_events_max=1_000)
    taken = send(api, key, batch(0, 400))
    atomic = send(api, key, [*batch(400, 99), usage_event(1, unit=None)], atomic="true")
    overdrawing = send(api, key, batch(500, 501))
    free = send(api, ADMIN_KEY, batch(0, 1))

    assert [200, 422, 429, 200] == [answer.status_code for answer in (taken, atomic, overdrawing, free)]
    for answer in (taken, atomic, overdrawing):
        assert '"events";q=1000;qu="events";w=1000' == answer.headers["ratelimit-policy"]
    left = [int(answer.headers["ratelimit"].split("r=")[1].split(";")[0]) for answer in (taken, atomic, overdrawing)]
    # What is refused has been looked at too, so it counts; and the seconds that pass add what they bring.
    assert all(low <= found <= low + 50 for low, found in zip([600, 500, 500], left, strict=True))
    assert not {"ratelimit", "ratelimit-policy", "retry-after"} & free.headers.keys()


def test_the_rate_is_that_of_the_key_in_every_process(api: Api, database_url: str) -> None:
    """What one process has let through is owed in the other."""
    _, key = make_key(database_url, events_per_second_max=1, burst_events_max=5)
    with running(database_url) as other:
        assert 200 == send(other, key, batch(0, OVERDRAWN)).status_code
        assert 429 == send(api, key, batch(0, 1)).status_code


# ---------------------------------------------------------------- no way around


def _ndjson(events: list[dict[str, Any]]) -> bytes:
    return b"\n".join(map(msgspec.json.encode, events))


def _cloud_events(events: list[dict[str, Any]]) -> bytes:
    envelope = {"specversion": "1.0", "type": "usage"}
    return msgspec.json.encode(
        [
            {
                **envelope,
                **{name: event.pop(name) for name in ("id", "source")},
                "time": event.pop("occurred_at"),
                "data": event,
            }
            for event in events
        ]
    )


FORMS: dict[str, Callable[[list[dict[str, Any]]], bytes]] = {
    "application/json": msgspec.json.encode,
    "application/x-ndjson": _ndjson,
    "application/msgpack": msgspec.msgpack.encode,
    "application/cloudevents-batch+json": _cloud_events,
}
ENCODINGS: dict[str, Callable[[bytes], bytes]] = {"identity": bytes, "gzip": gzip.compress, "zstd": zstd.compress}
WAYS = [(form, encoding) for form in FORMS for encoding in ENCODINGS]


@pytest.fixture(scope="module")
def shared_url(servers: Any) -> Iterator[str]:
    """A database for the tests that only ask how a request is refused: that is no matter of the engine."""
    url = servers["postgres"].clone()
    yield url
    servers["postgres"].drop(url)


@pytest.fixture(scope="module")
def shared(shared_url: str) -> Iterator[Api]:
    """The service on that database."""
    with running(shared_url) as started:
        yield started


def post(api: Api, key: str, form: str, encoding: str, events: list[dict[str, Any]]) -> httpx2.Response:
    """POST events in this form."""
    headers = {**bearer(key), "Content-Type": form, "Content-Encoding": encoding}
    response: httpx2.Response = api.client.post(
        "/v1/events", content=ENCODINGS[encoding](FORMS[form](events)), headers=headers
    )
    return response


@pytest.mark.parametrize(("form", "encoding"), WAYS)
def test_no_form_gets_around_a_key_s_limits(shared: Api, shared_url: str, form: str, encoding: str) -> None:
    """In every form and encoding the key's events, bytes and rate are counted, decompressed, and the message is its own."""
    long = "x" * 200
    _, few = make_key(shared_url, request_events_max=3)
    _, small = make_key(shared_url, request_bytes_max=2_000)
    _, slow = make_key(shared_url, events_per_second_max=1, burst_events_max=5)

    assert 200 == post(shared, few, form, encoding, batch(0, 3)).status_code
    many = post(shared, few, form, encoding, batch(0, 4))
    assert (413, "too_many_events") == (many.status_code, many.json()["code"])
    assert "More than 3 events" in many.json()["detail"]
    assert "limit of this key; others have 10,000" in many.json()["detail"]

    large = post(shared, small, form, encoding, batch(0, 10, user=long))
    assert (413, "body_too_large") == (large.status_code, large.json()["code"])
    assert "larger than 2,000 bytes" in large.json()["detail"]
    assert "limit of this key; others have 16,777,216" in large.json()["detail"]

    assert 200 == post(shared, slow, form, encoding, batch(0, OVERDRAWN)).status_code
    assert 429 == post(shared, slow, form, encoding, batch(0, 1)).status_code


def test_what_is_refused_counts_too(shared: Api, shared_url: str) -> None:
    """Lines that are no events, and events that are recorded already, are looked at and so are counted."""
    _, key = make_key(shared_url, events_per_second_max=1, burst_events_max=1)
    headers = {**bearer(key), "Content-Type": "application/x-ndjson"}
    junk = shared.client.post("/v1/events", content=b"5\n" * OVERDRAWN, headers=headers)

    assert (200, OVERDRAWN) == (junk.status_code, len(junk.json()["rejected"]))
    assert 429 == send(shared, key, batch(0, 1)).status_code


def test_a_body_that_cannot_be_read_costs_nothing(shared: Api, shared_url: str) -> None:
    """What is refused as a whole before its events are known leaves the allowance as it was."""
    _, key = make_key(shared_url, events_per_second_max=1, burst_events_max=7, request_events_max=7)
    headers = {**bearer(key), "Content-Type": "application/json"}

    assert 400 == shared.client.post("/v1/events", content=b"[{", headers=headers).status_code
    assert 413 == send(shared, key, batch(0, 8)).status_code
    assert '"events";r=0;t=1' == send(shared, key, batch(0, 7)).headers["ratelimit"]


def test_lines_are_stopped_at_the_key_s_own_limit(shared_url: str) -> None:
    """NDJSON that goes on and on is answered at the key's first event too many, while the rest has yet to come."""
    key, _ = make_key(shared_url, request_events_max=100)
    line = msgspec.json.encode(usage_event(1)) + b"\n"

    async def scenario() -> tuple[int, int]:
        asked = 0
        statuses: list[int] = []

        async def receive() -> dict[str, Any]:
            nonlocal asked
            asked += 1
            return {"type": "http.request", "body": line, "more_body": True}

        async def answer(message: Any) -> None:
            if message["type"] == "http.response.start":
                statuses.append(message["status"])

        async with endpoint(shared_url) as (made, _):
            made.keys.known = key
            headers = [(b"authorization", b"Bearer known"), (b"content-type", b"application/x-ndjson")]
            scope = {"type": "http", "method": "POST", "path": "/v1/events", "query_string": b"", "headers": headers}
            await made.endpoint(scope, receive, answer)
        return statuses[0], asked

    assert (413, 101) == asyncio.run(scenario())


# ---------------------------------------------------------------- room comes before the rate


class OneKey(Credentials):
    """Credentials that are one key's, whatever secret is sent."""

    known: ApiKey

    async def authenticate(self, authorization: str | None) -> Caller:
        """The key."""
        assert authorization is not None
        return self.known


class Made(msgspec.Struct):
    """An endpoint, its keys, and its writer, which nobody has started."""

    endpoint: EventsEndpoint
    keys: OneKey
    writer: Writer


@asynccontextmanager
async def endpoint(url: str, limits: Limits = LIMITS) -> AsyncIterator[tuple[Made, Database]]:
    """An endpoint on this database; its writer waits to be started."""
    database = await Database.connect(Settings(database_url=url), limits)
    writer = Writer(EventLog(database), limits)
    keys = OneKey(KeyRing(database), KeyUses(database, limits), None)
    window = timedelta(hours=1)
    made = EventsEndpoint(
        writer, keys, limits, window, allowances=Allowances(database), bodies=Bodies(limits), retention=None
    )
    try:
        yield Made(made, keys, writer), database
    finally:
        await writer.close()
        await database.close()


def test_waiting_for_a_writer_costs_no_allowance(shared_url: str) -> None:
    """A request that finds the queue full is told so before anything is taken out of its key's allowance."""
    key, _ = make_key(shared_url, events_per_second_max=1, burst_events_max=1)
    event = UsageEvent(id="e-1", occurred_at=datetime.now(UTC), account="a", product="p", unit="u", source="s")

    async def scenario() -> list[type[Exception] | None]:
        outcomes: list[type[Exception] | None] = []
        async with endpoint(shared_url, Limits(queue_events_max=1)) as (made, _):
            origin = Refusals(key.prefix, PlainEvents([event]))
            waiting = asyncio.ensure_future(made.endpoint.record([event], key, origin))
            await asyncio.sleep(0)
            for _ in range(3):
                with pytest.raises(WriterFullError) as full:
                    await made.endpoint.spend(key, OVERDRAWN)
                outcomes.append(full.type)
            made.writer.start()
            await waiting
            await made.endpoint.spend(key, OVERDRAWN)
            with pytest.raises(RateLimitedError) as limited:
                await made.endpoint.spend(key, 1)
            outcomes.append(limited.type)
        return outcomes

    assert [WriterFullError] * 3 + [RateLimitedError] == asyncio.run(scenario())


# ---------------------------------------------------------------- the default source


def test_a_key_s_source_stands_where_an_event_names_none(api: Api, database_url: str) -> None:
    """With a default source events need not name one, and are known by it; what names its own keeps it."""
    _, key = make_key(database_url, default_source="gateway")
    unnamed = send(api, key, [usage_event(1, source=None), usage_event(2)])
    named = send(api, ADMIN_KEY, [usage_event(1, source="gateway"), usage_event(2, source="gateway")])
    without = send(api, ADMIN_KEY, usage_event(3, source=None))

    assert {"accepted": 2, "duplicates": 0, "rejected": []} == unnamed.json()
    assert {"accepted": 1, "duplicates": 1, "rejected": []} == named.json()
    (refusal,) = without.json()["rejected"]
    assert ("missing_field", "source") == (refusal["code"], refusal["path"])
