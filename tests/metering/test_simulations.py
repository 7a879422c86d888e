"""Simulations on a real database: they say what charges and statements say once subscriptions are on the plan."""

import sys
from collections.abc import Sequence
from datetime import timedelta
from decimal import Decimal
from typing import Any, Final

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from metering.errors import InvalidInputError, NotFoundError, TooLargeError
from metering.events import Dimension, UsageEvent
from metering.limits import LIMITS
from metering.periods import Period
from metering.questions import Question
from metering.statements.charges import read_charges
from metering.statements.simulations import (
    PageAsked,
    Place,
    Report,
    Row,
    Simulated,
    SimulationOrder,
    check_order,
    report_of,
    simulate,
)
from metering.store.pool import Database
from metering.store.snapshot import Snapshot
from rating.billing_periods import BillingInterval
from rating.exact import total
from rating.plans import Plan, PlanPrice
from rating.prices import Flat, Graduated, Package, PerSeat, PerUnit, Tier
from rating.simulations import Weight
from tests.conftest import Server
from tests.metering.billing import BASE, CALLS, TIERS, call, freeze, listed, offer, roll_up, use
from tests.metering.catalog import draft, meter, order, play, publish, put
from tests.rating.tables import at, plan

# All that there is of the subscriptions is in it.
SPRING: Final = Period(at("2025-01-01"), at("2025-04-01"))
SPLIT: Final = at("2025-02-10T14:37:22.123457")
PAGES_OF_TWO: Final = msgspec.structs.replace(
    LIMITS, statement_page_subscriptions=2, simulation_user_page_subscriptions=2
)
SEATS: Final = PlanPrice(key="seats", price=PerSeat(Decimal(3)), included_quantity=Decimal(1))
BUNDLES: Final = PlanPrice(key="bundles", meter="calls", price=Package(Decimal(5), Decimal("1.25")))
STEEP: Final = PlanPrice(
    key="steep", meter="calls", price=Graduated((Tier(Decimal(3), Decimal("0.7")), Tier(None, Decimal("0.01"))))
)
LEAST: Final = msgspec.structs.replace(CALLS, key="least", minimum_amount=Decimal("2.5"), maximum_amount=Decimal(4))
# A plan that everybody is put on: by user and subscription, or by subscription only, what both sides come to.
Sides = dict[tuple[str, str | None], tuple[Decimal, Decimal]]


def wanted(**fields: Any) -> SimulationOrder:
    """An order of all there is under the plan `target`, with these fields instead of the usual ones."""
    named = {} if "draft" in fields or "plan" in fields else {"plan": "target"}
    return SimulationOrder(**{"start": SPRING.start, "end": SPRING.end, **named, **fields})


async def simulated(database: Database, **fields: Any) -> list[Simulated]:
    """What is simulated, read two subscriptions at a time."""
    async with Snapshot(database) as snapshot:
        simulation = await check_order(snapshot, wanted(**fields), LIMITS)
        batches = [batch async for batch in simulate(snapshot, simulation, PAGES_OF_TWO)]
        assert all(len(batch) <= 2 for batch in batches)
        found = [each for batch in batches for each in batch]
        assert simulation.subscriptions == len(found)
    return found


def rows_of(found: Sequence[Simulated]) -> list[Row]:
    """All rows."""
    return [row for each in found for row in each.rows]


def sides(found: Sequence[Simulated]) -> Sides:
    """Both sides of each row that has any."""
    amounts = {
        (row.subscription, row.user): (row.compared.current.amount, row.compared.simulated.amount)
        for row in rows_of(found)
    }
    return {name: both for name, both in amounts.items() if any(both)}


async def charged(database: Database, asked: Period, *, by_user: bool) -> dict[tuple[str, str | None], Decimal]:
    """What the charges of the subscriptions in EUR are, by what rows are by."""
    group_by = (Dimension.SUBSCRIPTION, *([Dimension.USER] if by_user else []))
    question = Question(period=asked, zone_name="UTC", group_by=group_by, filters={})
    async with Snapshot(database) as snapshot:
        found = await read_charges(snapshot, question, LIMITS)
    return {
        (str(group.key[0]), group.key[1] if by_user else None): money.amount
        for group in found.groups
        for money in group.totals
        if money.currency.code == "EUR" and money.amount
    }


# ---------------------------------------------------------------- the same as doing so


CUSTOMERS: Final[Sequence[dict[str, Any]]] = [
    {"key": "s-1", "discount_percent": Decimal("7.5")},
    {"key": "s-2", "account": "beta", "plan": "weekly", "trial_ends_at": at("2025-01-09"), "ends_at": at("2025-03-20")},
    {"key": "s-3", "account": "beta", "billing_anchor": at("2025-01-15T14:37:22"), "seats": 3},
    {
        "key": "s-4",
        "account": "gamma",
        "time_zone": "Pacific/Auckland",
        "starts_at": at("2025-01-31T11:00"),
        "seats": 1,
    },
    {"key": "s-5", "account": "delta", "plan": "light"},
    {"key": "s-6", "account": "delta", "plan": "later"},
]


def customer(given: dict[str, Any], **fields: Any) -> Any:
    """One of them as it is put; all end with the spring at the latest."""
    return order(**{"starts_at": SPRING.start, "ends_at": SPRING.end, **given, **fields})


async def sell(database: Database) -> None:
    """Subscriptions on plans of all intervals; one changes its plan, one its seats, one has no plan at first, one is in JPY."""
    await meter(database, "calls")
    await publish(database, draft(BASE, CALLS, TIERS, SEATS))
    await publish(database, draft(STEEP, LEAST, key="light", minimum_amount=Decimal(8)))
    await publish(database, draft(BASE, CALLS, key="weekly", interval=BillingInterval.WEEK))
    await publish(database, draft(BASE, TIERS, key="later", effective_from=at("2025-02-20")))
    await publish(database, draft(BASE, TIERS, key="yen", currency_code="JPY"))
    for each in CUSTOMERS:
        await put(database, customer(each))
    await put(database, customer(CUSTOMERS[0], plan="light", effective_at=SPLIT))
    await put(database, customer(CUSTOMERS[2], seats=5, effective_at=SPLIT))
    await put(database, order(key="s-7", account="yen", plan="yen", starts_at=SPRING.start, ends_at=SPRING.end))


async def put_all_on_target(database: Database) -> None:
    """All but the one in JPY, since their start; with the seats that each has in the end."""
    for each in CUSTOMERS:
        await put(
            database, customer(each, plan="target", plan_version=1, effective_at=each.get("starts_at", SPRING.start))
        )
    await put(database, customer(CUSTOMERS[2], plan="target", plan_version=1, seats=5, effective_at=SPLIT))


@st.composite
def usage(draw: st.DrawFn) -> list[UsageEvent]:
    """Usage of these subscriptions by a few users and by none, in the spring."""
    pairs = [(each.get("account", "acme"), each["key"]) for each in CUSTOMERS]
    chosen = st.tuples(
        st.sampled_from([*pairs, ("yen", "s-7"), ("beta", "s-1"), ("acme", None)]),
        st.integers(0, 90 * 24 * 60),
        st.decimals(-4, 20, places=2),
        st.fixed_dictionaries(
            {"user": st.sampled_from(["x", "y", "z", None]), "unit": st.sampled_from(["call", "call", "call", "byte"])}
        ),
    )
    drawn = draw(st.lists(chosen, min_size=1, max_size=25))
    return [
        call(number, SPRING.start + timedelta(minutes=minutes), str(quantity), account=account, subscription=of, **more)
        for number, ((account, of), minutes, quantity, more) in enumerate(drawn)
    ]


TARGETS: Final = st.builds(
    lambda prices, interval, minimum: draft(
        *prices, key="target", interval=interval, minimum_amount=minimum, effective_from=at("2040-01-01")
    ),
    st.lists(st.sampled_from([BASE, CALLS, TIERS, SEATS, BUNDLES, STEEP, LEAST]), unique_by=lambda price: price.key),
    st.sampled_from(BillingInterval),
    st.sampled_from([None, Decimal(15)]),
)
# Whole months, all of it, and periods that cut those of all subscriptions.
PERIODS: Final = st.one_of(
    st.just(SPRING),
    st.sampled_from([Period(at("2025-01-01"), at("2025-02-01")), Period(at("2024-12-01"), at("2025-02-01"))]),
    st.tuples(st.integers(0, 90 * 86_400), st.integers(1, 90 * 86_400)).map(
        lambda pair: Period(SPRING.start + timedelta(seconds=pair[0]), SPRING.start + timedelta(seconds=sum(pair)))
    ),
)


def test_a_simulation_is_what_being_on_the_plan_comes_to(servers: dict[str, Server], engine: str) -> None:
    """Of any usage, in any period, under any plan, published or draft: each row is what the charges say as it is, and what
    they say when all are really put on the plan; over all their time that is what the statements come to that are drafted
    then, subscription by subscription.
    """
    server = servers[engine]

    @settings(max_examples=4, deadline=None)
    @given(usage(), TARGETS, PERIODS)
    def lived_through(events: list[UsageEvent], target: Plan, asked: Period) -> None:
        async def scenario(database: Database) -> None:
            await sell(database)
            await use(database, *events[: len(events) // 2 + 1])
            await roll_up(database)
            if events[len(events) // 2 + 1 :]:
                await use(database, *events[len(events) // 2 + 1 :])
            fields = {"start": asked.start, "end": asked.end}
            drafts = [await simulated(database, draft=target, by_user=by_user, **fields) for by_user in (False, True)]
            everything = sides(await simulated(database, draft=target))
            await publish(database, target)
            found = [await simulated(database, by_user=by_user, **fields) for by_user in (False, True)]
            before = [await charged(database, asked, by_user=by_user) for by_user in (False, True)]
            await put_all_on_target(database)
            after = [await charged(database, asked, by_user=by_user) for by_user in (False, True)]
            drafted: dict[str, Decimal] = {}
            for each in await listed(database):
                if each.currency.code == "EUR":
                    drafted[each.subscription] = drafted.get(each.subscription, Decimal(0)) + each.total.amount

            for by_user in (False, True):
                shown = sides(found[by_user])
                assert shown == sides(drafts[by_user])
                assert before[by_user] == {name: now for name, (now, _) in shown.items() if now}
                assert after[by_user] == {name: then for name, (_, then) in shown.items() if then}
            assert {name: amount for name, amount in drafted.items() if amount} == {
                name: then for (name, _), (_, then) in everything.items() if then
            }
            for each in found[1]:
                assert each.compared.current.amount == total(row.compared.current.amount for row in each.rows)
                assert each.compared.simulated.amount == total(row.compared.simulated.amount for row in each.rows)
            assert [each.compared for each in found[0]] == [each.compared for each in found[1]]

        with server.cloned() as url:
            play(url, scenario)

    lived_through()


def test_the_same_plan_changes_nothing(database_url: str) -> None:
    """Simulated under the version that they are on, every difference is zero, by user too, also of what is frozen."""

    async def scenario(database: Database) -> None:
        await offer(database, BASE, CALLS, TIERS, SEATS, seats=4, discount_percent=Decimal(3))
        await put(database, order(key="s-2", account="beta", billing_anchor=at("2025-01-09"), starts_at=SPRING.start))
        await use(
            database, *(call(number, f"2025-03-{number:02}", "7", user=f"u-{number % 3}") for number in range(1, 30))
        )
        await use(database, call(40, "2025-03-04", "2.5", account="beta", subscription="s-2", user="x"))
        await freeze(database, "2025-03-01")
        await use(database, call(41, "2025-03-04", "100", user="late"))
        for by_user in (False, True):
            found = rows_of(await simulated(database, plan="team", by_user=by_user))
            assert {Decimal(0)} == {row.compared.difference.amount for row in found}
            # Three months of 10, of 3 seats at 3 and of tiers at nothing; and 303 calls in March, all at the prices of now.
            owed = total(row.compared.current.amount for row in found if row.subscription == "s-1")
            usage = Decimal("0.333") * 303 + (1 + 5 + 2 * (303 - 5))
            assert owed == ((3 * (10 + 9) + 2 + usage) * Decimal("0.97")).quantize(Decimal("0.01"))

    play(database_url, scenario)


# ---------------------------------------------------------------- rows, pages and sums


async def many(database: Database) -> None:
    """Nine subscriptions, on 0.333 a call, with users that use more and less; `target` is the same for some of them."""
    await offer(database, BASE, CALLS)
    await publish(database, draft(BASE, STEEP, key="target"))
    events = []
    for number in range(2, 10):
        await put(database, order(key=f"s-{number}", account=f"a-{number % 3}", starts_at=SPRING.start))
        names = {"account": f"a-{number % 3}", "subscription": f"s-{number}"}
        events += [
            call(10 * number + user, "2025-03-10", str(number * user % 7), user=f"u-{user}", **names)
            for user in range(number % 4)
        ]
    await use(database, *events)


@pytest.mark.parametrize("by_user", [False, True])
def test_pages_are_all_rows_and_add_up(database_url: str, *, by_user: bool) -> None:
    """Walked page by page, rows are all rows, the biggest difference first and those alike by key; they add up to the sums."""

    async def scenario(database: Database) -> None:
        await many(database)
        fields = {"by_user": by_user, "start": at("2025-03-01"), "end": at("2025-04-01")}
        everything = rows_of(await simulated(database, **fields))
        walked: list[Row] = []
        after: Place | None = None
        has_next = True
        while has_next:
            asked = [PageAsked(4, after), PageAsked(1, after)]
            async with Snapshot(database) as snapshot:
                simulation = await check_order(snapshot, wanted(**fields), LIMITS)
                report = await report_of(snapshot, simulation, asked, PAGES_OF_TWO)
            page = report.page(asked[0])
            assert page.rows[:1] == report.page(asked[1]).rows
            walked += page.rows
            after, has_next = page.rows[-1].place, page.has_next

        assert sorted(everything, key=lambda row: row.place.order) == walked
        differences = [abs(row.compared.difference.amount) for row in walked]
        assert sorted(differences, reverse=True) == differences
        assert len(walked) == report.row_count
        sums = report.subscriptions
        assert (9, sums.pay_more + sums.pay_less + sums.unchanged) == (sums.count, simulation.subscriptions)
        assert sums.current == total(row.compared.current.amount for row in walked)
        assert sums.simulated == total(row.compared.simulated.amount for row in walked)
        if not by_user:
            signs = [row.compared.difference.amount for row in walked]
            assert (sums.pay_more, sums.pay_less) == (sum(each > 0 for each in signs), sum(each < 0 for each in signs))
            assert min(sums.pay_more, sums.pay_less, sums.unchanged) > 0
        for weight in Weight:
            of_weight = [row.compared for row in walked if row.weight is weight]
            assert len(of_weight) == report.users[weight].count
            assert report.users[weight].simulated == total(each.simulated.amount for each in of_weight)
            assert bool(of_weight) is by_user

    play(database_url, scenario)


def test_light_and_heavy_users(database_url: str) -> None:
    """Users are told apart by their shares of what the meters of both plans counted; what has no user is neither."""

    async def scenario(database: Database) -> None:
        await meter(database, "maps", product=["maps"])
        await meter(database, "mail", product=["mail"])
        prices = [PlanPrice(key=key, meter=key, price=PerUnit(Decimal("0.1"))) for key in ("maps", "mail")]
        await publish(database, draft(BASE, prices[0]))
        await publish(database, draft(prices[1], key="target"))
        await put(database, order(starts_at=SPRING.start))
        used = [("x", "maps", "100"), ("y", "maps", "60"), ("y", "mail", "9"), ("z", "mail", "1"), (None, "mail", "50")]
        await use(
            database,
            *(
                call(number, "2025-03-10", quantity, user=user, product=product)
                for number, (user, product, quantity) in enumerate(used)
            ),
        )
        (found,) = await simulated(database, by_user=True, start=at("2025-03-01"), end=at("2025-04-01"))

        heavy, light = Weight.HEAVY, Weight.LIGHT
        # Of 160 and of 10: x has 0.625, y 0.375 and 0.9, z 0.1; a third of 2 is 0.67.
        expected = [("x", light, "10.00", "0.00"), ("y", heavy, "6.00", "0.90"), ("z", light, "0.00", "0.10")]
        assert [*expected, (None, None, "10.00", "5.00")] == [
            (row.user, row.weight, str(row.compared.current.amount), str(row.compared.simulated.amount))
            for row in found.rows
        ]

    play(database_url, scenario)


MANY_SUBSCRIPTIONS: Final = """
WITH made AS (
    INSERT INTO subscription (
        key, account, currency_code, starts_at, time_zone, billing_anchor, discount_percent, attributes, created_by, changed_by
    )
    SELECT 'many-' || number, 'many-' || number, 'EUR', '2025-01-01', 'UTC', '2025-01-01', 0, '{}', 'test', 'test'
    FROM generate_series(1, 3000) AS number
    RETURNING key
)
INSERT INTO subscription_terms (subscription, since, plan, put_at, put_by)
SELECT key, '2025-01-01', 'team', now(), 'test' FROM made
"""


class CountingSnapshot(Snapshot):
    """A snapshot that knows the most rows that one question brought here."""

    rows_max = 0

    async def fetch(self, statement: str, arguments: Sequence[object] = (), *, hashed: bool = False) -> list[Any]:
        """As it is, counted."""
        rows = await super().fetch(statement, arguments, hashed=hashed)
        self.rows_max = max(self.rows_max, len(rows))
        return rows


def test_nothing_is_held_of_what_was_walked_through(database_url: str) -> None:
    """Of thousands of subscriptions, no question brings more than a batch, and what is held does not grow with what was
    walked through: one page of the biggest differences, and sums.
    """

    async def scenario(database: Database) -> None:
        await offer(database, BASE, CALLS)
        await publish(database, draft(BASE, STEEP, key="target"))
        async with database.connection() as connection:
            await connection.execute(MANY_SUBSCRIPTIONS)
        await use(
            database,
            *(
                call(number, "2025-03-10", str(number % 50), account=f"many-{number}", subscription=f"many-{number}")
                for number in range(1, 3_001)
            ),
        )
        limits = msgspec.structs.replace(LIMITS, statement_page_subscriptions=100)
        asked = PageAsked(10, None)
        held = []
        async with CountingSnapshot(database) as snapshot:
            simulation = await check_order(snapshot, wanted(start=at("2025-03-01"), end=at("2025-04-01")), limits)
            report = Report(simulation, [asked])
            async for batch in simulate(snapshot, simulation, limits):
                assert len(batch) <= 100
                report.add(batch)
                del batch
                held.append(sys.getallocatedblocks())

        assert 31 == len(held)
        assert snapshot.rows_max <= 101
        # A row is some six objects: less than one of each is left.
        assert held[-1] - held[9] < 2_000
        assert 3_001 == report.subscriptions.count
        assert ["many-1049", "many-1099"] == [row.subscription for row in report.page(asked).rows[:2]]

    play(database_url, scenario)


# ---------------------------------------------------------------- what is refused


async def refused(database: Database, **fields: Any) -> dict[tuple[str, ...], str]:
    """The faults of an order, by their paths."""
    async with Snapshot(database) as snapshot:
        with pytest.raises(InvalidInputError) as caught:
            await check_order(snapshot, wanted(**fields), LIMITS)
    return {issue.path: issue.message for issue in caught.value.issues}


def test_all_faults_at_once(database_url: str) -> None:
    """An order is refused with every fault at once, each with the way to it; a draft's faults are those of publishing it."""

    async def scenario(database: Database) -> None:
        await offer(database)
        await publish(database, draft(BASE, key="yen", currency_code="JPY"))
        late, early = at("2025-04-01"), at("2025-03-01")
        faulty = plan(
            PlanPrice(key="", price=Flat(Decimal(-1))),
            PlanPrice(key="calls", meter="absent", price=PerUnit(Decimal(1))),
            key="\0",
            currency_code="USD",
            name="\0",
        )

        found = await refused(database, plan="absent", version=3, draft=faulty, start=late, end=early)
        assert {
            ("input", "draft"),
            ("input", "period", "to"),
            ("input", "draft", "name"),
            ("input", "draft", "prices", "0", "key"),
            ("input", "draft", "prices", "0", "price", "flat", "amount"),
            ("input", "draft", "prices", "1", "meter"),
        } == set(found)
        found = await refused(database, draft=faulty)
        assert "there are 1 in EUR" in found["input", "draft", "currencyCode"]
        assert ("input", "draft", "name") in found
        assert {("input", "plan")} == set(await refused(database, plan="yen"))
        assert {("input", "plan"), ("input", "period")} == set(
            await refused(database, plan="absent", end=at("2027-01-01"))
        )
        found = await refused(database, plan="team", version=3, start=at("1800-01-01"), end=at("1800-02-01"))
        assert "its newest is 1" in found["input", "version"]
        assert ("input", "period") in found
        assert {("input", "plan"), ("input", "version")} == set(await refused(database, plan=None, version=3))
        for fields, message in (
            ({"plan": "absent"}, "no plan 'absent'"),
            ({"plan": "\0"}, "no plan"),
            ({"plan": "absent", "version": 3}, "no plan 'absent'"),
            ({"plan": "team", "version": 3}, "no version 3 of the plan 'team'; its newest is 1"),
        ):
            async with Snapshot(database) as snapshot:
                with pytest.raises(NotFoundError, match=message):
                    await check_order(snapshot, wanted(**fields), LIMITS)

    play(database_url, scenario)


def test_another_currency_is_left_out_and_counted(database_url: str) -> None:
    """Subscriptions in another currency than the plan are no rows; how many they are is said. Where there is none at all,
    there is nothing to refuse.
    """

    async def scenario(database: Database) -> None:
        await sell(database)
        async with Snapshot(database) as snapshot:
            everybody = await check_order(snapshot, wanted(plan="team"), LIMITS)
            nobody = await check_order(snapshot, wanted(plan="team", accounts=["nobody", "\0"]), LIMITS)
            before = await check_order(snapshot, wanted(plan="yen", start=at("2024-01-01"), end=SPRING.start), LIMITS)
            report = await report_of(snapshot, nobody, [PageAsked(1, None)], LIMITS)

        assert (6, 1) == (everybody.subscriptions, everybody.other_currency)
        assert (0, 0) == (nobody.subscriptions, nobody.other_currency) == (before.subscriptions, before.other_currency)
        assert ((), False) == (report.page(PageAsked(1, None)).rows, report.page(PageAsked(1, None)).has_next)
        assert {"s-7"} == {row.subscription for row in rows_of(await simulated(database, plan="yen"))}

    play(database_url, scenario)


def test_more_than_one_answer_has_time_for(database_url: str) -> None:
    """More subscriptions, or rows by user, than one answer may have are refused; what to do is said."""

    async def scenario(database: Database) -> None:
        await many(database)
        for fields, limits, message in (
            ({}, {"simulation_subscriptions_max": 8}, "9 subscriptions .* time for 8"),
            ({"by_user": True}, {"points_max": 10}, "more than 10 users"),
        ):
            async with Snapshot(database) as snapshot:
                simulation = await check_order(snapshot, wanted(**fields), LIMITS)
                with pytest.raises(TooLargeError, match=f"{message}.*metering simulate"):
                    await report_of(snapshot, simulation, (), msgspec.structs.replace(LIMITS, **limits))
                one = await check_order(snapshot, wanted(accounts=["a-1"], **fields), LIMITS)
                await report_of(snapshot, one, (), msgspec.structs.replace(LIMITS, simulation_subscriptions_max=8))

    play(database_url, scenario)


def test_what_is_not_kept_any_more(database_url: str) -> None:
    """Where the usage of a billing period is gone, the simulation is refused, with the period and the reason."""

    async def scenario(database: Database) -> None:
        await offer(database, BASE, CALLS, billing_anchor=at("2025-01-15T14:37:22"))
        await publish(database, draft(BASE, STEEP, key="target"))
        await use(database, call(1, "2025-03-10"))
        await roll_up(database)
        async with database.connection() as connection:
            await connection.execute("UPDATE retained_range SET raw_from = '2025-03-01', taken_from = '2025-03-01'")
        with pytest.raises(InvalidInputError, match="'s-1' is not kept any more") as caught:
            await simulated(database)
        assert ("input", "period") == caught.value.issues[0].path
        await simulated(database, start=at("2025-03-16"), end=at("2025-04-01"))

    play(database_url, scenario)
