"""Bodies count until they are answered: what waits for a slow database is bounded in bytes, and what is refused is cut."""

import asyncio
import tracemalloc
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Final

import asyncpg
import msgspec
import pytest

from metering.ingest.bodies import SentBody
from metering.ingest.readers import reader_of
from metering.ingest.receipts import Code, Rejection
from metering.ingest.refusals import Refusals
from metering.limits import LIMITS, Limits
from tests.conftest import usage_event
from tests.metering.ingest.in_process import Answer, InProcess, in_process
from tests.metering.ingest.test_refusals import AT, BINARY, OneBody

MEBIBYTE: Final = 1024 * 1024
# A sender may hold as much as is still free: of bodies that have a little more than a mebibyte, four.
HELD: Final = Limits(body_bytes_max=2 * MEBIBYTE, bodies_bytes_max=8 * MEBIBYTE)
TAKEN, SENT = 4, 12
EVENTS: Final = 260
PATIENCE_SECONDS: Final = 30


def no_event(_number: int) -> bytes:
    """A body that is JSON, and nothing that an event could be."""
    return b'{"nonsense":"' + b"x" * (MEBIBYTE + 1_000) + b'"}'


def large_events(number: int) -> bytes:
    """A body of good events, each with all the attributes that it may have."""
    attributes = {"note": "y" * 4_000}
    first = number * EVENTS
    return msgspec.json.encode([usage_event(first + index, attributes=attributes) for index in range(EVENTS)])


@asynccontextmanager
async def holding(database_url: str, table: str) -> AsyncIterator[None]:
    """Nobody writes into this table while the block lasts."""
    connection = await asyncpg.connect(database_url)
    try:
        async with connection.transaction():
            await connection.execute(f"LOCK TABLE {table} IN SHARE ROW EXCLUSIVE MODE")
            yield
    finally:
        await connection.close()


@contextmanager
def traced() -> Iterator[Callable[[], int]]:
    """How many bytes are in use that were not before the block."""
    tracemalloc.start()
    try:
        yield lambda: tracemalloc.get_traced_memory()[0]
    finally:
        tracemalloc.stop()


async def all_but(waiting: int, asked: "set[asyncio.Task[Answer]]") -> "set[asyncio.Task[Answer]]":
    """Wait until all but so many of these requests are answered; return those that are not."""
    async with asyncio.timeout(PATIENCE_SECONDS):
        while len(asked) > waiting:
            _, asked = await asyncio.wait(asked, return_when=asyncio.FIRST_COMPLETED)
    return asked


@pytest.mark.parametrize(
    ("body", "table", "in_use_max"),
    # Of what is no event only its beginning waits; events are what they are, and what is written of them.
    [(no_event, "quarantine_size", MEBIBYTE), (large_events, "event_identity", 4 * TAKEN * MEBIBYTE)],
)
def test_what_waits_for_the_database_is_bounded_in_bytes(
    database_url: str, body: Callable[[int], bytes], table: str, in_use_max: int
) -> None:
    """While the database is held, bodies beyond the bound are answered 503 `bodies_full`; afterwards all are taken, once."""
    bodies = [body(number) for number in range(SENT)]

    async def ask(service: InProcess) -> tuple[list[Answer], list[Answer], int]:
        async with holding(database_url, table):
            with traced() as in_use:
                asked = [asyncio.create_task(service.post(each)) for each in bodies]
                waiting = await all_but(TAKEN, set(asked))
                held = in_use()
        refused = [each.result() for each in asked if each not in waiting]
        return refused, [await each for each in asked if each in waiting], held

    async def scenario() -> tuple[list[Answer], list[Answer], int, list[Answer]]:
        async with in_process(database_url, HELD) as service:
            refused, taken, held = await ask(service)
            return refused, taken, held, [await service.post(each) for each in bodies]

    refused, taken, held, again = asyncio.run(scenario())

    assert [(503, "1", "bodies_full")] * (SENT - TAKEN) == [
        (each.status, each.headers["retry-after"], each.json["code"]) for each in refused
    ]
    assert held < in_use_max
    receipts = [each.json for each in (*taken, *again)]
    assert {200} == {each.status for each in (*taken, *again)}
    if body is large_events:
        assert SENT * EVENTS == sum(receipt["accepted"] for receipt in receipts)
        assert TAKEN * EVENTS == sum(receipt["duplicates"] for receipt in receipts)
    else:
        assert ["malformed"] * len(receipts) == [each["code"] for receipt in receipts for each in receipt["rejected"]]


# ---------------------------------------------------------------- what is cut

LARGE: Final = {"colour": "z" * 30_000}
FORMS: Final[dict[str, tuple[dict[str, str], bytes]]] = {
    "json": ({"content-type": "application/json"}, msgspec.json.encode([LARGE])),
    "ndjson": ({"content-type": "application/x-ndjson"}, msgspec.json.encode(LARGE) + b"\n"),
    "msgpack": ({"content-type": "application/msgpack"}, msgspec.msgpack.encode([LARGE])),
    "batch": ({"content-type": "application/cloudevents-batch+json"}, msgspec.json.encode([LARGE])),
    "binary": ({"content-type": "application/json", **BINARY}, msgspec.json.encode(LARGE)),
}


@pytest.mark.parametrize("form", FORMS)
def test_what_is_cut_early_is_kept_as_ever(form: str) -> None:
    """In every form the row of a large event is the same, whether it is cut while it waits or when it is written."""
    headers, body = FORMS[form]
    rows = []
    for larger_than in (LIMITS.rejected_body_bytes_max, len(body) * 2):
        reader = reader_of([(name.encode(), value.encode()) for name, value in headers.items()], LIMITS)
        reader.feed(body)
        (rejection,) = reader.finish()
        assert isinstance(rejection, Rejection)
        refusals = Refusals("mk_1", reader)
        refusals.keep(reader.let_go(larger_than=larger_than), LIMITS)
        rows.append(refusals.row(rejection, AT, LIMITS))

    cut_early, cut_late = rows
    assert cut_late == cut_early
    assert LIMITS.rejected_body_bytes_max < cut_early.body_bytes


@pytest.mark.parametrize(
    ("raw", "body_bytes"),
    [
        (b"a" * 9, 9),
        (b"a" * 10, 10),
        (b"a" * 11, 11),
        (b"a" * 15, 15),
        # As text it is longer than it was sent, as far as it is looked at.
        (b"\xff" * 3, 12),
        (b"\xff" * 100, 100),
        (b"a" + "ü".encode() * 20, 41),
    ],
)
def test_how_long_it_was(raw: bytes, body_bytes: int) -> None:
    """What is kept is the beginning of the text, never with half a character, and says how long the event was."""
    limits = msgspec.structs.replace(LIMITS, rejected_body_bytes_max=10)
    row = Refusals("mk_1", OneBody(raw)).row(Rejection(0, Code.MALFORMED, "No."), AT, limits)
    text = raw.decode(errors="backslashreplace").encode()

    assert text[:10].decode(errors="ignore") == row.body
    assert (body_bytes, raw == row.body.encode()) == (row.body_bytes, row.is_exact)


def test_what_is_let_go_is_gone() -> None:
    """Each large one is given once, by its index, in the form that it is kept in."""
    reader = reader_of([(b"content-type", b"application/x-ndjson")], LIMITS)
    reader.feed(b"5\n" + b"x" * 20 + b"\n" + b"y" * 30)
    reader.finish()

    assert [(1, SentBody("application/json", b"x" * 20 + b"\n")), (2, SentBody("application/json", b"y" * 30))] == list(
        reader.let_go(larger_than=10)
    )
    assert [] == list(reader.let_go(larger_than=10))
