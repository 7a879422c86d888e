"""Metrics are what plain Python makes of the same raw events: late, corrected and voided ones, rolled up or not."""

import asyncio
import random
from collections.abc import Callable, Coroutine, Sequence
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from typing import Any, Final

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from health.catalogue import CATALOGUE
from health.measurements import Measurement, NotApplicable, Observed, Unknown
from health.scorecards import Subject
from metering.corrections import correct_event
from metering.events import AdmittedEvent, UsageEvent
from metering.health.measuring import Measurer, measure, measure_everybody
from metering.ingest.batch import Writer
from metering.limits import LIMITS
from metering.reach import EVERYTHING
from metering.rollups.refresh import Refresher
from metering.store.event_log import EventLog
from metering.store.pool import Database
from metering.store.snapshot import Snapshot
from metering.subjects import SubjectRef
from tests.conftest import Server
from tests.metering.second_measures import (
    NOT_APPLICABLE,
    UNKNOWN,
    Found,
    Sold,
    Use,
    World,
    metrics_of,
    of_account,
)
from tests.metering.test_exactness import KEY, connect, correction_of, corrected, submission_of

DAY: Final = date(2026, 6, 10)
NOW: Final = datetime(2026, 6, 10, 7, 12, tzinfo=UTC)
# Metrics that are made of signals have tests of their own; scores of subscriptions are no metrics of usage.
TOLD: Final = {
    *("nps", "csat", "ces", "tickets_28d", "tickets_28d_per_seat", "tickets_severe_open", "invoice_overdue_days"),
    *("pulse", "touch_days"),
}
ELSEWHERE: Final = {"allowance_use", "subscriptions_score_mean", "subscriptions_score_lowest"}


class Habit(msgspec.Struct, frozen=True):
    """Events with the same values, from so many days before the day on, every so many days."""

    account: str
    subscription: str | None
    user: str | None
    device: str | None
    product: str
    feature: str | None
    classification: str | None
    quantity: Decimal
    first_age: int
    last_age: int
    every_days: int
    copies: int
    hour: int


class Fact(msgspec.Struct, frozen=True):
    """Something that was said of a subject, so many days ago."""

    ref: SubjectRef
    name: str
    value: Any
    age: int


def events_of(habits: Sequence[Habit]) -> list[UsageEvent]:
    """The events that habits come to, each with a name of its own."""
    events = []
    for habit in habits:
        for age in range(habit.first_age, habit.last_age - 1, -habit.every_days):
            for copy in range(habit.copies):
                at = datetime.combine(DAY - timedelta(days=age), time(habit.hour), UTC) + timedelta(minutes=copy)
                events.append(
                    UsageEvent(
                        id=f"event {len(events)}",
                        source="test",
                        occurred_at=at,
                        account=habit.account,
                        subscription=habit.subscription,
                        user=habit.user,
                        device=habit.device,
                        product=habit.product,
                        feature=habit.feature,
                        classification=habit.classification,
                        unit="call",
                        quantity=habit.quantity,
                    )
                )
    return [event for event in events if event.occurred_at < NOW]


def use_of(event: AdmittedEvent) -> Use:
    """An event as the second computation takes it."""
    said = event.event
    values = (said.account, said.subscription, said.user, said.device, said.product, said.feature, said.classification)
    return Use(event.occurred_at.date(), *values, said.quantity)


# ---------------------------------------------------------------- worlds by chance


@st.composite
def habits(draw: st.DrawFn, account: str) -> Habit:
    """A habit of somebody of an account."""
    last_age = draw(st.sampled_from([-1, 0, 1, 1, 1, 2, 9, 27, 28, 29, 40, 56, 113, 250]))
    length = draw(st.sampled_from([0, 3, 20, 60, 100, 130, 300, 380]))
    every = draw(st.sampled_from([1, 1, 2, 3, 7, 10, 28]))
    copies = draw(st.sampled_from([1, 1, 2, 9])) if length // every < 60 else 1
    return Habit(
        account=account,
        subscription=draw(st.sampled_from([None, f"{account} s", f"{account} s", f"{account} t"])),
        user=draw(st.sampled_from([None, "u", "v", "w", "x", "robot"])),
        device=draw(st.sampled_from([None, "phone", "desk"])),
        product=draw(st.sampled_from("pq")),
        feature=draw(st.sampled_from([None, "f", "f", "g", "h"])),
        classification=draw(st.sampled_from([None, None, None, "setup", "background"])),
        quantity=draw(st.sampled_from([Decimal(1), Decimal(1), Decimal(0), Decimal(-1)])),
        first_age=last_age + length,
        last_age=last_age,
        every_days=every,
        copies=copies,
        hour=draw(st.integers(0, 23)),
    )


@st.composite
def solds(draw: st.DrawFn, account: str, name: str) -> Sold:
    """A subscription of an account."""
    age = draw(st.sampled_from([-3, 0, 1, 20, 30, 70, 120, 200, 400]))
    starts_on = DAY - timedelta(days=age)
    later = [draw(st.integers(1, 40)) for _ in range(draw(st.integers(0, 2)))]
    seats = [(starts_on, draw(st.sampled_from([None, 1, 4, 7])))]
    for days in later:
        seats.append((seats[-1][0] + timedelta(days=days), draw(st.sampled_from([None, 0, 2, 5]))))
    return Sold(
        account=account,
        key=f"{account} {name}",
        starts_on=starts_on,
        seats=tuple(seats),
        ends_on=draw(st.sampled_from([None, None, starts_on + timedelta(days=100)])),
        trial_ends_on=draw(st.sampled_from([None, DAY + timedelta(days=4), starts_on + timedelta(days=14)])),
        renews_on=draw(st.sampled_from([None, DAY + timedelta(days=30), DAY - timedelta(days=2)])),
        monthly_amount=draw(st.sampled_from([None, 0, 90])),
        currency_code=draw(st.sampled_from(["EUR", "EUR", "USD"])),
    )


@st.composite
def facts(draw: st.DrawFn, account: str) -> Fact:
    """Something that was said of an account, a subscription or a user."""
    features = st.lists(st.sampled_from(["f", "g", "h", "none"]), max_size=3, unique=True)
    user = st.sampled_from("uvwx").map(lambda key: SubjectRef(Subject.USER, account, key))
    sold_to = st.sampled_from(
        [of_account(account), *(SubjectRef(Subject.SUBSCRIPTION, account, f"{account} {name}") for name in "st")]
    )
    age = draw(st.sampled_from([0, 1, 28, 29, 90]))
    name = draw(
        st.sampled_from(
            ["service_account", "role", "deprovisioned", "provisioned", "champion", "features", "core_features"]
            + ["onboarding_steps", "onboarding_days", "setup_roles"]
        )
    )
    match name:
        case "service_account":
            return Fact(SubjectRef(Subject.USER, account, "robot"), name, draw(st.booleans()), age)
        case "role":
            return Fact(draw(user), name, draw(st.sampled_from(["setup", "engineer"])), age)
        case "deprovisioned" | "provisioned" | "champion":
            return Fact(draw(user), name, draw(st.sampled_from([True, False, None])), age)
        case "features" | "core_features" | "onboarding_steps":
            return Fact(draw(sold_to), name, draw(features), age)
        case "onboarding_days":
            return Fact(draw(sold_to), name, draw(st.sampled_from([0, 10, 200])), age)
        case _:
            return Fact(of_account(account), name, ["engineer"], age)


@st.composite
def beginnings(draw: st.DrawFn) -> tuple[list[Habit], list[Sold], list[Fact]]:
    """Two accounts."""
    accounts = ["a", "b"]
    drawn = [habit for account in accounts for habit in draw(st.lists(habits(account), min_size=1, max_size=9))]
    sold = [draw(solds(account, name)) for account in accounts for name in draw(st.sampled_from(["", "s", "st", "su"]))]
    said = [fact for account in accounts for fact in draw(st.lists(facts(account), max_size=6))]
    return drawn, sold, said


# ---------------------------------------------------------------- a service


class Service:
    """A database, and what is in effect in it."""

    def __init__(self, database: Database) -> None:
        self.database = database
        self.in_effect: dict[int, AdmittedEvent] = {}
        self.sent: list[AdmittedEvent] = []
        self.sold: list[Sold] = []
        self.facts: list[Fact] = []

    async def record(self, events: Sequence[UsageEvent]) -> None:
        """Record events, as a writer does."""
        if not events:
            return
        writer = Writer(EventLog(self.database), LIMITS)
        writer.start()
        submission = submission_of(events, NOW)
        await writer.submit(submission)
        await writer.close()
        for _, event in submission.admitted:
            self.in_effect[len(self.sent)] = event
            self.sent.append(event)

    async def correct(self, place: int, values: dict[str, Any]) -> None:
        """Correct an event, or void it with no values."""
        event = self.in_effect[place]
        order = correction_of(self.sent[place], values)
        changed = corrected(event, order)
        if changed == event:
            return
        await correct_event(self.database, order, KEY, LIMITS)
        del self.in_effect[place]
        if changed is not None:
            self.in_effect[place] = changed

    async def roll_up(self) -> None:
        """Bring the rollups up to the day, and work off whatever came late."""
        while (done := await Refresher(self.database).run(NOW)) is None or done.more:
            pass

    async def sell(self, sold: Sequence[Sold]) -> None:
        """Put subscriptions, as they are in the tables."""
        async with self.database.transaction() as connection:
            for each in sold:
                midnights = [
                    None if day is None else midnight(day)
                    for day in (each.starts_on, each.ends_on, each.trial_ends_on, each.renews_on)
                ]
                await connection.execute(
                    "INSERT INTO subscription (key, account, currency_code, starts_at, time_zone, billing_anchor, ends_at, "
                    "trial_ends_at, renews_at, monthly_amount, discount_percent, attributes, created_by, changed_by) "
                    "VALUES ($1, $2, $3, $4, 'UTC', $4, $5, $6, $7, $8, 0, '{}', 'test', 'test')",
                    *(each.key, each.account, each.currency_code, *midnights, each.monthly_amount),
                )
                await connection.executemany(
                    "INSERT INTO subscription_terms (subscription, since, plan, seats, put_at, put_by) "
                    "VALUES ($1, $2, 'plan', $3, now(), 'test')",
                    [(each.key, midnight(since), seats) for since, seats in each.seats],
                )
        self.sold += sold

    async def say(self, said: Sequence[Fact]) -> None:
        """Log attributes, as they are in the table."""
        async with self.database.connection() as connection:
            for fact in said:
                at = midnight(DAY - timedelta(days=fact.age)) - timedelta(hours=1)
                await connection.execute(
                    "INSERT INTO attribute_fact (account, subject, key, name, value, at, recorded_by) "
                    "VALUES ($1, $2, $3, $4, $5, $6, 'test')",
                    *(fact.ref.account, fact.ref.subject.value, fact.ref.key, fact.name),
                    *(msgspec.json.encode(fact.value).decode(), at),
                )
        self.facts += said

    def world(self, as_of: date) -> World:
        """What a second computation is given."""
        return World(
            as_of,
            [use_of(event) for event in self.in_effect.values()],
            self.sold,
            self._attributes(as_of),
            self._attributes(as_of - timedelta(days=28)),
        )

    def _attributes(self, before: date) -> dict[SubjectRef, dict[str, Any]]:
        found: dict[SubjectRef, dict[str, Any]] = {}
        for fact in sorted(self.facts, key=lambda fact: -fact.age):
            if DAY - timedelta(days=fact.age) <= before:
                found.setdefault(fact.ref, {})[fact.name] = fact.value
        return found

    async def check(self, as_of: date) -> dict[SubjectRef, dict[str, Measurement]]:
        """Measure everybody, and one account by itself: both are what the second computation says."""
        async with Snapshot(self.database, EVERYTHING) as snapshot:
            norms, measured = await measure_everybody(snapshot, as_of)
            ones = sorted({ref.account for ref in measured})[:1]
            refs = [ref for ref in measured if ref.account in ones]
            again = await measure(snapshot, refs, as_of, norms)
        world = self.world(as_of)
        for ref, metrics in measured.items():
            differences = differing(metrics, metrics_of(world, ref))
            assert not differences, (as_of, ref, differences)
        assert {ref: measured[ref] for ref in refs} == {ref: pytest.approx(again[ref]) for ref in refs} or all(
            not differing(again[ref], metrics_of(world, ref)) for ref in refs
        )
        return {ref: dict(metrics) for ref, metrics in measured.items()}


def differing(metrics: Any, expected: dict[str, Found]) -> dict[str, tuple[Any, Found]]:
    """The metrics that are not what is expected."""
    found = {name: shown(metric) for name, metric in metrics.items() if name not in TOLD}
    assert found.keys() == expected.keys()
    return {name: (found[name], want) for name, want in expected.items() if not alike(found[name], want)}


def shown(metric: Measurement) -> Found:
    """A measurement as the second computation writes it."""
    match metric:
        case Observed():
            return metric.value
        case Unknown():
            return UNKNOWN
        case NotApplicable():
            return NOT_APPLICABLE


def alike(one: Found, other: Found) -> bool:
    """Whether they are the same, but for the order in which floats were added."""
    if isinstance(one, str) or isinstance(other, str):
        return one == other
    return one == pytest.approx(other, rel=1e-9, abs=1e-9)


def midnight(day: date) -> datetime:
    """The beginning of a UTC day."""
    return datetime.combine(day, time(), UTC)


def play(server: Server, scenario: Callable[[Service], Coroutine[Any, Any, None]]) -> None:
    """Play a scenario on a database of its own; one that hangs fails."""

    async def played(url: str) -> None:
        database = await connect(url)
        try:
            # From here on everything comes late: to roll up a year day by day would take longer than all else.
            await Refresher(database).run(NOW)
            async with asyncio.timeout(60):
                await scenario(Service(database))
        finally:
            await database.close()

    with server.cloned() as url:
        asyncio.run(played(url))


# ---------------------------------------------------------------- claims


@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture, HealthCheck.data_too_large])
@given(data=st.data())
def test_every_metric_is_the_naive_one(servers: dict[str, Server], engine: str, data: st.DataObject) -> None:
    """Whatever was recorded, rolled up or not, late, corrected or void: each metric of each subject is what Python says."""
    drawn, sold, said = data.draw(beginnings())

    async def scenario(service: Service) -> None:
        events = events_of(drawn)
        early = len(events) * data.draw(st.sampled_from([0, 1, 3, 4])) // 4
        await service.sell(sold)
        await service.say(said)
        await service.record(events[:early])
        if data.draw(st.booleans()):
            await service.roll_up()
        await service.record(events[early:])
        for _ in range(data.draw(st.integers(0, 3))) if events else ():
            place = data.draw(st.integers(0, len(events) - 1))
            if place in service.in_effect:
                values = st.sampled_from([{}, {"user": "w"}, {"quantity": Decimal(-2)}, {"feature": None}])
                await service.correct(place, data.draw(values))
        await service.check(DAY)
        await service.check(DAY - timedelta(days=data.draw(st.sampled_from([1, 28, 100]))))

    play(servers[engine], scenario)
