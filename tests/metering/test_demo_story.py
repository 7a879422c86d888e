"""The demo's year: the same in every run, within the contract, and with both of its stories in it."""

import datetime as dt
import hashlib
import os
import subprocess
import sys
from collections import Counter, defaultdict
from collections.abc import Iterator
from decimal import Decimal
from itertools import islice
from pathlib import Path
from typing import Annotated
from zoneinfo import ZoneInfo

import msgspec
import pytest

from metering.demo.cast import (
    CUSTOMERS,
    FAMILY,
    FEATURE_LAUNCH_DAY,
    FEATURES,
    ONBOARDING_DAYS,
    SILENT_TEAM,
    WEEKEND,
    ZONES,
)
from metering.demo.story import DEMO_EVENTS_ABOUT, YEAR_DAYS, UsageEventFields, demo_events

THROUGH = dt.date(2026, 8, 23)
HEAD_EVENTS = 5_000
DIGEST_SCRIPT = """
import datetime, hashlib, msgspec
from metering.demo.story import demo_events
digest = hashlib.sha256()
for event in demo_events(datetime.date.fromisoformat("2026-08-23")):
    digest.update(msgspec.json.encode(event))
print(digest.hexdigest())
"""

Name = Annotated[str, msgspec.Meta(min_length=1, max_length=256)]
Text = Annotated[str, msgspec.Meta(min_length=1)]


class ContractEvent(msgspec.Struct, forbid_unknown_fields=True):
    """An event as the ingest contract has it; a field that is absent is left out, never null."""

    id: Name
    source: Name
    occurred_at: Annotated[dt.datetime, msgspec.Meta(tz=True)]
    account: Text
    product: Text
    unit: Text
    quantity: Decimal
    subscription: Text | msgspec.UnsetType = msgspec.UNSET
    user: Text | msgspec.UnsetType = msgspec.UNSET
    device: Text | msgspec.UnsetType = msgspec.UNSET
    feature: Text | msgspec.UnsetType = msgspec.UNSET
    classification: Text | msgspec.UnsetType = msgspec.UNSET
    attributes: dict[str, str] | msgspec.UnsetType = msgspec.UNSET


DECODER = msgspec.json.Decoder(ContractEvent)


Kind = tuple[tuple[str, ...], str, str, str, str | None]  # the fields there are, product, feature, unit, classification


class Year:
    """What one walk through the year's events leaves: the events themselves would fill the memory."""

    def __init__(self) -> None:
        self.digest = hashlib.sha256()
        self.head: list[UsageEventFields] = []
        self.count = 0
        self.names: set[str] = set()  # account, source and id
        self.by_day: dict[tuple[str, str], int] = defaultdict(int)  # date, account; in the order of the stream
        self.by_kind: dict[Kind, int] = defaultdict(int)
        self.holders: set[tuple[str, str | None, str | None]] = set()  # account, device, user
        self.team: dict[str, set[dt.date]] = defaultdict(set)
        self.team_hours: dict[tuple[str, dt.date], Decimal] = defaultdict(Decimal)
        self.team_features: dict[str, set[dt.date]] = defaultdict(set)
        self.family: dict[tuple[str, str, str], Decimal] = defaultdict(Decimal)

    def walk(self, events: Iterator[UsageEventFields]) -> None:
        """Take in all events. Decoding each by the contract is the check that every one of them keeps it."""
        for event in events:
            encoded = msgspec.json.encode(event)
            checked = DECODER.decode(encoded)
            self.digest.update(encoded)
            if self.count < HEAD_EVENTS:
                self.head.append(event)
            self.count += 1
            account = event["account"]
            kind = (tuple(event), event["product"], event["feature"], event["unit"], event.get("classification"))
            self.by_kind[kind] += 1
            self.by_day[event["occurred_at"][:10], account] += 1
            self.names.add(f"{account} {event['source']} {event['id']}")
            self.holders.add((account, event.get("device"), event.get("user")))
            if account in {SILENT_TEAM.account, FAMILY.account}:
                self._add_to_stories(event, checked)

    def _add_to_stories(self, event: UsageEventFields, checked: ContractEvent) -> None:
        date = checked.occurred_at.date()
        if event["account"] == SILENT_TEAM.account:
            self.team[event["user"]].add(date)
            self.team_hours[event["user"], date] += checked.quantity
            self.team_features[event["feature"]].add(date)
        else:
            self.family[date.isoformat()[:7], event["device"], event["feature"]] += checked.quantity

    def by_date(self) -> Counter[str]:
        """How many events each date has, in the order of the stream."""
        by_date: Counter[str] = Counter()
        for (date, _), count in self.by_day.items():
            by_date[date] += count
        return by_date

    def by_account(self) -> Counter[str]:
        """How many events each account has."""
        by_account: Counter[str] = Counter()
        for (_, account), count in self.by_day.items():
            by_account[account] += count
        return by_account

    def share_with(self, key: str) -> float:
        """How much of all events has a field."""
        return sum(count for kind, count in self.by_kind.items() if key in kind[0]) / self.count


@pytest.fixture(scope="module")
def other_process() -> Iterator[subprocess.Popen[str]]:
    """Another process with hashes seeded otherwise, which digests the stream while this one walks it."""
    with subprocess.Popen(
        [sys.executable, "-c", DIGEST_SCRIPT],
        cwd=Path(__file__).parents[2],
        env={**os.environ, "PYTHONHASHSEED": "4711"},
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        yield process


@pytest.fixture(scope="module")
def year() -> Year:
    """The year that ends with `THROUGH`, walked once."""
    year = Year()
    year.walk(demo_events(THROUGH))
    return year


# ---------------------------------------------------------------- the stream


def test_another_process_gives_the_same_bytes(other_process: subprocess.Popen[str], year: Year) -> None:
    """The whole stream is the same in another process whose hashes are seeded otherwise."""
    output, _ = other_process.communicate()

    assert year.digest.hexdigest() == output.strip()


def test_a_second_run_gives_the_same_events(year: Year) -> None:
    """A run leaves nothing behind that would change the next one in the same process."""
    assert year.head == list(islice(demo_events(THROUGH), HEAD_EVENTS))


def test_another_end_or_seed_makes_other_events(year: Year) -> None:
    """A demo of another day or seed shares no name with this one, so it cannot conflict with it."""
    tomorrow = demo_events(THROUGH + dt.timedelta(days=1))
    reseeded = demo_events(THROUGH, seed=1)

    others = {event["id"] for events in (tomorrow, reseeded) for event in islice(events, HEAD_EVENTS)}

    assert set() == others & {event["id"] for event in year.head}


def test_some_accounts_alone_have_the_events_that_they_have_among_all(year: Year) -> None:
    """What an account does depends on no other account."""
    accounts = {FAMILY.account, SILENT_TEAM.account, CUSTOMERS[0].account}
    among_all = [event for event in year.head if event["account"] in accounts]

    assert accounts == {event["account"] for event in among_all} | {SILENT_TEAM.account}
    assert among_all == list(islice(demo_events(THROUGH, accounts=accounts), len(among_all)))


def test_names_are_unique(year: Year) -> None:
    """No two events share account, source and id."""
    assert year.count == len(year.names)


def test_all_events_lie_within_the_year(year: Year) -> None:
    """Each of the 365 days before the end has events, no other day has, and the days come in order."""
    dates = [(THROUGH - dt.timedelta(days=ago)).isoformat() for ago in range(YEAR_DAYS, 0, -1)]

    assert dates == list(year.by_date())
    assert dates == sorted(dates)


def test_the_year_is_as_large_as_said(year: Year) -> None:
    """Between 400,000 and 500,000 events, within two percent of what the progress bar is told."""
    assert 400_000 <= year.count <= 500_000
    assert abs(year.count - DEMO_EVENTS_ABOUT) < 0.02 * DEMO_EVENTS_ABOUT


def test_the_cast_is_complete(year: Year) -> None:
    """Forty accounts act, and every feature of every product is used, each in its unit."""
    accounts = {customer.account for customer in CUSTOMERS} | {FAMILY.account, SILENT_TEAM.account}

    assert accounts == set(year.by_account())
    assert len(accounts) == 40
    assert {(feature.product, feature.name, feature.unit) for feature in FEATURES} == {
        kind[1:4] for kind in year.by_kind
    }


def test_the_year_is_believable(year: Year) -> None:
    """A few customers are most of the usage, weekends and Christmas are quieter, trials and machines occur."""
    sizes, by_date = [count for _, count in year.by_account().most_common()], year.by_date()
    weekend = [count for date, count in by_date.items() if dt.date.fromisoformat(date).weekday() in WEEKEND]

    assert sum(sizes[:4]) > 0.35 * year.count
    assert sum(weekend) / len(weekend) < 0.6 * year.count / YEAR_DAYS
    assert by_date["2025-12-25"] < 0.7 * by_date["2025-12-18"]
    assert {"billable", "trial", "peak", "off_peak", "internal", "setup", None} == {kind[-1] for kind in year.by_kind}
    assert 0.5 < year.share_with("user") < 0.9
    assert 0.8 < year.share_with("device") < 1
    assert 0 < year.share_with("attributes") < 0.3


def test_customers_come_and_go(year: Year) -> None:
    """An account acts from the day it joined to the day it left, and not outside."""
    for customer in CUSTOMERS:
        dates = [date for date, account in year.by_day if account == customer.account]
        joined = THROUGH - dt.timedelta(days=customer.joined_days_ago or YEAR_DAYS)
        left = THROUGH - dt.timedelta(days=customer.left_days_ago or 0)
        assert joined.isoformat() <= min(dates) <= (joined + dt.timedelta(days=7)).isoformat(), customer.account
        assert (left - dt.timedelta(days=10)).isoformat() <= max(dates) < left.isoformat(), customer.account


def test_a_device_belongs_to_one_user(year: Year) -> None:
    """No device of an account is used by two people: the names of devices tell people apart."""
    devices = Counter((account, device) for account, device, _ in year.holders if device is not None)

    assert {1} == set(devices.values())


@pytest.mark.parametrize(
    ("name", "key"),
    [
        ("London", "Europe/London"),
        ("Berlin", "Europe/Berlin"),
        ("New York", "America/New_York"),
        ("Los Angeles", "America/Los_Angeles"),
        ("Kolkata", "Asia/Kolkata"),
        ("Perth", "Australia/Perth"),
        ("Sydney", "Australia/Sydney"),
    ],
)
def test_the_clocks_are_right(name: str, key: str) -> None:
    """The demo's own table of clocks says at noon what the table of time zones says."""
    noons = [dt.datetime(2025, 1, 1, 12, tzinfo=ZoneInfo(key)) + dt.timedelta(days=day) for day in range(4 * 365)]

    expected = [noon.utcoffset() for noon in noons]

    assert expected == [dt.timedelta(minutes=ZONES[name].offset_minutes(noon.date())) for noon in noons]


# ---------------------------------------------------------------- the team that falls silent


def test_the_team_falls_silent_one_by_one(year: Year) -> None:
    """Each seat's last event is on the day of the table, in the order of the table; one stays to the end."""
    expected = {seat.user: SILENT_TEAM.silent_on(seat, THROUGH) for seat in SILENT_TEAM.seats}
    last_days = {user: max(dates) for user, dates in year.team.items()}
    (stays,) = (user for user, date in expected.items() if date is None)

    assert list(expected) == sorted(last_days, key=lambda user: last_days[user])
    assert last_days.pop(stays) >= THROUGH - dt.timedelta(days=5)
    assert {user: date for user, date in expected.items() if date is not None} == last_days


def test_all_six_work_every_day_of_the_onboarding(year: Year) -> None:
    """In the first two months each of the six comes on every working day, for more than four hours."""
    start = SILENT_TEAM.contract_start(THROUGH)
    days = [start + dt.timedelta(days=day) for day in range(ONBOARDING_DAYS)]
    working_days = [day for day in days if day.weekday() not in WEEKEND]

    for seat in SILENT_TEAM.seats:
        assert working_days == sorted(day for day in year.team[seat.user] if day in days), seat.user
        assert sum(year.team_hours[seat.user, day] for day in working_days) / len(working_days) > 4


def test_four_remain_with_a_regular_path_until_the_launch(year: Year) -> None:
    """Between the bookkeeper's end and the launch four are there on most days; nobody uses `timeline` before."""
    start = SILENT_TEAM.contract_start(THROUGH)
    days = [start + dt.timedelta(days=day) for day in range(82, FEATURE_LAUNCH_DAY)]
    working_days = sum(day.weekday() not in WEEKEND for day in days)
    present = {user: sum(day in dates for day in days) for user, dates in year.team.items()}

    assert [seat.user for seat in SILENT_TEAM.seats[2:]] == [user for user, count in present.items() if count]
    assert min(count for count in present.values() if count) >= 0.7 * working_days
    assert min(year.team_features["timeline"]) >= start + dt.timedelta(days=FEATURE_LAUNCH_DAY)


def test_the_silence_is_visible_long_before_the_renewal() -> None:
    """On whatever day the demo is made, four weeks of silence have passed 120 days before a renewal yet to come."""
    champion = next(seat for seat in SILENT_TEAM.seats if seat.user == SILENT_TEAM.champion)
    for through in (THROUGH + dt.timedelta(days=day) for day in range(800)):
        renewal, silent_on = SILENT_TEAM.renewal(through), SILENT_TEAM.silent_on(champion, through)
        assert silent_on is not None
        visible_on = silent_on + dt.timedelta(days=28)
        assert visible_on < through < renewal
        assert (renewal - visible_on).days >= 120
        assert (renewal - through).days >= 120


# ---------------------------------------------------------------- the family and its bill


def month_totals(year: Year, month: dt.date) -> dict[tuple[str, str], Decimal]:
    """The family's usage of a month by device and feature."""
    text = month.isoformat()[:7]
    return {(device, feature): total for (when, device, feature), total in year.family.items() if when == text}


def test_one_phone_jumps_and_the_others_do_not(year: Year) -> None:
    """In the last full month one phone's data and ringtones more than double; all else stays within 15 percent."""
    start, _ = FAMILY.jump_month(THROUGH)
    before, after = month_totals(year, start - dt.timedelta(days=1)), month_totals(year, start)

    assert len(before) == len(FAMILY.phones) * 4
    assert before.keys() == after.keys()
    for (device, feature), total in before.items():
        ratio = after[device, feature] / total
        if device == FAMILY.jumping_device and feature in FAMILY.jump:
            assert ratio > 2, (device, feature)
        else:
            assert abs(ratio - 1) < Decimal("0.15"), (device, feature)


def test_the_bill_is_about_200_higher(year: Year) -> None:
    """By the prices the family's story names, the last full month costs about 200 more than the month before."""
    start, end = FAMILY.jump_month(THROUGH)

    def bill(month: dt.date) -> Decimal:
        totals = month_totals(year, month)
        return sum((total * Decimal(FAMILY.prices[feature]) for (_, feature), total in totals.items()), Decimal())

    assert end <= THROUGH
    assert abs(bill(start) - bill(start - dt.timedelta(days=1)) - 200) < 10
