"""Periods that ended while nobody evaluated, and what comes late of those before the last: told once, within bounds."""

from decimal import Decimal
from typing import Final

import msgspec

from metering.alerts.evaluate import Evaluator
from metering.alerts.rules import IncludedShare, StatementTotal
from metering.limits import LIMITS
from metering.periods import Bucket
from metering.store.pool import Database
from rating.plans import PlanPrice
from rating.prices import PerUnit
from tests.metering.alerts.watching import alerts, calls, evaluate, watch
from tests.metering.billing import BASE, call, offer, use
from tests.metering.catalog import meter, play, rows
from tests.rating.tables import at

CALLS: Final = PlanPrice(key="calls", meter="calls", price=PerUnit(Decimal(1)), included_quantity=Decimal(100))


async def _periods(database: Database, rule: str) -> list[tuple[str, str | None]]:
    """When the periods begin that a rule told of, and why their alerts were closed."""
    found = await rows(
        database,
        f"SELECT to_char(period_from, 'HH24:MI'), resolution FROM alert WHERE rule = '{rule}' ORDER BY period_from",
    )
    return [(start, why) for start, why in found]


def test_hours_that_ended_while_nobody_evaluated_are_told(database_url: str) -> None:
    """After a pause each hour that came to the bound is told once, as raised and as over; the running one is open. Of a pause
    longer than the limit the newest hours are.
    """
    few = msgspec.structs.replace(LIMITS, alert_periods_max=2)

    async def scenario(database: Database) -> None:
        await meter(database, "calls")
        await watch(database, calls(bucket=Bucket.HOUR), "10")
        await use(database, call(1, "2027-03-01T09:30:00Z"))
        assert 0 == await evaluate(database, "2027-03-01T09:40:00Z")
        hours = {"09:50": "10", "10:20": "10", "11:10": "9", "12:59": "12", "13:05": "10"}
        for number, (time, quantity) in enumerate(hours.items(), 2):
            await use(database, call(number, f"2027-03-01T{time}:00Z", quantity))
        assert [7, 0] == [await evaluate(database, "2027-03-01T13:40:00Z") for _ in range(2)]
        over, open_ = "PERIOD_ENDED", None
        expected = [("09:00", over), ("10:00", over), ("12:00", over), ("13:00", open_)]
        assert expected == await _periods(database, "watch")

        for number in range(14, 18):
            await use(database, call(number, f"2027-03-01T{number}:30:00Z", "10"))
        assert 5 == await Evaluator(database, few).run(at("2027-03-01T18:10:00Z"), all_rules=True)
        assert [*expected[:3], ("13:00", over), ("16:00", over), ("17:00", over)] == await _periods(database, "watch")

    play(database_url, scenario)


def test_what_comes_late_of_a_minute_is_told_for_some_minutes(database_url: str) -> None:
    """Of a minute that ended less than ten minutes ago a late event is told; of the one before that it is not."""
    some = msgspec.structs.replace(LIMITS, alert_periods_max=12)

    async def scenario(database: Database) -> None:
        await meter(database, "calls")
        await watch(database, calls(bucket=Bucket.MINUTE), "5")
        evaluator = Evaluator(database, some)
        assert 0 == await evaluator.run(at("2027-03-01T14:00:30Z"), all_rules=True)
        await use(database, call(1, "2027-03-01T13:50:10Z", "5"), call(2, "2027-03-01T13:51:10Z", "5"))
        assert [2, 0] == [await evaluator.run(at("2027-03-01T14:01:00Z"), all_rules=True) for _ in range(2)]

        assert [("13:51", "PERIOD_ENDED")] == await _periods(database, "watch")

    play(database_url, scenario)


def test_billing_periods_that_ended_while_nobody_evaluated_are_told(database_url: str) -> None:
    """The same of shares of included quantities and of statements, each in its billing period."""

    async def scenario(database: Database) -> None:
        await offer(database, BASE, CALLS)
        await watch(database, IncludedShare(meter="calls"), "0.8", key="included")
        await watch(database, StatementTotal(currency_code="EUR", budget=Decimal(50)), "0.8", key="budget")
        assert 0 == await evaluate(database, "2027-03-15T00:00:00Z")
        await use(database, call(1, "2027-04-05T00:00:00Z", "90"), call(2, "2027-05-05T00:00:00Z", "130"))
        assert [6, 0] == [await evaluate(database, "2027-07-10T00:00:00Z") for _ in range(2)]

        found = {
            rule: [(day, why) for _, day, _, why, _ in await alerts(database, rule)] for rule in ("included", "budget")
        }
        may = ("05-01", "PERIOD_ENDED")
        assert {"included": [("04-01", "PERIOD_ENDED"), may], "budget": [may]} == found

    play(database_url, scenario)
