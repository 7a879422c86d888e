"""Alerts of exact figures: of quantities, amounts, shares and budgets; with late and corrected events, period by period."""

from collections.abc import Callable
from datetime import timedelta
from decimal import Decimal
from itertools import count
from typing import Any

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from metering.alerts.evaluate import Evaluator
from metering.alerts.rules import Amount, IncludedShare, StatementTotal, put_rule
from metering.errors import ForbiddenError, InvalidInputError
from metering.events import Dimension
from metering.limits import LIMITS
from metering.periods import Bucket
from metering.rollups.refresh import Refresher
from metering.store.pool import Database
from rating.plans import PlanPrice
from rating.prices import Flat, PerUnit
from tests.metering.alerts.watching import alerts, calls, evaluate, told, told_last, watch
from tests.metering.billing import call, correct, offer, use
from tests.metering.catalog import BOUND_KEY, meter, play, rows
from tests.rating.tables import at

BASE = PlanPrice(key="base", price=Flat(Decimal(10)))
CALLS = PlanPrice(key="calls", meter="calls", price=PerUnit(Decimal(1)), included_quantity=Decimal(100))


def test_an_alert_is_raised_at_the_bound_and_resolved_below_the_lower_one(database_url: str) -> None:
    """Not just below it, not twice, and not before the figure is strictly below the lower bound; each is told once, in order."""

    async def scenario(database: Database) -> None:
        await meter(database, "calls")
        await watch(database, calls(Dimension.ACCOUNT), "10", "8")
        await use(database, call(1, "2027-03-01T10:00:00Z", "9.999999999999999999"))
        assert 0 == await evaluate(database, "2027-03-01T11:00:00Z")
        await use(database, call(2, "2027-03-01T10:30:00Z", "0.000000000000000001"))
        assert 1 == await evaluate(database, "2027-03-01T11:00:00Z")
        raised = await told_last(database)
        await correct(database, 1, "8")
        assert 0 == await evaluate(database, "2027-03-01T12:00:00Z")
        await correct(database, 1, "7.9")
        assert 1 == await evaluate(database, "2027-03-01T12:00:00Z")

        assert [("account/acme", "03-01", "10", "BELOW", "7.900000000000000001")] == _tidied(await alerts(database))
        assert [("alert.raised", "account/acme"), ("alert.resolved", "account/acme")] == await told(database)
        assert ("10", "10", "8") == (raised["value"], raised["threshold"], raised["resolveBelow"])
        assert {"from": "2027-03-01T00:00:00Z", "to": "2027-03-02T00:00:00Z"} == raised["period"]

    play(database_url, scenario)


def _tidied(found: list[tuple[Any, ...]]) -> list[tuple[Any, ...]]:
    """Without zeros behind the figures."""
    return [(*of, f"{Decimal(value).normalize():f}", why, resolved) for *of, value, why, resolved in found]


OPS = st.one_of(
    st.tuples(st.just("use"), st.sampled_from(["ann", "bob"]), st.sampled_from([0, 0, 0, 1]), st.integers(1, 6)),
    st.tuples(st.just("correct"), st.integers(0, 5), st.integers(0, 12)),
    st.tuples(st.just("evaluate")),
    st.tuples(st.just("evaluate")),
    st.tuples(st.just("next day")),
)
_numbers = count(1)


class Model:
    """What is to be told, by the sums of a list of events: a naive count, day by day."""

    def __init__(self) -> None:
        self.day = 0
        self.evaluated = 0
        self.events: list[list[Any]] = []
        self.alerts: list[list[Any]] = []

    def total(self, user: str, day: int) -> int:
        """What a user used in a day."""
        return sum(quantity for of, on, quantity in self.events if (of, on) == (user, day))

    def evaluate(self) -> None:
        """Raise at 10 or more, resolve below 7, close with the day; and tell of the day before, and of all days since the last
        time, what was not told.
        """
        for each in self.alerts:
            if each[2] is None and each[1] < self.day:
                each[2] = "PERIOD_ENDED"
        for user in ("ann", "bob"):
            running = [each for each in self.alerts if each[:3] == [user, self.day, None]]
            total = self.total(user, self.day)
            if running and total < 7:
                running[0][2] = "BELOW"
            elif not running and total >= 10:
                self.alerts.append([user, self.day, None])
            for day in range(min(self.evaluated, self.day - 1), self.day):
                known = any(each[:2] == [user, day] for each in self.alerts)
                if not known and self.total(user, day) >= 10:
                    self.alerts.append([user, day, "PERIOD_ENDED"])
        self.evaluated = self.day


@pytest.fixture
def metered_url(database_url: str) -> str:
    """A database with the meter `calls`."""
    play(database_url, lambda database: meter(database, "calls"))
    return database_url


def test_alerts_are_those_of_a_naive_count(metered_url: str) -> None:
    """Whatever is used today or late, corrected or taken back, rolled up or not, in whichever order, and however often rules are
    evaluated: there are the alerts that counting by hand finds, each once, and each change was told once.
    """

    @given(st.lists(OPS, min_size=4, max_size=12))
    @settings(max_examples=15, deadline=None, suppress_health_check=list(HealthCheck))
    def check(operations: list[tuple[Any, ...]]) -> None:
        play(metered_url, _played([*operations, ("evaluate",), ("evaluate",)]))

    check()


def _played(operations: list[tuple[Any, ...]]) -> Callable[[Database], Any]:
    async def scenario(database: Database) -> None:
        of, model, names = next(_numbers), Model(), []
        start = at("2027-03-01T10:00:00Z") + timedelta(days=10 * of)
        users = tuple(f"{user}{of}" for user in ("ann", "bob"))
        await watch(database, calls(Dimension.USER, user=users), "10", "7", key=f"rule-{of}")
        await rows(database, f"UPDATE alert_rule SET evaluated_to = '{start}' WHERE key = 'rule-{of}'")
        before = len(await told(database))
        for operation in operations:
            now = start + timedelta(days=model.day)
            match operation:
                case ("use", user, late, quantity):
                    names.append(next(_numbers))
                    model.events.append([user, model.day - late, quantity])
                    event = call(names[-1], now - timedelta(days=late), str(quantity), user=f"{user}{of}")
                    await use(database, event)
                case ("correct", place, quantity) if names:
                    chosen = place % len(names)
                    if model.events[chosen][2] not in {0, quantity}:
                        model.events[chosen][2] = quantity
                        await correct(database, names[chosen], str(quantity) if quantity else None)
                case ("evaluate",):
                    model.evaluate()
                    await evaluate(database, now)
                case ("next day",):
                    model.day += 1
                    await Refresher(database).run(now)
        expected = sorted(
            (f"user/{user}{of}", f"{start + timedelta(days=day):%m-%d}", resolution)
            for user, day, resolution in model.alerts
        )
        found = sorted((subject, day, why) for subject, day, _, why, _ in await alerts(database, f"rule-{of}"))
        assert sorted(expected, key=str) == sorted(found, key=str)
        changes = sum(1 if resolution is None else 2 for *_, resolution in model.alerts)
        assert changes == len(await told(database)) - before
        await watch(database, calls(Dimension.USER, user=users), "10", "7", key=f"rule-{of}", enabled=False)
        await evaluate(database, start)

    return scenario


def test_what_comes_late_is_told_late(database_url: str) -> None:
    """An event of yesterday lifts yesterday's figure over the bound: that is told once, as over; not of a day that was over when
    the rule was put.
    """

    async def scenario(database: Database) -> None:
        await meter(database, "calls")
        await use(database, call(1, "2026-03-01T10:00:00Z", "99"))
        await watch(database, calls(), "10")
        assert 0 == await evaluate(database, "2026-03-02T10:00:00Z")
        await use(database, call(2, "2027-03-01T10:00:00Z", "9"))
        await evaluate(database, "2027-03-02T10:00:00Z")
        await use(database, call(3, "2027-03-01T10:00:00Z", "1"))
        assert [2, 0] == [await evaluate(database, "2027-03-02T10:00:00Z") for _ in range(2)]

        assert [("everyone", "03-01", "10", "PERIOD_ENDED", "10")] == await alerts(database)
        assert ["alert.raised", "alert.resolved"] == [type_name for type_name, _ in await told(database)]

    play(database_url, scenario)


def test_a_rule_that_says_something_else_begins_anew(database_url: str) -> None:
    """What it raised before is resolved, and raised again where the new bound is reached; one that is switched off resolves."""

    async def scenario(database: Database) -> None:
        await meter(database, "calls")
        await use(database, call(1, "2027-03-01T10:00:00Z", "10"), call(2, "2027-03-01T10:00:00Z", "5", account="beta"))
        for threshold, fields in (("5", {}), ("5", {"name": "Another name"}), ("8", {}), ("8", {"enabled": False})):
            await watch(database, calls(Dimension.ACCOUNT), threshold, **fields)
            await evaluate(database, "2027-03-01T11:00:00Z")

        changed = "RULE_CHANGED"
        assert [
            ("account/acme", "03-01", "10", changed, None),
            ("account/acme", "03-01", "10", changed, None),
            ("account/beta", "03-01", "5", changed, None),
        ] == await alerts(database)

    play(database_url, scenario)


def test_spend_and_included_quantities_are_watched(database_url: str) -> None:
    """Amounts by any dimension against a bound, statements against a budget, and usage against what the plan includes: at the
    bound of each, in its period.
    """

    async def scenario(database: Database) -> None:
        await offer(database, BASE, CALLS)
        month = calls(Dimension.USER, bucket=Bucket.MONTH).slice
        await watch(database, Amount(currency_code="EUR", slice=month), "30", key="amount")
        await watch(database, Amount(currency_code="USD", slice=month), "0.01", key="dollars")
        await watch(database, StatementTotal(currency_code="EUR", budget=Decimal(50)), "0.8", key="budget")
        await watch(database, IncludedShare(meter="calls"), "0.8", key="included")
        steps = {
            "79": ([], [], []),
            "1": ([], [], ["account/acme/subscription/s-1"]),
            "49": ([], [], ["account/acme/subscription/s-1"]),
            "1.0": (["user/ann"], ["account/acme/subscription/s-1"], ["account/acme/subscription/s-1"]),
        }
        for number, (quantity, expected) in enumerate(steps.items(), 1):
            await use(database, call(number, "2026-03-05T10:00:00Z", quantity, user="ann"))
            await evaluate(database, "2026-03-06T00:00:00Z")
            shown = [
                [subject for subject, *_ in await alerts(database, key)] for key in ("amount", "budget", "included")
            ]
            assert list(expected) == shown, quantity
        assert [] == await alerts(database, "dollars")
        for number in range(1, 5):
            await correct(database, number)
        await evaluate(database, "2026-03-06T00:00:00Z")
        assert ["0", "10", "0"] == [
            f"{Decimal((await alerts(database, key))[0][-1]).normalize():f}" for key in ("amount", "budget", "included")
        ]

    play(database_url, scenario)


def test_a_rule_that_cannot_be_evaluated_says_why(database_url: str) -> None:
    """It holds up no other rule, what it raised stays open, and the fault goes with its cause."""
    few = msgspec.structs.replace(LIMITS, page_rows_max=1, alert_subjects_max=1)

    async def scenario(database: Database) -> None:
        await meter(database, "calls")
        await watch(database, calls(Dimension.USER), "1", key="a-many")
        await watch(database, calls(Dimension.ACCOUNT), "1", key="b-one")
        await use(database, *(call(number, "2027-03-01T10:00:00Z", user=f"u{number}") for number in range(3)))
        for limits, faults, raised in ((few, 1, 1), (LIMITS, 0, 4)):
            await Evaluator(database, limits).run(at("2027-03-01T11:00:00Z"), all_rules=True)
            async with database.connection() as connection:
                found = await connection.fetch("SELECT fault FROM alert_rule WHERE fault IS NOT NULL")
            assert [True] * faults == ["a rule holds no more" in row["fault"] for row in found]
            assert raised == len(await told(database))

    play(database_url, scenario)


def test_a_rule_that_makes_no_sense_is_refused_with_every_fault(database_url: str) -> None:
    """All that is wrong with it at once, by the paths of the API; and a key that is bound to accounts puts none."""

    async def scenario(database: Database) -> None:
        wrong = calls(Dimension.USER, Dimension.USER)
        wrong = msgspec.structs.replace(wrong, slice=msgspec.structs.replace(wrong.slice, time_zone="Mars"))
        with pytest.raises(InvalidInputError) as refused:
            await watch(database, wrong, "1", "2", key=" ", name="", accounts=frozenset())
        with pytest.raises(InvalidInputError, match="There is no meter"):
            await watch(database, calls(), "1")
        with pytest.raises(InvalidInputError, match="more than zero"):
            await watch(database, IncludedShare(meter="calls"), "1E+999999999", "0")
        with pytest.raises(ForbiddenError):
            await put_rule(database, None, BOUND_KEY, LIMITS)  # type: ignore[arg-type]  # it is not looked at

        assert {
            ("input", "key"),
            ("input", "name"),
            ("input", "accounts"),
            ("input", "resolveBelow"),
            ("input", "measure", "quantity", "groupBy"),
            ("input", "measure", "quantity", "timeZone"),
        } == {issue.path for issue in refused.value.issues}

    play(database_url, scenario)
