"""Metrics are what plain Python makes of the same raw events: late, corrected and voided ones, rolled up or not."""

import asyncio
from collections import Counter
from collections.abc import Callable, Coroutine, Mapping, Sequence
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from math import log
from typing import Any, Final

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from health.catalogue import CATALOGUE
from health.measurements import Measurement, NotApplicable, Observed, Unknown
from health.scorecards import Subject
from metering.aggregations import Aggregation
from metering.corrections import correct_event
from metering.events import AdmittedEvent, UsageEvent
from metering.health.measuring import Measurer, measure, measure_everybody, read_norms
from metering.health.usage_metrics import NOBODY_SENDS
from metering.ingest.batch import Writer
from metering.limits import LIMITS
from metering.reach import EVERYTHING
from metering.rollups.refresh import Refresher
from metering.store.event_log import EventLog
from metering.store.pool import Database
from metering.store.snapshot import Snapshot
from metering.subjects import SubjectRef
from rating.plans import PlanPrice
from rating.prices import PerUnit
from tests.conftest import Server
from tests.metering.catalog import draft, meter, order, publish, put
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
from tests.metering.test_exactness import KEY, connect, corrected, correction_of, submission_of

DAY: Final = date(2026, 6, 10)
NOW: Final = datetime(2026, 6, 10, 7, 12, tzinfo=UTC)
# Metrics of signals and of plans have tests of their own; scores of subscriptions are made where scores are.
TOLD: Final = {
    "allowance_use",
    *("nps", "csat", "ces", "tickets_28d", "tickets_28d_per_seat", "tickets_severe_open", "invoice_overdue_days"),
    *("pulse", "touch_days"),
}
ELSEWHERE: Final = {"subscriptions_score_mean", "subscriptions_score_lowest"}


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


def events_of(habits: Sequence[Habit], prefix: str = "event") -> list[UsageEvent]:
    """The events that habits come to, each with a name of its own."""
    events = []
    for habit in habits:
        for age in range(habit.first_age, habit.last_age - 1, -habit.every_days):
            for copy in range(habit.copies):
                at = datetime.combine(DAY - timedelta(days=age), time(habit.hour), UTC) + timedelta(minutes=copy)
                events.append(
                    UsageEvent(
                        id=f"{prefix} {len(events)}",
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
        classification=draw(st.sampled_from([None, None, None, "setup", "background", "error"])),
        quantity=draw(st.sampled_from([Decimal(1), Decimal(1), Decimal(0), Decimal(-1)])),
        first_age=last_age + length,
        last_age=last_age,
        every_days=every,
        copies=copies,
        # The rollups end at seven.
        hour=draw(st.sampled_from([0, 6, 7, 7, 23])),
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
            [
                *("service_account", "role", "deprovisioned", "provisioned", "champion"),
                *("features", "core_features", "onboarding_steps", "onboarding_days", "setup_roles"),
            ]
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
    # Something of today, below the rollups' end and above it.
    today = msgspec.structs.replace(
        drawn[0], first_age=0, last_age=0, quantity=Decimal(1), copies=draw(st.integers(0, 3))
    )
    early, late = msgspec.structs.replace(today, hour=6), msgspec.structs.replace(today, hour=7)
    drawn = [early, *drawn, early, late]
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

    async def check(self, as_of: date) -> Counter[str]:
        """Measure everybody, and one account by itself: both are what the second computation says. Counts what was observed."""
        world = self.world(as_of)
        async with Snapshot(self.database, EVERYTHING) as snapshot:
            norms, measured = await measure_everybody(snapshot, as_of)
            account = min((ref.account for ref in measured), default="nobody")
            one = await measure(snapshot, [ref for ref in measured if ref.account == account], as_of, norms)
            assert norms == await read_norms(snapshot, as_of)
        for ref, metrics in [*measured.items(), *one.items()]:
            differences = differing(ref.subject, metrics, metrics_of(world, ref))
            assert not differences, (as_of, ref, differences)
        return Counter(
            name for metrics in measured.values() for name, found in metrics.items() if isinstance(found, Observed)
        )


def differing(
    kind: Subject, metrics: Mapping[str, Measurement], expected: dict[str, Found]
) -> dict[str, tuple[Any, Found]]:
    """The metrics that are not what is expected."""
    found = {name: shown(metric) for name, metric in metrics.items() if name not in TOLD}
    known = {name for name, metric in CATALOGUE.items() if kind in metric.subjects}
    assert metrics.keys() == known - ELSEWHERE
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


@settings(
    max_examples=20,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture, HealthCheck.data_too_large],
)
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
        # The day that is not over, which rollups hold in part, and one that is.
        await service.check(DAY + timedelta(days=1))
        await service.check(DAY - timedelta(days=data.draw(st.sampled_from([0, 0, 1, 28, 100]))))

    play(servers[engine], scenario)


def crowd(accounts: int) -> tuple[list[Habit], list[Sold]]:
    """So many accounts of all ages that use much alike, and a little more from one to the next."""
    drawn, sold = [], []
    for number in range(accounts):
        account = f"account {number:02}"
        age = 20 + (number * 37) % 300
        sold.append(Sold(account, f"{account} s", DAY - timedelta(days=age), ((DAY - timedelta(days=age), 3),)))
        for place, user in enumerate("uvw"[: 2 + number % 2]):
            drawn.append(
                Habit(
                    account=account,
                    subscription=f"{account} s",
                    user=user,
                    device="phone",
                    product="p",
                    feature="fgh"[(number + place) % 3] if number else "rare",
                    classification=None,
                    quantity=Decimal(1),
                    first_age=age,
                    last_age=1 + number % 5 + (30 if number % 9 == 4 else 0),
                    every_days=1 + (number + place) % 6,
                    copies=1 if number % 7 else 8,
                    hour=9,
                )
            )
    return drawn, sold


def test_what_is_usual_among_many_is_taken_into_account(servers: dict[str, Server], engine: str) -> None:
    """Among 45 accounts, dispersion, common changes, cohorts and offered features are what Python says; almost every metric is
    observed; norms that are kept are what one account is measured against, also after others have changed.
    """
    drawn, sold = crowd(45)

    async def scenario(service: Service) -> None:
        await service.sell(sold)
        await service.record(events_of(drawn))
        await service.roll_up()
        observed = await service.check(DAY)
        never = {name for name, metric in CATALOGUE.items() if not observed[name] and name not in TOLD | ELSEWHERE}
        assert never == {
            *("breadth_core", "time_to_value_days", "activation", "trial_days_left", "renewal_days"),
            *("monthly_amount", "cost_per_active", "never_used_users"),
        }
        assert observed["cohort_position"] > 5
        refs = [of_account("account 07"), SubjectRef(Subject.USER, "account 07", "u")]
        async with Snapshot(service.database, EVERYTHING) as snapshot:
            measurer = Measurer(service.database)
            before = await measurer.measure(snapshot, refs, DAY)
            norms = await measurer.norms(snapshot, DAY)
        others = [msgspec.structs.replace(habit, copies=9) for habit in drawn[30:60]]
        await service.record(events_of(others, "other"))
        async with Snapshot(service.database, EVERYTHING) as snapshot:
            assert await Measurer(service.database).norms(snapshot, DAY) == norms
            assert await Measurer(service.database).measure(snapshot, refs, DAY) == before
            assert await read_norms(snapshot, DAY) != norms

    play(servers[engine], scenario)


def test_nothing_is_zero_while_nobody_sends(servers: dict[str, Server], engine: str) -> None:
    """While no event comes in from anybody, usage is unknown; one event of another account makes the silence an observed zero."""
    habit = Habit("a", "a s", "u", None, "p", "f", None, Decimal(1), 100, 40, 2, 1, 9)
    other = msgspec.structs.replace(habit, account="b", user=None, first_age=3, last_age=3)

    async def scenario(service: Service) -> None:
        await service.sell([Sold("a", "a s", DAY - timedelta(days=100), ((DAY - timedelta(days=100), 5),))])
        await service.record(events_of([habit]))
        async with Snapshot(service.database, EVERYTHING) as snapshot:
            _, measured = await measure_everybody(snapshot, DAY)
        found = measured[of_account("a")]
        assert {found[name] for name in ("active_users", "seat_utilisation", "drop_z", "top_share")} == {NOBODY_SENDS}
        assert found["seats"] == Observed(5.0)
        await service.record(events_of([other], "other"))
        async with Snapshot(service.database, EVERYTHING) as snapshot:
            _, measured = await measure_everybody(snapshot, DAY)
        found = measured[of_account("a")]
        assert (found["active_users"], found["unused_seats"]) == (Observed(0.0), Observed(5.0))
        assert shown(found["top_share"]) == shown(found["stickiness"]) == NOT_APPLICABLE
        silent = measured[SubjectRef(Subject.USER, "a", "u")]["silence"]
        # 30 gaps of 2 days, 36 days up to the last on which anything came in.
        assert silent == Observed(pytest.approx(31.5 * log(1 + 37 / 63)))
        assert shown(measured[of_account("b")]["active_users"]) == NOT_APPLICABLE
        user = SubjectRef(Subject.USER, "a", "u")
        await service.say([Fact(user, "service_account", value=True, age=1)])
        async with Snapshot(service.database, EVERYTHING) as snapshot:
            measured = await measure(snapshot, [user, of_account("a")], DAY, await read_norms(snapshot, DAY))
        assert shown(measured[user]["silence"]) == shown(measured[user]["active_days"]) == NOT_APPLICABLE

    play(servers[engine], scenario)


def test_signals_are_what_somebody_said(servers: dict[str, Server], engine: str) -> None:
    """Surveys count the newest answer of everybody who has not left, tickets those of 28 days, the pulse expires; an account's
    are also those of its users, and what nobody told of is unknown.
    """
    user, left, other = (SubjectRef(Subject.USER, "a", key) for key in ("u", "left", "v"))
    account = of_account("a")

    async def scenario(service: Service) -> None:
        await service.say([Fact(left, name="deprovisioned", value=True, age=5)])
        async with service.database.connection() as connection:
            for place, (ref, name, value, age, source_id) in enumerate(
                [
                    *((user, "nps", 10.0, 90, None), (user, "nps", 3.0, 20, None), (left, "nps", 0.0, 9, None)),
                    *((other, "nps", 9.0, 181, None), (account, "nps", 9.0, 30, "1"), (account, "nps", 8.0, 30, "2")),
                    *((account, "nps", 0.0, 40, "1"), (account, "csat", 4.0, 1, "1"), (account, "csat", 2.0, 1, "2")),
                    *(
                        (user, "ticket", 1.0, 3, "t1"),
                        (account, "ticket", 2.0, 27, "t2"),
                        (account, "ticket", 2.0, 28, "t3"),
                    ),
                    *(
                        (account, "pulse", 5.0, 10, None),
                        (account, "pulse", 2.0, 40, None),
                        (user, "touch", 1.0, 12, None),
                    ),
                    *((account, "tickets_severe_open", 4.0, 6, None), (account, "pulse", 1.0, -1, None)),
                ]
            ):
                # At noon of the day that begins so long before the day, so that none falls on a bound.
                at = midnight(DAY - timedelta(days=age)) + timedelta(hours=12)
                await connection.execute(
                    "INSERT INTO signal (account, subject, key, name, value, at, source, external_id, recorded_by, identity, "
                    "content) VALUES ('a', $1, $2, $3, $4, $5, 'crm', $6, 'test', $7, '')",
                    *(ref.subject.value, ref.key, name, value, at, source_id, str(place).encode()),
                )
        refs = [account, user, of_account("b")]
        async with Snapshot(service.database, EVERYTHING) as snapshot:
            measured = await Measurer(service.database).measure(snapshot, refs, DAY)
        found = measured[account]
        # A detractor (the user), a promoter and one between them.
        assert found["nps"] == Observed(0.0, told_at(20), None, 3)
        assert found["csat"] == Observed(50.0, told_at(1), None, 2)
        assert (found["tickets_28d"], shown(found["tickets_28d_per_seat"])) == (Observed(3.0), NOT_APPLICABLE)
        assert found["pulse"] == Observed(5.0, told_at(10), told_at(10) + timedelta(days=30))
        assert found["tickets_severe_open"] == Observed(4.0, told_at(6))
        assert found["touch_days"] == measured[user]["touch_days"] == Observed(12.0)
        assert shown(found["ces"]) == shown(found["invoice_overdue_days"]) == UNKNOWN
        assert measured[of_account("b")]["tickets_28d"] == Observed(0.0)
        assert {shown(measured[of_account("b")][name]) for name in ("nps", "pulse", "touch_days")} == {UNKNOWN}

    play(servers[engine], scenario)


def told_at(age: int) -> datetime:
    """Noon of a day so many days before the day."""
    return midnight(DAY - timedelta(days=age)) + timedelta(hours=12)


def test_what_is_included_is_used_up_by_the_end_of_the_period(servers: dict[str, Server], engine: str) -> None:
    """Allowance use is the quantity so far by what is included for as much of the period, of the price that is used most; unknown
    in the first fifth, and not applicable where no plan includes anything.
    """
    habit = Habit("acme", "s-1", "u", None, "p", "f", None, Decimal(2), 9, 1, 1, 1, 9)

    async def scenario(service: Service) -> None:
        await meter(service.database, "calls")
        await meter(service.database, "events", Aggregation.COUNT)
        prices = [
            PlanPrice(key=key, meter=key, price=PerUnit(Decimal(1)), included_quantity=Decimal(included))
            for key, included in (("calls", 60), ("events", 10))
        ]
        await publish(service.database, draft(*prices))
        await publish(service.database, draft(key="flat"))
        await put(service.database, order())
        await put(service.database, order(key="s-2", account="other", plan="flat"))
        await service.record(events_of([habit]))
        refs = [of_account("acme"), SubjectRef(Subject.SUBSCRIPTION, "acme", "s-1"), of_account("other")]
        async with Snapshot(service.database, EVERYTHING) as snapshot:
            measured = await Measurer(service.database).measure(snapshot, refs, DAY)
            early = await Measurer(service.database).measure(snapshot, refs, DAY - timedelta(days=4))
        # Nine of thirty days are over: 9 events of 10 included, and 18 calls of 60.
        used = [measured[ref]["allowance_use"] for ref in refs]
        assert used[:2] == [Observed(pytest.approx(9 / 10 / (9 / 30)))] * 2
        assert shown(used[2]) == NOT_APPLICABLE
        assert shown(early[refs[1]]["allowance_use"]) == UNKNOWN

    play(servers[engine], scenario)
