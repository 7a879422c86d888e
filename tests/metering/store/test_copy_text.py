"""Whatever an event may hold reaches PostgreSQL as it was, through the text that COPY reads."""

import asyncio
from datetime import UTC, datetime

import asyncpg
from hypothesis import given
from hypothesis import strategies as st

from metering.store.copy_text import copy_rows, copy_text, written
from tests.strategies import MANY, SOME, instants, texts

COLUMNS = ("number", "text", "absent")


def test_every_text_arrives_as_it_was(database_url: str) -> None:
    """Tabs, line ends, quotes, backslashes and control characters among many rows, and what is absent is NULL."""

    async def arrived(sent: list[str]) -> list[tuple[str, str | None]]:
        connection = await asyncpg.connect(database_url)
        try:
            await connection.execute("CREATE TEMPORARY TABLE arrived (number int, text text, absent text)")
            rows = [f"{number}\0{text}\0" for number, text in enumerate(sent)]
            await copy_rows(connection, "arrived", COLUMNS, rows)
            found = await connection.fetch("SELECT text, absent FROM arrived ORDER BY number")
            return [(row["text"], row["absent"]) for row in found]
        finally:
            await connection.close()

    @SOME
    @given(sent=st.lists(texts(), min_size=1, max_size=20))
    def check(sent: list[str]) -> None:
        assert [(text, None) for text in sent] == asyncio.run(arrived(sent))

    check()


def test_bytes_and_instants_arrive_as_they_were(database_url: str) -> None:
    """Keys and times are written in other ways than the driver's."""

    async def arrived(key: bytes, instant: datetime) -> tuple[bytes, datetime]:
        connection = await asyncpg.connect(database_url)
        try:
            await connection.execute("CREATE TEMPORARY TABLE arrived (key bytea, instant timestamptz)")
            await copy_rows(connection, "arrived", ("key", "instant"), [f"\\x{key.hex()}\0{written(instant)}"])
            row = await connection.fetchrow("SELECT key, instant FROM arrived")
            assert row is not None
            return row["key"], row["instant"]
        finally:
            await connection.close()

    @SOME
    @given(key=st.binary(max_size=16), instant=instants())
    def check(key: bytes, instant: datetime) -> None:
        assert (key, instant) == asyncio.run(arrived(key, instant.astimezone(UTC)))

    check()


@MANY
@given(sent=st.lists(texts(), min_size=1))
def test_a_row_is_the_same_line_in_any_company(sent: list[str]) -> None:
    """Two writers with some rows in common meet at them in the same order, so they wait for each other, not for ever."""
    rows = [f"{text}\0x" for text in sent]

    assert b"\n".join(copy_text([row]) for row in sorted(rows)) == copy_text(rows)
