"""The quarantine on real databases: what a receipt names as rejected is kept with the good events, and within bounds."""

import asyncio
import random
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from typing import Any

import asyncpg
import msgspec
import pytest

from metering.config import Settings
from metering.health.measuring import Measurer
from metering.health.scorer import Scorer
from metering.limits import LIMITS, Limits
from metering.retention import Retention, ages_of
from metering.rollups.refresh import Refresher
from metering.store.pool import Database
from metering.store.quarantine import Changes, RejectedRow, change, forget_older
from metering.worker import Worker
from tests.conftest import ADMIN_KEY, Api, bearer, lock_waiters, running, usage_event

json_of = msgspec.json.encode
packed = msgspec.msgpack.encode

RECORD = """
mutation ($events: [UsageEventInput!]!) {
  recordUsage(input: { events: $events }) { ... on RecordUsageReceipt { accepted rejected { index code } } }
}
"""


def rows(url: str, statement: str = "SELECT * FROM rejected_event ORDER BY id", *arguments: object) -> list[Any]:
    """The rows of a statement; by default what is in the quarantine."""

    async def run() -> list[Any]:
        connection = await asyncpg.connect(url)
        try:
            found: list[Any] = await connection.fetch(statement, *arguments)
            return found
        finally:
            await connection.close()

    return asyncio.run(run())


def post(api: Api, content_type: str, body: bytes, **headers: str) -> Any:
    """POST a body and return the receipt."""
    sent = {**bearer(ADMIN_KEY), "Content-Type": content_type, **{f"ce-{name}": text for name, text in headers.items()}}
    response = api.client.post("/v1/events", content=body, headers=sent)
    assert response.status_code == 200, response.text
    return response.json()


# ---------------------------------------------------------------- what is kept

EVENT = {"id": "e", "occurred_at": "2026-03-01T12:00:00Z", "account": "acme", "product": "maps", "unit": "call"}
EVENT = {**EVENT, "source": "s", "quantity": "1"}
BAD = {name: value for name, value in EVENT.items() if name != "unit"}
FAR = "2100-01-01T00:00:00Z"
CLOUD = {"specversion": "1.0", "type": "t", "id": "e", "source": "s", "time": "2026-03-01T12:00:00Z"}
DATA = {"account": "acme", "product": "maps", "unit": "call", "quantity": "1"}
BAD_DATA = {**DATA, "unit": None}
FAR_EVENT = {**EVENT, "occurred_at": FAR}
BY_FLOAT = {**EVENT, "quantity": 1.5}
OF_NOBODY = {name: value for name, value in DATA.items() if name != "account"}


def text(event: object) -> str:
    """An event as JSON."""
    return json_of(event).decode()


# Content type, what is around a refused event, the event; its code and path; its body, where that is not the event.
Case = tuple[str, bytes, bytes, bytes, str, str | None, str | None]
JSON, NDJSON, MSGPACK = "application/json", "application/x-ndjson", "application/msgpack"
STRUCTURED, BATCH = "application/cloudevents+json", "application/cloudevents-batch+json"
CASES: list[Case] = [
    (JSON, b"", json_of(BAD), b"", "missing_field", "unit", None),
    (JSON, b"[ ", json_of(BAD), b" ]", "missing_field", "unit", None),
    (JSON, b"[", b"5", b"]", "malformed", None, None),
    (JSON, b"[", b'{"id": "\\ud800"}', b"]", "malformed", None, None),
    (JSON, b"[", b'{"id": "\xff"}', b"]", "malformed", None, '{"id": "\\xff"}'),
    (JSON, b"[", json_of({**EVENT, "id": "a\0b"}), b"]", "text_invalid", "id", None),
    (JSON, b"[", json_of(FAR_EVENT), b"]", "time_in_future", "occurred_at", None),
    (JSON, b"[", json_of({**EVENT, "quantity": "1E+99"}), b"]", "quantity_out_of_range", "quantity", None),
    (NDJSON, b"\n", json_of(BAD), b"\r\n", "missing_field", "unit", None),
    (NDJSON, b"", b"{broken \0", b"\n", "malformed", None, "{broken \\u0000"),
    (NDJSON, b"", json_of(FAR_EVENT), b"\n", "time_in_future", "occurred_at", None),
    (MSGPACK, b"", packed(BAD), b"", "missing_field", "unit", text(BAD)),
    (MSGPACK, b"\x91", packed(BY_FLOAT), b"", "wrong_type", "quantity", text(BY_FLOAT)),
    (MSGPACK, b"\x91", packed(FAR_EVENT), b"", "time_in_future", "occurred_at", text(FAR_EVENT)),
    (STRUCTURED, b" ", json_of({**CLOUD, "data": BAD_DATA}), b"\n", "missing_field", "data.unit", None),
    (STRUCTURED, b"", json_of({**CLOUD, "time": FAR, "data": DATA}), b"", "time_in_future", "time", None),
    (STRUCTURED, b"", json_of({**CLOUD, "data": OF_NOBODY}), b"", "missing_field", "data.account", None),
    (BATCH, b"[", json_of({**CLOUD, "data": BAD_DATA}), b"]", "missing_field", "data.unit", None),
    (BATCH, b"[", json_of({**CLOUD, "time": FAR, "data": DATA}), b"]", "time_in_future", "time", None),
]  # fmt: skip


def same(first: str, second: str) -> bool:
    """Whether two bodies are the same, but for the order of members where they were written anew."""
    try:
        return bool(msgspec.json.decode(first) == msgspec.json.decode(second))
    except msgspec.DecodeError:
        return first == second


def test_every_kind_of_fault_of_every_format_is_kept(api: Api, database_url: str) -> None:
    """Each refused event is in the quarantine, with the reason that the receipt names and the event as it was sent."""
    for content_type, before, event, after, code, path, body in CASES:
        receipt = post(api, content_type, before + event + after)
        (row,) = rows(database_url, "SELECT * FROM rejected_event")
        (rejection,) = receipt["rejected"]

        assert (code, path) == (row["code"], row["path"]), (event, row)
        assert (row["code"], row["message"]) == (rejection["code"], rejection["message"])
        assert row["path"] == rejection.get("path")
        assert same(event.decode() if body is None else body, row["body"]), (event, row)
        assert ("cloudevents" in content_type) == ("cloudevents" in row["media_type"])
        assert row["source"] in {"s", None}
        assert "bootstrap_" == row["sent_by"][:10]
        rows(database_url, "DELETE FROM rejected_event")


def test_an_event_in_binary_mode_is_kept_as_one_in_structured_mode(api: Api, database_url: str) -> None:
    """Headers and body together are one CloudEvent, refused at once or at admission."""
    headers = {name: text for name, text in CLOUD.items() if name != "time"}
    post(api, JSON, json_of(BAD_DATA), **headers, time=CLOUD["time"])
    post(api, JSON, json_of(DATA), **headers, time=FAR)
    bad, far = rows(database_url)

    assert {**CLOUD, "data": BAD_DATA} == msgspec.json.decode(bad["body"])
    assert {**CLOUD, "time": FAR, "data": DATA} == msgspec.json.decode(far["body"])
    assert ["data.unit", "time"] == [bad["path"], far["path"]]


def test_conflicts_are_kept_and_accepted_events_and_duplicates_are_not(api: Api, database_url: str) -> None:
    """Of a batch with all three only the conflict is kept, as it was sent; also where the request is refused for it."""
    api.send(usage_event(1))
    receipt = api.send([usage_event(1), usage_event(1, quantity="2"), usage_event(2)])
    atomic = api.send([usage_event(3), usage_event(1, quantity="3")], params={"atomic": "true"})

    assert (1, 1, 1) == (receipt["accepted"], receipt["duplicates"], len(receipt["rejected"]))
    assert (0, 1) == (atomic["accepted"], len(atomic["rejected"]))
    kept = rows(database_url)
    assert [("identity_conflict", "id", "test")] * 2 == [(row["code"], row["path"], row["source"]) for row in kept]
    assert [usage_event(1, quantity=quantity) for quantity in "23"] == [
        msgspec.json.decode(row["body"]) for row in kept
    ]


def test_a_refused_atomic_request_keeps_what_was_bad(api: Api, database_url: str) -> None:
    """With ?atomic=true the bad events are kept though nothing is recorded; the good ones are not: they can be sent again."""
    receipt = api.send([usage_event(1), usage_event(2, unit=None), 5], params={"atomic": "true"})

    assert [1, 2] == [rejection["index"] for rejection in receipt["rejected"]]
    assert ["missing_field", "malformed"] == [row["code"] for row in rows(database_url)]
    assert [] == rows(database_url, "SELECT FROM event")


def test_what_a_mutation_refuses_is_kept(api: Api, database_url: str) -> None:
    """The mutation keeps what its receipt names as rejected, in the names of the contract."""
    event = {
        "id": "b",
        "occurredAt": FAR,
        "account": "acme",
        "product": "maps",
        "unit": "call",
        "attributes": {"a": None},
    }
    receipt = api.ask(RECORD, {"events": [event, {**event, "occurredAt": "2026-03-01T12:00:00Z"}]})["recordUsage"]

    assert {"accepted": 1, "rejected": [{"index": 0, "code": "time_in_future"}]} == receipt
    (row,) = rows(database_url)
    expected = {**EVENT, "id": "b", "source": "graphql", "occurred_at": FAR, "attributes": {"a": None}}
    assert expected == msgspec.json.decode(row["body"])


def test_a_body_that_cannot_be_read_is_not_kept(api: Api, database_url: str) -> None:
    """A request that is answered 400 or 413 leaves nothing: no event of it was ever seen."""
    for body in (b"[" + json_of(BAD) + b",", b"\xff", b"[" + b"5," * 10_000 + b"5]"):
        response = api.client.post("/v1/events", content=body, headers={**bearer(ADMIN_KEY), "Content-Type": JSON})
        assert response.status_code in {400, 413}

    assert [] == rows(database_url)


def test_the_same_bad_event_is_one_row(api: Api, database_url: str) -> None:
    """Sent again and again, in one request and in many, a bad event is one row, received when it was received last."""
    bad = usage_event(1, occurred_at=FAR)
    api.send([bad, bad, bad])
    (first,) = rows(database_url, "UPDATE rejected_event SET message = 'as it was told then' RETURNING *")
    api.send([usage_event(2, unit=None), bad])
    again, other = rows(database_url)

    assert (first["id"], first["body"]) == (again["id"], again["body"])
    assert first["received_at"] < again["received_at"] == other["received_at"]
    assert again["message"].startswith("`occurred_at` may lie at most")  # it tells the service's time


def test_ten_thousand_bad_events_in_one_request(api: Api, database_url: str) -> None:
    """Each of them is kept, in the order of the request."""
    events = [usage_event(number, unit=None) for number in range(10_000)]
    receipt = api.send(events)

    assert 10_000 == len(receipt["rejected"])
    kept = rows(database_url, "SELECT body FROM rejected_event ORDER BY id")
    assert events == [msgspec.json.decode(row["body"]) for row in kept]


def test_a_huge_body_is_kept_in_part(api: Api, database_url: str) -> None:
    """Of an event of ten megabytes the beginning is kept, next to one of usual size."""
    api.send([usage_event(1, user="x" * 10_000_000), usage_event(2, unit=None)])
    huge, usual = rows(database_url)

    assert (False, LIMITS.rejected_body_bytes_max) == (huge["is_exact"], len(huge["body"]))
    assert huge["body_bytes"] > 10_000_000
    assert (True, len(usual["body"])) == (usual["is_exact"], usual["body_bytes"])


# ---------------------------------------------------------------- with the good ones, or not at all

KILL = """
CREATE FUNCTION kill() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN PERFORM pg_terminate_backend(pg_backend_pid()); RETURN NULL; END $$;
CREATE TRIGGER kill AFTER INSERT ON rejected_event EXECUTE FUNCTION kill();
"""


@pytest.mark.parametrize("fault", ["ALTER TABLE rejected_event RENAME TO elsewhere", KILL])
def test_what_cannot_be_kept_is_not_acknowledged(api: Api, database_url: str, fault: str) -> None:
    """Where the rejection cannot be written nothing of the request is; it is answered 503, and may be sent again."""

    async def run(statement: str) -> None:
        connection = await asyncpg.connect(database_url)
        try:
            await connection.execute(statement)
        finally:
            await connection.close()

    body = [usage_event(1), usage_event(2, unit=None)]
    asyncio.run(run(fault))
    mixed = api.client.post("/v1/events", json=body, headers=bearer(ADMIN_KEY))
    bad = api.client.post("/v1/events", json=body[1:], headers=bearer(ADMIN_KEY))
    good = api.send(usage_event(3))
    table = "elsewhere" if "RENAME" in fault else "rejected_event"
    left = rows(database_url, f"SELECT FROM {table}")
    recorded = [row["event_id"] for row in rows(database_url, "SELECT event_id FROM event")]
    asyncio.run(
        run(
            "ALTER TABLE elsewhere RENAME TO rejected_event"
            if "RENAME" in fault
            else "DROP TRIGGER kill ON rejected_event"
        )
    )
    again = api.send(body)

    assert (503, 503, 1) == (mixed.status_code, bad.status_code, good["accepted"])
    assert ([], ["event-3"]) == (left, recorded)
    assert (1, 1) == (again["accepted"], len(again["rejected"]))
    assert ["missing_field"] == [row["code"] for row in rows(database_url)]


def test_what_is_refused_waits_like_what_is_good(database_url: str) -> None:
    """Bad events that wait to be written are bounded too: a full queue is answered 503 with Retry-After."""

    async def hold(api: Api) -> Any:
        connection = await asyncpg.connect(database_url)
        try:
            transaction = connection.transaction()
            await transaction.start()
            await connection.execute("UPDATE quarantine_size SET events = events")
            with ThreadPoolExecutor(1) as pool:
                first = pool.submit(api.send, bad_events(4))
                await lock_waiters(database_url, 1)
                second = api.client.post("/v1/events", json=bad_events(2), headers=bearer(ADMIN_KEY))
                await transaction.rollback()
                return first.result(), second
        finally:
            await connection.close()

    with running(database_url, Limits(queue_events_max=5)) as api:
        first, second = asyncio.run(hold(api))

        assert 4 == len(first["rejected"])
        assert (503, "writer_full", "1") == (second.status_code, second.json()["code"], second.headers["retry-after"])
        assert 2 == len(api.send(bad_events(2))["rejected"])


def test_writers_with_the_same_bad_events_do_not_get_in_each_others_way(database_url: str) -> None:
    """Two processes, eight requests at a time, the same good and bad events in another order: each is there once."""
    chance = random.Random(5)
    events = [usage_event(number) for number in range(40)] + [usage_event(number, unit=None) for number in range(40)]
    with running(database_url) as one, running(database_url) as other, ThreadPoolExecutor(8) as pool:
        requests = [(chance.choice([one, other]), chance.sample(events, 60)) for _ in range(60)]
        receipts = list(pool.map(lambda request: request[0].send(request[1]), requests))

    assert all(60 == sum((each["accepted"], each["duplicates"], len(each["rejected"]))) for each in receipts)
    assert 40 == sum(receipt["accepted"] for receipt in receipts)
    assert 40 == len(rows(database_url))


# ---------------------------------------------------------------- bounds


def bad_events(count: int, size: int = 0) -> list[dict[str, Any]]:
    """Different events that are refused, of about this many bytes more than is usual."""
    return [usage_event(number, unit=None, user="x" * size or None) for number in range(count)]


def test_no_more_rows_than_may_be(database_url: str) -> None:
    """Whatever is sent, in small requests and large ones, there are never more rows than the bound, the newest ones."""
    with running(database_url, Limits(rejected_events_max=20)) as api:
        for start in range(0, 100, 7):
            api.send(bad_events(100)[start : start + 7])
            numbers = [row["id"] for row in rows(database_url)]
            assert len(numbers) <= 20
        api.send(bad_events(300)[200:])
        kept = [msgspec.json.decode(row["body"])["id"] for row in rows(database_url)]

    assert [f"event-{number}" for number in range(300 - len(kept), 300)] == kept
    assert 15 <= len(kept) <= 20


def test_no_more_bytes_than_may_be(database_url: str) -> None:
    """The texts of all rows together never take more bytes than the bound."""
    texts = "octet_length(body) + octet_length(message) + coalesce(octet_length(path), 0) + coalesce(octet_length(source), 0)"
    with running(database_url, Limits(rejected_bytes_max=50_000)) as api:
        for start in range(0, 100, 5):
            api.send(bad_events(100, size=1_000 + 100 * start)[start : start + 5])
            (row,) = rows(database_url, f"SELECT sum({texts})::bigint AS bytes, count(*) AS events FROM rejected_event")
            assert row["bytes"] <= 50_000
            assert row["events"] > 0
        (told,) = rows(database_url, f"SELECT count(*) FROM rejected_event WHERE kept_bytes <> {texts}")

    assert 0 == told["count"]


def test_repeats_do_not_push_others_out(database_url: str) -> None:
    """The same bad event, sent a thousand times, takes one place of twenty."""
    with running(database_url, Limits(rejected_events_max=20)) as api:
        api.send(bad_events(15))
        for _ in range(10):
            api.send([usage_event(1, colour="blue")] * 100)

    assert 16 == len(rows(database_url))


class Store:
    """The quarantine below the service, with senders of one's own."""

    def __init__(self, database: Database, limits: Limits) -> None:
        self._database = database
        self._limits = limits
        self._count = 0

    async def keep(self, sent_by: str, count: int, kept_bytes: int = 100, at: datetime | None = None) -> None:
        """Keep so many more of this sender."""
        added = [self._row(sent_by, kept_bytes, at or datetime.now(UTC)) for _ in range(count)]
        async with self._database.transaction() as connection:
            await change(connection, Changes(added), self._limits)

    def _row(self, sent_by: str, kept_bytes: int, at: datetime) -> RejectedRow:
        self._count += 1
        digest = self._count.to_bytes(16, "big")
        return RejectedRow(None, at, digest, sent_by, None, "malformed", "", None, JSON, "5", 1, True, kept_bytes)  # noqa: FBT003

    async def senders(self) -> Counter[str]:
        """How many rows each sender has."""
        async with self._database.connection() as connection:
            return Counter(row["sent_by"] for row in await connection.fetch("SELECT sent_by FROM rejected_event"))

    async def counted(self) -> tuple[int, int]:
        """What is counted, events and bytes."""
        async with self._database.connection() as connection:
            row = await connection.fetchrow("SELECT events, bytes FROM quarantine_size")
        assert row is not None
        return row["events"], row["bytes"]


def on_store(url: str, limits: Limits, scenario: Any) -> Any:
    """Run a scenario on the quarantine of a database."""

    async def run() -> Any:
        database = await Database.connect(Settings(database_url=url), limits)
        try:
            return await scenario(Store(database, limits), database)
        finally:
            await database.close()

    return asyncio.run(run())


@pytest.mark.parametrize(("flood", "kept_bytes"), [(1_000, 10), (50, 1_000)], ids=["of rows", "of bytes"])
def test_a_flood_costs_only_whoever_sends_it(database_url: str, flood: int, kept_bytes: int) -> None:
    """When the room is full the one who holds most gives way: others keep everything, however old it is."""

    async def scenario(store: Store, _database: Database) -> Counter[str]:
        await store.keep("quiet", 10)
        await store.keep("other", 20)
        for _ in range(10):
            await store.keep("flood", flood // 10, kept_bytes)
        return await store.senders()

    senders = on_store(database_url, Limits(rejected_events_max=200, rejected_bytes_max=20_000), scenario)

    assert (10, 20) == (senders["quiet"], senders["other"])
    assert 10 <= senders["flood"] < flood


def test_one_sender_alone_may_have_all_the_room(database_url: str) -> None:
    """Nothing is set aside for senders that are not there."""

    async def scenario(store: Store, _database: Database) -> Counter[str]:
        await store.keep("only", 100)
        return await store.senders()

    assert {"only": 100} == on_store(database_url, Limits(rejected_events_max=100), scenario)


def test_more_senders_than_room(database_url: str) -> None:
    """Where there are more senders than rows, those who sent last have one each."""

    async def scenario(store: Store, _database: Database) -> Counter[str]:
        for number in range(50):
            await store.keep(f"sender-{number}", 3)
        return await store.senders()

    senders = on_store(database_url, Limits(rejected_events_max=10), scenario)

    assert senders.total() <= 10
    assert "sender-49" in senders


def test_what_is_too_old_goes(database_url: str) -> None:
    """Forgotten is what was received before, and nothing else; what is counted follows."""
    now = datetime.now(UTC)

    async def scenario(store: Store, database: Database) -> tuple[int, int, Counter[str], tuple[int, int]]:
        await store.keep("old", 3, at=now - timedelta(days=30, seconds=1))
        await store.keep("young", 2, at=now - timedelta(days=30))
        first = await forget_older(database, now - LIMITS.rejected_age_max)
        second = await forget_older(database, now - LIMITS.rejected_age_max)
        return first, second, await store.senders(), await store.counted()

    assert (3, 0, {"young": 2}, (2, 200)) == on_store(database_url, LIMITS, scenario)


def test_the_worker_forgets(database_url: str) -> None:
    """The worker's loop forgets what is too old, without being asked."""

    async def scenario(store: Store, database: Database) -> Counter[str]:
        await store.keep("old", 3, at=datetime.now(UTC) - timedelta(days=31))
        await store.keep("young", 2)
        retention = Retention(database, ages_of(Settings()))
        scorer = Scorer(database, Measurer(database).measure, LIMITS)
        worker = Worker(Refresher(database), scorer, retention, database, LIMITS, every_seconds=0.01)
        worker.start()
        try:
            async with asyncio.timeout(30):
                while (await store.senders())["old"]:  # noqa: ASYNC110 - the worker, in this process, ends it
                    await asyncio.sleep(0.01)
        finally:
            await worker.close()
        return await store.senders()

    assert {"young": 2} == on_store(database_url, LIMITS, scenario)


def test_bounds_hold_with_many_writers(database_url: str) -> None:
    """Eight writers at once, each with its own events: at every moment there are no more than may be, and counts are right."""
    limits = Limits(rejected_events_max=50)

    async def scenario(store: Store, database: Database) -> tuple[list[int], tuple[int, int], int]:
        seen: list[int] = []

        async def write(name: str) -> None:
            for _ in range(15):
                await store.keep(name, 7)

        async def watch() -> None:
            async with database.connection() as connection:
                while True:
                    seen.append(await connection.fetchval("SELECT count(*) FROM rejected_event"))

        watching = asyncio.create_task(watch())
        await asyncio.gather(*(write(f"sender-{number}") for number in range(8)))
        watching.cancel()
        await asyncio.gather(watching, return_exceptions=True)
        return seen, await store.counted(), (await store.senders()).total()

    seen, (counted, _), total = on_store(database_url, limits, scenario)

    assert len(seen) > 10
    assert max(seen) <= 50
    assert total <= counted <= 50
