"""A month's run draws on credits as freezing one after the other does, and costs accounts without any almost nothing."""

import csv
import io
import subprocess
from collections.abc import Callable, Sequence
from decimal import Decimal
from typing import Any

import asyncpg
import pytest

from metering.limits import LIMITS
from metering.statements.batch import Month, bill, read_page
from metering.statements.credits import draw, with_credits
from metering.statements.drafts import Draft
from metering.store.pool import Database
from metering.store.snapshot import Snapshot
from rating.plans import PlanPrice
from rating.prices import Flat
from tests.metering.billing import freeze, offer
from tests.metering.catalog import order, play, put
from tests.metering.crediting import check_books, credited, give, left, revoke

MARCH = Month(2025, 3)
TEN = PlanPrice(key="base", price=Flat(Decimal(10)))


class CountingSnapshot(Snapshot):
    """A snapshot that counts what it is asked."""

    asked = 0

    async def fetch(self, statement: str, arguments: Sequence[object] = (), *, hashed: bool = False) -> list[Any]:
        """The rows, and one more question."""
        self.asked += 1
        return await super().fetch(statement, arguments, hashed=hashed)


async def sell(database: Database, count: int = 5) -> None:
    """Subscriptions of acme, and one of beta, to 10.00 a month."""
    await offer(database, TEN)
    for number in range(2, count + 1):
        await put(database, order(key=f"s-{number}", starts_at=order().starts_at.replace(year=2025)))
    await put(database, order(key="t-1", account="beta", starts_at=order().starts_at.replace(year=2025)))


async def run(database: Database, *, finalize: bool = True) -> list[tuple[str, list[str], str]]:
    """A month's statements, with what credits pay of each."""
    shown = []
    async for page in bill(database, MARCH, LIMITS, by="a test", finalize=finalize):
        for billed in page.billed:
            assert billed.statement is not None
            shown.append((billed.subscription, credited(billed.statement), str(billed.statement.owed)))
    return shown


def test_a_run_draws_one_after_the_other(database_url: str) -> None:
    """Of 35.00 for five statements of 10.00 the first three are paid, and half of the fourth; each draft alone shows all that
    it could draw. A second run draws nothing.
    """

    async def scenario(database: Database) -> None:
        await sell(database)
        await give(database, "paid", "35")
        full, none = ["base: credit paid -10.00"], list[str]()
        alone = [(f"s-{number}", full, "0.00 EUR") for number in range(1, 6)]
        paid = [*alone[:3], ("s-4", ["base: credit paid -5.00"], "5.00 EUR"), ("s-5", none, "10.00 EUR")]

        assert [*alone, ("t-1", none, "10.00 EUR")] == await run(database, finalize=False)
        assert {"paid": "35.00"} == await left(database)
        assert [*paid, ("t-1", none, "10.00 EUR")] == await run(database) == await run(database)
        assert {"paid": "0.00"} == await left(database)
        await check_books(database)

    play(database_url, scenario)


def test_what_changed_meanwhile_is_looked_at_again(database_url: str) -> None:
    """What others drew between the draft and its freezing is not there any more, nor is a grant that was voided."""

    async def scenario(database: Database) -> None:
        await sell(database)
        await give(database, "first", "12", priority=0)
        await give(database, "gone", "100", priority=1)
        async with Snapshot(database) as snapshot:
            page = await read_page(snapshot, MARCH, None, LIMITS)
        drafts = [each.statement for each in page.billed if isinstance(each.statement, Draft)]
        await freeze(database, "2025-02-10", "s-5")
        await revoke(database, "gone")
        async with database.transaction() as connection:
            drawings = await draw(connection, drafts)

        assert [["2.00"], *([[]] * 5)] == [[f"{move.amount:f}" for move in each.movements] for each in drawings]

    play(database_url, scenario)


@pytest.mark.parametrize("has_credits", [False, True])
def test_accounts_without_credits_cost_one_look_up(database_url: str, has_credits: bool) -> None:  # noqa: FBT001 - a case
    """For all drafts of a batch together there is one question, and none when they are frozen; where there are grants that
    are not cut by a period, it is one question each.
    """

    async def scenario(database: Database) -> None:
        await sell(database)
        if has_credits:
            await give(database, "paid", "100")
        async with Snapshot(database) as snapshot:
            page = await read_page(snapshot, MARCH, None, LIMITS)
        drafts = [each.statement for each in page.billed if isinstance(each.statement, Draft)]
        async with CountingSnapshot(database) as counting:
            assert len(drafts) == len(await with_credits(counting, drafts))
            assert 1 == counting.asked
        queries: list[asyncpg.connection.LoggedQuery] = []
        async with database.transaction() as connection:
            with connection.query_logger(queries.append):
                await draw(connection, drafts)
        # The driver asks for what it does not know of types by itself.
        assert int(has_credits) == len([each for each in queries if "credit_" in each.query])

    play(database_url, scenario)


def test_the_command_and_the_export_say_what_credits_pay(
    database_url: str, run_cli: Callable[..., "subprocess.CompletedProcess[str]"]
) -> None:
    """A run says what its statements come to before credits and what credits pay; an export has totals before and after, and
    its lines are before.
    """

    async def scenario(database: Database) -> None:
        await sell(database)
        await give(database, "paid", "35")

    play(database_url, scenario)
    done = run_cli("statements", "--period", "2025-03", "--finalize", METERING_DATABASE_URL=database_url)
    exported = {
        what: list(
            csv.DictReader(
                io.StringIO(run_cli("export", what, "--period", "2025-03", METERING_DATABASE_URL=database_url).stdout)
            )
        )
        for what in ("statements", "charges")
    }

    assert ["2025-03: 6 finalized", "  60.00 EUR before credits, and -35.00 EUR of credits"] == done.stdout.splitlines()
    owed = [(row["subscription"], row["total"], row["total_before_credits"]) for row in exported["statements"]]
    assert [("s-4", "5", "10"), ("s-5", "10", "10")] == owed[3:5]
    assert {("base", "10")} == {(row["price"], row["amount"]) for row in exported["charges"]}
