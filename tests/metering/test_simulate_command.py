"""`metering simulate`: what GraphQL answers, for any number of subscriptions."""

import csv
import io
import subprocess
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path
from typing import Any, Final

import msgspec
import pytest
from pyarrow import parquet

from metering.store.pool import Database
from rating.definitions import definition_of
from rating.plans import PlanPrice
from rating.prices import Flat
from tests.metering.billing import BASE, CALLS, call, offer, use
from tests.metering.catalog import draft, order, play, publish, put
from tests.rating.tables import at

Cli = Callable[..., "subprocess.CompletedProcess[str]"]
LEAN: Final = draft(PlanPrice(key="base", price=Flat(Decimal(12))), key="lean")


async def customers(database: Database) -> None:
    """One with 20 calls of two users, one without any, and one in JPY; `lean` is 12 whatever is used."""
    await offer(database, BASE, CALLS)
    await publish(database, LEAN)
    await publish(database, draft(BASE, key="yen", currency_code="JPY"))
    await put(database, order(key="=s-2", account="beta", starts_at=at("2025-01-01")))
    await put(database, order(key="s-3", account="yen", plan="yen", starts_at=at("2025-01-01")))
    await use(database, call(1, "2025-03-10", "15", user="x"), call(2, "2025-03-11", "5", user="y"))


def run(run_cli: Cli, url: str, *arguments: str) -> list[str]:
    """What it says of March."""
    done = run_cli("simulate", "--period", "2025-03", *arguments, METERING_DATABASE_URL=url)
    assert 0 == done.returncode, done.stderr
    return done.stdout.splitlines()


def test_the_command_says_who_would_pay_more(database_url: str, run_cli: Cli, tmp_path: Path) -> None:
    """Counts, sums and the biggest differences; of a draft in a file the same as of the plan that it is published as."""
    play(database_url, customers)
    expected = [
        "1 would pay more, 1 less, 0 the same",
        "  26.66 EUR now, 24.00 EUR then",
        "  1 subscriptions are in another currency, and left out",
        "  -4.66 EUR s-1",
        "  +2.00 EUR =s-2",
    ]
    assert expected == run(run_cli, database_url, "--plan", "lean")
    assert expected == run(run_cli, database_url, "--plan", "lean", "--plan-version", "1")
    file = tmp_path / "lean.json"
    ignored = {"key", "version", "effectiveFrom", "interval"}
    file.write_bytes(
        msgspec.json.encode({name: each for name, each in definition_of(LEAN).items() if name not in ignored})
    )
    assert expected == run(run_cli, database_url, "--draft", str(file))
    assert expected[3:4] == run(run_cli, database_url, "--plan", "lean", "--account", "acme")[2:]
    split = run(run_cli, database_url, "--plan", "lean", "--by-user", "--account", "acme")
    assert "  1 light users: 1.66 EUR now, 0.00 EUR then" == split[2]
    assert "  1 heavy users: 5.00 EUR now, 0.00 EUR then" == split[3]
    assert ["  -5.00 EUR s-1, x", "  +2.00 EUR s-1", "  -1.66 EUR s-1, y"] == split[4:]


def test_all_rows_are_written(database_url: str, run_cli: Cli, tmp_path: Path) -> None:
    """CSV and Parquet have all rows, by subscription and user, and add up to what is said."""
    play(database_url, customers)
    for name in ("rows.csv", "rows.parquet"):
        said = run(run_cli, database_url, "--plan", "lean", "--by-user", "--output", str(tmp_path / name))
        assert "  26.66 EUR now, 24.00 EUR then" == said[1]
        assert 5 == len(said)
    read: list[dict[str, Any]] = parquet.read_table(tmp_path / "rows.parquet").to_pylist()
    texts = list(csv.DictReader(io.StringIO((tmp_path / "rows.csv").read_text(), newline="")))

    assert [("=s-2", None, None), ("s-1", "x", "HEAVY"), ("s-1", "y", "LIGHT"), ("s-1", None, None)] == [
        (row["subscription"], row["user"], row["weight"]) for row in read
    ]
    assert ["2", "-5", "-1.66", "2"] == [row["difference"] for row in texts]
    assert [Decimal(row["simulated"]) for row in texts] == [row["simulated"] for row in read]
    assert Decimal("26.66") == sum(row["current"] for row in read)


@pytest.mark.parametrize(
    ("arguments", "fault"),
    [
        ([], "--plan: Name a plan"),
        (["--plan", "absent"], "There is no plan 'absent'"),
        (["--plan", "yen", "--account", "acme"], "--plan: The plan is in JPY"),
        (["--plan-version", "1"], "--plan-version: A version is that of a plan"),
        (["--plan", "lean", "--output", "rows.txt"], "--output: rows.txt is not .csv or .parquet"),
        (["--plan", "lean", "--output", "r.parquet", "--escape-formulas"], "--escape-formulas: is for CSV"),
        (["--draft", "absent.json"], "holds no plan"),
        (["--draft", "broken.json"], "holds no plan"),
        (["--draft", "faulty.json"], "--draft.prices.0.price.flat.amount: -0.1 is below zero"),
    ],
)
def test_what_cannot_be_simulated(
    database_url: str, run_cli: Cli, tmp_path: Path, arguments: list[str], fault: str
) -> None:
    """What is wrong is said with the option that it is of, nothing is written, and the exit code is 1."""
    play(database_url, customers)
    (tmp_path / "broken.json").write_text('{"name": "x", "prices": [{"key": "a", "price": {"free": {}}}]}')
    (tmp_path / "faulty.json").write_text(
        '{"name": "x", "currencyCode": "EUR", "prices": [{"key": "a", "price": {"flat": {"amount": -0.1}}}]}'
    )
    done = run_cli("simulate", "--period", "2025-03", *arguments, METERING_DATABASE_URL=database_url)

    assert (1, "") == (done.returncode, done.stdout)
    assert fault in done.stderr
    assert {"broken.json", "faulty.json"} == {path.name for path in tmp_path.iterdir()} - {".metering"}
