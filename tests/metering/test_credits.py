"""Credits are drawn by statements in one order, go back with what is voided, and are never more than was granted."""

import asyncio
from decimal import Decimal
from fractions import Fraction
from itertools import pairwise
from typing import Any

import asyncpg
import pytest

from metering.aggregations import Aggregation
from metering.credits import grant_credit, void_grant
from metering.errors import ConflictError, ForbiddenError, InvalidInputError, NotFoundError
from metering.events import Dimension
from metering.limits import LIMITS
from metering.periods import Period
from metering.statements.finalize import finalize_by
from metering.statements.history import FinalStatement
from metering.store.pool import Database
from rating.plans import PlanPrice
from rating.prices import Flat, PerUnit
from tests.metering.billing import ask, call, correct, freeze, offer, roll_up, take_back, use
from tests.metering.catalog import BOUND_KEY, draft, meter, order, play, publish, put, rows
from tests.metering.crediting import balance, check_books, credited, give, grant_order, ledger, left, moves, revoke
from tests.metering.test_charges import charges, question, totals
from tests.rating.tables import at

EURO_CALLS = PlanPrice(key="calls", meter="calls", price=PerUnit(Decimal(1)))
FLAT = PlanPrice(key="base", price=Flat(Decimal(10)))


async def sell(database: Database, *prices: PlanPrice) -> None:
    """The subscription s-1 of acme to 10.00 a month and 1.00 a call, with 20 calls in the middle of March 2025."""
    await offer(database, *(prices or (FLAT, EURO_CALLS)))
    await use(database, call(1, "2025-03-16T12:00", "20"))


def test_a_statement_draws_in_order(database_url: str) -> None:
    """By hand: of 30.00 a bonus of priority 0 pays 5.00, what expires first 12.00, and what never does the other 13.00; by
    price, for the lines in order. The draft shows it and writes nothing; the final statement is the same.
    """

    async def scenario(database: Database) -> None:
        await sell(database)
        await give(database, "paid", "100", priority=1)
        await give(database, "soon", "12", priority=1, expires_at=at("2025-06-01"))
        await give(database, "bonus", "5", priority=0)
        drafted = await ask(database, "2025-03-10")
        expected = [
            "base: credit bonus -5.00",
            "base: credit soon -5.00",
            "calls: credit soon -7.00",
            "calls: credit paid -13.00",
        ]

        assert (expected, "30.00 EUR", "0.00 EUR") == (credited(drafted), str(drafted.total), str(drafted.owed))
        assert {"bonus": "5.00", "paid": "100.00", "soon": "0.00"} == await left(database)
        final = await freeze(database, "2025-03-10")
        assert (expected, final.lines, "0.00 EUR") == (credited(final), drafted.lines, str(final.owed))
        assert final.credits == (await ask(database, "2025-03-10")).credits
        assert {"bonus": "0.00", "paid": "87.00", "soon": "0.00"} == await left(database)
        assert {"bonus": "5.00", "paid": "100.00", "soon": "12.00"} == await left(
            database, "2025-03-31T23:59:59.999999"
        )
        assert [
            "01-01 paid ISSUED>GRANT 100.00",
            "01-01 soon ISSUED>GRANT 12.00",
            "01-01 bonus ISSUED>GRANT 5.00",
            "04-01 bonus GRANT>STATEMENT 5.00",
            "04-01 soon GRANT>STATEMENT 12.00",
            "04-01 paid GRANT>STATEMENT 13.00",
        ] == [each for each in moves(await ledger(database)) if "EXPIRED" not in each]
        await check_books(database)

    play(database_url, scenario)


def test_a_grant_pays_for_its_own_time(database_url: str) -> None:
    """By hand: from 11 to 21 March, 10 of 31 days, are all 20 calls and 3.22 of the 10.00 of the month: 6.45 until then, less
    3.23. What is left expires on 21 March, also when the statement is frozen long after. What was used before a grant begins,
    it does not pay.
    """

    async def scenario(database: Database) -> None:
        await sell(database)
        await use(database, call(2, "2025-03-10T23:59:59.999999", "4"), call(3, "2025-03-21", "6"))
        await give(database, "march", "50", effective_at=at("2025-03-11"), expires_at=at("2025-03-21"))
        final = await freeze(database, "2025-03-10")

        assert ["base: credit march -3.22", "calls: credit march -20.00"] == credited(final)
        assert ("40.00 EUR", "16.78 EUR") == (str(final.total), str(final.owed))
        assert {"march": "0"} == await left(database, "2025-03-10")
        assert {"march": "50.00"} == await left(database, "2025-03-11")
        assert {"march": "50.00"} == await left(database, "2025-03-20T23:59:59.999999")
        assert {"march": "0.00"} == await left(database, "2025-03-21")
        (shown,) = (await balance(database)).grants
        assert ("23.22", "26.78") == (str(shown.drawn), str(shown.expired))
        assert "03-21 march GRANT>EXPIRED 26.78" == moves(await ledger(database))[-1]
        await check_books(database)

    play(database_url, scenario)


def test_a_grant_pays_what_charges_say_for_its_time(database_url: str) -> None:
    """Of meters of every aggregation, a flat price, a minimum and a discount: a grant pays what is charged in its time, and
    grants that lie side by side pay everything; charges stay what they are before credits.
    """

    async def scenario(database: Database) -> None:
        for each in Aggregation:
            await meter(database, each.value, each)
        metered = [PlanPrice(key=each.value, meter=each.value, price=PerUnit(Decimal(1))) for each in Aggregation]
        least = PlanPrice(key="least", meter="SUM", price=PerUnit(Decimal("0.01")), minimum_amount=Decimal(7))
        await publish(database, draft(*metered, least, FLAT))
        await put(database, order(starts_at=at("2025-01-01"), discount_percent=Decimal(10)))
        for number, (day, calls) in enumerate((("02", "3"), ("03", "6"), ("20", "7"), ("21", "9"))):
            await use(database, call(number, f"2025-01-{day}T10:00", calls, user="x"))
        await roll_up(database)
        cuts = [at(f"2025-01-{day}") for day in ("01", "03", "20")] + [
            at("2025-01-20T10:00:00.000001"),
            at("2025-02-01"),
        ]
        charged = []
        for start, end in pairwise(cuts):
            await give(database, f"from {start:%dT%H}", "1000", effective_at=start, expires_at=end)
            charged.append(totals(await charges(database, question([], Period(start, end))))["EUR"])
        final = await freeze(database, "2025-01-10")

        paid: dict[str, Fraction] = {}
        for line in final.credits:
            paid[line.grant] = paid.get(line.grant, Fraction(0)) - Fraction(line.amount.amount)
        assert charged == [paid[f"from {start:%dT%H}"] for start in cuts[:-1]]
        assert ("0.00 EUR", Fraction(final.total.amount)) == (str(final.owed), sum(charged))
        whole = totals(await charges(database, question([Dimension.USER], Period(cuts[0], cuts[-1]))))
        assert {"EUR": Fraction(final.total.amount)} == whole
        await check_books(database)

    play(database_url, scenario)


def test_two_grants_share_a_month(database_url: str) -> None:
    """By hand: one grant ends where the other begins, in mid-month; each pays for its half, though the first has enough."""

    async def scenario(database: Database) -> None:
        await sell(database, EURO_CALLS)
        await use(database, call(2, "2025-03-16T11:59:59.999999", "7"))
        await give(database, "first", "100", expires_at=at("2025-03-16T12:00"))
        await give(database, "second", "15", effective_at=at("2025-03-16T12:00"))
        final = await freeze(database, "2025-03-10")

        assert ["calls: credit first -7.00", "calls: credit second -15.00"] == credited(final)
        assert "5.00 EUR" == str(final.owed)
        await check_books(database)

    play(database_url, scenario)


def test_quantities_come_before_amounts(database_url: str) -> None:
    """By hand: 5 of 20 calls are paid by a grant of calls, at 1.00 each, before the amount, whatever its priority; a grant of
    a meter that the plan does not charge pays nothing.
    """

    async def scenario(database: Database) -> None:
        await sell(database)
        await give(database, "amount", "12", priority=0)
        await give(database, "calls", "5", meter="calls", priority=9)
        final = await freeze(database, "2025-03-10")

        assert ["calls: credit calls -5.00", "base: credit amount -10.00", "calls: credit amount -2.00"] == credited(
            final
        )
        assert [Decimal(5), None, None] == [each.quantity for each in final.credits]
        assert ({"amount": "0.00", "calls": "0"}, "13.00 EUR") == (await left(database), str(final.owed))
        whole = await balance(database)
        assert (["0.00 EUR"], [("calls", Decimal(0))]) == (
            [str(each) for each in whole.amounts],
            list(whole.quantities),
        )
        await check_books(database)

    play(database_url, scenario)


def test_some_credit_is_for_some_meters(database_url: str) -> None:
    """An amount for calls pays for no flat price, and a credit in another currency for nothing at all."""

    async def scenario(database: Database) -> None:
        await sell(database)
        await give(database, "calls only", "100", meters=("calls",))
        await give(database, "dollars", "100", currency_code="USD")
        final = await freeze(database, "2025-03-10")

        assert (["calls: credit calls only -20.00"], "10.00 EUR") == (credited(final), str(final.owed))
        assert ["80.00 EUR", "100.00 USD"] == [str(each) for each in (await balance(database)).amounts]

    play(database_url, scenario)


def test_a_void_statement_gives_back(database_url: str) -> None:
    """What was drawn goes back by entries of the same instant, nothing is deleted; the period's draft draws it again."""

    async def scenario(database: Database) -> None:
        await sell(database)
        await give(database, "paid", "25")
        final = await freeze(database, "2025-03-10")
        voided = await take_back(database, final)

        assert credited(final) == credited(voided) == credited(await ask(database, "2025-03-10"))
        assert {"paid": "25.00"} == await left(database)
        assert 3 == len(await ledger(database))
        await check_books(database)
        again = await freeze(database, "2025-03-10")
        assert (credited(final), "5.00 EUR") == (credited(again), str(again.owed))
        assert {"paid": "0.00"} == await left(database)
        await check_books(database)

    play(database_url, scenario)


def test_a_void_statement_draws_again_on_what_expired_since(database_url: str) -> None:
    """A grant pays for its time, whenever the statement is frozen: voiding one years after its grant expired costs nobody."""

    async def scenario(database: Database) -> None:
        await sell(database)
        await give(database, "bonus", "30", expires_at=at("2025-04-01"))
        final = await freeze(database, "2025-03-10")
        await take_back(database, final)

        assert {"bonus": "0.00"} == await left(database)
        assert "30.00" == str((await balance(database)).grants[0].expired)
        assert "0.00 EUR" == str((await freeze(database, "2025-03-10")).owed)
        await check_books(database)

    play(database_url, scenario)


def test_late_usage_is_drawn_by_the_next_statement(database_url: str) -> None:
    """An adjustment is paid as what stands at the beginning of the statement that carries it."""

    async def scenario(database: Database) -> None:
        await sell(database, EURO_CALLS)
        await give(database, "paid", "25")
        await give(database, "later", "25", effective_at=at("2025-04-02"), priority=0)
        await freeze(database, "2025-03-10")
        await use(database, call(2, "2025-03-20", "8"))
        april = await freeze(database, "2025-04-10")

        assert (["calls: credit paid -5.00"], "3.00 EUR") == (credited(april), str(april.owed))
        await check_books(database)

    play(database_url, scenario)


def test_what_is_given_back_goes_to_where_it_came_from(database_url: str) -> None:
    """By hand: March drew 12 calls and 8.00; corrected from 20 calls to 5, April comes to -15.00 and gives back 8.00 first,
    and then 7 calls. Both are voided only in the order in which they built on each other.
    """

    async def scenario(database: Database) -> None:
        await sell(database, EURO_CALLS)
        await give(database, "paid", "100")
        await give(database, "calls", "12", meter="calls")
        march = await freeze(database, "2025-03-10")
        assert ["calls: credit calls -12.00", "calls: credit paid -8.00"] == credited(march)
        await correct(database, 1, "5")
        april = await freeze(database, "2025-04-10")

        assert ["credit paid given back 8.00", "credit calls given back 7.00"] == credited(april)
        assert ("-15.00 EUR", "0.00 EUR") == (str(april.total), str(april.owed))
        assert {"calls": "7", "paid": "100.00"} == await left(database)
        await check_books(database)
        with pytest.raises(ConflictError, match="given back by a later statement"):
            await take_back(database, march)
        await take_back(database, april)
        assert {"calls": "0", "paid": "92.00"} == await left(database)
        await take_back(database, march)
        await check_books(database)

    play(database_url, scenario)


def test_what_was_given_back_and_drawn_since_is_not_taken_twice(database_url: str) -> None:
    """A statement that gave back what another one drew since is voided after that one, and no grant goes below zero."""

    async def scenario(database: Database) -> None:
        await sell(database, EURO_CALLS)
        await give(database, "paid", "20")
        await freeze(database, "2025-03-10")
        await correct(database, 1, "5")
        april = await freeze(database, "2025-04-10")
        await use(database, call(2, "2025-05-10", "15"))
        may = await freeze(database, "2025-05-10")

        assert ("0.00 EUR", {"paid": "0.00"}) == (str(may.owed), await left(database))
        with pytest.raises(ConflictError, match="drawn by other statements since"):
            await take_back(database, april)
        await take_back(database, may)
        await take_back(database, april)
        assert {"paid": "0.00"} == await left(database)
        await check_books(database)

    play(database_url, scenario)


def test_concurrent_statements_do_not_overdraw(database_url: str) -> None:
    """Of two subscriptions that are frozen at once, where there is enough for one, each cent is drawn once."""

    async def scenario(database: Database) -> None:
        await sell(database)
        for number in range(2, 6):
            await put(database, order(key=f"s-{number}", starts_at=at("2025-01-01")))
        await give(database, "paid", "35")
        finals = await asyncio.gather(*(freeze(database, "2025-03-10", f"s-{number}") for number in range(1, 6)))

        assert Decimal(70) == sum(each.total.amount for each in finals)
        assert Decimal(35) == sum(each.owed.amount for each in finals)
        assert {"paid": "0.00"} == await left(database)
        await check_books(database)

    play(database_url, scenario)


def test_an_overdraft_where_it_is_allowed(database_url: str) -> None:
    """By hand: 12.00 and 8.00 more than there is; 30.00 are owed, and 10.00 of them after credits. What is overdrawn stays owed
    when the grant expires, and is made up for by what is given back.
    """

    async def scenario(database: Database) -> None:
        await sell(database)
        await give(database, "open", "7", overdraft_max=Decimal(8), expires_at=at("2025-05-01"))
        await give(database, "paid", "5", priority=5)
        final = await freeze(database, "2025-03-10")

        assert "10.00 EUR" == str(final.owed)
        assert {"open": "-8.00", "paid": "0.00"} == await left(database) == await left(database, "2025-05-02")
        await check_books(database)
        await take_back(database, final)
        assert {"open": "7.00", "paid": "5.00"} == await left(database, "2025-04-01")
        assert {"open": "0.00", "paid": "5.00"} == await left(database, "2025-05-01")
        await check_books(database)

    play(database_url, scenario)


def test_a_void_grant(database_url: str) -> None:
    """What a grant had paid stays paid, what is left leaves it, and no statement draws on it; once, and with a reason."""

    async def scenario(database: Database) -> None:
        await sell(database)
        await give(database, "paid", "45")
        await freeze(database, "2025-03-10")
        voided = await revoke(database, "paid")
        february = await freeze(database, "2025-02-10")

        assert ("a mistake", "billing (mk_billing)") == (voided.void_reason, voided.voided_by)
        assert ([], "10.00 EUR") == (credited(february), str(february.owed))
        (shown,) = (await balance(database)).grants
        assert ("30.00", "15.00", "0.00") == (str(shown.drawn), str(shown.voided), str(shown.balance))
        assert moves(await ledger(database))[-1].endswith("paid GRANT>VOIDED 15.00")
        await check_books(database)
        with pytest.raises(ConflictError, match="voided before"):
            await revoke(database, "paid")
        for key, account in (("other", "acme"), ("paid", "other"), ("pa\0id", "acme")):
            with pytest.raises(NotFoundError, match="has no grant"):
                await revoke(database, key, account)

    play(database_url, scenario)


def test_granting_again_is_the_same_grant(database_url: str) -> None:
    """By the account's key a grant is made once, also by many at once; another one of the same key is a conflict that names
    what is different.
    """

    async def scenario(database: Database) -> None:
        await offer(database)
        made = await asyncio.gather(*(give(database, "welcome", "10", meters=("calls",)) for _ in range(5)))
        assert 1 == len({each.id for each in made})
        assert {"welcome": "10.00"} == await left(database)
        assert made[0].id == (await give(database, "welcome", "10.00", meters=("calls", "calls"))).id
        with pytest.raises(ConflictError, match="with another credit, expiresAt"):
            await give(database, "welcome", "11", meters=("calls",), expires_at=at("2027-01-01"))
        assert made[0].id != (await give(database, "welcome", "10", account="beta")).id

    play(database_url, scenario)


def test_an_account_has_so_many_grants(database_url: str) -> None:
    """As many as its balance shows; one more is a conflict."""

    async def scenario(database: Database) -> None:
        async with database.connection() as connection:
            await connection.execute(
                "INSERT INTO credit_grant (account, key, currency_code, amount, meters, priority, overdraft_max, effective_at, "
                "granted_by) SELECT 'acme', n::text, 'EUR', 1, '{}', 0, 0, now(), 'a test' FROM generate_series(2, $1) AS n",
                LIMITS.account_grants_max,
            )
        await give(database, "last", "1")
        with pytest.raises(ConflictError, match="1,000 grants"):
            await give(database, "one more", "1")
        assert LIMITS.account_grants_max == len((await balance(database)).grants)

    play(database_url, scenario)


@pytest.mark.parametrize(
    ("fields", "paths"),
    [
        ({"amount": "0"}, ["credit.amount.amount"]),
        ({"amount": "-1"}, ["credit.amount.amount"]),
        ({"amount": "0.001"}, ["credit.amount.amount"]),
        ({"amount": "0.5", "currency_code": "JPY"}, ["credit.amount.amount"]),
        ({"amount": "0.0005", "currency_code": "KWD"}, ["credit.amount.amount"]),
        ({"amount": "1", "currency_code": "XAU"}, ["credit.amount.currencyCode"]),
        ({"amount": "1" * 39}, ["credit.amount.amount"]),
        ({"amount": "0", "meter": "none"}, ["credit.quantity.quantity", "credit.quantity.meter"]),
        ({"amount": "1", "meter": "ca\0lls"}, ["credit.quantity.meter"]),
        ({"amount": "1", "overdraft_max": Decimal(-1)}, ["overdraftMax"]),
        ({"amount": "1", "expires_at": at("2025-01-01")}, ["expiresAt"]),
        ({"amount": "1", "effective_at": at("1066-10-14")}, ["effectiveAt"]),
        (
            {
                "key": " ",
                "account": "",
                "amount": "0.001",
                "priority": -1,
                "meters": ("none", "calls", "no\0ne"),
                "note": "\0",
                "overdraft_max": Decimal("0.001"),
            },
            [
                "account",
                "key",
                "credit.amount.amount",
                "overdraftMax",
                "priority",
                "note",
                "credit.amount.meters",
                "credit.amount.meters",
            ],
        ),
    ],
)
def test_bad_grants(database_url: str, fields: dict[str, Any], paths: list[str]) -> None:
    """A grant with faults is refused with all of them at once, each with its path; nothing is written."""

    async def scenario(database: Database) -> None:
        await offer(database)
        with pytest.raises(InvalidInputError) as refused:
            await give(database, **{"key": "k", **fields})
        assert paths == [".".join(issue.path[1:]) for issue in refused.value.issues]
        assert {"input"} == {issue.path[0] for issue in refused.value.issues}
        assert [] == await rows(database, "SELECT FROM credit_grant")

    play(database_url, scenario)


@pytest.mark.parametrize(
    ("code", "price", "granted", "owed"), [("JPY", "3", "2", "1"), ("KWD", "0.0305", "0.02", "0.011")]
)
def test_currencies_with_other_minor_units(database_url: str, code: str, price: str, granted: str, owed: str) -> None:
    """Credits are whole minor units of their currency, whether it has none, two or three digits."""

    async def scenario(database: Database) -> None:
        await offer(database, PlanPrice(key="base", price=Flat(Decimal(1))))
        flat = PlanPrice(key="base", price=Flat(Decimal(price)))
        await publish(database, draft(flat, key="abroad", currency_code=code))
        await put(database, order(key="s-2", plan="abroad", starts_at=at("2025-01-01")))
        await give(database, "paid", granted, currency_code=code)
        final = await freeze(database, "2025-03-10", "s-2")

        assert f"{owed} {code}" == str(final.owed)
        await check_books(database)

    play(database_url, scenario)


ENTRY = "INSERT INTO credit_entry (grant_id, source, target, amount, effective_at, booked_by"
OF_BOTH = "FROM credit_grant AS g, statement AS s"


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE credit_entry SET amount = 1",
        "DELETE FROM credit_entry",
        "TRUNCATE credit_entry",
        "UPDATE credit_grant SET balance = 100",
        f"{ENTRY}) SELECT id, 'ISSUED', 'GRANT', -1, now(), 'x' FROM credit_grant",
        f"{ENTRY}) SELECT id, 'GRANT', 'ISSUED', 1, now(), 'x' FROM credit_grant",
        f"{ENTRY}, worth, statement_id) SELECT g.id, 'GRANT', 'STATEMENT', 11, now(), 'x', 1, s.id {OF_BOTH}",
    ],
)
def test_the_database_keeps_the_ledger(database_url: str, statement: str) -> None:
    """Entries are neither changed nor removed, are balanced by their form, and move balances no further than is allowed,
    whoever writes.
    """

    async def scenario(database: Database) -> None:
        await sell(database)
        await freeze(database, "2025-03-10")
        await give(database, "paid", "10")
        async with database.connection() as connection:
            with pytest.raises((asyncpg.RaiseError, asyncpg.CheckViolationError)):
                await connection.execute(statement)
        await check_books(database)

    play(database_url, scenario)


def test_a_bound_key_grants_nothing(database_url: str) -> None:
    """A key that is bound to accounts is theirs: it neither grants nor voids."""

    async def scenario(database: Database) -> None:
        with pytest.raises(ForbiddenError):
            await grant_credit(database, grant_order("k", "1"), BOUND_KEY, LIMITS)
        with pytest.raises(ForbiddenError):
            await void_grant(database, "acme", "k", "why", BOUND_KEY, LIMITS)

    play(database_url, scenario)


def test_an_instant_of_no_calendar(database_url: str) -> None:
    """A balance is asked for within the calendar, and of an account that has none it is empty."""

    async def scenario(database: Database) -> None:
        with pytest.raises(InvalidInputError):
            await balance(database, "1066-10-14")
        assert () == (await balance(database, account="no\0body")).grants == (await balance(database)).grants
        assert [] == await ledger(database, "no\0body") == await ledger(database)

    play(database_url, scenario)


def test_statements_without_credits_ask_for_them_once(database_url: str) -> None:
    """An account without grants costs one look-up when its statements are computed, and none when they are frozen."""

    async def scenario(database: Database) -> None:
        await sell(database)
        await give(database, "theirs", "10", account="beta")
        final = await finalize_by(database, "s-1", at("2025-03-10"), LIMITS, by="a test")
        assert isinstance(final, FinalStatement)
        assert () == final.credits

    play(database_url, scenario)
