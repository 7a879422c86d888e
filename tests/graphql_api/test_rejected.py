"""`rejectedEvents` and `retryRejectedEvents` through HTTP: what was refused is seen by whoever may, and counts once."""

import asyncio
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from typing import Any

import asyncpg
import msgspec
import pytest

from graphql_api.pages import encode_cursor
from metering.config import Settings
from metering.keys import KeyRing, Scope
from metering.limits import LIMITS, Limits
from metering.store.pool import Database
from tests.conftest import ADMIN_KEY, Api, bearer, lock_waiters, running, usage_event

LIST = """
query ($source: String, $code: String, $first: Int! = 50, $after: String) {
  rejectedEvents(source: $source, code: $code, first: $first, after: $after) {
    edges { cursor node { id } }
    nodes { id receivedAt source code message path body }
    pageInfo { hasNextPage hasPreviousPage startCursor endCursor }
  }
}
"""
RETRY = """
mutation ($input: [RetryRejectedInput!]!) {
  retryRejectedEvents(input: $input) {
    __typename
    ... on RecordUsageReceipt { accepted duplicates rejected { index id code message path } }
    ... on NotFound { code message }
  }
}
"""
NODE = "query ($id: ID!) { node(id: $id) { __typename id ... on RejectedEvent { body } ... on Event { eventId } } }"
COUNT = """
{ usage(query: { period: { from: "2020-01-01T00:00:00Z", to: "2030-01-01T00:00:00Z" } }) {
    ... on UsageReport { totals { quantity events } } } }
"""
CLOUD = {"specversion": "1.0", "type": "t", "id": "e", "source": "s", "time": "2026-03-01T12:00:00Z"}
DATA = {"account": "acme", "product": "maps", "unit": "call"}


def text(event: object) -> str:
    """An event as JSON."""
    return msgspec.json.encode(event).decode()


def rejected(api: Api, *, key: str = ADMIN_KEY, **arguments: Any) -> list[Any]:
    """The rejected events of one page."""
    nodes: list[Any] = api.ask(LIST, arguments, key=key)["rejectedEvents"]["nodes"]
    return nodes


def retry(api: Api, *orders: tuple[str, str | None], key: str = ADMIN_KEY) -> Any:
    """Send these again, each with a body or (None) as it is."""
    given = [{"id": id} if body is None else {"id": id, "body": body} for id, body in orders]
    return api.ask(RETRY, {"input": given}, key=key)["retryRejectedEvents"]


def counted(api: Api) -> list[tuple[str, str]]:
    """Quantity and events of everything."""
    return [(total["quantity"], total["events"]) for total in api.ask(COUNT)["usage"]["totals"]]


def execute(url: str, statement: str, *arguments: object) -> Any:
    """Run a statement beside the service."""

    async def run() -> Any:
        connection = await asyncpg.connect(url)
        try:
            return await connection.fetch(statement, *arguments) if arguments else await connection.execute(statement)
        finally:
            await connection.close()

    return asyncio.run(run())


def make_key(url: str, *scopes: Scope, accounts: list[str] | None = None) -> str:
    """A key's secret."""

    async def run() -> str:
        database = await Database.connect(Settings(database_url=url), LIMITS)
        try:
            _, secret = await KeyRing(database).create("some key", scopes, accounts)
        finally:
            await database.close()
        return secret

    return asyncio.run(run())


# ---------------------------------------------------------------- seeing them


def test_what_was_refused_is_shown(api: Api) -> None:
    """Each with its reason, the newest first, an event of a batch behind those that came after it."""
    api.send([usage_event(1, unit=None), 5])
    api.send(usage_event(2, colour="blue", source="other"))
    last, second, first = rejected(api)

    expected = {"source": "test", "code": "missing_field", "message": "`unit` is required.", "path": "unit"}
    assert {**expected, "body": text(usage_event(1, unit=None))} == {name: first[name] for name in (*expected, "body")}
    assert (None, "malformed", None, "5") == tuple(second[name] for name in ("source", "code", "path", "body"))
    assert ("other", "unknown_field", "colour") == (last["source"], last["code"], last["path"])
    assert first["receivedAt"] == second["receivedAt"] < last["receivedAt"]


def test_filters(api: Api) -> None:
    """By source, by code, by both; a source that cannot be stored as it is is asked for as it was sent."""
    api.send([usage_event(1, unit=None), usage_event(2, unit=5), usage_event(3, unit=None, source="a\0b"), 5])

    def numbers(**filters: str | None) -> list[str]:
        return [msgspec.json.decode(node["body"])["id"][-1] for node in rejected(api, **filters)]

    assert ["2", "1"] == numbers(source="test")
    assert ["3", "1"] == numbers(code="missing_field")
    assert ["1"] == numbers(source="test", code="missing_field")
    assert ["3"] == numbers(source="a\0b")
    assert [] == numbers(source="") == numbers(code="no_such_code")
    assert 4 == len(rejected(api, source=None, code=None))


def test_pages_are_stable_and_complete(api: Api) -> None:
    """Page after page shows each of them once, in one order, whatever is refused meanwhile."""
    for start in range(0, 60, 6):
        api.send([usage_event(number, unit=None) for number in range(start, start + 6)])
    whole = [node["id"] for node in rejected(api)] + [
        node["id"] for node in rejected(api, after=api.ask(LIST)["rejectedEvents"]["pageInfo"]["endCursor"])
    ]
    paged, after = [], None
    while True:
        page = api.ask(LIST, {"first": 7, "after": after})["rejectedEvents"]
        paged += [edge["node"]["id"] for edge in page["edges"]]
        info = page["pageInfo"]
        assert (info["startCursor"], info["endCursor"]) == (page["edges"][0]["cursor"], page["edges"][-1]["cursor"])
        assert info["hasPreviousPage"] == (after is not None)
        if not info["hasNextPage"]:
            break
        after = info["endCursor"]
        api.send(usage_event(1_000 + len(paged), unit=None))

    assert 60 == len(set(whole))
    assert whole == paged


def test_a_page_that_makes_no_sense_is_refused(api: Api) -> None:
    """The size of a page is bounded, and a cursor is one of this list."""
    wrong: list[tuple[dict[str, Any], str]] = [
        ({"first": 0}, "first"),
        ({"first": 1_001}, "first"),
        ({"after": "nonsense"}, "after"),
        ({"after": encode_cursor(["2026-03-01T12:00:00Z", 2**63])}, "after"),
        ({"after": encode_cursor(["2026-03-01T12:00:00", 1])}, "after"),
    ]
    for arguments, path in wrong:
        (error,) = api.answer(LIST, arguments)["errors"]

        assert "INVALID_INPUT" == error["extensions"]["code"]
        assert [[path]] == [issue["path"] for issue in error["extensions"]["issues"]]


def test_a_body_that_is_cut_says_so(api: Api) -> None:
    """What is shown of a large body ends with how long it was."""
    api.send(usage_event(1, user="x" * 100_000))
    (node,) = rejected(api)

    assert node["body"].endswith("x… (100,142 bytes in all)")


# ---------------------------------------------------------------- who sees them


@pytest.fixture
def bound_keys(api: Api, database_url: str) -> tuple[str, str, str]:
    """Two keys bound to one account, and one that is bound to none; each has sent a bad event."""
    keys = [make_key(database_url, Scope.USAGE_WRITE, accounts=accounts) for accounts in (["acme"], ["acme"], None)]
    for number, key in enumerate(keys):
        api.send(usage_event(number, unit=None), key=key)
    return keys[0], keys[1], keys[2]


def test_a_bound_key_sees_only_what_it_sent(api: Api, bound_keys: tuple[str, str, str]) -> None:
    """Other keys' rejected events are not shown to it: in no list, by no id, and not to be sent again."""
    one, other, free = bound_keys
    everything = rejected(api)
    by_number = {msgspec.json.decode(node["body"])["id"]: node["id"] for node in everything}
    ids = [by_number[f"event-{number}"] for number in range(3)]

    assert ids[::-1] == [node["id"] for node in everything] == [node["id"] for node in rejected(api, key=free)]
    assert [[ids[0]], [ids[1]]] == [[node["id"] for node in rejected(api, key=key)] for key in (one, other)]
    shown = [api.ask(NODE, {"id": id}, key=one)["node"] for id in ids]
    assert [ids[0], None, None] == [node and node["id"] for node in shown]
    assert ["NotFound"] * 2 == [retry(api, (id, None), key=one)["__typename"] for id in ids[1:]]
    # The same bad event of another key is another row: neither learns of the other.
    api.send(usage_event(0, unit=None), key=other)
    assert [1, 2] == [len(rejected(api, key=key)) for key in (one, other)]


def test_the_scope_is_required(api: Api, database_url: str) -> None:
    """Who may not write usage sees nothing of what was refused, nor may send it again."""
    reader = make_key(database_url, Scope.USAGE_READ)
    api.send(usage_event(1, unit=None))
    (node,) = rejected(api)
    asked = [(LIST, {}), (RETRY, {"input": [{"id": node["id"]}]}), (NODE, {"id": node["id"]})]

    for query, variables in asked:
        assert "FORBIDDEN" == api.answer(query, variables, key=reader)["errors"][0]["extensions"]["code"]
        assert "UNAUTHENTICATED" == api.answer(query, variables, key=None)["errors"][0]["extensions"]["code"]


def test_any_node_is_found_by_its_id(api: Api, database_url: str) -> None:
    """A rejected event and a recorded one are found by the ids that lists show, each by whoever may see it."""
    api.send([usage_event(1), usage_event(2, unit=None), usage_event(3, account="other")])
    (node,) = rejected(api)
    listed = api.ask(
        '{ events(query: { period: { from: "2026-01-01T00:00:00Z", to: "2027-01-01T00:00:00Z" } }) { nodes { id eventId } } }'
    )["events"]["nodes"]
    ids = {each["eventId"]: each["id"] for each in listed}
    bound = make_key(database_url, Scope.USAGE_READ, accounts=["other"])

    assert {"__typename": "RejectedEvent", "id": node["id"], "body": node["body"]} == api.ask(NODE, {"id": node["id"]})[
        "node"
    ]
    expected = {"__typename": "Event", "id": ids["event-1"], "eventId": "event-1"}
    assert expected == api.ask(NODE, {"id": ids["event-1"]})["node"]
    assert api.ask(NODE, {"id": ids["event-1"]}, key=bound)["node"] is None
    assert "event-3" == api.ask(NODE, {"id": ids["event-3"]}, key=bound)["node"]["eventId"]


IDS_OF_NOTHING = [
    "",
    "nonsense",
    "ü",
    encode_cursor(["RejectedEvent", 0]),
    encode_cursor(["RejectedEvent", 999]),
    encode_cursor(["RejectedEvent", 2**63]),
    encode_cursor(["RejectedEvent", "1"]),
    encode_cursor(["RejectedEvent"]),
    encode_cursor(["Event", "acme", "2026-03-01T12:00:00Z", b"key"]),
    encode_cursor(["Event", "ac\0me", "2026-03-01T12:00:00Z", b"key"]),
    encode_cursor(["Event", "acme", "2026-03-01T12:00:00", b"key"]),
    encode_cursor(["Statement", 1]),
    encode_cursor({}),
]


def test_an_id_of_nothing(api: Api) -> None:
    """An id that names nothing, or is none of ours, finds nothing."""
    api.send([usage_event(1), usage_event(2, unit=None)])
    for id in IDS_OF_NOTHING:
        answer = retry(api, (id, None))

        assert api.ask(NODE, {"id": id})["node"] is None
        assert ("NotFound", "NOT_FOUND") == (answer["__typename"], answer["code"])
    assert 1 == len(rejected(api))


# ---------------------------------------------------------------- sending them again


def test_with_another_body(api: Api) -> None:
    """A corrected body is accepted, counts once, and the rejected event is gone; others stay."""
    api.send([usage_event(1, unit=None), usage_event(2, unit=None)])
    other, node = rejected(api)
    receipt = retry(api, (node["id"], text(usage_event(1))))

    assert {"__typename": "RecordUsageReceipt", "accepted": 1, "duplicates": 0, "rejected": []} == receipt
    assert [("1", "1")] == counted(api)
    assert [other] == rejected(api)
    assert "NotFound" == retry(api, (node["id"], text(usage_event(1))))["__typename"]


def test_as_it_is_once_the_cause_is_gone(database_url: str) -> None:
    """What was ahead of the clock, or of an account that the key may not write for, is accepted once that is otherwise."""
    ahead = usage_event(1, occurred_at=(datetime.now(UTC) + timedelta(minutes=30)).isoformat())
    with running(database_url, Limits(occurred_ahead_max=timedelta(minutes=20))) as strict:
        bound = make_key(database_url, Scope.USAGE_WRITE, accounts=["acme"])
        strict.send(ahead)
        strict.send(usage_event(2, account="other"), key=bound)
        forbidden, future = rejected(strict)
        assert ["time_in_future"] == [each["code"] for each in retry(strict, (future["id"], None))["rejected"]]
        assert ["account_forbidden"] == [
            each["code"] for each in retry(strict, (forbidden["id"], None), key=bound)["rejected"]
        ]
    with running(database_url) as api:
        receipt = retry(api, (future["id"], None), (forbidden["id"], None))

        assert (2, 0, []) == (receipt["accepted"], receipt["duplicates"], receipt["rejected"])
        assert [] == rejected(api)
        assert (0, 2) == tuple(
            api.send([ahead, usage_event(2, account="other")])[name] for name in ("accepted", "duplicates")
        )


def test_what_is_still_bad_says_why(api: Api) -> None:
    """Refused again it stays the same rejected event, with the new reason and the new body, and may be sent again."""
    api.send([usage_event(1, unit=None), usage_event(2, unit=None)])
    second, first = rejected(api)
    receipt = retry(api, (second["id"], None), (first["id"], text(usage_event(1, unit="", source="other"))))

    codes = [(each["index"], each["code"], each["path"]) for each in receipt["rejected"]]
    assert (0, [(0, "missing_field", "unit"), (1, "text_invalid", "unit")]) == (receipt["accepted"], codes)
    newest, older = rejected(api)
    assert {first["id"], second["id"]} == {newest["id"], older["id"]}
    changed = next(node for node in (newest, older) if node["id"] == first["id"])
    same = next(node for node in (newest, older) if node["id"] == second["id"])
    assert ("other", "text_invalid") == (changed["source"], changed["code"])
    assert text(usage_event(1, unit="", source="other")) == changed["body"]
    assert changed["receivedAt"] > first["receivedAt"]
    assert {**second, "receivedAt": same["receivedAt"]} == same
    assert 1 == retry(api, (first["id"], text(usage_event(1))))["accepted"]


def test_a_body_that_is_no_event(api: Api) -> None:
    """Whatever is sent instead is one event, or refused as what is malformed, and kept as that."""
    api.send(usage_event(1, unit=None))
    (node,) = rejected(api)
    for body in ("", "5", "[]", text([usage_event(1)]), "{", '{"id": "\\ud800"}', "\0", "x" * 100_000):
        receipt = retry(api, (node["id"], body))

        assert [(0, "malformed")] == [(each["index"], each["code"]) for each in receipt["rejected"]]
        (kept,) = rejected(api)
        assert (node["id"], "malformed") == (kept["id"], kept["code"])
        assert kept["body"].startswith(body.replace("\0", "\\u0000")[:20_000])
    assert [] == counted(api)


def test_an_event_that_was_recorded_meanwhile(api: Api) -> None:
    """Where the producer has sent the corrected event itself, a retry is a duplicate; the rejected event is gone."""
    api.send(usage_event(1, unit=None))
    (node,) = rejected(api)
    api.send(usage_event(1))
    receipt = retry(api, (node["id"], text(usage_event(1))))

    assert (0, 1, []) == (receipt["accepted"], receipt["duplicates"], receipt["rejected"])
    assert [("1", "1")] == counted(api)
    assert [] == rejected(api)


def test_a_conflict_is_solved_with_another_id(api: Api) -> None:
    """As it is, a conflict is one again; with a new id it is another event."""
    api.send([usage_event(1), usage_event(1, quantity="2")])
    (node,) = rejected(api)

    assert ["identity_conflict"] == [each["code"] for each in retry(api, (node["id"], None))["rejected"]]
    assert 1 == retry(api, (node["id"], node["body"].replace("event-1", "event-1b")))["accepted"]
    assert [("3", "2")] == counted(api)


def test_two_that_become_one(api: Api) -> None:
    """Two rejected events, sent again as the same event, count once, and both are gone; still bad they are one row."""
    api.send([usage_event(1, unit=None), usage_event(2, unit=None), usage_event(3, unit=None)])
    third, second, first = rejected(api)
    bad = retry(api, (first["id"], text(usage_event(9, unit=None))), (second["id"], text(usage_event(9, unit=None))))
    left = rejected(api)
    twin = retry(api, (third["id"], text(usage_event(9, unit=None))))

    assert 2 == len(bad["rejected"])
    assert 2 == len(left)
    assert 1 == len(twin["rejected"])
    assert [third["id"]] == [node["id"] for node in rejected(api)]
    api.send(usage_event(1, unit=None))
    receipt = retry(api, *((node["id"], text(usage_event(9))) for node in rejected(api)))
    assert (1, 1) == (receipt["accepted"], receipt["duplicates"])
    assert [("1", "1")] == counted(api)
    assert [] == rejected(api)


def test_cloud_events_stay_cloud_events(api: Api) -> None:
    """A rejected CloudEvent is shown, corrected and refused again in its own words."""
    headers = {**bearer(ADMIN_KEY), "Content-Type": "application/cloudevents+json"}
    event = {**CLOUD, "data": {**DATA, "unit": None}}
    api.client.post("/v1/events", json=event, headers=headers)
    (node,) = rejected(api)
    plain = retry(api, (node["id"], text(usage_event(1))))["rejected"][0]
    wrong = retry(api, (node["id"], text({**CLOUD, "data": DATA, "time": "2100-01-01T00:00:00Z"})))["rejected"][0]
    (kept,) = rejected(api)
    right = retry(api, (node["id"], text({**CLOUD, "data": DATA})))

    assert ("missing_field", "data.unit", text(event)) == (node["code"], node["path"], node["body"])
    assert ("missing_field", "specversion") == (plain["code"], plain["path"])
    assert ("time_in_future", "time") == (wrong["code"], wrong["path"]) == (kept["code"], kept["path"])
    assert 1 == right["accepted"]


@pytest.mark.parametrize(
    ("content_type", "body", "says"),
    [
        ("application/json", text(usage_event(1, user="x" * 100_000)).encode(), "only the first 20,480 are kept"),
        ("application/msgpack", msgspec.msgpack.encode(usage_event(1, quantity=1.5)), "JSON has no form for"),
        ("application/x-ndjson", b'{"id": "\xff"}', "JSON has no form for"),
    ],
)
def test_what_is_not_all_there_needs_another_body(api: Api, content_type: str, body: bytes, says: str) -> None:
    """One that is cut, or that JSON cannot say, is refused as it is with a sentence of its own, and stays as it was."""
    api.client.post("/v1/events", content=body, headers={**bearer(ADMIN_KEY), "Content-Type": content_type})
    before = rejected(api)
    (refusal,) = retry(api, (before[0]["id"], None))["rejected"]

    assert (0, "malformed") == (refusal["index"], refusal["code"])
    assert says in refusal["message"]
    assert refusal["message"].endswith("send another body.")
    assert before == rejected(api)
    assert 1 == retry(api, (before[0]["id"], text(usage_event(1))))["accepted"]


def test_all_or_nothing_of_the_ids(api: Api) -> None:
    """One id that is not there, or the same id twice, and nothing is done; the first missing one is named."""
    api.send(usage_event(1, unit=None))
    (node,) = rejected(api)
    good = (node["id"], text(usage_event(1)))
    gone = encode_cursor(["RejectedEvent", 77])
    missing = retry(api, good, (gone, None), ("nonsense", None))
    twice = api.answer(RETRY, {"input": [{"id": node["id"]}, {"id": node["id"]}]})["errors"][0]

    assert "NotFound" == missing["__typename"]
    assert gone in missing["message"]
    assert [["input", "1", "id"]] == [issue["path"] for issue in twice["extensions"]["issues"]]
    assert [] == counted(api)
    assert [node] == rejected(api)
    assert {"__typename": "RecordUsageReceipt", "accepted": 0, "duplicates": 0, "rejected": []} == retry(api)


def test_no_more_than_a_request_may_have(database_url: str) -> None:
    """A retry has as many events as any other request, and indexes count them as they were given."""
    with running(database_url, Limits(body_events_max=3)) as api:
        for number in range(4):
            api.send(usage_event(number, unit=None))
        nodes = rejected(api)
        error = api.answer(RETRY, {"input": [{"id": node["id"]} for node in nodes]})["errors"][0]
        bodies = [text(usage_event(1)), None, text(usage_event(2))]
        receipt = retry(api, *zip([node["id"] for node in nodes], bodies, strict=False))

    assert [["input"]] == [issue["path"] for issue in error["extensions"]["issues"]]
    assert (2, [1]) == (receipt["accepted"], [each["index"] for each in receipt["rejected"]])


# ---------------------------------------------------------------- at once, and broken off


def test_retries_at_once_count_once(api: Api, database_url: str) -> None:
    """Sixteen retries of the same ten at once, through two processes, while the producer sends them too: each counts once."""
    api.send([usage_event(number, unit=None) for number in range(10)])
    orders = [(node["id"], node["body"][:-1] + ',"unit":"call"}') for node in rejected(api)]
    with running(database_url) as other, ThreadPoolExecutor(8) as pool:

        def again(turn: int) -> str:
            through = (api, other)[turn % 2]
            if turn % 8 == 7:
                through.send([usage_event(number) for number in range(10)])
                return "sent"
            name: str = retry(through, *orders[turn % 3 :])["__typename"]
            return name

        outcomes = list(pool.map(again, range(16)))
        left = retry(api, *((node["id"], node["body"][:-1] + ',"unit":"call"}') for node in rejected(api)))

    assert set(outcomes) <= {"sent", "RecordUsageReceipt", "NotFound"}
    assert 0 == left["accepted"]
    assert [("10", "10")] == counted(api)
    assert [] == rejected(api)


def test_one_that_is_refused_again_does_not_come_back(api: Api, database_url: str) -> None:
    """Where one retry is accepted while another one is refused, the rejected event is gone: what is recorded stays so."""
    api.send(usage_event(1, unit=None))
    (node,) = rejected(api)

    async def hold() -> None:
        # The next change of the quarantine waits for this: both retries have found the row before either changes it.
        connection = await asyncpg.connect(database_url)
        try:
            transaction = connection.transaction()
            await transaction.start()
            await connection.execute("UPDATE quarantine_size SET events = events")
            with ThreadPoolExecutor(2) as pool:
                good = pool.submit(retry, api, (node["id"], text(usage_event(1))))
                await lock_waiters(database_url, 1)
                bad = pool.submit(retry, api, (node["id"], None))
                await lock_waiters(database_url, 2)
                await transaction.commit()
                assert 1 == good.result()["accepted"]
                assert 1 == len(bad.result()["rejected"])
        finally:
            await connection.close()

    asyncio.run(hold())

    assert [] == rejected(api)
    assert [("1", "1")] == counted(api)


KILL = """
CREATE FUNCTION kill() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN PERFORM pg_terminate_backend(pg_backend_pid()); RETURN NULL; END $$;
CREATE TRIGGER kill AFTER DELETE ON rejected_event EXECUTE FUNCTION kill();
"""


def test_a_retry_that_dies_on_its_way_is_done_again(api: Api, database_url: str) -> None:
    """The event and the end of its row are one: where the session dies between the two, neither is there, and it is repeated."""
    api.send(usage_event(1, unit=None))
    (node,) = rejected(api)
    execute(database_url, KILL)
    answer = api.answer(RETRY, {"input": [{"id": node["id"], "body": text(usage_event(1))}]})
    execute(database_url, "DROP TRIGGER kill ON rejected_event")
    meanwhile = (counted(api), rejected(api))
    receipt = retry(api, (node["id"], text(usage_event(1))))

    assert "DATABASE_UNAVAILABLE" == answer["errors"][0]["extensions"]["code"]
    assert ([], [node]) == meanwhile
    assert 1 == receipt["accepted"]
    assert ([("1", "1")], []) == (counted(api), rejected(api))
