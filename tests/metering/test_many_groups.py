"""Thousands of groups, page after page: each exactly once, in order, and what is promised while events keep coming in.

The database makes the events itself. loadtests/groups.py does the same with a million.
"""

import asyncio
from collections.abc import AsyncIterator, Sequence
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Final

import msgspec
import pytest

from metering.config import Settings
from metering.events import Dimension
from metering.limits import LIMITS
from metering.periods import Period
from metering.questions import GroupOrder, Question, ValueFilter, ask
from metering.rollups.read import After, GroupPage, Key, Total, read_groups, read_totals
from metering.rollups.refresh import Refresher
from metering.store.partitions import Partitions
from metering.store.pool import Database
from metering.store.snapshot import Snapshot
from metering.store.tables import PARTITIONED_EVENT

START: Final = datetime(2026, 3, 2, tzinfo=UTC)
GROUPS: Final = 3_000
PAGE_ROWS: Final = 700
# Number 0 has no user. Every third has a second unit, every seventh this one only; quantities and counts tie often.
_EVENTS: Final = """
INSERT INTO event (account, occurred_at, key, source, event_id, received_at, "user", product, unit, quantity)
SELECT 'acme', $1::timestamptz + (number + turn) % 30 * interval '1 hour',
       decode(md5(concat_ws(' ', number, unit, turn, $4::text)), 'hex'), 'test', concat_ws(' ', number, unit, turn, $4),
       $1, NULLIF('user ' || number, 'user 0'), 'maps', unit, number % 10 / 4.0 - 1
FROM generate_series($2::int, $3::int - 1) AS number,
     LATERAL unnest(CASE WHEN number % 7 = 0 THEN ARRAY['byte'] WHEN number % 3 = 0 THEN ARRAY['call', 'byte']
                         ELSE ARRAY['call'] END) AS unit,
     LATERAL generate_series(0, number % 4) AS turn
"""
ORDERS: Final = [
    GroupOrder(field, descending, unit)
    for field, units in (("KEY", (None,)), ("EVENTS", (None,)), ("QUANTITY", (None, "call", "byte")))
    for descending in (False, True)
    for unit in units
]


async def insert(database: Database, first: int, end: int, name: str) -> None:
    """The events of these groups, once more under another name."""
    await Partitions(database).ensure(PARTITIONED_EVENT, [START.date()])
    async with database.connection() as connection:
        await connection.execute(_EVENTS, START, first, end, name)


async def filled(database_url: str, *, rolled_up: bool) -> Database:
    """A pool on a database with GROUPS groups; their first day is rolled up, or nothing is."""
    database = await Database.connect(Settings(database_url=database_url), LIMITS)
    await insert(database, 0, GROUPS, "first")
    if rolled_up:
        assert await Refresher(database).run(START + timedelta(days=1, hours=1)) is not None
    return database


def units_of(number: int) -> tuple[str, ...]:
    """The units that a group has."""
    if number % 7 == 0:
        return ("byte",)
    return ("byte", "call") if number % 3 == 0 else ("call",)


def figures(number: int) -> tuple[Total, ...]:
    """A group's figures."""
    each, events = Decimal(number % 10) / 4 - 1, number % 4 + 1
    return tuple(Total(unit, each * events, events, each, each) for unit in units_of(number))


def key_of(number: int) -> Key:
    """A group's key."""
    return (f"user {number}" if number else None,)


def in_order(numbers: Sequence[int], order: GroupOrder, only: str | None = None) -> list[int]:
    """Groups in the order of the contract: by value, ties by key, no value last."""

    def value(number: int) -> Decimal:
        unit = order.unit or only
        totals = [total for total in figures(number) if only in {None, total.unit}]
        if order.field == "QUANTITY" and unit is not None:
            return sum((total.quantity for total in totals if total.unit == unit), Decimal(0))
        return Decimal(sum(total.events for total in totals))

    by_key = sorted(numbers, key=lambda number: (number == 0, str(key_of(number)[0])))
    if order.field == "KEY":
        return by_key[::-1] if order.descending else by_key
    return sorted(by_key, key=value, reverse=order.descending)


def question(unit: str | None = None) -> Question:
    """Everything by user."""
    filters = {} if unit is None else {Dimension.UNIT: ValueFilter((unit,))}
    return ask(
        period=Period(START, START + timedelta(days=3)),
        zone_name="UTC",
        group_by=[Dimension.USER],
        filters=filters,
        limits=LIMITS,
    )


async def walked(database: Database, asked: Question, order: GroupOrder) -> AsyncIterator[GroupPage]:
    """Page after page, each from a snapshot of its own; each plus its remainder is the whole."""
    after, following = None, order
    while True:
        async with Snapshot(database) as snapshot:
            page = await read_groups(snapshot, asked, following, PAGE_ROWS, after)
            whole = await read_totals(snapshot, msgspec.structs.replace(asked, group_by=()))
        parts = [total for group in page.groups for total in group.totals] + list(page.remainder)
        for total in whole:
            of_unit = [part for part in parts if part.unit == total.unit]
            assert total.quantity == sum(part.quantity for part in of_unit)
            assert total.events == sum(part.events for part in of_unit)
            assert total.minimum == min(part.minimum for part in of_unit)
            assert total.maximum == max(part.maximum for part in of_unit)
        yield page
        if not page.has_next:
            return
        last = page.groups[-1]
        # As a cursor does: the unit that the list began by stays.
        following = msgspec.structs.replace(order, unit=page.order_unit)
        if order.field == "QUANTITY" and page.order_unit is None:
            following = msgspec.structs.replace(order, field="EVENTS")
        after = After(last.key, last.order_value)


@pytest.mark.parametrize("rolled_up", [False, True], ids=["raw", "rolled up"])
def test_every_group_is_on_one_page(database_url: str, *, rolled_up: bool) -> None:
    """In every order all pages together are all groups, once each, in the order of the contract, with their figures."""

    async def scenario() -> None:
        database = await filled(database_url, rolled_up=rolled_up)
        try:
            for order in ORDERS:
                seen = []
                async for page in walked(database, question(), order):
                    assert page.group_count == GROUPS
                    seen += [(group.key, group.totals) for group in page.groups]
                expected = in_order(range(GROUPS), order)
                assert [(key_of(number), figures(number)) for number in expected] == seen, order
        finally:
            await database.close()

    asyncio.run(scenario())


@pytest.mark.parametrize("unit", ["call", "byte"])
def test_every_group_of_one_unit_is_on_one_page(database_url: str, unit: str) -> None:
    """The same where a filter leaves one unit, which then orders by itself."""

    async def scenario() -> None:
        database = await filled(database_url, rolled_up=True)
        try:
            numbers = [number for number in range(GROUPS) if unit in units_of(number)]
            for order in ORDERS:
                seen = [group.key async for page in walked(database, question(unit), order) for group in page.groups]
                assert [key_of(number) for number in in_order(numbers, order, unit)] == seen, order
        finally:
            await database.close()

    asyncio.run(scenario())


@pytest.mark.parametrize("order", ORDERS, ids=str)
def test_pages_while_events_come_in(database_url: str, order: GroupOrder) -> None:
    """Between pages groups grow and groups are added.

    By key, every group that was there at the beginning is shown exactly once. In any order, one that did not change is.
    By EVENTS, which only grow here: descending nobody is shown twice, ascending nobody that was there is left out.
    """

    async def scenario() -> tuple[list[Key], set[Key]]:
        database = await filled(database_url, rolled_up=True)
        seen: list[Key] = []
        changed: set[Key] = set()
        try:
            async for page in walked(database, question(), order):
                seen += [group.key for group in page.groups]
                first = len(changed) % GROUPS
                await insert(database, first, first + 100, f"more {len(seen)}")
                changed |= {key_of(number) for number in range(first, first + 100)}
                await insert(database, GROUPS + len(seen), GROUPS + len(seen) + 10, "new")
        finally:
            await database.close()
        return seen, changed

    seen, changed = asyncio.run(scenario())

    there = {key_of(number) for number in range(GROUPS)}
    twice = {key for key in seen if seen.count(key) > 1} if len(seen) != len(set(seen)) else set()
    missing = there - set(seen)
    assert missing <= changed
    assert twice <= changed
    assert len(changed) >= 400
    if order.field == "KEY":
        assert (set(), set()) == (missing, twice)
    if order.field == "EVENTS":
        assert set() == (twice if order.descending else missing)
