"""Public facts about levels over time, on a real database: what the statement of a month makes of a level."""

from decimal import Decimal
from typing import Any

import pytest

from metering.aggregations import Aggregation
from metering.store.pool import Database
from rating.plans import PlanPrice
from rating.prices import PerUnit
from tests.metering.billing import ask, call, shown, use
from tests.metering.catalog import draft, meter, order, play, publish, put
from tests.rating.tables import at, cases, period


@pytest.mark.parametrize("case", cases("levels"), ids=lambda case: str(case["id"]))
def test_a_level_is_rated_by_how_long_it_was_held(database_url: str, case: dict[str, Any]) -> None:
    """The level's average over the period, to the digits that the source gives, is the quantity of the statement's line."""

    async def scenario(database: Database) -> None:
        await meter(database, "stored", Aggregation.TIME_WEIGHTED, unit="gigabyte")
        await publish(database, draft(PlanPrice(key="stored", meter="stored", price=PerUnit(Decimal(1)))))
        await put(database, order(starts_at=at(case["from"]), ends_at=at(case["to"])))
        levels = enumerate(case["levels"])
        await use(database, *(call(number, since, level, unit="gigabyte") for number, (since, level) in levels))
        statement = await ask(database, case["from"])
        (line,) = (each.line for each in statement.lines)

        assert period(case["from"], case["to"]) == statement.period
        assert line.quantity is not None
        assert Decimal(case["average"]) == line.quantity.quantize(Decimal(case["average"]))

    play(database_url, scenario)


def test_a_level_that_two_plans_share_is_owed_once(database_url: str) -> None:
    """Ten gigabytes held all of June, at 1.00 each for a month: 10.00, also where the plan changes on the 16th, and 5.00 for a
    subscription that began then.
    """

    async def scenario(database: Database) -> None:
        await meter(database, "stored", Aggregation.TIME_WEIGHTED, unit="gigabyte")
        stored = PlanPrice(key="stored", meter="stored", price=PerUnit(Decimal(1)))
        for plan in ("team", "light"):
            await publish(database, draft(stored, key=plan))
        await put(database, order(starts_at=at("2025-01-01")))
        await put(database, order(starts_at=at("2025-01-01"), plan="light", effective_at=at("2025-06-16")))
        await put(database, order(key="s-2", starts_at=at("2025-06-16"), billing_anchor=at("2025-01-01")))
        held = [call(number, "2025-05-20", "10", unit="gigabyte", subscription=f"s-{number}") for number in (1, 2)]
        await use(database, *held)

        assert ["stored USAGE 5.00"] * 2 == shown(await ask(database, "2025-06-10"))
        assert "5.00 EUR" == str((await ask(database, "2025-06-20", "s-2")).total)

    play(database_url, scenario)
