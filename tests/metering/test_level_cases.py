"""Public facts about levels over time, on a real database: what the statement of a month makes of a level."""

from decimal import Decimal
from typing import Any

import pytest

from metering.aggregations import Aggregation
from metering.store.pool import Database
from rating.plans import PlanPrice
from rating.prices import PerUnit
from tests.metering.billing import ask, call, use
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
