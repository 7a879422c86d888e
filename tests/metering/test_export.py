"""`metering export usage`: the table says what GraphQL says, to the last digit, or there is no table."""

import asyncio
import csv
import io
import subprocess
import sys
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any, Final

import asyncpg
import pyarrow as pa
import pytest
from pyarrow import parquet

from metering.config import Settings
from metering.limits import LIMITS, Limits
from metering.rollups.refresh import Refresher
from metering.store.partitions import Partitions
from metering.store.pool import Database
from metering.store.tables import PARTITIONED_EVENT
from tests.conftest import (
    ENGINES,
    Api,
    Server,
    clean_environment,
    lock_waiters,
    metering_program,
    running,
    usage_event,
)

START: Final = datetime(2025, 3, 28, tzinfo=UTC)
USERS: Final = (None, "=1+1", "+1", "-1", "@a", 'quo"te, comma', "line\nbreak", "carriage\rreturn", "Ünï", " ", "null")
FIGURES: Final = ["unit", "quantity", "events", "minimum", "maximum"]
Cli = Callable[..., "subprocess.CompletedProcess[str]"]

DOCUMENT: Final = """
query ($query: UsageQuery!, $bucket: Bucket!) { usage(query: $query) { ... on UsageReport {
  groups(orderBy: { field: KEY, direction: ASC }, first: 1000) { nodes {
    key { account user product }
    totals { unit quantity events minimum maximum }
    series(bucket: $bucket, fill: NONE) { unit points { from to quantity events } }
  } }
} } }
"""


@pytest.fixture(scope="module", params=ENGINES)
def kept(servers: dict[str, Server], request: pytest.FixtureRequest) -> Iterator[tuple[Api, str]]:
    """The service over a few days of usage around a change of the clocks: rolled up, late, and with every awkward text."""
    server = servers[request.param]
    url = server.clone()
    events = [
        usage_event(
            number,
            occurred_at=(START + number * timedelta(hours=1, minutes=7)).isoformat(),
            account=("acme", "Zoë")[number % 2],
            user=USERS[number % len(USERS)],
            unit=("call", "byte")[number % 3 == 0],
            quantity=("1", "0.000000000000000001", "-2.5", "99999999999999999.5")[number % 4],
        )
        for number in range(88)
    ]

    async def refresh() -> None:
        database = await Database.connect(Settings(database_url=url), LIMITS)
        try:
            while await Refresher(database).run() is None:  # noqa: ASYNC110 - the service's own refresher ends its turn
                await asyncio.sleep(0)
        finally:
            await database.close()

    # So many points that GraphQL answers minutes, too.
    with running(url, Limits(points_max=1_000_000)) as api:
        assert 66 == api.send(events[:66])["accepted"]
        asyncio.run(refresh())
        assert 22 == api.send(events[66:])["accepted"]
        yield api, url
    server.drop(url)


def table(run_cli: Cli, url: str, *arguments: str) -> list[dict[str, str]]:
    """What the command writes as CSV."""
    done = run_cli("export", "usage", *arguments, METERING_DATABASE_URL=url)
    assert 0 == done.returncode, done.stderr
    # The pipe was read as text, which makes one kind of line break of all.
    return list(csv.DictReader(io.StringIO(done.stdout, newline="")))


def answered(api: Api, zone: str, bucket: str | None, **filters: Any) -> dict[tuple[Any, ...], tuple[str, ...]]:
    """GraphQL's answer by key, unit and bucket: quantity and events; with minimum and maximum where there is no bucket."""
    asked = {
        "period": {"from": "2025-03-28T03:30:00Z", "to": "2025-03-31T21:45:30Z"},
        "timeZone": zone,
        "groupBy": ["ACCOUNT", "USER"],
        "filter": filters,
    }
    nodes = api.ask(DOCUMENT, {"query": asked, "bucket": bucket or "DAY"})["usage"]["groups"]["nodes"]
    rows = {}
    for node in nodes:
        key = (node["key"]["account"], node["key"]["user"] or "")
        if bucket is None:
            for total in node["totals"]:
                rows[*key, total["unit"]] = tuple(total[name] for name in FIGURES[1:])
            continue
        for series in node["series"]:
            for point in series["points"]:
                rows[*key, series["unit"], point["from"], point["to"]] = (point["quantity"], point["events"])
    return rows


PERIOD: Final = ("--from", "2025-03-28T03:30:00Z", "--to", "2025-03-31T21:45:30Z", "--by", "account", "--by", "user")


@pytest.mark.parametrize("zone", ["Europe/Berlin", "Asia/Kathmandu"])
@pytest.mark.parametrize("bucket", ["MINUTE", "HOUR", "DAY", "WEEK", "MONTH"])
def test_the_table_is_what_graphql_answers(kept: tuple[Api, str], run_cli: Cli, zone: str, bucket: str) -> None:
    """For the same question the rows have the same buckets, groups, units and figures, in order; texts to the character."""
    api, url = kept
    rows = table(run_cli, url, *PERIOD, "--zone", zone, "--bucket", bucket.lower())

    actual = {
        (row["account"], row["user"], row["unit"], row["from"], row["to"]): (row["quantity"], row["events"])
        for row in rows
    }
    expected = answered(api, zone, bucket)
    assert {(key[0], plain_breaks(key[1]), *key[2:]): value for key, value in expected.items()} == {
        (key[0], plain_breaks(key[1]), *key[2:]): value for key, value in actual.items()
    }
    assert len(rows) == len(actual)
    assert [row["from"] for row in rows] == sorted(row["from"] for row in rows)


def plain_breaks(text: str) -> str:
    """A text with one kind of line break."""
    return text.replace("\r", "\n")


def test_without_buckets_a_row_is_the_whole_period(kept: tuple[Api, str], run_cli: Cli) -> None:
    """Minimum and maximum too; `--where` keeps what it names, alternatives of one dimension, and usage without a value."""
    api, url = kept
    where = ("--where", "user=", "--where", "user=Ünï", "--where", "unit=call")
    rows = table(run_cli, url, *PERIOD, *where)

    assert ["from", "to", "account", "user", *FIGURES] == list(rows[0])
    assert {("2025-03-28T03:30:00Z", "2025-03-31T21:45:30Z")} == {(row["from"], row["to"]) for row in rows}
    actual = {(row["account"], row["user"], row["unit"]): tuple(row[name] for name in FIGURES[1:]) for row in rows}
    assert answered(api, "UTC", None, user={"in": [None, "Ünï"]}, unit={"in": ["call"]}) == actual


def test_a_day_is_the_zones_own(kept: tuple[Api, str], run_cli: Cli) -> None:
    """`--from` and `--to` may be days, which begin when the zone's calendar says so."""
    _, url = kept
    days = table(run_cli, url, "--from", "2025-03-30", "--to", "2025-03-31", "--zone", "Europe/Berlin", "--by", "unit")

    assert {("2025-03-29T23:00:00Z", "2025-03-30T22:00:00Z")} == {(row["from"], row["to"]) for row in days}
    assert ["from", "to", *FIGURES] == list(days[0])
    assert ["byte", "call"] == [row["unit"] for row in days]


def test_parquet_holds_the_same_exactly(kept: tuple[Api, str], run_cli: Cli, tmp_path: Path) -> None:
    """Decimals are decimal128(38, 18), instants are UTC, nothing is rounded, and a missing value is null."""
    _, url = kept
    file = tmp_path / "usage.parquet"
    done = run_cli("export", "usage", *PERIOD, "--bucket", "day", "--output", str(file), METERING_DATABASE_URL=url)
    assert 0 == done.returncode, done.stderr
    read = parquet.read_table(file)
    rows = table(run_cli, url, *PERIOD, "--bucket", "day")

    assert ["from", "to", "account", "user", *FIGURES] == read.column_names
    assert {pa.decimal128(38, 18)} == {read.schema.field(name).type for name in ("quantity", "minimum", "maximum")}
    assert pa.timestamp("us", tz="UTC") == read.schema.field("from").type
    values = read.to_pylist()
    assert len(rows) == len(values)
    for row, value in zip(rows, values, strict=True):
        assert datetime.fromisoformat(row["from"]) == value["from"]
        assert [Decimal(row[name]) for name in ("quantity", "minimum", "maximum")] == [
            value[name] for name in ("quantity", "minimum", "maximum")
        ]
        assert (row["account"], int(row["events"])) == (value["account"], value["events"])
        assert (plain_breaks(row["user"]) or None) == (None if value["user"] is None else plain_breaks(value["user"]))
    assert [tmp_path / "usage.parquet"] == sorted(tmp_path.iterdir())


def test_texts_are_written_as_they_are_unless_it_is_asked_for(
    kept: tuple[Api, str], run_cli: Cli, tmp_path: Path
) -> None:
    """What a spreadsheet would compute is counted and named; with --escape-formulas it gets an apostrophe, numbers do not."""
    _, url = kept
    file = tmp_path / "usage.csv"

    def users(*more: str) -> tuple[set[str], set[str], str]:
        done = run_cli("export", "usage", *PERIOD, "--output", str(file), *more, METERING_DATABASE_URL=url)
        assert 0 == done.returncode, done.stderr
        with file.open(encoding="utf-8", newline="") as opened:
            rows = list(csv.DictReader(opened))
        return {row["user"] for row in rows}, {row["minimum"] for row in rows}, done.stderr

    plain, numbers, told = users()
    escaped, same_numbers, silent = users("--escape-formulas")

    assert {user or "" for user in USERS} == plain
    assert "texts begin with = + - @" in told
    assert "--escape-formulas" in told
    assert {f"'{user}" if user[:1] in {"=", "+", "-", "@"} else user for user in plain} == escaped
    assert "texts begin" not in silent
    assert "-2.5" in numbers
    assert numbers == same_numbers


def test_a_sum_that_parquet_does_not_hold_is_refused(database_url: str, run_cli: Cli, tmp_path: Path) -> None:
    """Twenty-one digits before the point are CSV's alone; no file is left, and one that was there stays."""
    with running(database_url) as api:
        api.send([usage_event(number, quantity="9" * 20) for number in range(2)])
    file = tmp_path / "usage.parquet"
    file.write_text("what was there")
    asked = ("export", "usage", "--from", "2026-03-01", "--to", "2026-03-02")
    refused = run_cli(*asked, "--output", str(file), METERING_DATABASE_URL=database_url)

    assert 1 == refused.returncode
    assert "199999999999999999998 has more digits" in refused.stderr
    assert "--format csv" in refused.stderr
    assert ([file], "what was there") == (list(tmp_path.iterdir()), file.read_text())
    assert "199999999999999999998" in run_cli(*asked, METERING_DATABASE_URL=database_url).stdout


def test_a_reader_that_goes_away_ends_it_quietly(database_url: str, tmp_path: Path) -> None:
    """A pipe that nobody reads any more is no error of ours: the command ends, without a traceback, and says so by its code."""
    asyncio.run(many_rows(database_url, 60_000))
    process = subprocess.Popen(
        [metering_program(), "export", "usage", "--from", "2026-03-02", "--to", "2026-03-03", "--by", "user"],
        env=clean_environment(METERING_DATABASE_URL=database_url),
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    with process:
        assert process.stdout is not None
        assert process.stderr is not None
        assert b"from,to,user,unit,quantity,events,minimum,maximum\r\n" == process.stdout.readline()
        process.stdout.close()
        complaint = process.stderr.read().decode()
        code = process.wait(60)

    assert 141 == code, complaint
    assert "Traceback" not in complaint
    assert "Error" not in complaint


async def many_rows(database_url: str, count: int) -> None:
    """So many users, one event each, made by the database."""
    database = await Database.connect(Settings(database_url=database_url), LIMITS)
    try:
        start = datetime(2026, 3, 2, tzinfo=UTC)
        await Partitions(database).ensure(PARTITIONED_EVENT, [start.date()])
        async with database.connection() as connection:
            await connection.execute(
                'INSERT INTO event (account, occurred_at, key, source, event_id, received_at, "user", product, unit, quantity) '
                "SELECT 'acme', $1, decode(md5(number::text), 'hex'), 'test', number::text, $1, 'user ' || number, 'maps', "
                "'call', 1 FROM generate_series(1, $2::int) AS number",
                start,
                count,
            )
    finally:
        await database.close()


def test_a_file_that_is_not_complete_has_no_name(database_url: str, tmp_path: Path) -> None:
    """An export that the database breaks off leaves the file that was there, and nothing beside it."""
    asyncio.run(many_rows(database_url, 30_000))
    file = tmp_path / "usage.csv"
    file.write_text("what was there")
    asked = ["export", "usage", "--from", "2026-03-02", "--to", "2026-03-03", "--by", "user", "--output", str(file)]

    async def broken_off() -> tuple[int | None, str, list[Path]]:
        connection = await asyncpg.connect(database_url)
        try:
            # Whoever reads events waits for this lock.
            async with asyncio.timeout(60), connection.transaction():
                await connection.execute("LOCK TABLE event IN ACCESS EXCLUSIVE MODE")
                process = await asyncio.create_subprocess_exec(
                    metering_program(),
                    *asked,
                    env=clean_environment(METERING_DATABASE_URL=database_url),
                    stderr=subprocess.PIPE,
                )
                await lock_waiters(database_url, 1)
                partial = await asyncio.to_thread(lambda: list(tmp_path.glob(".usage.csv.*.partial")))
                await connection.execute(
                    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = current_database() "
                    "AND backend_type = 'client backend' AND wait_event_type = 'Lock'"
                )
                _, complaint = await process.communicate()
        finally:
            await connection.close()
        return process.returncode, complaint.decode(), partial

    code, complaint, partial = asyncio.run(broken_off())

    assert 1 == len(partial)
    assert 1 == code
    assert "metering: The database is away" in complaint
    assert ([file], "what was there") == (list(tmp_path.iterdir()), file.read_text())


def test_every_fault_is_named_at_once(run_cli: Cli, tmp_path: Path) -> None:
    """What cannot be asked is refused before a database is asked for, each option with what to write instead."""
    asked = (
        "--from",
        "yesterday",
        "--to",
        "2026-01-01T00:00:00",
        "--by",
        "user",
        "--by",
        "user",
        "--zone",
        "Mars/Olympus",
    )
    where = ("--where", "colour=red", "--where", "user", "--format", "parquet", "--escape-formulas")
    refused = run_cli("export", "usage", *asked, *where)

    assert 1 == refused.returncode
    options = ["--output:", "--escape-formulas:", "--from:", "--to:", "--where:", "--where:", "--zone:", "--by:"]
    assert options == [line.split()[1] for line in refused.stderr.splitlines()]
    refused = run_cli("export", "usage", *(asked[:4]), "--output", str(tmp_path / "usage.xlsx"))
    assert ["--output:", "--from:", "--to:"] == [line.split()[1] for line in refused.stderr.splitlines()]
    backwards = run_cli("export", "usage", "--from", "2026-01-02", "--to", "2026-01-01")
    assert "--from, --to: `to` must be later than `from`" in backwards.stderr


def test_more_buckets_than_a_table_may_have_are_refused(run_cli: Cli) -> None:
    """A century of minutes is refused by its number, with what to ask for instead."""
    refused = run_cli("export", "usage", "--from", "1990-01-01", "--to", "2090-01-01", "--bucket", "minute")

    assert 1 == refused.returncode
    assert f"one export may have {LIMITS.export_buckets_max:,}" in refused.stderr
    assert "a shorter period or a larger bucket" in refused.stderr


def test_without_pyarrow_it_says_how_to_install_it(tmp_path: Path) -> None:
    """Parquet without pyarrow is refused with the command that installs it, and with what does without."""
    hide = "import sys; sys.modules['pyarrow'] = None; from metering.cli import main; main()"
    arguments = ["export", "usage", "--from", "2026-01-01", "--to", "2026-01-02", "--output", "usage.parquet"]
    refused = subprocess.run(
        [sys.executable, "-c", hide, *arguments],
        env=clean_environment(METERING_DATABASE_URL="postgresql://127.0.0.1:1/none"),
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )

    assert 1 == refused.returncode
    assert "pip install 'metering[export]'" in refused.stderr
    assert "--format csv" in refused.stderr
    assert [] == list(tmp_path.iterdir())
