"""Charges of a real database add up to its statements, to the last minor unit, whoever and whatever they are asked by."""

from collections.abc import Iterable, Mapping, Sequence
from datetime import timedelta
from decimal import Decimal
from fractions import Fraction
from itertools import pairwise
from typing import Any, Final

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from metering.aggregations import Aggregation
from metering.errors import InvalidInputError, TooLargeError
from metering.events import Dimension, UsageEvent
from metering.limits import LIMITS
from metering.periods import Period
from metering.questions import Question, ValueFilter
from metering.reach import Reach
from metering.rollups.read import Key, Total
from metering.statements.charges import (
    Charges,
    count_unrated_usage,
    page_of,
    read_charges,
    read_unrated_usage,
)
from metering.statements.history import StatementStatus
from metering.statements.read import Statement
from metering.store.pool import Database
from metering.store.snapshot import Snapshot
from rating.lines import LineKind
from rating.plans import PlanPrice
from rating.prices import Graduated, PerUnit, Tier
from tests.conftest import Server
from tests.metering.billing import BASE, CALLS, TIERS, ask, call, correct, freeze, listed, offer, roll_up, use
from tests.metering.catalog import draft, meter, order, play, publish, put
from tests.rating.tables import at

ALL: Final = tuple(Dimension)
SUBSCRIBER: Final = (Dimension.ACCOUNT, Dimension.SUBSCRIPTION)
SPRING: Final = Period(at("2025-01-01"), at("2025-04-01"))
# What comes after the subscriptions' end too: closing statements carry what becomes of frozen ones.
EVER: Final = Period(at("2025-01-01"), at("2150-01-01"))
SPLIT: Final = at("2025-02-10T14:37:22.123457")
PAGES_OF_ONE: Final = msgspec.structs.replace(LIMITS, statement_page_subscriptions=1)
Sums = Mapping[tuple[Key, str], Fraction]


def question(group_by: Iterable[Dimension] = (), period: Period = EVER, **fields: Any) -> Question:
    """A question about all time, unless another period is given."""
    given = {"filters": {}, **fields}
    return Question(period=period, zone_name="UTC", group_by=tuple(group_by), **given)


async def charges(database: Database, asked: Question) -> Charges:
    """The answer, read a subscription at a time."""
    async with Snapshot(database) as snapshot:
        return await read_charges(snapshot, asked, PAGES_OF_ONE)


def sums(found: Charges) -> Sums:
    """Groups by key and currency; what comes to nothing is left out."""
    return {
        (group.key, money.currency.code): Fraction(money.amount)
        for group in found.groups
        for money in group.totals
        if money.amount
    }


def totals(found: Charges) -> dict[str, Fraction]:
    """What all of it comes to, by currency."""
    return {money.currency.code: Fraction(money.amount) for money in found.totals}


def regrouped(whole: Sums, group_by: Sequence[Dimension], kept: Mapping[Dimension, ValueFilter]) -> Sums:
    """What is known at the finest grain, filtered and added up by fewer dimensions."""
    added: dict[tuple[Key, str], Fraction] = {}
    for (key, currency), amount in whole.items():
        values = dict(zip(ALL, key, strict=True))
        if all((values[by] in chosen.values) is not chosen.negated for by, chosen in kept.items()):
            short = tuple(values[by] for by in group_by), currency
            added[short] = added.get(short, Fraction(0)) + amount
    return {group: amount for group, amount in added.items() if amount}


# ---------------------------------------------------------------- a naive attribution


def shared(units: int, weights: Sequence[Fraction]) -> list[int] | None:
    """Whole units by share with largest remainder, the earlier one first; None where the weights add up to zero."""
    whole = sum(weights, Fraction(0))
    if not whole:
        return None
    exact = [units * weight / whole for weight in weights]
    parts = [int(each) for each in exact]
    left = units - sum(parts)
    sign = 1 if left > 0 else -1
    by_rest = sorted(range(len(parts)), key=lambda place: -sign * (exact[place] - parts[place]))
    for place in by_rest[: abs(left)]:
        parts[place] += sign
    return parts


def naive(statements: Iterable[Statement], events: Sequence[UsageEvent]) -> Sums:
    """Each line of each statement shared out by the events behind it, one by one; meters are of calls."""
    found: dict[tuple[Key, str], Fraction] = {}
    for statement in statements:
        parts: list[tuple[object, LineKind, Key, int]] = []
        nobody = (statement.account, statement.subscription, *[None] * 6)
        for each in statement.lines:
            line, of = each.line, (each.line.origin.plan, each.line.origin.plan_version)
            units = int(line.amount.amount / statement.currency.quantum)
            if line.kind is LineKind.DISCOUNT and line.origin.price is None:
                base = [part for part in parts if part[0] == of and part[1] is not LineKind.MINIMUM]
                keys, weights = [part[2] for part in base], [Fraction(part[3]) for part in base]
            elif line.origin.meter is None or line.kind in {LineKind.MINIMUM, LineKind.ADJUSTMENT}:
                keys, weights = [nobody], [Fraction(1)]
            else:
                used: dict[Key, Fraction] = {}
                for event in events:
                    owner = (event.account, event.subscription) == (statement.account, statement.subscription)
                    if owner and event.unit == "call" and line.period.start <= event.occurred_at < line.period.end:
                        key = tuple(getattr(event, by.value) for by in ALL)
                        used[key] = used.get(key, Fraction(0)) + Fraction(event.quantity)
                keys = sorted(used, key=lambda key: [(value is not None, value or "") for value in key])
                weights = [used[key] for key in keys]
            own = shared(units, weights)
            for key, part in zip(keys, own, strict=True) if own else [(nobody, units)]:
                parts.append((of, line.kind, key, part))
        for _, _, key, part in parts:
            group = key, statement.currency.code
            found[group] = found.get(group, Fraction(0)) + part * Fraction(statement.currency.quantum)
    return {group: amount for group, amount in found.items() if amount}


# ---------------------------------------------------------------- adding up


@st.composite
def usage(draw: st.DrawFn) -> list[UsageEvent]:
    """Usage of two subscriptions, of none, and of one that is another account's, in the spring."""
    pairs = [("acme", "s-1"), ("beta", "s-2"), ("acme", None), ("beta", "s-1")]
    chosen = st.tuples(
        st.sampled_from([*pairs[:2], *pairs]),
        st.integers(0, 90 * 24 * 60),
        st.decimals(-4, 20, places=2),
        st.fixed_dictionaries(
            {
                "user": st.sampled_from(["x", "y", None]),
                "device": st.sampled_from(["d", None]),
                "product": st.sampled_from(["maps", "mail"]),
                "classification": st.sampled_from(["peak", None]),
                "unit": st.sampled_from(["call", "call", "byte"]),
            }
        ),
    )
    drawn = draw(st.lists(chosen, min_size=1, max_size=14))
    return [
        call(number, SPRING.start + timedelta(minutes=minutes), str(quantity), account=account, subscription=of, **more)
        for number, ((account, of), minutes, quantity, more) in enumerate(drawn)
    ]


async def customers(database: Database, currency: str) -> None:
    """One changes from one plan to another in February, with a discount; the other one's plan is in JPY."""
    await meter(database, "calls")
    steep = PlanPrice(
        key="steep", meter="calls", price=Graduated((Tier(Decimal(3), Decimal("0.7")), Tier(None, Decimal("0.01"))))
    )
    least = msgspec.structs.replace(CALLS, key="least", minimum_amount=Decimal("2.5"), maximum_amount=Decimal(4))
    await publish(database, draft(BASE, CALLS, TIERS, currency_code=currency))
    await publish(database, draft(steep, least, key="light", currency_code=currency, minimum_amount=Decimal(8)))
    await publish(database, draft(BASE, TIERS, key="yen", currency_code="JPY"))
    given = {"starts_at": SPRING.start, "ends_at": SPRING.end, "discount_percent": Decimal("7.5")}
    await put(database, order(**given))
    await put(database, order(**given, plan="light", effective_at=SPLIT))
    await put(database, order(key="s-2", account="beta", plan="yen", starts_at=SPRING.start, ends_at=SPRING.end))


async def counting(database: Database) -> list[Statement]:
    """The statements that count."""
    return [each for each in await listed(database) if each.status is not StatementStatus.VOID]


FILTERS: Final = st.dictionaries(
    st.sampled_from(ALL),
    st.builds(
        ValueFilter,
        st.lists(st.sampled_from(["x", "maps", "call", "acme", "s-2", None]), min_size=1, max_size=4).map(tuple),
        st.booleans(),
    ),
    max_size=2,
)


@pytest.mark.parametrize("currency", ["JPY", "EUR", "KWD"])
def test_every_grouping_adds_up_to_the_statements(servers: dict[str, Server], engine: str, currency: str) -> None:
    """Of any usage, some frozen and some late, by any dimensions and any filter, the amounts are what a naive attribution of
    all events says; altogether they are the statements, and so are the amounts of periods side by side.
    """
    server = servers[engine]

    @settings(max_examples=3, deadline=None)
    @given(
        usage(),
        usage(),
        st.lists(st.integers(0, 2), unique=True),
        st.lists(st.tuples(st.lists(st.sampled_from(ALL), unique=True), FILTERS), min_size=3, max_size=6),
        st.lists(st.integers(1, 90 * 86_400), min_size=1, max_size=3, unique=True),
    )
    def lived_through(
        early: list[UsageEvent],
        late: list[UsageEvent],
        frozen: list[int],
        groupings: list[tuple[list[Dimension], dict[Dimension, ValueFilter]]],
        bounds: list[int],
    ) -> None:
        late = [msgspec.structs.replace(event, id=f"late-{event.id}") for event in late]

        async def scenario(database: Database) -> None:
            await customers(database, currency)
            await use(database, *early)
            await roll_up(database)
            for month in frozen:
                await freeze(database, f"2025-{month + 1:02}-01")
            await use(database, *late)

            statements = await counting(database)
            whole = await charges(database, question(ALL))
            assert naive(statements, [*early, *late]) == sums(whole)
            owed: dict[str, Fraction] = {}
            for each in statements:
                code = each.currency.code
                owed[code] = owed.get(code, Fraction(0)) + Fraction(each.total.amount)
            for group_by, filters in [*groupings, ([], {}), ([Dimension.ACCOUNT], {}), (list(SUBSCRIBER), {})]:
                found = await charges(database, question(group_by, filters=filters))
                assert regrouped(sums(whole), group_by, filters) == sums(found)
                if not filters:
                    assert owed == totals(found)
            await add_up_over_time(database, sums(whole), bounds)

        with server.cloned() as url:
            play(url, scenario)

    lived_through()


async def add_up_over_time(database: Database, whole: Sums, seconds: Sequence[int]) -> None:
    """Periods side by side are the whole, by every key and altogether; one that ends before or begins behind has nothing."""
    inside = [SPRING.start + timedelta(seconds=each, microseconds=7) for each in sorted(seconds)]
    bounds = [
        at("2024-01-01"),
        SPRING.start,
        *[each for each in inside if each < SPRING.end],
        SPRING.end,
        EVER.end,
    ]
    for group_by in (ALL, SUBSCRIBER):
        found = [await charges(database, question(group_by, Period(*pair))) for pair in pairwise(bounds)]
        added: dict[tuple[Key, str], Fraction] = {}
        for each in found:
            for group, amount in sums(each).items():
                added[group] = added.get(group, Fraction(0)) + amount
        assert regrouped(whole, group_by, {}) == {group: amount for group, amount in added.items() if amount}
        assert () == found[0].groups


def test_a_frozen_period_and_what_became_of_it(database_url: str) -> None:
    """A frozen month keeps its amounts, shared by its usage as it is now; what changed stands where the next one begins."""

    async def scenario(database: Database) -> None:
        await offer(database, BASE, CALLS, ends_at=at("2025-05-01"))
        await use(database, call(1, "2025-03-10", "30", user="x"))
        await freeze(database, "2025-03-10")
        await use(database, call(2, "2025-03-20", "10", user="y"))
        march = Period(at("2025-03-01"), at("2025-04-01"))
        april = Period(at("2025-04-01"), at("2025-04-01T00:00:00.000001"))
        by_user = [Dimension.USER, Dimension.UNIT]

        found = sums(await charges(database, question(by_user, march)))
        expected = {("x", "call"): "7.49", ("y", "call"): "2.50", (None, None): "10"}
        assert {(key, "EUR"): Fraction(amount) for key, amount in expected.items()} == found
        assert {((None, None), "EUR"): Fraction("3.33")} == sums(await charges(database, question(by_user, april)))

    play(database_url, scenario)


def test_every_aggregation_is_shared_by_what_it_says(database_url: str) -> None:
    """Amounts by a maximum, a latest, an average, a number of users or a level are shared by each one's own, and add up over
    time; also where an event was corrected.
    """

    async def scenario(database: Database) -> None:
        for each in Aggregation:
            await meter(database, each.value, each)
        prices = [PlanPrice(key=each.value, meter=each.value, price=PerUnit(Decimal(1))) for each in Aggregation]
        await publish(database, draft(*prices))
        await put(database, order(starts_at=SPRING.start, ends_at=at("2025-02-01")))
        await use(
            database,
            call(1, "2025-01-02", "3", user="x"),
            call(2, "2025-01-03", "9", user="y"),
            call(3, "2025-01-20T00:00:01", "6", user="x"),
            call(4, "2025-01-21", "7", user="y", product="mail"),
        )
        await roll_up(database)
        await correct(database, 4, "8")

        statement = await ask(database, "2025-01-10")
        cuts = [SPRING.start, at("2025-01-02T12:00"), at("2025-01-20T00:00:01"), at("2025-01-20T00:00:02"), SPRING.end]
        whole = await charges(database, question([Dimension.USER]))
        assert {"EUR": Fraction(statement.total.amount)} == totals(whole)
        parts = [await charges(database, question([Dimension.USER], Period(*pair))) for pair in pairwise(cuts)]
        added: dict[Any, Fraction] = {}
        for part in parts:
            for group, amount in sums(part).items():
                added[group] = added.get(group, Fraction(0)) + amount
        assert sums(whole) == added
        # In a second no level comes to a cent.
        assert [{"x"}, {"x", "y"}, {"x"}, {"x", "y"}] == [{key[0] for key, _ in sums(part)} for part in parts]

    play(database_url, scenario)


def test_a_maximum_is_shared_by_maxima(database_url: str) -> None:
    """9.00 for a maximum of 9 is shared 6 to 9; until the day on which the first one reached 6, by the 3 that it had."""

    async def scenario(database: Database) -> None:
        await meter(database, "most", Aggregation.MAX)
        await publish(database, draft(PlanPrice(key="most", meter="most", price=PerUnit(Decimal(1)))))
        await put(database, order(starts_at=SPRING.start, ends_at=at("2025-02-01")))
        await use(
            database,
            call(1, "2025-01-02", "3", user="x"),
            call(2, "2025-01-03", "9", user="y"),
            call(3, "2025-01-20", "6", user="x"),
        )
        shares = {"x": Fraction("3.6"), "y": Fraction("5.4")}
        whole = sums(await charges(database, question([Dimension.USER])))
        assert shares == {str(key[0]): amount for (key, _), amount in whole.items()}
        early = sums(await charges(database, question([Dimension.USER], Period(SPRING.start, at("2025-01-10")))))
        assert {"x": Fraction("1.8"), "y": Fraction("5.4")} == {
            str(key[0]): amount for (key, _), amount in early.items()
        }

    play(database_url, scenario)


# ---------------------------------------------------------------- what no price covers


def test_unrated_is_all_that_no_price_covers(database_url: str) -> None:
    """By unit: what no meter counts, what was used before and after a subscription, and what names none of its account's."""

    async def scenario(database: Database) -> None:
        await meter(database, "map-calls", product=["maps"])
        await publish(database, draft(PlanPrice(key="maps", meter="map-calls", price=PerUnit(Decimal(1)))))
        await put(database, order(starts_at=at("2025-02-01"), ends_at=at("2025-03-01")))
        covered = [call(1, "2025-02-10", "1"), call(2, "2025-02-01", "2", user="x")]
        others = [
            call(3, "2025-02-10", "4", product="mail", user="y"),
            call(4, "2025-01-31T23:59:59.999999", "8"),
            call(5, "2025-03-01", "16"),
            call(6, "2025-02-10", "32", subscription=None),
            call(7, "2025-02-10", "64", account="beta", user="z"),
            call(8, "2025-02-10", "128", unit="byte", user="x"),
        ]
        await use(database, *covered, *others)
        for _ in range(2):
            async with Snapshot(database) as snapshot:
                found = await read_unrated_usage(snapshot, question(), PAGES_OF_ONE)
                users = await count_unrated_usage(snapshot, question(), PAGES_OF_ONE, Dimension.USER)
                filters = {Dimension.USER: ValueFilter(("y", "z")), Dimension.SUBSCRIPTION: ValueFilter(("s-1",))}
                some = await read_unrated_usage(snapshot, question(filters=filters), PAGES_OF_ONE)
            async with Snapshot(database, Reach(frozenset({"acme"}))) as snapshot:
                of_february = question(period=Period(at("2025-02-01"), at("2025-03-01")))
                mine = await read_unrated_usage(snapshot, of_february, PAGES_OF_ONE)
            assert (
                Total("byte", Decimal(128), 1, Decimal(128), Decimal(128)),
                Total("call", Decimal(124), 5, Decimal(4), Decimal(64)),
            ) == found
            assert {"byte": 1, "call": 2} == users
            assert [("byte", Decimal(128)), ("call", Decimal(36))] == [(each.unit, each.quantity) for each in mine]
            assert [("call", Decimal(68), 2)] == [(each.unit, each.quantity, each.events) for each in some]
            await roll_up(database)

    play(database_url, scenario)


# ---------------------------------------------------------------- pages, bounds, and what is gone


def test_pages_and_remainders_are_the_whole(database_url: str) -> None:
    """Groups are in order of their keys, without a value last; each page and its remainder add up to the totals."""

    async def scenario(database: Database) -> None:
        await offer(database, BASE, CALLS, ends_at=at("2025-02-01"))
        await use(
            database, *(call(n, "2025-01-10", str(n + 1), user=user) for n, user in enumerate(("b", "a", "0", None)))
        )
        found = await charges(database, question([Dimension.USER]))

        assert [("0",), ("a",), ("b",), (None,)] == [group.key for group in found.groups]
        for first in (1, 3, 4, 5):
            page = page_of(found, first, None)
            amounts = [money.amount for group in page.groups for money in group.totals]
            assert sum(money.amount for money in found.totals) == sum(amounts) + sum(
                money.amount for money in page.remainder
            )
            assert (first < 4) is page.has_next
        assert [("b",), (None,)] == [group.key for group in page_of(found, 9, ("a",)).groups]

    play(database_url, scenario)


def test_more_groups_than_are_held_are_refused(database_url: str) -> None:
    """With as many groups as one answer may have points it is answered, with one more it is not."""

    async def scenario(database: Database) -> None:
        await offer(database, CALLS, ends_at=at("2025-02-01"))
        await use(database, *(call(number, "2025-01-10", "10", user=f"{number}") for number in range(3)))
        async with Snapshot(database) as snapshot:
            asked = question([Dimension.USER])
            found = await read_charges(snapshot, asked, msgspec.structs.replace(LIMITS, points_max=3))
            with pytest.raises(TooLargeError):
                await read_charges(snapshot, asked, msgspec.structs.replace(LIMITS, points_max=2))
        assert 3 == len(found.groups)

    play(database_url, scenario)


def test_usage_that_is_gone_is_not_guessed(database_url: str) -> None:
    """Of what is frozen, whole periods are answered by subscription when the usage behind them is gone; by user they are
    refused, and so is a period whose statement was not frozen and cannot be computed any more.
    """

    async def scenario(database: Database) -> None:
        await offer(database, BASE, CALLS, ends_at=at("2025-03-01"))
        await use(database, call(1, "2025-01-10", "30", user="x"))
        await freeze(database, "2025-01-10")
        await roll_up(database)
        async with database.connection() as connection:
            gone = "UPDATE retained_range SET raw_from = '2025-02-20', taken_from = '2025-02-20', rollups_from = '2025-02-10'"
            await connection.execute(gone)
        january = Period(at("2025-01-01"), at("2025-02-01"))

        found = await charges(database, question([Dimension.SUBSCRIPTION], january))
        assert {(("s-1",), "EUR"): Fraction("19.99")} == sums(found)
        with pytest.raises(InvalidInputError, match="not kept any more"):
            await charges(database, question([Dimension.USER], january))
        with pytest.raises(InvalidInputError, match="cannot be computed any more"):
            await charges(database, question(period=SPRING))

    play(database_url, scenario)
