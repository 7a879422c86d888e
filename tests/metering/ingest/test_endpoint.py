"""POST /v1/events, on a real database: what is acknowledged is recorded, once; what is refused says why."""

from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
import pytest

from metering.limits import Limits
from tests.conftest import ADMIN_KEY, Api, bearer, running, usage_event

TOTALS = """
query ($account: String!) {
  usage(query: {
    period: { from: "2026-01-01T00:00:00Z", to: "2027-01-01T00:00:00Z" }
    filter: { account: { in: [$account] } }
  }) { ... on UsageReport { totals { unit quantity events minimum maximum } } }
}
"""


def totals(api: Api, account: str = "acme") -> Any:
    """The account's totals of the year."""
    return api.ask(TOTALS, {"account": account})["usage"]["totals"]


def test_an_event_is_accepted_and_in_the_next_answer(api: Api) -> None:
    """An acknowledged event is in the very next answer, to its last digit."""
    receipt = api.send(usage_event(quantity="12.345678901234567891"))

    assert receipt == {"accepted": 1, "duplicates": 0, "rejected": []}
    expected = [
        {
            "unit": "call",
            "quantity": "12.345678901234567891",
            "events": "1",
            "minimum": "12.345678901234567891",
            "maximum": "12.345678901234567891",
        }
    ]
    assert expected == totals(api)


def test_the_same_event_is_a_duplicate_however_often_it_is_sent(api: Api) -> None:
    """An event that is sent again, alone, in a batch, twice in one batch, counts once."""
    first = api.send([usage_event(1), usage_event(2)])
    again = api.send([usage_event(1), usage_event(2), usage_event(2), usage_event(3)])

    assert (first["accepted"], first["duplicates"]) == (2, 0)
    assert (again["accepted"], again["duplicates"]) == (1, 3)
    assert totals(api)[0]["quantity"] == "3"


def test_a_restamped_retry_counts_once_across_midnight(api: Api) -> None:
    """A producer that stamps a new time on a retry is counted once, within the day and just across midnight."""
    api.send(usage_event(1, occurred_at="2026-03-01T23:59:50Z"))
    same_day = api.send(usage_event(1, occurred_at="2026-03-01T20:00:00Z"))
    next_day = api.send(usage_event(1, occurred_at="2026-03-02T00:00:10Z"))

    assert (same_day["accepted"], same_day["duplicates"]) == (0, 1)
    assert (next_day["accepted"], next_day["duplicates"]) == (0, 1)
    assert totals(api)[0]["events"] == "1"


def test_the_same_name_on_another_day_is_another_event(api: Api) -> None:
    """A name is claimed for its UTC day: the same id a week later is a new event."""
    api.send(usage_event(1))
    later = api.send(usage_event(1, occurred_at="2026-03-08T12:00:00Z"))

    assert later["accepted"] == 1
    assert totals(api)[0]["events"] == "2"


def test_the_same_name_with_other_content_is_a_conflict(api: Api) -> None:
    """A name that is claimed with other content is refused by name; the first stays."""
    api.send(usage_event(1, quantity="5"))
    receipt = api.send([usage_event(1, quantity="6"), usage_event(2)])

    assert receipt["accepted"] == 1
    assert [(r["index"], r["id"], r["code"]) for r in receipt["rejected"]] == [(0, "event-1", "identity_conflict")]
    assert totals(api)[0]["quantity"] == "6"  # 5 + 1


def test_one_bad_event_never_costs_the_others(api: Api) -> None:
    """In a batch the good ones are in, and each bad one is named by index, code and path."""
    batch = [
        usage_event(1),
        usage_event(2, unit=None),
        usage_event(3, occurred_at="2026-03-01T12:00:00"),
        usage_event(4, quantity="a lot"),
        usage_event(5, colour="blue"),
        "not an event",
        usage_event(6),
    ]
    receipt = api.send(batch)

    expected = [
        (1, "missing_field", "unit"),
        (2, "time_naive", "occurred_at"),
        (3, "quantity_not_a_number", "quantity"),
        (4, "unknown_field", "colour"),
        (5, "malformed", None),
    ]
    assert receipt["accepted"] == 2
    assert expected == [(r["index"], r["code"], r.get("path")) for r in receipt["rejected"]]


def test_atomic_is_all_or_nothing(api: Api) -> None:
    """With ?atomic=true one refused event leaves nothing behind, also when the refusal is a conflict."""
    bad = api.client.post(
        "/v1/events",
        json=[usage_event(1), usage_event(2, unit=None)],
        headers=bearer(ADMIN_KEY),
        params={"atomic": "true"},
    )
    api.send(usage_event(3))
    conflict = api.client.post(
        "/v1/events",
        json=[usage_event(1), usage_event(3, quantity="9")],
        headers=bearer(ADMIN_KEY),
        params={"atomic": "true"},
    )
    good = api.send([usage_event(1), usage_event(3)], params={"atomic": "true"})

    assert (bad.status_code, bad.json()["accepted"]) == (422, 0)
    assert (conflict.status_code, conflict.json()["accepted"]) == (422, 0)
    assert (good["accepted"], good["duplicates"]) == (1, 1)
    assert totals(api)[0]["events"] == "2"


def test_ndjson_is_taken_line_by_line(api: Api) -> None:
    """NDJSON with a bad line: the good ones are in, the bad one is named by its index."""
    lines = [msgspec.json.encode(usage_event(1)), b"{broken", b"", msgspec.json.encode(usage_event(2))]
    headers = {**bearer(ADMIN_KEY), "Content-Type": "application/x-ndjson"}
    receipt = api.client.post("/v1/events", content=b"\n".join(lines), headers=headers).json()

    assert receipt["accepted"] == 2
    assert [(r["index"], r["code"]) for r in receipt["rejected"]] == [(1, "malformed")]


@pytest.mark.parametrize(
    ("body", "headers", "status", "code"),
    [
        (b"{", {"Content-Type": "application/json"}, 400, "body_unreadable"),
        (b"[{}", {"Content-Type": "application/json"}, 400, "body_unreadable"),
        (b"\xff\xfe", {"Content-Type": "application/json"}, 400, "body_unreadable"),
        (b"", {"Content-Type": "application/json"}, 400, "body_unreadable"),
        (b"<event/>", {"Content-Type": "application/xml"}, 415, "content_type_unsupported"),
        (b"{}", {"Content-Type": "application/json", "Content-Encoding": "br"}, 415, "encoding_unsupported"),
        (b"{}", {"Content-Type": "application/json", "Authorization": "Bearer wrong"}, 401, "unauthenticated"),
        (b"{}", {"Content-Type": "application/json", "Authorization": "Basic x"}, 401, "unauthenticated"),
        (b"{}", {"Content-Type": "application/json", "Authorization": ""}, 401, "unauthenticated"),
    ],
)
def test_a_request_that_cannot_be_taken_says_why(
    api: Api, body: bytes, headers: dict[str, str], status: int, code: str
) -> None:
    """A body, encoding or key that cannot be taken gets its status and a problem body with a stable code."""
    response = api.client.post("/v1/events", content=body, headers={**bearer(ADMIN_KEY), **headers})

    assert (status, "application/problem+json") == (response.status_code, response.headers["content-type"])
    assert code == response.json()["code"]
    assert response.json()["detail"]


def test_other_methods_and_parameters_are_refused(api: Api) -> None:
    """GET is answered 405 with Allow; a parameter that does not exist is named."""
    get = api.client.get("/v1/events")
    wrong = api.client.post("/v1/events", json=[], headers=bearer(ADMIN_KEY), params={"atomc": "true"})
    invalid = api.client.post("/v1/events", json=[], headers=bearer(ADMIN_KEY), params={"atomic": "yes"})

    assert (get.status_code, get.headers["allow"]) == (405, "POST")
    assert (wrong.status_code, wrong.json()["code"]) == (400, "parameter_unknown")
    assert (invalid.status_code, invalid.json()["code"]) == (400, "parameter_invalid")


def test_limits_of_a_request_are_enforced(database_url: str) -> None:
    """A body over the limit of bytes or events is answered 413, and nothing of it is recorded."""
    with running(database_url, Limits(body_bytes_max=2_000, body_events_max=3)) as api:
        many = api.client.post("/v1/events", json=[usage_event(n) for n in range(4)], headers=bearer(ADMIN_KEY))
        large = api.client.post(
            "/v1/events", json=usage_event(1, attributes={"a": "x" * 3_000}), headers=bearer(ADMIN_KEY)
        )

        assert (many.status_code, many.json()["code"]) == (413, "too_many_events")
        assert (large.status_code, large.json()["code"]) == (413, "body_too_large")
        assert totals(api) == []


def test_a_full_queue_is_an_answer(database_url: str) -> None:
    """When more events wait than may wait, the request is answered 503 with Retry-After, and may be sent again."""
    import asyncio

    from metering.config import Settings
    from metering.errors import WriterFullError
    from metering.ingest.admit import Admission, admit
    from metering.ingest.batch import Writer
    from metering.ingest.bodies import PlainEvents
    from metering.ingest.decode import decode_json
    from metering.ingest.http import problem
    from metering.ingest.refusals import Refusals
    from metering.ingest.write import Submission
    from metering.store.event_log import EventLog
    from metering.store.pool import Database

    limits = Limits(queue_events_max=2)

    async def scenario() -> tuple[int, WriterFullError]:
        database = await Database.connect(Settings(database_url=database_url), limits)
        writer = Writer(EventLog(database), limits)
        now = datetime.now(UTC)
        terms = Admission(limits=limits, now=now, restamp_window=timedelta(hours=1))

        def submission(*numbers: int) -> Submission:
            body = msgspec.json.encode([usage_event(number) for number in numbers])
            decoded = decode_json(body, limits)
            admitted, rejected = admit(decoded, terms)
            origin = Refusals("test", PlainEvents(decoded))
            return Submission(admitted=admitted, rejected=rejected, received_at=now, origin=origin)

        waiting = asyncio.ensure_future(writer.submit(submission(1, 2)))  # nobody drains yet
        await asyncio.sleep(0)
        with pytest.raises(WriterFullError) as refused:
            await writer.submit(submission(3))
        writer.start()
        receipt = await waiting
        await writer.close()
        await database.close()
        return receipt.accepted, refused.value

    accepted, error = asyncio.run(scenario())

    assert accepted == 2
    response = problem(error, limits)
    assert (response.status_code, response.headers["retry-after"]) == (503, "1")


def test_what_is_not_retained_is_refused_and_named(database_url: str) -> None:
    """With METERING_RETENTION_DAYS an older event is refused by its code, the others are in; without it none is too old."""
    now = datetime.now(UTC)
    old, young = (now - timedelta(days=30, minutes=1)).isoformat(), (now - timedelta(days=29)).isoformat()
    batch = [usage_event(1, occurred_at=old), usage_event(2, occurred_at=young)]
    with running(database_url, retention_days=30) as api:
        receipt = api.send(batch)
    with running(database_url) as api:
        again = api.send(batch)

    assert (1, 0) == (receipt["accepted"], receipt["duplicates"])
    assert [(0, "outside_retention", "occurred_at")] == [
        (r["index"], r["code"], r["path"]) for r in receipt["rejected"]
    ]
    assert {"accepted": 1, "duplicates": 1, "rejected": []} == again


def test_a_key_bound_to_accounts_writes_and_reads_only_theirs(api: Api, database_url: str) -> None:
    """A bound key's events for other accounts are refused one by one, and its answers hold only its accounts."""
    import asyncio

    from metering.config import Settings
    from metering.keys import KeyRing, Scope
    from metering.limits import LIMITS
    from metering.store.pool import Database

    async def make() -> str:
        database = await Database.connect(Settings(database_url=database_url), LIMITS)
        _, secret = await KeyRing(database).create("acme only", [Scope.USAGE_READ, Scope.USAGE_WRITE], ["acme"])
        await database.close()
        return secret

    key = asyncio.run(make())
    receipt = api.send([usage_event(1), usage_event(2, account="other")], key=key)
    api.send(usage_event(3, account="other"))

    assert [(r["index"], r["code"]) for r in receipt["rejected"]] == [(1, "account_forbidden")]
    everything = 'usage(query: { period: { from: "2026-01-01T00:00:00Z", to: "2027-01-01T00:00:00Z" } })'
    answer = api.ask(f"{{ {everything} {{ ... on UsageReport {{ totals {{ events }} }} }} }}", key=key)
    assert answer["usage"]["totals"] == [{"events": "1"}]
