"""Plans: what may be published, how versions are counted, and that they never change."""

import asyncio
import re
from datetime import datetime
from decimal import Decimal
from typing import Any

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from metering.aggregations import Aggregation
from metering.errors import ConflictError, ForbiddenError, InvalidInputError
from metering.plans import PublishedPlan, _cells, _turn, find_plan, read_plans, versions_of
from metering.store.pool import Database
from metering.store.queries import all_statements, sql
from metering.store.snapshot import Snapshot
from rating.billing_periods import BillingInterval
from rating.bounds import PRICES_MAX, TIERS_MAX
from rating.definitions import definition_of, price_of
from rating.meters import Overlap
from rating.plans import Plan, PlanPrice, PriceTiming
from rating.prices import Flat, Percentage, PerSeat, PerUnit, Volume
from tests.conftest import lock_waiters
from tests.metering.catalog import BASE, BOUND_KEY, CALLS, OTHER_KEY, draft, meter, play, publish, rows
from tests.rating.strategies import numbers, plan_prices
from tests.rating.tables import at, plan
from tests.strategies import FEW, instants, texts


async def versions(database: Database, key: str = "team") -> list[int]:
    """The numbers of a plan's versions."""
    async with Snapshot(database) as snapshot:
        return [plan.version for plan in (await versions_of(snapshot, [key])).get(key, ())]


@pytest.fixture
def meter_url(database_url: str) -> str:
    """A database with the meter that random prices are on."""

    async def scenario(database: Database) -> None:
        await meter(database, "meter")

    play(database_url, scenario)
    return database_url


# ---------------------------------------------------------------- versions


def test_a_plan_is_kept_as_it_is_published(database_url: str) -> None:
    """Every field of a plan comes back as it was published, to the last digit, with the number of its version."""

    async def scenario(database: Database) -> None:
        await meter(database, "calls")
        seats = PlanPrice(
            key="seats / each",
            price=PerSeat(Decimal("8.000000000000000001")),
            included_quantity=Decimal(3),
            minimum_amount=Decimal("0.10"),
            maximum_amount=Decimal("1E+3"),
            discount_percent=Decimal("12.5"),
            timing=PriceTiming.IN_ADVANCE,
            prorated=False,
        )
        tiers = {"upTo": "100", "unitPrice": "0.5", "flatPrice": "10"}, {"unitPrice": "0.2"}
        graduated = price_of({"graduated": {"tiers": tiers, "flatAtZero": False}})
        wanted = draft(
            seats,
            PlanPrice(key="calls", meter="calls", price=graduated),
            interval=BillingInterval.QUARTER,
            effective_from=at("2026-03-01T12:30:00.000001"),
            minimum_amount=Decimal(100),
            currency_code="JPY",
        )
        made = await publish(database, wanted)
        async with Snapshot(database) as snapshot:
            found = [await find_plan(snapshot, key, version) for key, version in (("team", None), ("team", 1))]
            none = [await find_plan(snapshot, key, version) for key, version in (("team", 2), ("x", None), ("\0", 1))]

        assert [made, made] == found
        assert [None, None, None] == none
        assert 1 == made.plan.version
        assert {**definition_of(wanted), "version": 1} == definition_of(made.plan)
        assert made.published_at is not None

    play(database_url, scenario)


@settings(FEW, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.lists(plan_prices(), min_size=1, max_size=3), texts(), numbers(), st.sampled_from(BillingInterval), instants()
)
def test_any_plan_is_found_as_it_was_published(
    meter_url: str,
    prices: list[PlanPrice],
    text: str,
    amount: Decimal,
    interval: BillingInterval,
    effective_from: datetime,
) -> None:
    """Prices of any kind, any numbers and any names come back to the last digit; published again they are the same."""
    keyed = [msgspec.structs.replace(price, key=f"{text[:200]}{index}") for index, price in enumerate(prices)]
    named = {"name": f"{text[:200]}.", "interval": interval, "minimum_amount": amount, "effective_from": effective_from}

    async def scenario(database: Database) -> None:
        key = f"{text[:200]}{(await rows(database, 'SELECT count(*) FROM plan_version'))[0][0]}"
        wanted = draft(*keyed, key=key, **named)
        made = await publish(database, wanted)
        async with Snapshot(database) as snapshot:
            found = await find_plan(snapshot, key)
        assert found == made == await publish(database, wanted)
        assert definition_of(msgspec.structs.replace(wanted, version=1)) == definition_of(made.plan)

    play(meter_url, scenario)


def test_versions_are_counted_and_stay(database_url: str) -> None:
    """Each other content is the next version; earlier ones stay what they were, each with who published it."""

    async def scenario(database: Database) -> None:
        first = await publish(database, draft())
        second = await publish(database, draft(name="Team 2"), OTHER_KEY)
        other = await publish(database, draft(key="scale"))
        async with Snapshot(database) as snapshot:
            assert [first, second, second] == [await find_plan(snapshot, "team", version) for version in (1, 2, None)]
            assert {"team": [first.plan, second.plan], "scale": [other.plan]} == await versions_of(
                snapshot, ["team", "scale", "nobody"]
            )
        by = await rows(database, "SELECT published_by FROM plan_version WHERE plan = 'team' ORDER BY version")
        assert [("finance (mk_finance)",), ("product (mk_product)",)] == by

    play(database_url, scenario)


def test_no_statement_changes_a_version() -> None:
    """Of all statements there are, one adds versions, and none updates or deletes them."""
    writing = [
        (name, verb)
        for name, text in all_statements().items()
        for verb in re.findall(r"\b(INSERT INTO|UPDATE|DELETE FROM|TRUNCATE) plan_version", text)
    ]

    assert [("plans.insert_version", "INSERT INTO")] == writing


def test_publishing_again_answers_the_newest(database_url: str) -> None:
    """What the newest version says is that version, in any spelling of its numbers; what an older one said is new again."""

    async def scenario(database: Database) -> None:
        base = PlanPrice(key="base", price=Flat(Decimal("49.0")))
        first = await publish(database, draft())
        assert first == await publish(database, draft(base), OTHER_KEY)
        await publish(database, draft(name="Team 2"))
        assert 3 == (await publish(database, draft())).plan.version
        assert [1, 2, 3] == await versions(database)

    play(database_url, scenario)


def test_versions_take_effect_in_their_order(database_url: str) -> None:
    """From before the newest version on none can be published, from the same instant or a later one it can."""

    async def scenario(database: Database) -> None:
        await publish(database, draft(effective_from=at("2026-04-01")))
        with pytest.raises(ConflictError, match=r"Version 1 of the plan 'team' takes effect at 2026-04-01T00:00:00Z"):
            await publish(database, draft(effective_from=at("2026-03-31T23:59:59.999999")))
        await publish(database, draft(name="Same", effective_from=at("2026-04-01")))
        await publish(database, draft(name="Later", effective_from=at("2026-05-01")))
        assert [1, 2, 3] == await versions(database)

    play(database_url, scenario)


def test_a_dry_run_writes_nothing(database_url: str) -> None:
    """A dry run answers the plan with the version it would get, and everything that is wrong; and nothing is there after."""

    async def scenario(database: Database) -> None:
        wanted = draft()
        would_be = await publish(database, wanted, dry_run=True)
        assert (1, None) == (would_be.plan.version, would_be.published_at)
        assert [] == await versions(database)
        made = await publish(database, wanted)
        assert would_be.plan == made.plan
        assert made == await publish(database, wanted, dry_run=True)
        assert 2 == (await publish(database, draft(name="Team 2"), dry_run=True)).plan.version
        with pytest.raises(InvalidInputError):
            await publish(database, draft(name=""), dry_run=True)
        with pytest.raises(ConflictError):
            await publish(database, draft(effective_from=at("2019-12-31")), dry_run=True)
        assert [1] == await versions(database)

    play(database_url, scenario)


def test_versions_published_at_once_have_no_gap(database_url: str) -> None:
    """Of many who publish one plan at once each gets a number of its own, without gaps; equal ones next to each other share."""
    publishers, plans = 8, [draft(name=f"Team {number}") for number in range(8)]

    async def scenario(database: Database) -> None:
        made = await asyncio.gather(*(publish(database, each) for each in plans))
        assert set(range(1, publishers + 1)) == {each.plan.version for each in made}
        assert list(range(1, publishers + 1)) == await versions(database)

        same = await asyncio.gather(*(publish(database, draft(key="same")) for _ in range(publishers)))
        assert {1} == {each.plan.version for each in same}
        assert [1] == await versions(database, "same")

    play(database_url, scenario)


def test_one_who_publishes_waits_for_another(database_url: str) -> None:
    """While somebody publishes a plan, others of the same plan wait, and others of another one do not."""

    async def scenario(database: Database) -> None:
        async with database.transaction() as connection:
            await connection.execute(sql("plans.take_turns"), _turn("team"))
            waiting = asyncio.create_task(publish(database, draft(name="Second")))
            await lock_waiters(database_url, 1)
            assert 1 == (await publish(database, draft(key="scale"))).plan.version
            assert 1 == (await publish(database, draft(), dry_run=True)).plan.version
            made = await connection.fetchrow(sql("plans.insert_version"), *_cells(plan(BASE), ()), "first")
            assert made is not None
        assert 2 == (await waiting).plan.version

    play(database_url, scenario)


def test_plans_are_paged_by_key(database_url: str) -> None:
    """Pages follow each other by key, by its bytes, each plan in its newest version, and say whether there are more."""

    async def scenario(database: Database) -> None:
        for key in ("b", "a", "B", "a.b"):
            await publish(database, draft(key=key))
        await publish(database, draft(key="a", name="New"))
        async with Snapshot(database) as snapshot:
            pages = [await read_plans(snapshot, 2, after) for after in (None, "a", "b")]

        shown = [([(each.plan.key, each.plan.version) for each in found], more) for found, more in pages]
        assert [([("B", 1), ("a", 2)], True), ([("a.b", 1), ("b", 1)], False), ([], False)] == shown

    play(database_url, scenario)


def test_a_key_of_some_accounts_publishes_no_plan(database_url: str) -> None:
    """A plan is everyone's: a key that is bound to accounts may not publish one."""

    async def scenario(database: Database) -> None:
        with pytest.raises(ForbiddenError, match="bound to accounts"):
            await publish(database, draft(), BOUND_KEY)
        assert [] == await versions(database)

    play(database_url, scenario)


# ---------------------------------------------------------------- faults


async def refused(database: Database, wanted: Plan) -> list[str]:
    """The paths of everything that is wrong with a plan; and that none of it was published."""
    before = await rows(database, "SELECT count(*) FROM plan_version")
    with pytest.raises(InvalidInputError) as raised:
        await publish(database, wanted)
    assert before == await rows(database, "SELECT count(*) FROM plan_version")
    assert all(issue.message[-1] == "." and issue.path[0] == "input" for issue in raised.value.issues)
    return [".".join(issue.path[1:]) for issue in raised.value.issues]


def tiered(*tiers: dict[str, Any], kind: str = "graduated") -> PlanPrice:
    """A price with tiers."""
    return PlanPrice(key="calls", meter="calls", price=price_of({kind: {"tiers": tiers}}))


def test_all_faults_of_a_plan_are_told_at_once(database_url: str) -> None:
    """A plan that is wrong in every way is refused with all of it: tiers, meters, numbers, names, currency and instant."""
    broken = draft(
        PlanPrice(key="calls", meter="absent", price=PerUnit(Decimal(-1))),
        tiered({"upTo": "10"}, {}, {"upTo": "5", "flatPrice": "-0.01"}),
        tiered({"upTo": "10"}, {"upTo": "10"}, kind="volume"),
        PlanPrice(key="many", meter="calls", price=price_of({"stairStep": {"tiers": [{}] * (TIERS_MAX + 1)}})),
        PlanPrice(key="n\0", meter="me\0", price=Percentage(Decimal("0.1"))),
        name=" ",
        currency_code="USD",
        effective_from=at("2200-01-01"),
        minimum_amount=Decimal(-1),
    )

    async def scenario(database: Database) -> None:
        await meter(database, "calls")
        await publish(database, draft())
        assert [
            "name",
            "minimumAmount",
            "prices.0.meter",
            "prices.0.price.perUnit.unitPrice",
            "prices.1.key",
            "prices.1.price.graduated.tiers.1.upTo",
            "prices.1.price.graduated.tiers.2.flatPrice",
            "prices.1.price.graduated.tiers.2.upTo",
            "prices.1.price.graduated.tiers.2.upTo",
            "prices.2.key",
            "prices.2.price.volume.tiers.1.upTo",
            "prices.2.price.volume.tiers.1.upTo",
            "prices.3.price.stairStep.tiers",
            "prices.4.meter",
            "effectiveFrom",
            "currencyCode",
            "prices.4.key",
        ] == await refused(database, broken)

    play(database_url, scenario)


@pytest.mark.parametrize(
    ("wanted", "path"),
    [
        (draft(tiered({"upTo": "10"}, {}, {"upTo": "20"}, {})), "prices.0.price.graduated.tiers.1.upTo"),
        (draft(tiered({"upTo": "10"}, {"upTo": "9.99"}, {})), "prices.0.price.graduated.tiers.1.upTo"),
        (draft(tiered({"upTo": "10"})), "prices.0.price.graduated.tiers.0.upTo"),
        (draft(currency_code="USD"), "currencyCode"),
        (draft(currency_code="XAU"), "currencyCode"),
        (draft(PlanPrice(key="p", meter="absent", price=PerUnit(Decimal(1)))), "prices.0.meter"),
        (draft(BASE, PlanPrice(key="p", price=PerUnit(Decimal(1)))), "prices.1.meter"),
        (draft(PlanPrice(key="p", price=Flat(Decimal("-0.01")))), "prices.0.price.flat.amount"),
        (
            draft(tiered(*({"upTo": str(bound)} for bound in range(1, TIERS_MAX + 1)), {}, kind="volume")),
            "prices.0.price.volume.tiers",
        ),
        (draft(*[BASE] * (PRICES_MAX + 1)), "prices"),
        (draft(key="a\0"), "key"),
        (draft(key=""), "key"),
        (draft(name="a\0"), "name"),
        (draft(effective_from=at("1899-12-31")), "effectiveFrom"),
    ],
)
def test_each_refused_plan_has_its_path(database_url: str, wanted: Plan, path: str) -> None:
    """Gaps, falling bounds, a closed last tier, another currency, unknown meters, negative prices, too much: each by its path."""

    async def scenario(database: Database) -> None:
        await meter(database, "calls")
        await publish(database, draft(CALLS))
        found = await refused(database, wanted)
        # A plan in another currency is in another one than the first version, too.
        assert {path} == set(found)

    play(database_url, scenario)


@pytest.mark.parametrize("kind", ["percentage", "graduatedPercentage", "dynamic", "perUnit"])
def test_a_share_is_of_an_amount(database_url: str, kind: str) -> None:
    """A percentage, or a factor, of a number of events or users is refused; of quantities, and a price for each, it is not."""
    fields: dict[str, dict[str, Any]] = {
        "percentage": {"rate": "0.1"},
        "graduatedPercentage": {"tiers": [{"unitPrice": "0.1"}]},
        "dynamic": {},
        "perUnit": {"unitPrice": "1"},
    }
    price = price_of({kind: fields[kind]})

    async def scenario(database: Database) -> None:
        for aggregation in Aggregation:
            name = aggregation.value
            await meter(database, name, aggregation)
            wanted = draft(BASE, PlanPrice(key="share", meter=name, price=price), key=name)
            if aggregation in {Aggregation.COUNT, Aggregation.UNIQUE_COUNT} and kind != "perUnit":
                assert ["prices.1.meter"] == await refused(database, wanted)
            else:
                await publish(database, wanted)

    play(database_url, scenario)


# ---------------------------------------------------------------- overlaps


def test_prices_that_charge_an_event_twice_are_reported(database_url: str) -> None:
    """A plan whose meters can count the same event is published, and says which prices; other units have nothing in common."""

    def on(key: str) -> PlanPrice:
        return PlanPrice(key=f"p-{key}", meter=key, price=PerUnit(Decimal(1)))

    async def scenario(database: Database) -> None:
        await meter(database, "all")
        await meter(database, "maps", product=["maps"])
        await meter(database, "mail", product=["mail", "chat"])
        await meter(database, "bytes", unit="byte")
        await meter(database, "events", Aggregation.COUNT, product=["mail"])
        wanted = draft(BASE, on("maps"), on("mail"), on("bytes"), on("events"), on("all"))
        expected = (
            Overlap("p-maps", "p-all"),
            Overlap("p-mail", "p-events"),
            Overlap("p-mail", "p-all"),
            Overlap("p-bytes", "p-events"),
            Overlap("p-events", "p-all"),
        )
        shown = [await publish(database, wanted, dry_run=True), await publish(database, wanted)]
        async with Snapshot(database) as snapshot:
            found = await find_plan(snapshot, "team")
        assert isinstance(found, PublishedPlan)
        assert [expected] * 3 == [each.overlaps for each in (*shown, found)]

    play(database_url, scenario)


def test_the_largest_plan_can_be_published(database_url: str) -> None:
    """As many prices as a plan may have, one with as many tiers as it may have, are published and found again."""
    tiers = [*({"upTo": str(bound)} for bound in range(1, TIERS_MAX)), {}]
    each = (PlanPrice(key=str(number), meter="calls", price=PerUnit(Decimal(1))) for number in range(PRICES_MAX - 1))
    wanted = draft(tiered(*tiers, kind="volume"), *each)

    async def scenario(database: Database) -> None:
        await meter(database, "calls")
        made = await publish(database, wanted)
        async with Snapshot(database) as snapshot:
            assert made == await find_plan(snapshot, "team")
        assert isinstance(made.plan.prices[0].price, Volume)
        assert PRICES_MAX * (PRICES_MAX - 1) // 2 == len(made.overlaps)

    play(database_url, scenario)
