"""Statements of a real database: drafts are exact at the moment, what is frozen stays, and what changes is made up for."""

import asyncio
from collections.abc import Sequence
from datetime import timedelta
from decimal import Decimal
from typing import Any

import asyncpg
import msgspec
import pytest

from metering.aggregations import Aggregation
from metering.errors import ConflictError, InvalidInputError, NotFoundError
from metering.limits import LIMITS
from metering.retention import Ages, Retention
from metering.rollups.read import Total
from metering.rollups.refresh import Refresher
from metering.statements.finalize import finalize_statement, void_statement
from metering.statements.history import FinalStatement, StatementStatus
from metering.statements.kept import Place
from metering.statements.read import place_of, read_statements, statement_at
from metering.statements.records import PlanVersion
from metering.store.pool import Database
from metering.store.snapshot import Snapshot
from rating.billing_periods import BillingInterval
from rating.plans import PlanPrice
from rating.prices import PerUnit
from tests.conftest import lock_waiters
from tests.metering.billing import (
    BASE,
    BILLING_KEY,
    CALLS,
    adjustments,
    ask,
    call,
    correct,
    freeze,
    listed,
    offer,
    roll_up,
    shown,
    take_back,
    use,
)
from tests.metering.catalog import draft, meter, order, play, publish, put, rows
from tests.metering.test_exactness import refreshed
from tests.rating.tables import at, period


async def closed(database: Database, *calls: int) -> Sequence[FinalStatement]:
    """A subscription whose first months of 2025 are frozen, with so many calls each, in one event."""
    await offer(database)
    for month, quantity in enumerate(calls, 1):
        await use(database, call(month, f"2025-{month:02}-10", str(quantity)))
    return [await freeze(database, f"2025-{month:02}-20") for month, _ in enumerate(calls, 1)]


# ---------------------------------------------------------------- drafts


def test_a_draft_is_the_usage_of_the_moment(database_url: str) -> None:
    """A draft rates every event that was acknowledged before it, rolled up or not, by the subscription it names; nothing of
    it is stored.
    """

    async def scenario(database: Database) -> None:
        await offer(database)
        await use(database, call(1, "2025-03-01", "3"), call(2, "2025-03-31T23:59:59.999999"), call(3, "2025-04-01"))
        await roll_up(database)
        await use(
            database,
            call(4, "2025-03-15T12:34:56", "2"),
            call(5, "2025-03-15", "100", subscription=None),
            call(6, "2025-03-15", "100", subscription="s-2"),
            call(7, "2025-03-15", "100", account="other"),
        )
        march = await ask(database, "2025-03-10")

        assert (StatementStatus.DRAFT, period("2025-03-01", "2025-04-01")) == (march.status, march.period)
        expected = ["base RECURRING 10.00", "calls USAGE 2.00", "tiers USAGE 5.00", "tiers USAGE 1.00"]
        assert [*expected, "tiers USAGE 2.00"] == shown(march)
        assert "20.00 EUR" == str(march.total)
        assert (PlanVersion("team", 1),) == march.evidence.plans
        assert [] == await rows(database, "SELECT FROM statement")

    play(database_url, scenario)


def test_parts_are_read_to_the_microsecond(database_url: str) -> None:
    """Where another plan applies from an instant on, each event is rated by the plan of its own microsecond."""

    async def scenario(database: Database) -> None:
        await offer(database, CALLS)
        await publish(database, draft(PlanPrice(key="calls", meter="calls", price=PerUnit(Decimal(100))), key="dear"))
        change = at("2025-03-10T14:37:22.123457")
        await put(database, order(starts_at=at("2025-01-01"), plan="dear", effective_at=change))
        await use(database, call(1, "2025-03-10T14:37:22.123456"), call(2, "2025-03-10T14:37:22.123457"))
        await roll_up(database)

        march = await ask(database, "2025-03-31")
        assert ["calls USAGE 0.33", "calls USAGE 100.00"] == shown(march)
        assert (PlanVersion("team", 1), PlanVersion("dear", 1)) == march.evidence.plans

    play(database_url, scenario)


def test_usage_that_no_price_covers_is_listed(database_url: str) -> None:
    """`unrated` is usage of the subscription by unit that no meter of a price counts, of each plan's own time; a trial is
    free and covered; what names no subscription is no subscription's.
    """

    async def scenario(database: Database) -> None:
        await meter(database, "map-calls", product=["maps"])
        maps = PlanPrice(key="maps", meter="map-calls", price=PerUnit(Decimal(1)))
        await publish(database, draft(maps))
        await publish(database, draft(BASE, key="bare"))
        starts_at = at("2025-03-01")
        await put(database, order(starts_at=starts_at, trial_ends_at=at("2025-03-08")))
        await put(
            database,
            order(
                starts_at=starts_at, trial_ends_at=at("2025-03-08"), plan="bare", effective_at=at("2025-03-20T01:02:03")
            ),
        )
        await use(
            database,
            call(1, "2025-03-05", "2"),
            call(2, "2025-03-05", "3", product="mail"),
            call(3, "2025-03-10", "4"),
            call(4, "2025-03-10", "-0.5", product="mail"),
            call(5, "2025-03-10", "6", unit="byte"),
            call(6, "2025-03-20T01:02:02.999999", "7"),
            call(7, "2025-03-20T01:02:03", "8"),
            call(8, "2025-03-10", "9", product="mail", subscription=None),
            call(9, "2025-03-10", "9", product="mail", account="other"),
        )
        for _ in range(2):
            march = await ask(database, "2025-03-10")
            assert (
                Total("byte", Decimal(6), 1, Decimal(6), Decimal(6)),
                Total("call", Decimal("10.5"), 3, Decimal("-0.5"), Decimal(8)),
            ) == march.evidence.unrated
            await roll_up(database)
        assert march.evidence.unrated == (await freeze(database, "2025-03-10")).evidence.unrated

    play(database_url, scenario)


@pytest.mark.parametrize(
    ("subscription", "instant", "why"),
    [
        ("nobody", "2025-03-01", "no subscription 'nobody'"),
        ("s-\0", "2025-03-01", "no subscription"),
        ("s-1", "2024-12-31T23:59:59", "starts at 2025-01-01"),
        ("s-1", "2025-06-01", "ended at 2025-06-01"),
    ],
)
def test_where_there_is_no_statement(database_url: str, subscription: str, instant: str, why: str) -> None:
    """Before a subscription's start, after its end and for one that is not there, there is no statement, and it is said why."""

    async def scenario(database: Database) -> None:
        await offer(database)
        await put(database, order(starts_at=at("2025-01-01"), ends_at=at("2025-06-01")))
        for asking in (ask, freeze):
            with pytest.raises(NotFoundError, match=why):
                await asking(database, instant, subscription)

    play(database_url, scenario)


def test_a_statement_of_another_account_is_none(database_url: str) -> None:
    """Who is bound to accounts finds, freezes and voids only theirs: others' are as if they were not there."""

    async def scenario(database: Database) -> None:
        (final,) = await closed(database, 3)
        bound = msgspec.structs.replace(BILLING_KEY, accounts=frozenset({"other"}))
        async with Snapshot(database, bound.reach) as snapshot:
            with pytest.raises(NotFoundError):
                await statement_at(snapshot, "s-1", at("2025-01-20"), LIMITS)
        with pytest.raises(NotFoundError):
            await finalize_statement(database, "s-1", at("2025-02-20"), bound, LIMITS)
        with pytest.raises(NotFoundError):
            await void_statement(database, final.id, "not mine", bound, LIMITS)
        own = msgspec.structs.replace(BILLING_KEY, accounts=frozenset({"acme"}))
        february = await finalize_statement(database, "s-1", at("2025-02-20"), own, LIMITS)
        assert StatementStatus.VOID is (await void_statement(database, february.id, "mine", own, LIMITS)).status

    play(database_url, scenario)


# ---------------------------------------------------------------- freezing


def test_what_is_frozen_stays(database_url: str) -> None:
    """A final statement has the draft's lines, keeps its evidence, and is the same whatever happens to usage later."""

    async def scenario(database: Database) -> None:
        await offer(database)
        await use(database, call(1, "2025-03-10", "7"))
        march = await ask(database, "2025-03-10")
        final = await freeze(database, "2025-03-10")

        assert (march.lines, march.total, march.evidence) == (final.lines, final.total, final.evidence)
        assert march.as_of < final.as_of <= final.finalized_at
        assert (StatementStatus.FINAL, "billing (mk_billing)") == (final.status, final.finalized_by)
        assert final.evidence.terms is not None
        assert [("team", 1)] == [(part.plan, part.version) for part in final.evidence.terms.parts]
        assert [("calls", Decimal(7), 1)] == [
            (each.meter, each.quantity, each.events) for each in final.evidence.figures
        ]
        await use(database, call(2, "2025-03-11", "7"))
        assert final == await ask(database, "2025-03-31T23:59:59") == await freeze(database, "2025-03-01")
        decimals = await rows(
            database, "SELECT jsonb_typeof(lines -> 0 -> 'amount'), lines -> 0 ->> 'amount' FROM statement"
        )
        assert [("string", "10.00")] == decimals

    play(database_url, scenario)


def test_a_period_is_frozen_when_it_is_over(database_url: str) -> None:
    """Freezing the running period is refused, and so is one that is to come; nothing is kept."""

    async def scenario(database: Database) -> None:
        await offer(database)
        async with Snapshot(database) as snapshot:
            now = (await snapshot.horizon()).as_of
        for instant in (now, now + timedelta(days=400)):
            with pytest.raises(ConflictError, match="frozen when it is over"):
                await finalize_statement(database, "s-1", instant, BILLING_KEY, LIMITS)
        assert [] == await rows(database, "SELECT FROM statement")
        with pytest.raises(InvalidInputError, match="from 1900"):
            await finalize_statement(database, "s-1", at("1899-12-31"), BILLING_KEY, LIMITS)

    play(database_url, scenario)


def test_what_changes_later_is_on_the_next_statement(database_url: str) -> None:
    """Late, corrected and voided usage of frozen months is made up for by the next draft, up and down, naming the months;
    once it is frozen the one after has nothing left to carry.
    """

    async def scenario(database: Database) -> None:
        await closed(database, 3, 7)
        assert [] == adjustments(await ask(database, "2025-03-10"))
        await use(database, call(11, "2025-01-31T23:59:59.5", "10"))
        await roll_up(database)
        await correct(database, 2, "1")
        march = await ask(database, "2025-03-10")

        january = ["calls ADJUSTMENT of Jan 3.33", "tiers ADJUSTMENT of Jan 18.00"]
        february = ["calls ADJUSTMENT of Feb -2.00", "tiers ADJUSTMENT of Feb -8.00"]
        assert [*january, *february] == adjustments(march)
        assert [] == adjustments(await ask(database, "2025-04-10"))
        frozen = await freeze(database, "2025-03-10")
        assert march.lines == frozen.lines
        assert [] == adjustments(await ask(database, "2025-04-10"))
        await correct(database, 11)
        given_back = ["calls ADJUSTMENT of Jan -3.33", "tiers ADJUSTMENT of Jan -18.00"]
        assert given_back == adjustments(await ask(database, "2025-04-10"))

    play(database_url, scenario)


def test_freezing_at_once_freezes_once(database_url: str) -> None:
    """Of many who freeze a statement at once all get the same one; and of two periods that are frozen at once, one carries
    what an earlier period has become.
    """

    async def scenario(database: Database) -> None:
        await closed(database, 3)
        await use(database, call(11, "2025-01-10", "10"))
        instants = [f"2025-{month:02}-10" for month in (2, 3, 4)] * 5
        finals = await asyncio.gather(*(freeze(database, instant) for instant in instants))

        assert 3 == len({each.id for each in finals})
        assert [(4,)] == await rows(database, "SELECT count(*) FROM statement")
        carried = [adjustments(each) for each in finals[:3]]
        assert [[], [], ["calls ADJUSTMENT of Jan 3.33", "tiers ADJUSTMENT of Jan 18.00"]] == sorted(carried)

    play(database_url, scenario)


def test_a_statement_that_was_computed_before_another_was_frozen(database_url: str) -> None:
    """Who computed a statement while another one was being frozen computes it anew when that is done: with what is left."""

    async def scenario(database: Database) -> None:
        await closed(database, 3)
        await use(database, call(11, "2025-01-10", "10"))
        holder = await asyncpg.connect(database_url)
        try:
            # Both compute, and wait for the subscription; whoever comes second finds another history.
            async with holder.transaction():
                await holder.execute("SELECT FROM subscription WHERE key = 's-1' FOR UPDATE")
                waiting = [asyncio.create_task(freeze(database, f"2025-{month:02}-10")) for month in (2, 3)]
                await lock_waiters(database_url, 2)
            february, march = await asyncio.gather(*waiting)
        finally:
            await holder.close()

        assert 1 == sum(bool(adjustments(each)) for each in (february, march))
        assert [(3,)] == await rows(database, "SELECT count(*) FROM statement")

    play(database_url, scenario)


# ---------------------------------------------------------------- taking back


def test_a_final_statement_is_voided_with_a_reason(database_url: str) -> None:
    """A voided statement stays on record with who, when and why; its period is a draft, and can be frozen again."""

    async def scenario(database: Database) -> None:
        (january,) = await closed(database, 3)
        await correct(database, 1, "5")
        voided = await take_back(database, january, "wrong quantity")

        assert (StatementStatus.VOID, "wrong quantity") == (voided.status, voided.void_reason)
        assert ("billing (mk_billing)", january.lines) == (voided.voided_by, voided.lines)
        assert voided.voided_at is not None
        assert voided.voided_at >= january.finalized_at
        with pytest.raises(ConflictError, match="voided before"):
            await take_back(database, january)
        assert StatementStatus.DRAFT is (await ask(database, "2025-01-10")).status
        again = await freeze(database, "2025-01-10")
        assert (january.id, "17.67 EUR") != (again.id, str(again.total))
        assert "17.67 EUR" == str(again.total)
        assert [] == adjustments(await ask(database, "2025-02-10"))

    play(database_url, scenario)


@pytest.mark.parametrize("reason", ["", "  ", "a\0", "a" * (LIMITS.reason_chars_max + 1)])
def test_a_reason_is_told(database_url: str, reason: str) -> None:
    """A statement is not voided without a reason that can be kept."""

    async def scenario(database: Database) -> None:
        (january,) = await closed(database, 3)
        with pytest.raises(InvalidInputError, match="reason"):
            await take_back(database, january, reason)
        assert january == await ask(database, "2025-01-10")
        with pytest.raises(NotFoundError):
            await void_statement(database, january.id + 1, "not there", BILLING_KEY, LIMITS)

    play(database_url, scenario)


# ---------------------------------------------------------------- what else may change


def test_seats_that_are_put_for_the_past(database_url: str) -> None:
    """Terms that are put for a time that is frozen are made up for like usage; a discount holds for what is not frozen."""

    async def scenario(database: Database) -> None:
        await closed(database, 3)
        await put(database, order(starts_at=at("2025-01-01"), discount_percent=Decimal(50)))
        assert [] == adjustments(await ask(database, "2025-02-10"))
        await publish(database, draft(CALLS, key="light"))
        effective = at("2025-01-16T12:00")
        await put(
            database,
            order(starts_at=at("2025-01-01"), plan="light", effective_at=effective, discount_percent=Decimal(50)),
        )

        lines = adjustments(await ask(database, "2025-02-10"))
        assert ["base ADJUSTMENT of Jan -5.00", "tiers ADJUSTMENT of Jan 0.00"][:1] == lines[:1]

    play(database_url, scenario)


def test_closing_statements(database_url: str) -> None:
    """What comes after an ended subscription's last statement is frozen on closing statements, one after the other, with
    usage from after the end as unrated.
    """

    async def scenario(database: Database) -> None:
        await closed(database, 3, 7)
        await put(database, order(starts_at=at("2025-01-01"), ends_at=at("2025-03-01")))
        with pytest.raises(NotFoundError, match="nothing is to be made up for"):
            await ask(database, "2025-03-01")
        await use(database, call(11, "2025-01-10", "10"), call(12, "2025-03-05", "4"))
        draft = await ask(database, "2025-03-01")
        final = await freeze(database, "2025-03-01")

        assert ["calls ADJUSTMENT of Jan 3.33", "tiers ADJUSTMENT of Jan 18.00"] == shown(draft) == shown(final)
        assert ["call"] == [total.unit for total in final.evidence.unrated]
        assert (at("2025-03-01"), ()) == (final.period.start, final.evidence.plans)
        assert final == await freeze(database, "2025-03-10")
        async with Snapshot(database) as snapshot:
            later = (await snapshot.horizon()).as_of
            with pytest.raises(NotFoundError):
                await statement_at(snapshot, "s-1", final.period.end, LIMITS)
        await correct(database, 11)
        following = await freeze(database, f"{final.period.end:%FT%T.%f}")
        assert ["calls ADJUSTMENT of Jan -3.33", "tiers ADJUSTMENT of Jan -18.00"] == shown(following)
        assert (final.period.end, True) == (following.period.start, following.period.end > later)

    play(database_url, scenario)


def test_a_frozen_period_outlives_its_events(database_url: str) -> None:
    """Where events are not kept any more, what was frozen of them stays, and a draft that needs them is a Conflict."""

    async def scenario(database: Database) -> None:
        await offer(database)
        weekly = draft(CALLS, key="weekly", interval=BillingInterval.WEEK)
        await publish(database, weekly)
        odd = at("2025-01-01T00:07:00")
        await put(database, order(key="s-2", starts_at=odd, plan="weekly"))
        await use(database, call(1, "2025-01-05", "3", subscription="s-2"))
        await freeze(database, "2025-01-05", "s-2")
        async with database.connection() as connection:
            await connection.execute(
                "UPDATE retained_range SET raw_from = '2025-06-01', taken_from = '2025-06-01', rollups_from = '2025-06-01'"
            )

        with pytest.raises(ConflictError, match="cannot be computed any more"):
            await ask(database, "2025-01-10", "s-2")
        assert "1.00 EUR" == str((await ask(database, "2025-01-05", "s-2")).total)
        assert [] == adjustments(await ask(database, "2025-07-05", "s-2"))

    play(database_url, scenario)


def test_a_frozen_level_outlives_the_event_that_set_it(database_url: str) -> None:
    """A level that was carried into a frozen period is not given back when the event that set it is given up; a late one is
    made up for, then as before.
    """

    async def scenario(database: Database) -> None:
        await meter(database, "stored", Aggregation.TIME_WEIGHTED, unit="gigabyte")
        await publish(database, draft(PlanPrice(key="stored", meter="stored", price=PerUnit(Decimal(1)))))
        await put(database, order(starts_at=at("2025-01-01")))
        await use(database, call(1, "2025-01-10", "7", unit="gigabyte"))
        assert "7.00 EUR" == str((await freeze(database, "2025-02-10")).total)
        await use(database, call(2, "2025-02-15", "14", unit="gigabyte"))
        assert ["stored ADJUSTMENT of Feb 3.50"] == adjustments(await ask(database, "2025-03-10"))
        await freeze(database, "2025-03-10")
        await refreshed(Refresher(database), at("2025-03-03"))
        month = Ages(events=timedelta(days=30), rollups=None, rows=timedelta(days=14))
        done = await Retention(database, month).run(at("2025-03-03"))

        assert done is not None
        assert at("2025-02-01") == done.raw_from
        assert [] == adjustments(await ask(database, "2025-04-10"))
        await use(database, call(3, "2025-02-22", "21", unit="gigabyte"))
        made_up_for = ["stored ADJUSTMENT of Feb 1.75", "stored ADJUSTMENT of Mar 7.00"]
        assert made_up_for == adjustments(await ask(database, "2025-04-10"))

    play(database_url, scenario)


# ---------------------------------------------------------------- lists


def test_statements_are_listed_in_pages(database_url: str) -> None:
    """Drafts, final and voided statements stand by subscription, period and age, and pages of any size show each once."""

    async def scenario(database: Database) -> None:
        january, february = await closed(database, 3, 7)
        await take_back(database, january)
        await put(database, order(key="s-0", starts_at=at("2025-01-01"), ends_at=at("2025-03-01")))
        await put(database, order(key="s-2", account="other", starts_at=at("2025-01-01"), ends_at=at("2025-01-16")))
        wanted: dict[str, Any] = {"period": period("2025-01-15", "2025-03-01")}
        every = [
            (each.subscription, f"{each.period.start:%b}", each.status.value)
            for each in await listed(database, **wanted)
        ]

        ended = [("s-0", "Jan", "DRAFT"), ("s-0", "Feb", "DRAFT")]
        ours = [("s-1", "Jan", "DRAFT"), ("s-1", "Jan", "VOID"), ("s-1", "Feb", "FINAL")]
        assert [*ended, *ours, ("s-2", "Jan", "DRAFT")] == every
        assert [february] == await listed(database, status=StatementStatus.FINAL)
        assert [january.id] == [getattr(each, "id", 0) for each in await listed(database, status=StatementStatus.VOID)]
        drafts = await listed(database, status=StatementStatus.DRAFT, accounts=["other"])
        assert ["s-2"] == [each.subscription for each in drafts]
        assert 3 == len(await listed(database, subscriptions=["s-1", "\0"], **wanted))
        assert every == await walked(database, wanted, 1) == await walked(database, wanted, 2)

    play(database_url, scenario)


async def walked(database: Database, wanted: dict[str, Any], size: int) -> list[tuple[str, str, str]]:
    """All statements in pages of this size."""
    from metering.statements.kept import Chosen

    found: list[tuple[str, str, str]] = []
    after: Place | None = None
    limits = msgspec.structs.replace(LIMITS, statement_page_subscriptions=1)
    while True:
        async with Snapshot(database) as snapshot:
            page, has_more = await read_statements(snapshot, Chosen(**wanted), size, after, limits)
        assert len(page) <= size
        found += [(each.subscription, f"{each.period.start:%b}", each.status.value) for each in page]
        if not has_more:
            return found
        after = place_of(page[-1])


def test_what_cannot_be_computed_is_left_out_of_lists(database_url: str) -> None:
    """A list has the statements that there are; one that cannot be computed any more is not among them."""

    async def scenario(database: Database) -> None:
        await offer(database)
        async with database.connection() as connection:
            await connection.execute(
                "UPDATE retained_range SET raw_from = '2025-06-01', taken_from = '2025-06-01', rollups_from = '2025-06-01'"
            )
        drafts = await listed(database, period=period("2025-03-01", "2025-08-01"))
        assert [at("2025-06-01"), at("2025-07-01")] == [each.period.start for each in drafts]

    play(database_url, scenario)
