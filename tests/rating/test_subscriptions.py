"""Which plan applies when, which periods follow from it, and how many seats there are in them."""

from datetime import UTC, datetime, timedelta
from decimal import Decimal
from itertools import pairwise

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from metering.periods import zone_of
from rating.billing_periods import BillingInterval, period_at
from rating.plans import Plan
from rating.subscriptions import (
    BillingPeriod,
    PlanChoice,
    PlanPhase,
    SeatChange,
    Subscription,
    billing_period_at,
    billing_periods,
    on_plan,
    parts_of,
    phases_of,
    seat_stretches,
)
from tests.rating.tables import at, period, plan, subscription
from tests.strategies import MANY

TEAM = plan()
YEARLY = plan(key="yearly", interval=BillingInterval.YEAR)


def served(customer: Subscription, until: str) -> list[tuple[str, str]]:
    """The periods that a subscription is billed for, as days."""
    found = [each.served for each in billing_periods(customer, at(until))]
    return [(each.start.date().isoformat(), each.end.date().isoformat()) for each in found]


def test_periods_from_an_anchor() -> None:
    """The first and the last period are as much of a calendar month as the subscription has of it."""
    customer = subscription(PlanPhase(TEAM, at("2026-01-20")), ends_at=at("2026-03-05"))

    assert served(customer, "2027-01-01") == [
        ("2026-01-20", "2026-02-01"),
        ("2026-02-01", "2026-03-01"),
        ("2026-03-01", "2026-03-05"),
    ]


def test_periods_from_the_beginning() -> None:
    """Without an anchor periods are counted from the beginning of the subscription."""
    customer = subscription(PlanPhase(TEAM, at("2026-01-31")), billing_anchor=None)

    assert served(customer, "2026-04-01") == [
        ("2026-01-31", "2026-02-28"),
        ("2026-02-28", "2026-03-31"),
        ("2026-03-31", "2026-04-30"),
    ]


def test_change_to_another_interval() -> None:
    """Where the next plan is billed by the year, the running month is served until then, and the year from then on."""
    customer = subscription(PlanPhase(TEAM, at("2026-01-01"), at("2026-02-10")), PlanPhase(YEARLY, at("2026-02-10")))

    assert served(customer, "2027-02-01") == [
        ("2026-01-01", "2026-02-01"),
        ("2026-02-01", "2026-02-10"),
        ("2026-02-10", "2027-01-01"),
        ("2027-01-01", "2028-01-01"),
    ]


def test_time_without_a_plan_has_no_period() -> None:
    """Between two phases, before the first, and after the end there is no billing period."""
    customer = subscription(
        PlanPhase(TEAM, at("2026-01-01"), at("2026-01-10")),
        PlanPhase(YEARLY, at("2026-03-10")),
        ends_at=at("2026-06-01"),
    )

    assert [billing_period_at(customer, at(day)) for day in ("2025-12-31", "2026-02-01", "2026-06-01")] == [None] * 3
    assert served(customer, "2027-01-01") == [("2026-01-01", "2026-01-10"), ("2026-03-10", "2026-06-01")]


def test_parts_of_a_period() -> None:
    """A change of plan in mid-period makes two parts; a trial is in none of them; shares are of the whole month."""
    other = plan(key="scale")
    customer = subscription(
        PlanPhase(TEAM, at("2026-03-01"), at("2026-03-11")),
        PlanPhase(other, at("2026-03-11")),
        trial_ends_at=at("2026-03-05"),
    )
    month = billing_period_at(customer, at("2026-03-20"))
    assert month is not None
    parts = parts_of(customer, month)

    assert [(part.plan.key, part.period) for part in parts] == [
        ("team", period("2026-03-05", "2026-03-11")),
        ("scale", period("2026-03-11", "2026-04-01")),
    ]
    assert [part.share.of(Decimal(31)) for part in parts] == [6, 21]


def test_period_in_a_trial_has_no_part() -> None:
    """Nothing is charged in a period that the trial covers."""
    customer = subscription(PlanPhase(TEAM, at("2026-03-01")), trial_ends_at=at("2026-04-01"))
    month = billing_period_at(customer, at("2026-03-01"))
    assert month is not None

    assert () == parts_of(customer, month)


def test_seats_over_time() -> None:
    """Each number of seats holds until the next change; repeats change nothing, and before the first there are none."""
    changes = [("2026-03-03", 2), ("2026-03-05", 2), ("2026-03-11", 5), ("2026-03-11", 4), ("2026-04-02", 9)]
    customer = subscription(
        PlanPhase(TEAM, at("2026-03-01")), seats=tuple(SeatChange(at(since), seats) for since, seats in changes)
    )
    month = billing_period_at(customer, at("2026-03-20"))
    assert month is not None
    (part,) = parts_of(customer, month)

    assert [(stretch.seats, stretch.period.start.day) for stretch in seat_stretches(customer, part, month)] == [
        (0, 1),
        (2, 3),
        (4, 11),
    ]


# ---------------------------------------------------------------- versions


def version(number: int, effective_from: str, interval: BillingInterval = BillingInterval.MONTH) -> Plan:
    """A version of the plan."""
    return plan(version=number, effective_from=at(effective_from), interval=interval)


def phases(
    choices: list[tuple[str, str, int | None]], *versions: Plan, until: str = "2026-05-01"
) -> list[tuple[int, str, str]]:
    """The phases of a subscription from 20 January on, counted from the first of a month: version, from, to."""
    customer = Subscription(starts_at=at("2026-01-20"), zone=UTC, phases=(), billing_anchor=at("2026-01-01"))
    published: dict[str, list[Plan]] = {}
    for each in versions:
        published.setdefault(each.key, []).append(each)
    found = phases_of(
        customer, [PlanChoice(at(since), key, number) for since, key, number in choices], published, at(until)
    )
    return [
        (phase.plan.version, phase.start.date().isoformat(), "" if phase.end is None else phase.end.date().isoformat())
        for phase in found
    ]


def test_new_version_applies_from_the_next_period() -> None:
    """A version that takes effect in mid-period, or where a period begins, applies from the period that begins then or next."""
    first, second, third = version(1, "2025-01-01"), version(2, "2026-02-15"), version(3, "2026-04-01")

    assert phases([("2026-01-01", "team", None)], third, first, second) == [
        (1, "2026-01-20", "2026-03-01"),
        (2, "2026-03-01", "2026-04-01"),
        (3, "2026-04-01", "2026-05-01"),
    ]


def test_subscription_may_stay_on_a_version() -> None:
    """A choice of a version keeps to it, whatever is published; it need not be in effect yet."""
    assert phases([("2026-01-01", "team", 1)], version(1, "2026-03-01"), version(2, "2026-02-15")) == [
        (1, "2026-01-20", "2026-05-01")
    ]


def test_change_of_plan_takes_the_version_of_that_moment() -> None:
    """A plan that is chosen in mid-period applies at once, in the version that is in effect then."""
    chosen = [("2026-01-01", "team", None), ("2026-02-10", "scale", None)]
    scale = [plan(key="scale", version=7, effective_from=at("2026-02-05")), plan(key="scale", version=6)]

    assert phases(chosen, version(1, "2025-01-01"), *scale) == [
        (1, "2026-01-20", "2026-02-10"),
        (7, "2026-02-10", "2026-05-01"),
    ]


def test_no_version_yet_means_no_phase() -> None:
    """Before the first version is in effect there is no plan; it applies as soon as it is."""
    assert phases([("2026-01-01", "team", None)], version(1, "2026-02-15")) == [(1, "2026-02-15", "2026-05-01")]
    assert [] == phases([("2026-01-01", "absent", None)], version(1, "2026-02-15"))


def test_version_with_another_interval() -> None:
    """Where a version is billed by the quarter, versions are looked for at its quarters."""
    quarterly = version(2, "2026-02-15", BillingInterval.QUARTER)

    assert phases([("2026-01-01", "team", None)], version(1, "2025-01-01"), quarterly, version(3, "2026-03-15")) == [
        (1, "2026-01-20", "2026-03-01"),
        (2, "2026-03-01", "2026-04-01"),
        (3, "2026-04-01", "2026-05-01"),
    ]


@MANY
@given(
    st.lists(
        st.tuples(st.integers(0, 300), st.sampled_from(["a", "b", "none"]), st.booleans()), min_size=1, max_size=5
    ),
    st.lists(
        st.tuples(st.sampled_from(["a", "b"]), st.integers(-30, 300), st.sampled_from(BillingInterval)), max_size=6
    ),
    st.sampled_from(["UTC", "Europe/Berlin", "Pacific/Apia"]),
)
def test_periods_and_parts_tile_the_time_with_a_plan(
    chosen: list[tuple[int, str, bool]], published: list[tuple[str, int, BillingInterval]], zone: str
) -> None:
    """Phases do not overlap; billing periods lie one after another in them; their parts are just the phases' time."""
    start = at("2026-01-07T14:37:22")

    def day(number: int) -> datetime:
        return start + timedelta(days=number, hours=number % 5)

    versions: dict[str, list[Plan]] = {}
    for number, (key, since, interval) in enumerate(published, 1):
        versions.setdefault(key, []).append(plan(key=key, version=number, effective_from=day(since), interval=interval))
    choices = [
        PlanChoice(day(since), key, 1 if pinned else None)
        for since, key, pinned in sorted(chosen, key=lambda choice: choice[0])
    ]
    bare = Subscription(starts_at=start, zone=zone_of(zone), phases=(), ends_at=day(250))
    found = phases_of(bare, choices, versions, day(200))
    customer = Subscription(starts_at=start, zone=zone_of(zone), phases=found, ends_at=day(250))
    billed = list(billing_periods(customer, day(300)))
    parts = [part for each in billed for part in parts_of(customer, each)]

    assert all(one.end is not None and one.end <= other.start for one, other in pairwise(found))
    assert all(one.served.end <= other.served.start for one, other in pairwise(billed))
    assert all(each.whole.within(each.served) == each.served for each in billed)
    assert sum(((phase.end or start) - phase.start for phase in found), timedelta(0)) == sum(
        (part.period.end - part.period.start for part in parts), timedelta(0)
    )


def walked(
    customer: Subscription, choices: list[PlanChoice], versions: dict[str, list[Plan]], until: datetime
) -> list[PlanPhase]:
    """The phases found by going through every period: which version is the newest one where it begins."""
    found: list[PlanPhase] = []
    for index, choice in enumerate(choices):
        ends = [customer.ends_at, *(each.since for each in choices[index + 1 : index + 2])]
        end = min(each for each in [*ends, until] if each is not None)
        last = min((each for each in ends if each is not None), default=at("2200-01-01"))
        instant = max(choice.since, customer.starts_at)
        while instant < end:
            in_effect = [
                each
                for each in versions.get(choice.plan, [])
                if (each.effective_from <= instant if choice.version is None else each.version == choice.version)
            ]
            if not in_effect:
                later = [each.effective_from for each in versions.get(choice.plan, []) if choice.version is None]
                instant = min((each for each in later if each > instant), default=end)
                continue
            newest = max(in_effect, key=lambda each: (each.effective_from, each.version))
            following = period_at(instant, customer.anchor, customer.zone, newest.interval).end
            phase = PlanPhase(newest, instant, min(following, last))
            if found and (found[-1].plan, found[-1].end) == (newest, instant):
                phase = PlanPhase(newest, found.pop().start, phase.end)
            found.append(phase)
            instant = following
    return found


@MANY
@given(
    st.lists(
        st.tuples(st.integers(-20, 1_500), st.sampled_from(["a", "b", "none"]), st.sampled_from([None, None, 1, 2])),
        min_size=1,
        max_size=5,
    ),
    st.lists(
        st.tuples(st.sampled_from(["a", "a", "b"]), st.integers(-30, 1_200), st.sampled_from(BillingInterval)),
        max_size=6,
    ),
    st.integers(0, 2_000),
    st.one_of(st.none(), st.integers(1, 1_500)),
    st.sampled_from([None, "2024-01-31T23:30", "2024-01-01"]),
    st.sampled_from(["UTC", "Europe/Berlin", "Pacific/Apia", "America/New_York"]),
)
def test_phases_are_those_of_a_walk_through_all_periods(
    chosen: list[tuple[int, str, int | None]],
    published: list[tuple[str, int, BillingInterval]],
    until: int,
    ends: int | None,
    anchor: str | None,
    zone: str,
) -> None:
    """Going straight to where another version can apply finds what a walk through every period since the start finds, and
    billing periods that are asked for from an instant on are the last of all.
    """
    start = at("2024-01-07T14:37:22")

    def day(number: int) -> datetime:
        # Versions take effect, and choices are made, at midnight, where many periods begin, and in between.
        return start + timedelta(days=number, hours=number % 5) if number % 3 else at("2024-01-01") + timedelta(number)

    versions: dict[str, list[Plan]] = {}
    for key, since, interval in published:
        number = 1 + len(versions.get(key, []))
        versions.setdefault(key, []).append(plan(key=key, version=number, effective_from=day(since), interval=interval))
    choices = sorted([PlanChoice(day(since), key, number) for since, key, number in chosen], key=lambda one: one.since)
    bare = Subscription(
        starts_at=start,
        zone=zone_of(zone),
        phases=(),
        ends_at=None if ends is None else start + timedelta(ends),
        billing_anchor=None if anchor is None else at(anchor),
    )
    found = phases_of(bare, choices, versions, day(until))
    assert walked(bare, choices, versions, day(until)) == list(found)

    customer = msgspec.structs.replace(bare, phases=found)
    billed = list(billing_periods(customer, day(until)))
    for instant in (start, day(until // 2), day(until)):
        late = [each for each in billed if each.served.end > instant]
        assert late == list(billing_periods(customer, day(until), instant))


def test_on_another_plan() -> None:
    """A simulation puts all of the time that had a plan on one plan."""
    customer = subscription(PlanPhase(TEAM, at("2026-01-01"), at("2026-02-10")), PlanPhase(YEARLY, at("2026-02-10")))
    other = plan(key="scale")

    assert (PlanPhase(other, at("2026-01-01")),) == on_plan(customer, other).phases
    empty = Subscription(starts_at=at("2026-01-01"), zone=UTC, phases=())
    assert empty == on_plan(empty, other)


def test_period_found_for_every_instant_of_it() -> None:
    """Asked for any instant of a period, the answer is the same period."""
    customer = subscription(PlanPhase(TEAM, at("2026-01-20")))
    expected = BillingPeriod(period("2026-01-01", "2026-02-01"), period("2026-01-20", "2026-02-01"))

    for instant in ("2026-01-20", "2026-01-25T12:00", "2026-01-31T23:59:59.999999"):
        assert expected == billing_period_at(customer, at(instant))


@pytest.mark.parametrize("number", [0, 3])
def test_plans_begin_in_utc(number: int) -> None:
    """A plan's instant may be written in any way that is UTC, and in no other."""
    if number == 0:
        assert plan(effective_from=at("2026-01-01")).version == 1
    else:
        with pytest.raises(AssertionError, match="in UTC"):
            plan(effective_from=datetime(2026, 1, 1, tzinfo=zone_of("Asia/Kolkata")))
