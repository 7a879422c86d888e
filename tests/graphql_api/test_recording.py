"""recordUsage and correctEvent: every figure from then on is as if the event had been right; what it said stays on record."""

import asyncio
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from typing import Any

import asyncpg
import pytest

from metering.config import Settings
from metering.limits import LIMITS
from metering.rollups.refresh import Refresher
from metering.store.pool import Database
from tests.conftest import Api, running, usage_event

RECORD = """
mutation ($events: [UsageEventInput!]!) {
  recordUsage(input: { events: $events }) {
    ... on RecordUsageReceipt { accepted duplicates rejected { index id code path } }
    ... on InvalidInput { issues { path message } }
  }
}
"""
CORRECT = """
mutation ($input: CorrectEventInput!) {
  correctEvent(input: $input) {
    __typename
    ... on Event { user quantity unit attributes voided corrections { by reason voided before after } }
    ... on InvalidInput { issues { path } }
    ... on Problem { code message }
  }
}
"""
TOTALS = """
{ usage(query: { period: { from: "2026-01-01T00:00:00Z", to: "2027-01-01T00:00:00Z" }, groupBy: [USER] }) {
    ... on UsageReport {
      totals { unit quantity events minimum maximum distinct(dimension: USER) }
      groups(orderBy: { field: KEY, direction: ASC }) { nodes { key { user } totals { quantity events } } }
} } }
"""
EVENT = (
    '{ event(account: "acme", source: "test", id: "event-1") { quantity voided corrections { reason before after } } }'
)
NAME = {"account": "acme", "source": "test", "id": "event-1", "reason": "the meter was wrong"}


def correct(api: Api, **order: Any) -> Any:
    """Correct event-1, or the event that is named."""
    return api.ask(CORRECT, {"input": {**NAME, **order}})["correctEvent"]


def refresh(url: str) -> None:
    """Roll up everything up to now."""

    async def run() -> None:
        database = await Database.connect(Settings(database_url=url), LIMITS)
        try:
            # The service's own refresher may be at work; one works at a time.
            while await Refresher(database).run(datetime.now(UTC)) is None:  # noqa: ASYNC110 - another process ends it
                await asyncio.sleep(0.01)
        finally:
            await database.close()

    asyncio.run(run())


def test_usage_is_recorded_and_repeating_is_safe(api: Api) -> None:
    """Events recorded by mutation are counted once, the default source and quantity applied, a bad one named by index."""
    events = [
        {"id": "a", "occurredAt": "2026-03-01T10:00:00Z", "account": "acme", "product": "maps", "unit": "call"},
        {"id": "b", "occurredAt": "2026-03-01T10:00:00Z", "account": "", "product": "maps", "unit": "call"},
    ]
    first = api.ask(RECORD, {"events": events})["recordUsage"]
    again = api.ask(RECORD, {"events": events[:1]})["recordUsage"]

    assert {
        "accepted": 1,
        "duplicates": 0,
        "rejected": [{"index": 1, "id": "b", "code": "text_invalid", "path": "account"}],
    } == first
    assert (0, 1) == (again["accepted"], again["duplicates"])


def test_a_corrected_event_counts_with_its_new_values(api: Api, database_url: str) -> None:
    """After a correction every figure is as if the event had been right, before and after it is rolled up."""
    api.send([usage_event(1, user="ana", quantity="500"), usage_event(2, user="ben", quantity="2")])
    refresh(database_url)
    answer = correct(api, values={"quantity": "5", "user": "ben"})

    made = {
        "by": "bootstrap (bootstrap_",
        "reason": "the meter was wrong",
        "voided": False,
        "before": {"user": "ana", "quantity": "500"},
        "after": {"user": "ben", "quantity": "5"},
    }
    assert ("Event", "ben", "5", False) == tuple(answer[name] for name in ("__typename", "user", "quantity", "voided"))
    assert [made] == [{**each, "by": each["by"][:21]} for each in answer["corrections"]]
    expected = {
        "totals": [{"unit": "call", "quantity": "7", "events": "2", "minimum": "2", "maximum": "5", "distinct": 1}],
        "groups": {"nodes": [{"key": {"user": "ben"}, "totals": [{"quantity": "7", "events": "2"}]}]},
    }
    assert expected == api.ask(TOTALS)["usage"]
    refresh(database_url)
    assert expected == api.ask(TOTALS)["usage"]


def test_a_void_event_counts_nowhere_and_stays_on_record(api: Api, database_url: str) -> None:
    """A void takes the event out of every figure; it is shown as void, and sent again it is a duplicate."""
    api.send([usage_event(1, user="ana"), usage_event(2, user="ben", quantity="2")])
    refresh(database_url)
    answer = correct(api, void=True)
    again = api.send(usage_event(1, user="ana"))
    refresh(database_url)

    assert ("Event", True) == (answer["__typename"], answer["voided"])
    assert (0, 1) == (again["accepted"], again["duplicates"])
    assert "2" == api.ask(TOTALS)["usage"]["totals"][0]["quantity"]
    assert {"quantity": "1", "voided": True} == {
        name: value for name, value in api.ask(EVENT)["event"].items() if name != "corrections"
    }


def test_correcting_twice_keeps_both_and_voiding_twice_is_a_conflict(api: Api) -> None:
    """Each correction starts from what the last one left; a void event cannot be corrected any more."""
    api.send(usage_event(1, quantity="1"))
    correct(api, values={"quantity": "2"})
    correct(api, values={"quantity": "3"}, reason="wrong again")
    same = correct(api, values={"quantity": "3.0"})
    event = api.ask(EVENT)["event"]
    voided = correct(api, void=True)

    assert "Conflict" == same["__typename"]
    assert [("1", "2"), ("2", "3")] == [(c["before"]["quantity"], c["after"]["quantity"]) for c in event["corrections"]]
    assert "Event" == voided["__typename"]
    assert ["Conflict", "Conflict"] == [
        correct(api, void=True)["__typename"],
        correct(api, values={"quantity": "4"})["__typename"],
    ]


def test_concurrent_corrections_take_turns(api: Api) -> None:
    """Eight corrections at once all stand in the record as a chain, and the last of them is in effect."""
    api.send(usage_event(1, quantity="0"))
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda number: correct(api, values={"quantity": str(number)}), range(1, 9)))
    event = api.ask(EVENT)["event"]

    assert ["Event"] * 8 == [answer["__typename"] for answer in answers]
    chain = [(c["before"]["quantity"], c["after"]["quantity"]) for c in event["corrections"]]
    assert [after for _, after in chain[:-1]] == [before for before, _ in chain[1:]]
    assert {str(number) for number in range(1, 9)} == {after for _, after in chain}
    assert event["quantity"] == chain[-1][1] == api.ask(TOTALS)["usage"]["totals"][0]["quantity"]


def test_an_optional_value_is_cleared_by_null(api: Api) -> None:
    """A null clears a value that an event need not have; a value left out stays."""
    api.send(usage_event(1, user="ana", device="phone"))
    answer = correct(api, values={"user": None})

    assert ("Event", None) == (answer["__typename"], answer["user"])
    assert [{"user": "ana"}] == [made["before"] for made in answer["corrections"]]


def test_attributes_are_corrected_as_a_whole(api: Api) -> None:
    """Attributes are replaced by those that are given, or cleared by null; the record has both, and equal ones are no change."""
    api.send(usage_event(1, attributes={"model": "small", "tokens": 12, "cached": True}))
    said = correct(api, values={"attributes": {"tokens": 12, "model": "large"}})
    same = correct(api, values={"attributes": {"model": "large", "tokens": 12}})
    cleared = correct(api, values={"attributes": None})

    before, after = {"model": "small", "tokens": 12, "cached": True}, {"model": "large", "tokens": 12}
    assert (after, "Conflict", None) == (said["attributes"], same["__typename"], cleared["attributes"])
    made = [(each["before"], each["after"]) for each in cleared["corrections"]]
    assert [({"attributes": before}, {"attributes": after}), ({"attributes": after}, {"attributes": None})] == made


@pytest.mark.parametrize(
    ("order", "paths"),
    [
        ({"values": {"attributes": {"tags": ["a"]}}}, [["input", "values", "attributes"]]),
        ({"values": {"attributes": {"note": "a\0"}}}, [["input", "values", "attributes"]]),
        (
            {"reason": "", "values": {"attributes": {"note": "x" * LIMITS.attributes_bytes_max}, "unit": ""}},
            [["input", "reason"], ["input", "values", "attributes"], ["input", "values", "unit"]],
        ),
        ({}, [["input", "values"]]),
        ({"reason": " "}, [["input", "reason"], ["input", "values"]]),
        ({"void": True, "values": {"quantity": "1"}}, [["input", "values"]]),
        (
            {"values": {"unit": None, "product": "", "quantity": "1e30", "user": "x" * 300}},
            [["input", "values", name] for name in ("product", "quantity", "unit", "user")],
        ),
    ],
)
def test_a_correction_that_makes_no_sense_is_refused(api: Api, order: dict[str, Any], paths: list[list[str]]) -> None:
    """Every fault of a correction is named at once, each with its path, and nothing is changed."""
    api.send(usage_event(1))
    answer = correct(api, **order)

    assert "InvalidInput" == answer["__typename"]
    assert sorted(paths) == sorted(issue["path"] for issue in answer["issues"])
    assert [] == api.ask(EVENT)["event"]["corrections"]


def test_the_event_must_be_named_without_doubt(api: Api) -> None:
    """No such event is NotFound; a name used on several days is a Conflict until the time says which."""
    api.send([usage_event(1), usage_event(1, occurred_at="2026-04-01T12:00:00Z")])

    assert "NotFound" == correct(api, id="event-9", void=True)["__typename"]
    assert "NotFound" == correct(api, occurredAt="2026-05-01T12:00:00Z", void=True)["__typename"]
    assert "Conflict" == correct(api, void=True)["__typename"]
    assert "Event" == correct(api, occurredAt="2026-04-01T12:00:00Z", void=True)["__typename"]
    assert "1" == api.ask(TOTALS)["usage"]["totals"][0]["events"]


def test_a_late_correction_is_in_the_next_answer_of_another_process(api: Api, database_url: str) -> None:
    """A correction through one process is in the next answer of another one on the same database."""
    api.send(usage_event(1, quantity="500"))
    refresh(database_url)
    with running(database_url) as other:
        correct(api, values={"quantity": "5"})

        assert "5" == other.ask(TOTALS)["usage"]["totals"][0]["quantity"]


def test_an_event_in_a_compressed_chunk_can_be_corrected(engine: str, api: Api, database_url: str) -> None:
    """On TimescaleDB a correction reaches into the columnstore, and figures are right before and after a refresh."""
    if engine != "timescaledb":
        pytest.skip("chunks are compressed on TimescaleDB only")

    async def compress() -> int:
        connection = await asyncpg.connect(database_url)
        try:
            await connection.execute(
                "ALTER TABLE event SET (timescaledb.compress, timescaledb.compress_segmentby = 'account', "
                "timescaledb.compress_orderby = 'occurred_at')"
            )
            return len(await connection.fetch("SELECT compress_chunk(chunk) FROM show_chunks('event') AS chunk"))
        finally:
            await connection.close()

    api.send([usage_event(1, quantity="500"), usage_event(2, quantity="2")])
    refresh(database_url)
    assert 1 == asyncio.run(compress())
    answer = correct(api, values={"quantity": "5"})

    assert "Event" == answer["__typename"]
    assert "7" == api.ask(TOTALS)["usage"]["totals"][0]["quantity"]
    refresh(database_url)
    assert "7" == api.ask(TOTALS)["usage"]["totals"][0]["quantity"]
