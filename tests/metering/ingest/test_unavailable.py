"""Whatever the database says instead of doing its work, a request of events is answered 503 with Retry-After, and taken later."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final

import asyncpg
import msgspec

from tests.conftest import usage_event
from tests.metering.ingest.in_process import Answer, InProcess, in_process

EVENT: Final = msgspec.json.encode(usage_event())
TRAP: Final = """
CREATE FUNCTION fail() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'a fault of the test' USING ERRCODE = TG_ARGV[0];
END $$;
"""
# A statement that was cancelled, a schema that is another one, a server that only follows; and contention without end.
CANCELLED, UNDEFINED_TABLE, READ_ONLY = "57014", "42P01", "25006"
DEADLOCK, SERIALIZATION, UNIQUE, OUT_OF_LOCKS = "40P01", "40001", "23505", "53200"
CODES: Final = (CANCELLED, UNDEFINED_TABLE, READ_ONLY, DEADLOCK, SERIALIZATION, UNIQUE, OUT_OF_LOCKS)
CUT: Final = """
SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = current_database() AND application_name = 'metering'
"""
PATIENCE_SECONDS: Final = 30


@asynccontextmanager
async def operator(database_url: str) -> AsyncIterator[asyncpg.Connection]:
    """A connection beside the service's."""
    connection = await asyncpg.connect(database_url)
    try:
        yield connection
    finally:
        await connection.close()


def told(answer: Answer) -> tuple[int, str | None, str, str]:
    """What a client goes by."""
    return (
        answer.status,
        answer.headers.get("retry-after"),
        answer.headers["content-type"],
        answer.json.get("code", "a receipt"),
    )


def test_whatever_the_database_says(database_url: str) -> None:
    """Each is the contract's 503, also where it is said in every try; once it is over, the same event is taken, once."""

    async def scenario() -> tuple[list[Answer], Answer]:
        answers = []
        async with operator(database_url) as connection, in_process(database_url) as service:
            await connection.execute(TRAP)
            for code in CODES:
                trigger = f"CREATE TRIGGER fail BEFORE INSERT ON event FOR EACH ROW EXECUTE FUNCTION fail('{code}')"
                await connection.execute(trigger)
                answers.append(await service.post(EVENT))
                await connection.execute("DROP TRIGGER fail ON event")
            return answers, await service.post(EVENT)

    answers, taken = asyncio.run(scenario())

    expected = (503, "1", "application/problem+json", "database_unavailable")
    assert dict.fromkeys(CODES, expected) == dict(zip(CODES, map(told, answers), strict=True))
    assert {"accepted": 1, "duplicates": 0, "rejected": []} == taken.json


def test_a_server_that_only_follows_is_left_for_one_that_leads(database_url: str) -> None:
    """While the server takes no changes the answer is 503; once it does, the service goes on by itself, over new connections."""
    name = database_url.partition("@/")[2].partition("?")[0]

    async def post_many(service: InProcess) -> set[tuple[int, str | None, str, str]]:
        # At once, so that more than one connection is used.
        return {told(each) for each in await asyncio.gather(*[service.post(EVENT) for _ in range(8)])}

    async def scenario() -> tuple[set[tuple[int, str | None, str, str]], Answer]:
        async with in_process(database_url) as service, operator(database_url) as connection:
            # For connections that are made from now on; those that there are end, as at a failover.
            await connection.execute(f"ALTER DATABASE {name} SET default_transaction_read_only = on")
            await connection.execute(CUT)
            refused = await post_many(service) | await post_many(service)
            await connection.execute(f"ALTER DATABASE {name} RESET default_transaction_read_only")
            async with asyncio.timeout(PATIENCE_SECONDS):
                while (answer := await service.post(EVENT)).status == 503:
                    pass
            return refused, answer

    refused, answer = asyncio.run(scenario())

    assert {(503, "1", "application/problem+json", "database_unavailable")} == refused
    assert {"accepted": 1, "duplicates": 0, "rejected": []} == answer.json
