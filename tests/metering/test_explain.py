"""Why charges of a real database differ: the parts are the difference of `charges`, whatever was frozen, late or changed."""

from collections.abc import Sequence
from datetime import timedelta
from decimal import Decimal
from fractions import Fraction
from typing import Any, Final

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from metering.accounts import AccountOrder, put_account
from metering.aggregations import Aggregation
from metering.errors import InvalidInputError, NotFoundError
from metering.events import Dimension, UsageEvent
from metering.limits import LIMITS
from metering.questions import ValueFilter
from metering.reach import Reach
from metering.rollups.read import Key
from metering.statements.explain import Comparison, Explained, compare, explain_charges
from metering.store.pool import Database
from metering.store.snapshot import Snapshot
from rating.billing_periods import BillingInterval
from rating.periods import Period
from rating.plans import PlanPrice
from rating.prices import PerSeat, PerUnit
from tests.conftest import Server
from tests.metering.billing import BASE, CALLS, call, freeze, offer, roll_up, take_back, use
from tests.metering.catalog import KEY, draft, meter, order, play, publish, put
from tests.metering.test_charges import SPLIT, SPRING, charges, customers, question, sums, usage
from tests.rating.tables import at, period

JANUARY: Final = period("2025-01-01", "2025-02-01")
FEBRUARY: Final = period("2025-02-01", "2025-03-01")
MARCH: Final = period("2025-03-01", "2025-04-01")
APRIL: Final = period("2025-04-01", "2025-05-01")
MAY: Final = period("2025-05-01", "2025-06-01")
BY_USER: Final = (Dimension.USER,)
PAGES_OF_ONE: Final = msgspec.structs.replace(LIMITS, statement_page_subscriptions=1)


def wanted(before: Period, after: Period, by: Sequence[Dimension] = BY_USER, **fields: Any) -> Comparison:
    """Two periods of acme."""
    given = {"account": "acme", "top": 1_000, "currency_code": None, **fields}
    return Comparison(before=before, after=after, by=tuple(by), **given)


async def explained(database: Database, comparison: Comparison, accounts: frozenset[str] | None = None) -> Explained:
    """The answer, read a subscription at a time."""
    async with Snapshot(database, Reach(accounts)) as snapshot:
        return await explain_charges(snapshot, compare(comparison, LIMITS), PAGES_OF_ONE)


def told(found: Explained) -> list[str]:
    """Its parts as a reader sees them: cause, key, amount, and the quantities where they are told."""
    return [
        f"{part.cause.value} {'/'.join(str(value) for value in part.key)} {part.amount.amount}"
        + (f" ({part.quantity_before} to {part.quantity_after} {found.units[part.meter]})" if part.meter else "")
        for part in found.explanation.parts
    ]


# ---------------------------------------------------------------- adding up


BOUNDS: Final = st.tuples(st.integers(-10, 100), st.integers(1, 60 * 86_400))
ASKED: Final = st.one_of(
    st.sampled_from([JANUARY, FEBRUARY, MARCH]),
    BOUNDS.map(
        lambda of: Period(
            SPRING.start + timedelta(days=of[0], seconds=13), SPRING.start + timedelta(days=of[0], seconds=13 + of[1])
        )
    ),
)
DIMENSIONS: Final = st.lists(st.sampled_from(Dimension), unique=True, max_size=3)


async def live(
    database: Database, currency: str, early: Sequence[UsageEvent], late: Sequence[UsageEvent], frozen: Sequence[int]
) -> None:
    """Two customers; one has a second subscription in another currency that begins in February, and changes seats and version
    then; some months are frozen before late usage arrives and terms are put for the past.
    """
    await customers(database, currency)
    more = [PlanPrice(key="seats", price=PerSeat(Decimal("1.5"))), CALLS]
    await publish(database, draft(*more, key="more", currency_code="USD", minimum_amount=Decimal(12)))
    dearer = msgspec.structs.replace(CALLS, price=PerUnit(Decimal("0.5")))
    await publish(database, draft(more[0], dearer, key="more", currency_code="USD", effective_from=FEBRUARY.end))
    given = {"key": "s-3", "starts_at": FEBRUARY.start, "ends_at": at("2025-03-20")}
    await put(database, order(**given, plan="more", seats=2))
    await put(database, order(**given, plan="more", seats=5, effective_at=at("2025-03-02")))
    await use(
        database, *early, *[msgspec.structs.replace(event, id=f"{event.id}-3", subscription="s-3") for event in early]
    )
    await roll_up(database)
    for month in frozen:
        await freeze(database, f"2025-{month + 1:02}-01")
    await use(database, *late)
    given = {"starts_at": SPRING.start, "ends_at": SPRING.end, "discount_percent": Decimal(20)}
    await put(database, order(**given, plan="light", seats=3, effective_at=SPLIT - timedelta(days=20)))


async def adds_up(database: Database, comparison: Comparison) -> None:
    """Before and after are what `charges` says of both periods, and by every key the parts are their difference."""
    found = (await explained(database, comparison)).explanation
    filters = {Dimension.ACCOUNT: ValueFilter((comparison.account,))}
    of_both = [
        {
            key: amount
            for (key, code), amount in sums(
                await charges(database, question(comparison.by, asked, filters=filters))
            ).items()
            if code == comparison.currency_code
        }
        for asked in (comparison.before, comparison.after)
    ]
    before, after = of_both
    assert [sum(before.values()), sum(after.values())] == [
        Fraction(found.before.amount),
        Fraction(found.after.amount),
    ]
    changed: dict[Key, Fraction] = {}
    for part in found.parts:
        changed[part.key] = changed.get(part.key, Fraction(0)) + Fraction(part.amount.amount)
    expected = {key: after.get(key, Fraction(0)) - before.get(key, Fraction(0)) for key in {**before, **after}}
    assert {key: each for key, each in expected.items() if each} == {key: each for key, each in changed.items() if each}
    assert 0 == found.remainder.amount


@pytest.mark.parametrize("currency", ["JPY", "EUR", "KWD"])
def test_the_parts_are_the_difference_of_charges(servers: dict[str, Server], engine: str, currency: str) -> None:
    """Of any usage, some frozen and some late, of any two periods and by any dimensions: before and after are the charges of
    both, and the parts are their difference, by every key, in each currency.
    """
    server = servers[engine]

    @settings(max_examples=3, deadline=None)
    @given(
        usage(),
        usage(),
        st.lists(st.integers(0, 2), unique=True),
        st.lists(st.tuples(ASKED, ASKED, DIMENSIONS), min_size=2, max_size=4),
    )
    def lived_through(
        early: list[UsageEvent],
        late: list[UsageEvent],
        frozen: list[int],
        compared: list[tuple[Period, Period, list[Dimension]]],
    ) -> None:
        late = [msgspec.structs.replace(event, id=f"late-{event.id}") for event in late]

        async def scenario(database: Database) -> None:
            await live(database, currency, early, late, frozen)
            for before, after, by in compared:
                for code in (currency, "USD"):
                    await adds_up(database, wanted(before, after, by, currency_code=code))
                top = wanted(before, after, by, currency_code=currency, top=1)
                found = (await explained(database, top)).explanation
                parts = [*(part.amount.amount for part in found.parts), found.remainder.amount]
                assert found.before.amount + sum(parts) == found.after.amount

        with server.cloned() as url:
            play(url, scenario)

    lived_through()


# ---------------------------------------------------------------- by hand


def test_a_worked_example(database_url: str) -> None:
    """More usage, a dearer version, a seat more: each has its amount, for whom it is; the rest is the remainder."""

    async def scenario(database: Database) -> None:
        seats = PlanPrice(key="seats", price=PerSeat(Decimal(8)))
        await meter(database, "calls")
        await publish(database, draft(BASE, seats, CALLS))
        dearer = msgspec.structs.replace(CALLS, price=PerUnit(Decimal("0.4")))
        await publish(database, draft(BASE, seats, dearer, effective_from=APRIL.start))
        await put(database, order(starts_at=JANUARY.start, ends_at=MAY.end, seats=2))
        await put(database, order(starts_at=JANUARY.start, ends_at=MAY.end, seats=3, effective_at=APRIL.start))
        await use(
            database,
            call(1, "2025-03-10", "100", user="ann"),
            call(2, "2025-03-10", "50", user="bob"),
            call(3, "2025-04-10", "160", user="ann"),
            call(4, "2025-04-10", "40", user="cleo"),
        )
        found = await explained(database, wanted(MARCH, APRIL, top=4))

        # 150 calls at 0.333, 10.00, and 2 seats at 8.00; then 200 at 0.4, 10.00, and 3 seats.
        assert ["75.95 EUR", "114.00 EUR", "38.05 EUR", "10.68 EUR"] == [
            str(getattr(found.explanation, each)) for each in ("before", "after", "difference", "remainder")
        ]
        # 200 calls at the old price are 66.60: 53.28 Ann's and 13.32 Cleo's; 33.30 and 16.65 were Ann's and Bob's.
        assert [
            "VOLUME ann 19.98 (100 to 160 call)",
            "VOLUME bob -16.65 (50 to 0 call)",
            "VOLUME cleo 13.32 (0 to 40 call)",
            "PRICE ann 10.72 (100 to 160 call)",
        ] == told(found)
        rest = told(await explained(database, wanted(MARCH, APRIL)))[4:]
        assert ["RECURRING None 8.00", "PRICE cleo 2.68 (0 to 40 call)"] == rest

    play(database_url, scenario)


def test_what_is_frozen_is_compared_as_it_was_charged(database_url: str) -> None:
    """Late usage of frozen months is no VOLUME of theirs, though they are rated at other prices: it is an ADJUSTMENT of the
    month that carries it. A plan that is put for the past is PLAN from the first month on that is charged by it.
    """

    async def scenario(database: Database) -> None:
        await offer(database, BASE, CALLS, ends_at=at("2026-01-01"))
        dearer = msgspec.structs.replace(CALLS, price=PerUnit(Decimal("0.4")))
        await publish(database, draft(BASE, dearer, effective_from=APRIL.start))
        await publish(database, draft(BASE, msgspec.structs.replace(CALLS, price=PerUnit(Decimal(1))), key="light"))
        await use(
            database,
            call(1, "2025-03-10", "100", user="ann"),
            call(2, "2025-04-10", "160", user="ann"),
            call(3, "2025-05-10", "160", user="ann"),
        )
        for month in (1, 2, 3, 4):
            await freeze(database, f"2025-{month:02}-10")
        await use(database, call(4, "2025-03-11", "10", user="bob"), call(5, "2025-04-11", "1000", user="bob"))

        # 160 calls at the old price are 53.28, and 33.30 were owed for 100.
        of_all = await explained(database, wanted(MARCH, APRIL, ()))
        assert ["VOLUME  19.98 (100 to 160 call)", "PRICE  10.72 (100 to 160 call)"] == told(of_all)
        assert ["43.30 EUR", "74.00 EUR"] == [str(of_all.explanation.before), str(of_all.explanation.after)]

        # 10 calls more of March are 3.33, 1000 more of April 400.00; May is on the new plan: 160 calls at 0.4, then at 1.00.
        await put(
            database, order(starts_at=JANUARY.start, ends_at=at("2026-01-01"), plan="light", effective_at=MAY.start)
        )
        of_all = await explained(database, wanted(APRIL, MAY, ()))
        assert ["ADJUSTMENT  403.33", "PLAN  96.00 (160 to 160 call)"] == told(of_all)

        # Put for the past, what was frozen stays on its plan: April is compared with March as before.
        await put(
            database, order(starts_at=JANUARY.start, ends_at=at("2026-01-01"), plan="light", effective_at=APRIL.start)
        )
        of_all = await explained(database, wanted(MARCH, APRIL, ()))
        assert ["VOLUME  19.98 (100 to 160 call)", "PRICE  10.72 (100 to 160 call)"] == told(of_all)
        of_all = await explained(database, wanted(APRIL, MAY, ()))
        # April would be 1160 calls at 1.00; 64.00 were owed.
        assert ["ADJUSTMENT  1099.33", "PLAN  96.00 (160 to 160 call)"] == told(of_all)

    play(database_url, scenario)


def test_figures_of_frozen_parts_are_put_together(database_url: str) -> None:
    """A frozen month in which the plan changed is rated on one plan by the figures that its parts were frozen with."""

    async def scenario(database: Database) -> None:
        await offer(database, CALLS, ends_at=at("2026-01-01"))
        await publish(database, draft(msgspec.structs.replace(CALLS, price=PerUnit(Decimal(1))), key="light"))
        await put(
            database,
            order(starts_at=JANUARY.start, ends_at=at("2026-01-01"), plan="light", effective_at=at("2025-03-16")),
        )
        await use(
            database,
            call(1, "2025-03-10", "100", user="ann"),
            call(2, "2025-03-20", "10", user="ann"),
            call(3, "2025-04-10", "110", user="ann"),
        )
        for month in (1, 2, 3):
            await freeze(database, f"2025-{month:02}-01")
        await use(database, call(4, "2025-03-11", "1000", user="bob"))

        # 100 calls at 0.333 and 10 at 1.00 before; on the plan that March ended on, 110 at 1.00 in both months.
        of_all = await explained(database, wanted(MARCH, APRIL, ()))
        assert ["ADJUSTMENT  333.00", "PLAN  66.70 (110 to 110 call)"] == told(of_all)

    play(database_url, scenario)


def test_a_plan_with_another_interval(database_url: str) -> None:
    """A quarter on the new plan is rated by months on the old one: what is included each month is, in each of them."""

    async def scenario(database: Database) -> None:
        included = msgspec.structs.replace(CALLS, price=PerUnit(Decimal(1)), included_quantity=Decimal(10))
        await offer(database, included, ends_at=at("2026-01-01"))
        await publish(database, draft(included, key="quarterly", interval=BillingInterval.QUARTER))
        await put(
            database,
            order(starts_at=JANUARY.start, ends_at=at("2026-01-01"), plan="quarterly", effective_at=APRIL.start),
        )
        await use(database, *(call(month, f"2025-{month:02}-10", "30", user="ann") for month in range(1, 7)))
        quarters = period("2025-01-01", "2025-04-01"), period("2025-04-01", "2025-07-01")

        assert ["PLAN ann 20.00 (90 to 90 call)"] == told(await explained(database, wanted(*quarters)))
        # The other way round too: the year's first quarter against the one that follows it.
        assert ["PLAN ann -20.00 (90 to 90 call)"] == told(await explained(database, wanted(*reversed(quarters))))

    play(database_url, scenario)


def test_had_it_stayed_on_its_plan(database_url: str) -> None:
    """Between the old plan and the new one stands the version of the old plan that would apply: the newest one, or the one
    that it was kept to.
    """

    async def scenario(database: Database) -> None:
        await offer(database, CALLS, ends_at=at("2026-01-01"))
        await publish(
            database, draft(msgspec.structs.replace(CALLS, price=PerUnit(Decimal(1))), effective_from=APRIL.start)
        )
        await publish(database, draft(msgspec.structs.replace(CALLS, price=PerUnit(Decimal(3))), key="light"))
        for number, (key, version) in enumerate((("s-1", None), ("s-2", 1))):
            given = {"key": key, "starts_at": JANUARY.start, "ends_at": at("2026-01-01")}
            await put(database, order(**given, plan_version=version))
            await put(database, order(**given, plan="light", effective_at=APRIL.start))
            for month in (3, 4):
                event = call(10 * number + month, f"2025-{month:02}-10", "100", subscription=key)
                await use(database, event)
        found = await explained(database, wanted(MARCH, APRIL, [Dimension.SUBSCRIPTION]))

        expected = ["PLAN s-2 266.70", "PLAN s-1 200.00", "PRICE s-1 66.70"]
        assert [f"{each} (100 to 100 call)" for each in expected] == told(found)

    play(database_url, scenario)


def test_trials_discounts_and_beginnings(database_url: str) -> None:
    """What was free in a trial, or had another discount, is PRICE for its usage, also when that month is frozen; what was not
    there at all is VOLUME.
    """

    async def scenario(database: Database) -> None:
        given: dict[str, Any] = {"starts_at": MARCH.start, "ends_at": at("2026-01-01"), "trial_ends_at": APRIL.start}
        await offer(database, BASE, CALLS, **given)
        await use(database, *(call(month, f"2025-{month:02}-10", "100", user="ann") for month in (3, 4, 5)))
        for _ in range(2):
            told_of = told(await explained(database, wanted(MARCH, APRIL)))
            assert ["PRICE ann 33.30 (100 to 100 call)", "RECURRING None 10.00"] == told_of
            told_of = told(await explained(database, wanted(APRIL, MARCH)))
            assert ["PRICE ann -33.30 (100 to 100 call)", "RECURRING None -10.00"] == told_of
            await freeze(database, "2025-03-10")
        assert ["VOLUME ann 33.30 (0 to 100 call)", "RECURRING None 10.00"] == told(
            await explained(database, wanted(FEBRUARY, APRIL))
        )
        assert ["VOLUME ann -33.30 (100 to 0 call)", "RECURRING None -10.00"] == told(
            await explained(database, wanted(APRIL, FEBRUARY))
        )

        await freeze(database, "2025-04-10")
        await put(database, order(**given, discount_percent=Decimal(10)))
        assert ["PRICE ann -3.33 (100 to 100 call)", "RECURRING None -1.00"] == told(
            await explained(database, wanted(APRIL, MAY))
        )

    play(database_url, scenario)


def test_meters_that_do_not_add_up_tell_no_quantities(database_url: str) -> None:
    """What is owed for a maximum is explained like anything else; quantities of it are not told."""

    async def scenario(database: Database) -> None:
        await meter(database, "peak", Aggregation.MAX)
        await publish(database, draft(PlanPrice(key="peak", meter="peak", price=PerUnit(Decimal(1)))))
        await put(database, order(starts_at=JANUARY.start, ends_at=MAY.end))
        await use(database, call(1, "2025-03-10", "5", user="ann"), call(2, "2025-04-10", "8", user="ann"))

        for by in (BY_USER, ()):
            (part,) = told(await explained(database, wanted(MARCH, APRIL, by)))
            assert f"VOLUME {'ann' if by else ''} 3.00" == part

    play(database_url, scenario)


def test_a_voided_statement_does_not_count(database_url: str) -> None:
    """A period whose statement was taken back is compared as the draft that it is again."""

    async def scenario(database: Database) -> None:
        await offer(database, BASE, CALLS, ends_at=at("2026-01-01"))
        await use(database, call(1, "2025-03-10", "100", user="ann"))
        frozen = await freeze(database, "2025-03-10")
        await use(database, call(2, "2025-03-10", "100", user="bob"))
        assert ["VOLUME ann 16.65 (0 to 100 call)", "VOLUME bob 16.65 (0 to 100 call)"] == told(
            await explained(database, wanted(FEBRUARY, MARCH))
        )
        await take_back(database, frozen)
        assert ["VOLUME ann 33.30 (0 to 100 call)", "VOLUME bob 33.30 (0 to 100 call)"] == told(
            await explained(database, wanted(FEBRUARY, MARCH))
        )

    play(database_url, scenario)


# ---------------------------------------------------------------- what cannot be explained


def test_all_faults_at_once() -> None:
    """Periods that are turned around or beyond the calendar, dimensions named twice, and a `top` that is too large or small."""
    turned = period("2025-02-01", "2025-03-01")
    beyond = Period(at("1800-01-01"), at("2300-01-01"))
    for top in (0, LIMITS.page_rows_max + 1):
        comparison = wanted(
            msgspec.structs.replace(turned, start=turned.end, end=turned.start),
            beyond,
            [Dimension.USER, Dimension.DEVICE, Dimension.USER],
            top=top,
            currency_code="XAU",
        )
        with pytest.raises(InvalidInputError) as caught:
            compare(comparison, LIMITS)

        assert [
            ("input", "period"),
            ("input", "comparedWith", "to"),
            ("input", "by"),
            ("input", "top"),
            ("input", "currencyCode"),
        ] == [issue.path for issue in caught.value.issues]
    assert compare(wanted(JANUARY, JANUARY, tuple(Dimension), top=LIMITS.page_rows_max), LIMITS)


def test_accounts_that_are_not_there(database_url: str) -> None:
    """An account that nobody knows, that the caller may not see, or that has no subscription is not found."""

    async def scenario(database: Database) -> None:
        await offer(database, BASE, ends_at=at("2026-01-01"))
        await put_account(database, AccountOrder(key="bare", name="Bare"), KEY, LIMITS)
        for account, accounts in (("nobody", None), ("acme", frozenset({"beta"})), ("\0", None), ("bare", None)):
            with pytest.raises(NotFoundError, match=r"There is no account .* with a subscription"):
                await explained(database, wanted(JANUARY, FEBRUARY, account=account), accounts)
        assert [] == told(await explained(database, wanted(JANUARY, FEBRUARY), frozenset({"acme"})))

    play(database_url, scenario)


def test_several_currencies_are_named(database_url: str) -> None:
    """Where both periods have charges in two currencies one has to be named; one that the account is not charged in is refused.
    Where only one was charged it need not be named.
    """

    async def scenario(database: Database) -> None:
        await offer(database, BASE, ends_at=FEBRUARY.end)
        await publish(database, draft(BASE, key="yen", currency_code="JPY"))
        await put(database, order(key="s-2", plan="yen", starts_at=FEBRUARY.start, ends_at=MAY.end))
        for code, reason in ((None, "charged in EUR, JPY"), ("USD", "charged in EUR, JPY")):
            with pytest.raises(InvalidInputError, match=reason) as caught:
                await explained(database, wanted(JANUARY, FEBRUARY, currency_code=code))
            assert [("input", "currencyCode")] == [issue.path for issue in caught.value.issues]

        assert "10 JPY" == str((await explained(database, wanted(MARCH, APRIL))).explanation.after)
        assert "0.00 EUR" == str(
            (await explained(database, wanted(MARCH, APRIL, currency_code="EUR"))).explanation.after
        )
        assert ["RECURRING None 10"] == told(await explained(database, wanted(JANUARY, FEBRUARY, currency_code="JPY")))
        with pytest.raises(InvalidInputError, match="EUR, JPY"):
            await explained(database, wanted(period("2024-01-01", "2024-02-01"), period("2024-02-01", "2024-03-01")))

    play(database_url, scenario)


def test_usage_that_is_gone_is_not_guessed(database_url: str) -> None:
    """Frozen months are compared by account and subscription when their usage is gone, also at other prices; by user they are
    refused, and so are months that were not frozen; each with the argument that it is.
    """

    async def scenario(database: Database) -> None:
        await offer(database, CALLS, ends_at=at("2026-01-01"))
        await publish(
            database, draft(msgspec.structs.replace(CALLS, price=PerUnit(Decimal(1))), effective_from=FEBRUARY.start)
        )
        await use(database, call(1, "2025-01-10", "100", user="ann"), call(2, "2025-02-10", "200", user="ann"))
        for month in (1, 2):
            await freeze(database, f"2025-{month:02}-10")
        await roll_up(database)
        async with database.connection() as connection:
            gone = "UPDATE retained_range SET raw_from = '2025-04-10', taken_from = '2025-04-10', rollups_from = '2025-04-10'"
            await connection.execute(gone)

        found = await explained(database, wanted(JANUARY, FEBRUARY, [Dimension.SUBSCRIPTION]))
        assert ["PRICE s-1 133.40 (100 to 200 call)", "VOLUME s-1 33.30 (100 to 200 call)"] == told(found)
        for asked, path in (
            (wanted(JANUARY, FEBRUARY), "comparedWith"),
            (wanted(MARCH, FEBRUARY, ()), "comparedWith"),
            (wanted(JANUARY, MARCH, ()), "period"),
        ):
            with pytest.raises(InvalidInputError) as caught:
                await explained(database, asked)
            assert {("input", path)} == {issue.path for issue in caught.value.issues}

    play(database_url, scenario)
