"""`metering statements` and its exports: a month of all subscriptions, frozen once each, however often it is run."""

import asyncio
import csv
import io
import subprocess
from collections import Counter
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any, Final

import msgspec
import pytest
from pyarrow import parquet

from metering.limits import LIMITS
from metering.periods import zone_of
from metering.statements.batch import Billed, Month, bill
from metering.statements.history import FinalStatement
from metering.store.pool import Database
from rating.billing_periods import BillingInterval
from rating.periods import Period
from tests.metering.billing import BASE, CALLS, TIERS, ask, call, freeze, offer, roll_up, take_back, use
from tests.metering.catalog import draft, order, play, publish, put, rows
from tests.rating.tables import at, period

MARCH: Final = Month(2025, 3)
PAGES_OF_TWO: Final = msgspec.structs.replace(LIMITS, statement_page_subscriptions=2)
Cli = Callable[..., "subprocess.CompletedProcess[str]"]


async def customers(database: Database) -> None:
    """Subscriptions of five kinds, on two plans, some with usage; s-3 is in Auckland, s-4 ended in March, s-5 is weekly."""
    await offer(database)
    await publish(database, draft(BASE, CALLS, TIERS, key="weekly", interval=BillingInterval.WEEK))
    fields: Sequence[dict[str, Any]] = [
        {"key": "s-2", "account": "beta", "billing_anchor": at("2025-01-15T14:37:22")},
        {"key": "s-3", "account": "gamma", "time_zone": "Pacific/Auckland", "starts_at": at("2025-01-31T11:00")},
        {"key": "s-4", "account": "delta", "ends_at": at("2025-03-20")},
        {"key": "s-5", "account": "epsilon", "plan": "weekly"},
    ]
    for each in fields:
        await put(database, order(**{"starts_at": at("2025-01-01"), **each}))
    await use(
        database,
        call(1, "2025-03-31T23:00", "3"),
        call(2, "2025-03-15T14:37:21", "4", account="beta", subscription="s-2"),
        call(3, "2025-03-31T10:59:59", "5", account="gamma", subscription="s-3"),
        call(4, "2025-03-05", "6", account="epsilon", subscription="s-5"),
        call(5, "2025-03-05", "6", account="epsilon", subscription="s-5", unit="byte"),
    )


async def run(database: Database, month: Month = MARCH, *, finalize: bool = True) -> list[Billed]:
    """A run in pages of two subscriptions."""
    pages = [page async for page in bill(database, month, PAGES_OF_TWO, by="a test", finalize=finalize)]
    assert all(page.subscriptions <= 2 for page in pages)
    return [billed for page in pages for billed in page.billed]


def counted(billed: Sequence[Billed]) -> dict[str, int]:
    """How many there are of each outcome."""
    return dict(Counter(each.outcome.value for each in billed))


def test_a_month_of_every_subscription(database_url: str) -> None:
    """A run has the statements of all billing periods that end in the month of the subscription's zone, each as it is when
    it is asked for alone; it freezes them once, and a draft's run stores nothing.
    """

    async def scenario(database: Database) -> None:
        await customers(database)
        drafts = await run(database, finalize=False)
        ends = [(each.subscription, each.period.end) for each in drafts]

        months = [("s-1", at("2025-04-01")), ("s-2", at("2025-03-15T14:37:22")), ("s-3", at("2025-03-31T11:00"))]
        weeks = [("s-5", at(f"2025-03-{day:02}")) for day in (5, 12, 19, 26)]
        assert [*months, ("s-4", at("2025-03-20")), *weeks] == ends
        for each in drafts:
            assert each.statement is not None
            alone = await ask(database, f"{each.period.start:%FT%T}", each.subscription)
            assert (alone.lines, alone.evidence.unrated) == (each.statement.lines, each.statement.evidence.unrated)
        assert {"draft": 8} == counted(drafts)
        assert [] == await rows(database, "SELECT FROM statement")
        assert {"finalized": 8} == counted(await run(database))
        assert {"final already": 8} == counted(await run(database))
        assert [(8, "a test")] == await rows(database, "SELECT count(*), min(finalized_by) FROM statement")

    play(database_url, scenario)


def test_a_run_that_is_broken_off_goes_on(database_url: str) -> None:
    """What a run had frozen before it was broken off is final, and the next run freezes the rest; several at once too."""

    async def scenario(database: Database) -> None:
        await customers(database)
        async for _ in bill(database, MARCH, PAGES_OF_TWO, by="a test", finalize=True):
            break
        assert [(2,)] == await rows(database, "SELECT count(*) FROM statement")
        runs = await asyncio.gather(*(run(database) for _ in range(3)))
        assert [(8,)] == await rows(database, "SELECT count(*) FROM statement")
        assert all(8 == len([each for each in one if isinstance(each.statement, FinalStatement)]) for one in runs)
        assert 1 == len({tuple((each.subscription, each.period) for each in one) for one in runs})

    play(database_url, scenario)


def test_a_run_carries_what_changed(database_url: str) -> None:
    """The next month's run carries what has become of frozen periods, for ended subscriptions on closing statements."""

    async def scenario(database: Database) -> None:
        await customers(database)
        finals = await run(database)
        await roll_up(database)
        await use(
            database,
            call(11, "2025-03-10", "10"),
            call(12, "2025-03-10", "10", account="delta", subscription="s-4"),
            call(13, "2025-03-10", "10", account="epsilon", subscription="s-5"),
        )
        april = await run(database, Month(2025, 4))
        carried = {
            each.subscription: {line.adjusts.start for line in each.statement.lines if line.adjusts is not None}
            for each in april
            if each.statement is not None and any(line.adjusts for line in each.statement.lines)
        }

        week = at("2025-03-05")
        assert {"s-1": {at("2025-03-01")}, "s-4": {at("2025-03-01")}, "s-5": {week}} == carried
        (closing,) = [each for each in april if each.subscription == "s-4"]
        assert at("2025-03-20") == closing.period.start
        voided = next(each.statement for each in finals if each.subscription == "s-1")
        assert isinstance(voided, FinalStatement)
        await take_back(database, voided)
        assert {"finalized": 1, "final already": 7} == counted(
            [each for each in await run(database) if each.period != closing.period]
        )

    play(database_url, scenario)


def test_what_is_running_is_not_frozen(database_url: str) -> None:
    """Of the running month a run freezes what is over, and says what is not."""

    async def scenario(database: Database) -> None:
        await offer(database)
        now = (await rows(database, "SELECT now()"))[0][0].astimezone(UTC)
        assert {"not over yet": 1} == counted(await run(database, Month(now.year, now.month)))
        assert [] == await rows(database, "SELECT FROM statement")

    play(database_url, scenario)


def test_what_cannot_be_computed_fails_alone(database_url: str, run_cli: Cli) -> None:
    """A statement whose events are not kept any more is named with the reason, the others are frozen, and the exit code
    is 1; an export that would lack it is none.
    """

    async def scenario(database: Database) -> None:
        await customers(database)
        await roll_up(database)
        async with database.connection() as connection:
            await connection.execute("UPDATE retained_range SET raw_from = '2025-04-01', taken_from = '2025-04-01'")

    play(database_url, scenario)
    exported = run_cli("export", "statements", "--period", "2025-03", METERING_DATABASE_URL=database_url)
    done = run_cli("statements", "--period", "2025-03", "--finalize", METERING_DATABASE_URL=database_url)

    assert (1, "2025-03: 7 finalized, 1 failed") == (done.returncode, done.stdout.splitlines()[0])
    assert "'s-2' from 2025-02-15T14:37:22Z on was not frozen" in done.stderr
    assert 1 == exported.returncode
    assert "Nothing is exported" in exported.stderr


@pytest.mark.parametrize(
    ("month", "zone", "bounds"),
    [
        (Month(2025, 12), "UTC", period("2025-12-01", "2026-01-01")),
        (Month(2025, 3), "Europe/Berlin", period("2025-02-28T23:00", "2025-03-31T22:00")),
        (Month(2025, 3), "Pacific/Auckland", period("2025-02-28T11:00", "2025-03-31T11:00")),
    ],
)
def test_months(month: Month, zone: str, bounds: Period) -> None:
    """A month is the calendar's in the zone, also where clocks change in it, and at the end of a year."""
    assert bounds == month.bounds(zone_of(zone))


# ---------------------------------------------------------------- the command line


def test_the_command_says_what_it_did(database_url: str, run_cli: Cli) -> None:
    """Counts by outcome, amounts by currency and unrated usage; a draft's run first, then freezing, then nothing to do."""
    play(database_url, customers)

    def outcome(*arguments: str) -> list[str]:
        done = run_cli("statements", "--period", "2025-03", *arguments, METERING_DATABASE_URL=database_url)
        assert 0 == done.returncode, done.stderr
        return done.stdout.splitlines()

    unrated = "  1 with usage that no price covers: `metering export statements` names them"
    drafts = outcome()
    assert ["2025-03: 8 draft", unrated] == [drafts[0], drafts[2]]
    assert ["2025-03: 8 finalized", *drafts[1:]] == outcome("--finalize")
    assert ["2025-03: 8 final already", *drafts[1:]] == outcome("--finalize")


@pytest.mark.parametrize("text", ["2025-13", "2025", "2025-3", "25-03", "1899-01", "2199-01", "March", "٢٠٢٥-03"])
def test_what_is_no_month(run_cli: Cli, text: str) -> None:
    """What is not a month is refused, with the form that it has; no database is needed for that."""
    for command in (["statements"], ["export", "statements"], ["export", "charges"]):
        done = run_cli(*command, "--period", text)
        assert (1, "") == (done.returncode, done.stdout)
        assert "such as 2026-10" in done.stderr


def table(run_cli: Cli, url: str, what: str, *arguments: str) -> list[dict[str, str]]:
    """What an export of March writes as CSV."""
    done = run_cli("export", what, "--period", "2025-03", *arguments, METERING_DATABASE_URL=url)
    assert 0 == done.returncode, done.stderr
    return list(csv.DictReader(io.StringIO(done.stdout, newline="")))


@pytest.mark.parametrize("what", ["statements", "charges"])
def test_exports_are_the_statements(database_url: str, run_cli: Cli, tmp_path: Path, what: str) -> None:
    """CSV and Parquet have the same rows, of final statements and of drafts, to the last digit; lines add up to totals."""

    async def scenario(database: Database) -> None:
        await customers(database)
        await freeze(database, "2025-02-10")
        await use(database, call(11, "2025-02-10", "10"))
        await freeze(database, "2025-03-10")

    play(database_url, scenario)
    found = table(run_cli, database_url, what)
    file = tmp_path / "march.parquet"
    done = run_cli("export", what, "--period", "2025-03", "--output", str(file), METERING_DATABASE_URL=database_url)
    assert 0 == done.returncode, done.stderr
    read = parquet.read_table(file).to_pylist()

    assert list(found[0]) == list(read[0])
    volatile = {"as_of"}
    assert [{name: cell for name, cell in row.items() if name not in volatile} for row in found] == [
        {name: spelled(cell) for name, cell in row.items() if name not in volatile} for row in read
    ]
    totals = {row["from"] + row["subscription"]: row["total"] for row in table(run_cli, database_url, "statements")}
    if what == "charges":
        sums: dict[str, Decimal] = {}
        for row in found:
            name = row["from"] + row["subscription"]
            sums[name] = sums.get(name, Decimal(0)) + Decimal(row["amount"])
        assert {name: Decimal(total) for name, total in totals.items()} == sums
        (adjusted,) = {row["description"] for row in found if row["adjusts_from"] and row["price"] == "calls"}
        assert "calls: adjustment of 2025-02-01T00:00:00Z to 2025-03-01T00:00:00Z" == adjusted
    else:
        assert Counter({"DRAFT": 7, "FINAL": 1}) == Counter(row["status"] for row in found)
        assert 8 == len(totals)
        assert ["1"] == [row["unrated_events"] for row in found if row["unrated_events"] != "0"]


def spelled(cell: object) -> str:
    """A cell of Parquet as CSV writes it."""
    if cell is None:
        return ""
    if isinstance(cell, datetime):
        return cell.isoformat().replace("+00:00", "Z")
    if isinstance(cell, Decimal):
        text = f"{cell:f}"
        return text.rstrip("0").rstrip(".") if "." in text else text
    return str(cell)


def test_an_empty_month_is_an_empty_table(database_url: str, run_cli: Cli, tmp_path: Path) -> None:
    """Where there are no statements, the command says so, and a table has its names and no rows."""
    done = run_cli("statements", "--period", "2025-03", METERING_DATABASE_URL=database_url)
    assert (0, "2025-03: no statements\n") == (done.returncode, done.stdout)
    assert [] == table(run_cli, database_url, "charges")
    file = tmp_path / "march.parquet"
    arguments = ("export", "charges", "--period", "2025-03", "--output", str(file))
    assert 0 == run_cli(*arguments, METERING_DATABASE_URL=database_url).returncode
    assert 0 == parquet.read_table(file).num_rows
