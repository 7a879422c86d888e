"""Subscriptions: what stays, what changes and from when on, and what rating is told of it."""

import asyncio
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import asyncpg
import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from metering.errors import ConflictError, ForbiddenError, InvalidInputError, NotFoundError
from metering.limits import LIMITS
from metering.plans import versions_of
from metering.store.pool import Database
from metering.store.snapshot import Snapshot
from metering.subscriptions import (
    RatedSubscription,
    Subscription,
    SubscriptionOrder,
    Terms,
    find_subscription,
    put_subscription,
    read_rated,
    read_subscriptions,
)
from rating.billing_periods import BillingInterval, period_at
from rating.plans import Plan
from rating.subscriptions import SeatChange, billing_period_at, billing_periods, parts_of
from tests.metering.catalog import BOUND_KEY, KEY, OTHER_KEY, draft, order, play, publish, put, rows
from tests.rating.tables import at
from tests.strategies import FEW

START = at("2026-01-01")


async def found(database: Database, key: str = "s-1") -> Subscription:
    """The subscription as it is found."""
    async with Snapshot(database) as snapshot:
        subscription = await find_subscription(snapshot, key)
    assert subscription is not None
    return subscription


async def rated(database: Database, until: str = "2026-07-01", key: str = "s-1") -> RatedSubscription:
    """The subscription as rating takes it."""
    async with Snapshot(database) as snapshot:
        (one,), _ = await read_rated(snapshot, 1, until=at(until), keys=[key])
    return one


async def phases(database: Database, until: str = "2026-07-01") -> list[tuple[str, int, str, str]]:
    """The phases that rating is told: plan, version, from, to."""
    of = (await rated(database, until)).terms.phases
    return [
        (phase.plan.key, phase.plan.version, f"{phase.start:%m-%d}", "" if phase.end is None else f"{phase.end:%m-%d}")
        for phase in of
    ]


def terms(*told: tuple[str, str, int | None, int | None]) -> tuple[Terms, ...]:
    """Terms, written short."""
    return tuple(Terms(at(since), plan, version, seats) for since, plan, version, seats in told)


# ---------------------------------------------------------------- the facts


def test_a_subscription_is_kept_as_it_is_put(database_url: str) -> None:
    """Every field of a subscription comes back as it was put; what is left out has its default."""

    async def scenario(database: Database) -> None:
        await publish(database, draft())
        full = order(
            plan_version=1,
            seats=7,
            ends_at=at("2027-01-01"),
            trial_ends_at=at("2026-01-15"),
            renews_at=at("2026-12-01"),
            billing_anchor=at("2025-12-31T13:00"),
            time_zone="Europe/Berlin",
            monthly_amount=Decimal("49.90"),
            discount_percent=Decimal("12.5"),
            attributes={"segment": "smb", "depth": [1, {"a": None}]},
        )
        made = await put(database, full)
        bare = await put(database, order(key="s-2"))

        assert [made, bare] == [await found(database), await found(database, "s-2")]
        kept = ("key", "account", "starts_at", "ends_at", "trial_ends_at", "renews_at", "billing_anchor", "time_zone")
        kept += ("monthly_amount", "discount_percent")
        assert [getattr(full, name) for name in kept] == [getattr(made, name) for name in kept]
        assert full.attributes == msgspec.json.decode(made.attributes)
        assert terms(("2026-01-01", "team", 1, 7)) == made.terms
        assert terms(("2026-01-01", "team", None, None)) == bare.terms
        assert ("EUR", START, None, Decimal(0), "{}") == (
            bare.currency_code,
            bare.billing_anchor,
            bare.ends_at,
            bare.discount_percent,
            bare.attributes,
        )

    play(database_url, scenario)


def test_putting_again_changes_nothing(database_url: str) -> None:
    """The same subscription in any spelling is the same: nothing is written, and nothing is on record as a change."""

    async def scenario(database: Database) -> None:
        await publish(database, draft())
        wanted = order(seats=3, monthly_amount=Decimal("9.9"), attributes={"a": 1, "b": 2})
        made = await put(database, wanted)
        spelled = order(
            seats=3,
            monthly_amount=Decimal("9.90"),
            discount_percent=Decimal("0.0"),
            billing_anchor=START,
            attributes={"b": 2, "a": 1},
        )
        for again in (wanted, spelled, order(**{**msgspec.structs.asdict(wanted), "effective_at": at("2026-02-01")})):
            assert made == await put(database, again, OTHER_KEY)
        assert [(1,)] == await rows(database, "SELECT count(*) FROM subscription_terms")
        assert [(0,)] == await rows(database, "SELECT count(*) FROM subscription_change")
        assert [("finance (mk_finance)",)] == await rows(database, "SELECT changed_by FROM subscription")

    play(database_url, scenario)


def test_facts_change_and_stay_on_record(database_url: str) -> None:
    """Other facts are as they were put last; what they were before, who changed them and when is kept field by field."""

    async def scenario(database: Database) -> None:
        await publish(database, draft())
        await put(database, order(monthly_amount=Decimal("9.90"), attributes={"a": 1}))
        other = order(ends_at=at("2026-06-01"), discount_percent=Decimal(5), attributes={"a": 2})
        changed = await put(database, other, OTHER_KEY)

        assert changed == await found(database)
        assert (at("2026-06-01"), None, Decimal(5), '{"a": 2}') == (
            changed.ends_at,
            changed.monthly_amount,
            changed.discount_percent,
            changed.attributes,
        )
        ((by, before, after, later),) = await rows(
            database,
            "SELECT by, before, after, changed_at > (SELECT created_at FROM subscription) FROM subscription_change",
        )
        assert ("product (mk_product)", True) == (by, later)
        assert {"ends_at": None, "monthly_amount": "9.9", "discount_percent": "0", "attributes": {"a": 1}} == (
            msgspec.json.decode(before)
        )
        assert {
            "ends_at": "2026-06-01T00:00:00Z",
            "monthly_amount": None,
            "discount_percent": "5",
            "attributes": {"a": 2},
        } == msgspec.json.decode(after)

    play(database_url, scenario)


@pytest.mark.parametrize(
    ("fields", "named"),
    [
        ({"account": "globex"}, "another account"),
        ({"starts_at": at("2026-01-02")}, "another startsAt, billingAnchor"),
        ({"billing_anchor": at("2026-01-02")}, "another billingAnchor"),
        ({"time_zone": "Europe/Berlin"}, "another timeZone"),
        ({"plan": "dollars"}, "in USD, and the subscription 's-1' in EUR"),
    ],
)
def test_what_periods_are_counted_from_does_not_change(database_url: str, fields: dict[str, Any], named: str) -> None:
    """Another account, start, anchor, zone or currency is a conflict that names what differs; the subscription stays."""

    async def scenario(database: Database) -> None:
        await publish(database, draft())
        await publish(database, draft(key="dollars", currency_code="USD"))
        made = await put(database, order(billing_anchor=None))
        with pytest.raises(ConflictError, match=named):
            await put(database, order(seats=9, discount_percent=Decimal(1), **fields))
        assert made == await found(database)

    play(database_url, scenario)


def test_there_is_a_plan_to_subscribe_to(database_url: str) -> None:
    """A plan, or a version of it, that is not there is not found, and nothing is made."""

    async def scenario(database: Database) -> None:
        with pytest.raises(NotFoundError, match="no plan 'team'"):
            await put(database, order())
        await publish(database, draft())
        with pytest.raises(NotFoundError, match="no version 2 of the plan 'team'"):
            await put(database, order(plan_version=2))
        assert [(0,)] == await rows(database, "SELECT count(*) FROM subscription")

    play(database_url, scenario)


def test_a_key_of_some_accounts_puts_no_subscription(database_url: str) -> None:
    """A key that is bound to accounts may not say what these owe."""

    async def scenario(database: Database) -> None:
        await publish(database, draft())
        with pytest.raises(ForbiddenError, match="bound to accounts"):
            await put(database, order(), BOUND_KEY)

    play(database_url, scenario)


# ---------------------------------------------------------------- terms over time


def test_a_change_without_an_instant_takes_effect_now(database_url: str) -> None:
    """Another plan or number of seats holds from the moment on at which it is put; what was before stays."""

    async def scenario(database: Database) -> None:
        await publish(database, draft())
        await put(database, order(starts_at=at("2026-01-01"), seats=3))
        before = datetime.now(UTC)
        changed = await put(database, order(seats=5))
        first, second = changed.terms

        assert terms(("2026-01-01", "team", None, 3)) == (first,)
        assert 5 == second.seats
        # The test's clock is the server's.
        assert before <= second.since <= datetime.now(UTC)
        assert 3 == changed.terms_at(before).seats
        assert 5 == changed.terms_at(datetime.now(UTC)).seats

    play(database_url, scenario)


def test_a_subscription_that_has_not_started_changes_from_its_start_on(database_url: str) -> None:
    """Before a subscription starts, other terms take the place of the first ones."""

    async def scenario(database: Database) -> None:
        await publish(database, draft())
        await put(database, order(starts_at=at("2190-01-01"), seats=3))
        changed = await put(database, order(starts_at=at("2190-01-01"), seats=5))
        assert terms(("2190-01-01", "team", None, 5)) == changed.terms
        assert 5 == changed.terms_at(START).seats

    play(database_url, scenario)


def test_terms_take_effect_from_an_instant_on(database_url: str) -> None:
    """A change may be scheduled, or made for the past; what was put for later then no longer counts, and stays on record."""

    async def scenario(database: Database) -> None:
        for key in ("team", "scale", "huge"):
            await publish(database, draft(key=key))
        await put(database, order(seats=1))
        await put(database, order(plan="scale", seats=2, effective_at=at("2026-03-10")))
        later = await put(database, order(plan="huge", seats=2, effective_at=at("2026-05-01")))
        expected = ("2026-01-01", "team", None, 1), ("2026-03-10", "scale", None, 2), ("2026-05-01", "huge", None, 2)
        assert terms(*expected) == later.terms
        # What holds at that instant already is no change: what follows stays.
        assert later == await put(database, order(plan="scale", seats=2, effective_at=at("2026-04-01")))

        rewritten = await put(database, order(plan="team", seats=4, effective_at=at("2026-02-01")), OTHER_KEY)
        assert terms(expected[0], ("2026-02-01", "team", None, 4)) == rewritten.terms
        taken_back = await put(database, order(plan="team", seats=1, effective_at=at("2026-02-01")))
        assert terms(expected[0], ("2026-02-01", "team", None, 1)) == taken_back.terms
        assert taken_back == await found(database)
        on_record = await rows(
            database,
            "SELECT to_char(since, 'MM-DD'), plan, seats, put_by, replaced_by, replaced_at > put_at "
            "FROM subscription_terms ORDER BY id",
        )
        finance, product = "finance (mk_finance)", "product (mk_product)"
        assert [
            ("01-01", "team", 1, finance, None, None),
            ("03-10", "scale", 2, finance, product, True),
            ("05-01", "huge", 2, finance, product, True),
            ("02-01", "team", 4, product, finance, True),
            ("02-01", "team", 1, finance, None, None),
        ] == on_record

    play(database_url, scenario)


def test_a_new_subscription_may_have_its_plan_later(database_url: str) -> None:
    """With an instant the first terms hold from then on; terms for an earlier instant may be put after them."""

    async def scenario(database: Database) -> None:
        await publish(database, draft())
        made = await put(database, order(effective_at=at("2026-03-10"), seats=2))
        assert terms(("2026-03-10", "team", None, 2)) == made.terms
        assert [("team", 1, "03-10", "07-01")] == await phases(database)
        earlier = await put(database, order(effective_at=at("2026-02-10"), seats=2))
        assert terms(("2026-02-10", "team", None, 2)) == earlier.terms

    play(database_url, scenario)


def test_an_ended_subscription_keeps_its_terms(database_url: str) -> None:
    """After its end a put that says the same changes nothing, one that says other terms needs an instant before the end."""

    async def scenario(database: Database) -> None:
        await publish(database, draft())
        await put(database, order(seats=1))
        await put(database, order(seats=2, effective_at=at("2026-03-01")))
        ended = await put(database, order(seats=1, ends_at=at("2026-02-10")))

        # It had ended before there were two seats.
        assert terms(("2026-01-01", "team", None, 1), ("2026-03-01", "team", None, 2)) == ended.terms
        assert 1 == ended.terms_at(at("2026-06-01")).seats
        assert [("team", 1, "01-01", "02-10")] == await phases(database)
        with pytest.raises(
            InvalidInputError, match=r"input\.effectiveAt: The subscription ends at 2026-02-10T00:00:00Z"
        ):
            await put(database, order(seats=3, ends_at=at("2026-02-10")))
        changed = await put(database, order(seats=3, ends_at=at("2026-02-10"), effective_at=at("2026-02-01")))
        assert 3 == changed.terms_at(at("2026-06-01")).seats

    play(database_url, scenario)


def test_puts_at_once_take_turns(database_url: str) -> None:
    """Of many who put one subscription at once one makes it; every change of seats is on record, and the last one holds."""
    wanted = [order(seats=seats) for seats in range(1, 9)]

    async def scenario(database: Database) -> None:
        await publish(database, draft())
        await asyncio.gather(*(put(database, each) for each in wanted))
        now = await found(database)
        on_record = await rows(database, "SELECT seats FROM subscription_terms ORDER BY id")

        assert sorted(on_record) == [(seats,) for seats in range(1, 9)]
        assert START == now.terms[0].since
        # Each took effect after the one before it, so none was replaced.
        assert [seats for (seats,) in on_record] == [each.seats for each in now.terms]
        assert now.terms[-1].seats == now.terms_at(at("2199-01-01")).seats

    play(database_url, scenario)


def test_one_instant_has_one_plan(database_url: str) -> None:
    """Should terms ever be written beside the lock, the database lets no two begin at one instant."""

    async def scenario(database: Database) -> None:
        await publish(database, draft())
        await put(database, order())
        with pytest.raises(asyncpg.UniqueViolationError, match="subscription_terms_in_effect_idx"):
            await rows(
                database,
                "INSERT INTO subscription_terms (subscription, since, plan, put_at, put_by) "
                "SELECT subscription, since, 'other', now(), 'nobody' FROM subscription_terms",
            )

    play(database_url, scenario)


def test_terms_change_so_often_and_no_more(database_url: str) -> None:
    """Plan and seats may change as often as the limit says; one more is a conflict, and changes nothing."""
    limits = msgspec.structs.replace(LIMITS, subscription_terms_max=3)

    async def scenario(database: Database) -> None:
        await publish(database, draft())

        async def change(day: int, seats: int) -> Subscription:
            wanted = order(seats=seats, effective_at=START + timedelta(days=day))
            return await put_subscription(database, wanted, KEY, limits)

        for day in range(3):
            kept = await change(day, day)
        with pytest.raises(ConflictError, match="have changed 3 times"):
            await change(3, 3)
        assert kept == await found(database)
        assert 3 == len((await change(2, 9)).terms)

    play(database_url, scenario)


# ---------------------------------------------------------------- what rating is told


def test_plans_and_versions_over_time(database_url: str) -> None:
    """Another plan applies at once, a new version from the next period on, and a version that is pinned stays."""

    async def scenario(database: Database) -> None:
        await publish(database, draft())
        await publish(database, draft(name="Team 2", effective_from=at("2026-02-15")))
        await publish(database, draft(key="scale"))
        await put(database, order())
        assert [("team", 1, "01-01", "03-01"), ("team", 2, "03-01", "07-01")] == await phases(database)
        await put(database, order(plan="scale", effective_at=at("2026-03-10")))
        await put(database, order(plan="team", plan_version=1, effective_at=at("2026-04-20")))
        assert [
            ("team", 1, "01-01", "03-01"),
            ("team", 2, "03-01", "03-10"),
            ("scale", 1, "03-10", "04-20"),
            ("team", 1, "04-20", "07-01"),
        ] == await phases(database)

    play(database_url, scenario)


def test_seats_bring_no_new_version(database_url: str) -> None:
    """A change of seats in mid-period chooses no plan: a version that took effect meanwhile waits for the next period."""

    async def scenario(database: Database) -> None:
        await publish(database, draft())
        await publish(database, draft(name="Team 2", effective_from=at("2026-02-05")))
        await put(database, order(seats=2))
        await put(database, order(seats=4, effective_at=at("2026-02-10")))
        await put(database, order(seats=None, effective_at=at("2026-02-20")))
        of = (await rated(database)).terms

        assert [("team", 1, "01-01", "03-01"), ("team", 2, "03-01", "07-01")] == await phases(database)
        assert (
            SeatChange(START, 2),
            SeatChange(at("2026-02-10"), 4),
            SeatChange(at("2026-02-20"), 0),
        ) == of.seats

    play(database_url, scenario)


def test_periods_from_the_end_of_january(database_url: str) -> None:
    """Counted from 31 January in a zone, months begin there on 28 February and again on 31 March; a trial is part of none."""

    async def scenario(database: Database) -> None:
        await publish(database, draft())
        start = at("2026-01-30T23:00")
        await put(
            database,
            order(
                starts_at=start,
                time_zone="Europe/Berlin",
                trial_ends_at=at("2026-03-10"),
                discount_percent=Decimal("12.5"),
                ends_at=at("2026-05-10"),
            ),
        )
        of = (await rated(database)).terms
        periods = list(billing_periods(of, at("2026-07-01")))

        assert [
            (start, at("2026-02-27T23:00")),
            (at("2026-02-27T23:00"), at("2026-03-30T22:00")),
            (at("2026-03-30T22:00"), at("2026-04-29T22:00")),
            (at("2026-04-29T22:00"), at("2026-05-10")),
        ] == [(each.served.start, each.served.end) for each in periods]
        assert [[], [at("2026-03-10")], [at("2026-03-30T22:00")]] == [
            [part.period.start for part in parts_of(of, each)] for each in periods[:3]
        ]
        assert Decimal("12.5") == of.discount_percent

    play(database_url, scenario)


def test_pages_of_subscriptions(database_url: str) -> None:
    """Subscriptions come by key, of some accounts or keys or of all; as rating takes them in the same pages."""

    async def scenario(database: Database) -> None:
        await publish(database, draft())
        for number, account in enumerate("abab"):
            await put(database, order(key=f"s-{number}", account=account, seats=number))
        async with Snapshot(database) as snapshot:
            pages = [
                await read_subscriptions(snapshot, 3),
                await read_subscriptions(snapshot, 3, "s-2"),
                await read_subscriptions(snapshot, 1, accounts=["b", "\0"]),
                await read_subscriptions(snapshot, 9, keys=["s-2", "nobody", "s-0"]),
                await read_subscriptions(snapshot, 9, "s-0", accounts=["a"], keys=["s-0", "s-1", "s-2"]),
                await read_subscriptions(snapshot, 9, keys=[]),
            ]
            as_rated, more = await read_rated(snapshot, 2, "s-1", until=at("2026-03-01"))

        assert [
            (["s-0", "s-1", "s-2"], True),
            (["s-3"], False),
            (["s-1"], True),
            (["s-0", "s-2"], False),
            (["s-2"], False),
            ([], False),
        ] == [([each.key for each in page], has_more) for page, has_more in pages]
        assert (["s-2", "s-3"], ["a", "b"], False) == (
            [each.key for each in as_rated],
            [each.account for each in as_rated],
            more,
        )

    play(database_url, scenario)


class Counted(Snapshot):
    """A snapshot that counts what it is asked."""

    asked = 0

    async def fetch(self, statement: str, arguments: Sequence[object] = (), *, hashed: bool = False) -> list[Any]:
        """Count, and ask."""
        self.asked += 1
        return await super().fetch(statement, arguments, hashed=hashed)


def test_any_number_of_subscriptions_takes_three_statements(database_url: str) -> None:
    """However many subscriptions, plans and changes there are, a page of them is read by three statements."""

    async def scenario(database: Database) -> None:
        for plan in range(5):
            await publish(database, draft(key=f"plan-{plan}"))
        for number in range(40):
            await put(database, order(key=f"s-{number}", plan=f"plan-{number % 5}"))
            await put(
                database, order(key=f"s-{number}", plan=f"plan-{(number + 1) % 5}", effective_at=at("2026-02-10"))
            )
        async with Counted(database) as snapshot:
            page, more = await read_rated(snapshot, 40, until=at("2026-06-01"))
        assert (3, False, {2}) == (snapshot.asked, more, {len(each.terms.phases) for each in page})

    play(database_url, scenario)


# ---------------------------------------------------------------- any history

PLANS = ("a", "b")
DAYS = 150

changes = st.tuples(
    st.integers(0, DAYS - 1),
    st.sampled_from(PLANS),
    st.sampled_from([None, None, 1, 2]),
    st.sampled_from([None, 1, 2]),
)


def naive_days(history: list[tuple[int, str, int | None, int | None]]) -> list[tuple[str, int | None, int | None]]:
    """Day by day what holds, found by writing each change over everything from its day on, where it is one."""
    (_, *first), *later = history
    days: list[tuple[str, int | None, int | None]] = [tuple(first)] * DAYS  # type: ignore[list-item]
    for day, plan, version, seats in later:
        if days[day] != (plan, version, seats):
            days[day:] = [(plan, version, seats)] * (DAYS - day)
    return days


def naive_version(
    days: list[tuple[str, int | None, int | None]], day: int, published: Mapping[str, Sequence[Plan]]
) -> tuple[str, int] | None:
    """Which version of which plan applies on a day, found by going back from it to where it was decided."""
    plan, pinned, _ = days[day]
    if pinned is not None:
        return plan, pinned
    chosen = day
    while chosen > 0 and days[chosen - 1][:2] == (plan, None):
        chosen -= 1
    decided, applies = chosen, None
    while decided <= day:
        instant = START + timedelta(days=decided)
        in_effect = [each for each in published[plan] if each.effective_from <= instant]
        if not in_effect:
            decided += 1
            continue
        applies = max(in_effect, key=lambda each: each.version)
        end = period_at(instant, START, UTC, applies.interval).end
        decided += (end - instant).days
    return None if applies is None else (plan, applies.version)


@pytest.fixture
def published_url(database_url: str) -> str:
    """A database with a few versions of two plans, by the month and by the week, which take effect on various days."""

    async def scenario(database: Database) -> None:
        for key, interval in zip(PLANS, (BillingInterval.MONTH, BillingInterval.WEEK), strict=True):
            for name, day in enumerate((10, 40, 41, 80)):
                since = START + timedelta(days=day)
                await publish(database, draft(key=key, name=str(name), interval=interval, effective_from=since))

    play(database_url, scenario)
    return database_url


@settings(FEW, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(changes, min_size=1, max_size=8))
def test_any_history_is_what_it_is_day_by_day(
    published_url: str, history: list[tuple[int, str, int | None, int | None]]
) -> None:
    """Whatever is changed, for whichever day, in whichever order, rating is told what a naive calendar says of each day."""
    (_, plan, version, seats), *later = history
    days = naive_days(history)

    async def scenario(database: Database) -> None:
        key = f"s-{(await rows(database, 'SELECT count(*) FROM subscription'))[0][0]}"
        wanted = {"key": key, "ends_at": START + timedelta(days=DAYS)}
        made = await put(database, order(plan=plan, plan_version=version, seats=seats, **wanted))
        for day, *terms in later:
            said = dict(zip(("plan", "plan_version", "seats"), terms, strict=True))
            made = await put(database, order(**said, effective_at=START + timedelta(days=day), **wanted))
        async with Snapshot(database) as snapshot:
            (one,), _ = await read_rated(snapshot, 1, until=at("2027-01-01"), keys=[key])
            compare(made, one, days, await versions_of(snapshot, PLANS))

    play(published_url, scenario)


def compare(
    made: Subscription,
    one: RatedSubscription,
    days: list[tuple[str, int | None, int | None]],
    published: Mapping[str, Sequence[Plan]],
) -> None:
    """What is kept and what rating is told, against the naive days."""
    for day in range(DAYS):
        instant = START + timedelta(days=day)
        held = made.terms_at(instant)
        assert days[day] == (held.plan, held.plan_version, held.seats)
        applying = [each.plan for each in one.terms.phases if each.start <= instant < (each.end or instant)]
        expected = naive_version(days, day, published)
        assert ([] if expected is None else [expected]) == [(plan.key, plan.version) for plan in applying]
        assert (expected is not None) == (billing_period_at(one.terms, instant) is not None)
        seats = [change.seats for change in one.terms.seats if change.since <= instant]
        assert (days[day][2] or 0) == seats[-1]


# ---------------------------------------------------------------- faults


@pytest.mark.parametrize(
    ("fields", "paths"),
    [
        *(({name: text}, [name]) for name in ("key", "account", "plan") for text in ("", " ", "a\0", "a" * 257)),
        ({"plan_version": 0}, ["planVersion"]),
        ({"seats": -1}, ["seats"]),
        ({"time_zone": "Europe/Bonn"}, ["timeZone"]),
        ({"starts_at": at("1899-12-31")}, ["startsAt"]),
        ({"renews_at": at("2200-01-01")}, ["renewsAt"]),
        ({"billing_anchor": at("1800-01-01")}, ["billingAnchor"]),
        ({"ends_at": START}, ["endsAt"]),
        ({"trial_ends_at": START}, ["trialEndsAt"]),
        ({"effective_at": at("2025-12-31T23:59:59")}, ["effectiveAt"]),
        ({"effective_at": at("2026-02-01"), "ends_at": at("2026-02-01")}, ["effectiveAt"]),
        ({"monthly_amount": Decimal("-0.01")}, ["monthlyAmount"]),
        ({"monthly_amount": Decimal("1E+38")}, ["monthlyAmount"]),
        ({"monthly_amount": Decimal("1E-19")}, ["monthlyAmount"]),
        ({"monthly_amount": Decimal("9.999")}, ["monthlyAmount"]),
        ({"discount_percent": Decimal(-1)}, ["discountPercent"]),
        ({"discount_percent": Decimal("100.01")}, ["discountPercent"]),
        ({"attributes": {"a": "b" * 4_096}}, ["attributes"]),
        ({"attributes": {"a": [{"b": "\0"}]}}, ["attributes"]),
        ({"attributes": {"\0": 1}}, ["attributes"]),
        (
            {"key": "", "seats": -1, "ends_at": START, "discount_percent": Decimal(101)},
            ["key", "seats", "endsAt", "discountPercent"],
        ),
    ],
)
def test_faults_are_told_with_their_paths(database_url: str, fields: dict[str, Any], paths: list[str]) -> None:
    """What cannot be a subscription is refused with all that is wrong, each by its path, and nothing is made."""

    async def scenario(database: Database) -> None:
        await publish(database, draft())
        with pytest.raises(InvalidInputError) as raised:
            await put(database, order(**fields))
        assert [("input", path) for path in paths] == [issue.path for issue in raised.value.issues]
        assert [(0,)] == await rows(database, "SELECT count(*) FROM subscription")

    play(database_url, scenario)


@pytest.mark.parametrize(
    "fields",
    [
        {"key": "ä \U0001f680/@%", "account": "x" * 256},
        {"seats": 0, "monthly_amount": Decimal("0.000")},
        {"discount_percent": Decimal("100.0"), "monthly_amount": Decimal("9.900")},
        {"billing_anchor": at("2030-01-31"), "starts_at": at("1900-01-01")},
        {"effective_at": START, "ends_at": START + timedelta.resolution},
    ],
)
def test_what_may_be_put(database_url: str, fields: dict[str, Any]) -> None:
    """Names are any text, amounts have any spelling, and periods may be counted from an instant long after the start."""

    async def scenario(database: Database) -> None:
        await publish(database, draft())
        wanted: SubscriptionOrder = order(**fields)
        assert await put(database, wanted) == await found(database, wanted.key)

    play(database_url, scenario)
