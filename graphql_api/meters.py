"""The catalog of meters: named figures made of events."""

from collections.abc import Mapping
from functools import partial
from typing import Annotated, Any, Final

import strawberry

from graphql_api.context import MeteringInfo
from graphql_api.nodes import MeterName, Node, node_id
from graphql_api.pages import Connection, page_by_key
from graphql_api.problems import Conflict, InvalidInput
from graphql_api.questions import DimensionFilter, filters_of
from graphql_api.scalars import DecimalText, Instant, JsonObject
from metering import meters
from metering.aggregations import Aggregation
from metering.events import Dimension
from metering.keys import Scope
from metering.meters import FILTERED, Definition, filter_json, find_meter, read_meters
from rating import steps
from rating.steps import RoundingMode

_AGGREGATIONS: Final[Mapping[Aggregation, str]] = {
    Aggregation.SUM: "All quantities together. From rollups; adds up over groups.",
    Aggregation.COUNT: "How many events there are, of any unit. From rollups; adds up over groups.",
    Aggregation.MAX: "The largest quantity of one event. From rollups; the largest group's is the total's.",
    Aggregation.MIN: "The smallest quantity of one event. From rollups; the smallest group's is the total's.",
    Aggregation.AVERAGE: "All quantities together, divided by the number of events, with 18 digits after the point, half "
    "away from zero. From rollups; does not add up.",
    Aggregation.LATEST: "The quantity of the last event; of several at one instant, the one whose name has the largest "
    "hash. Reads every event of the period; does not add up.",
    Aggregation.UNIQUE_COUNT: "How many different values of the dimension `distinct` have usage, of any unit. From "
    "rollups; does not add up, for one value may be in several groups.",
    Aggregation.TIME_WEIGHTED: "The average of a level over the period. Each event sets the level of its gauge, the "
    "events with the same account, subscription, user, device, product, feature and unit, until the next one; a level is "
    "carried into the period from the last event before it, and is zero before the first. Divided with 18 digits after "
    "the point, half away from zero. Reads every event of the period and before it; adds up over groups.",
}
_ROUNDING_MODES: Final[Mapping[RoundingMode, str]] = {
    RoundingMode.UP: "Away from zero.",
    RoundingMode.DOWN: "Towards zero.",
    RoundingMode.HALF_UP: "To the nearest; halfway, away from zero.",
    RoundingMode.HALF_EVEN: "To the nearest; halfway, to the even multiple.",
}


def _describe(kind: Any, described: Mapping[Any, str]) -> None:
    """Mark a domain enum as the API's, each value with its description."""
    strawberry.enum(kind)
    for value in kind.__strawberry_definition__.values:
        value.description = described[kind(value.value)]


_describe(Aggregation, _AGGREGATIONS)
_describe(RoundingMode, _ROUNDING_MODES)


@strawberry.type(description="Figures become multiples of the step.")
class Rounding:
    """Unit rounding."""

    mode: RoundingMode
    step: DecimalText


@strawberry.type(
    description="A named figure made of events: which ones count, and how they are brought together. `meterUsage` asks "
    "for the figure."
)
class Meter(Node):
    """One meter."""

    id: strawberry.ID = strawberry.field(description="Globally unique and opaque.")
    key: str
    name: str
    unit: str = strawberry.field(
        description="What the figure is counted in. Where quantities are brought together, and the filter names no unit, "
        "events of this unit count; COUNT and UNIQUE_COUNT take events of every unit."
    )
    aggregation: Aggregation
    distinct: Dimension | None = strawberry.field(description="Whose different values a UNIQUE_COUNT counts.")
    filter: JsonObject = strawberry.field(
        description='By dimension, as it was put; for example `{"product": {"in": ["maps"]}}`.'
    )
    rounding: Rounding | None
    created_at: Instant


MeterConnection = Connection[Meter]


@strawberry.input(
    description="All that are given must hold. Where quantities are brought together, `unit` takes `in` with one unit."
)
class MeterFilterInput:
    """Which events count; the names are the dimensions' own."""

    product: DimensionFilter | None = strawberry.UNSET
    feature: DimensionFilter | None = strawberry.UNSET
    classification: DimensionFilter | None = strawberry.UNSET
    unit: DimensionFilter | None = strawberry.UNSET


@strawberry.input
class RoundingInput:
    """Unit rounding as an argument."""

    mode: RoundingMode
    step: DecimalText


@strawberry.input
class PutMeterInput:
    """A meter as it is put."""

    key: str
    name: str
    unit: str
    aggregation: Aggregation = Aggregation.SUM
    distinct: Dimension | None = strawberry.UNSET
    filter: MeterFilterInput = strawberry.field(default_factory=MeterFilterInput)
    rounding: RoundingInput | None = strawberry.UNSET


PutMeterResult = Annotated[Meter | InvalidInput | Conflict, strawberry.union("PutMeterResult")]


async def resolve_meters(first: int, after: str | None, info: MeteringInfo) -> MeterConnection:
    """All meters, by key."""
    context = info.context
    context.require(Scope.CATALOG_READ)
    return await page_by_key(first, after, context.limits, partial(read_meters, context.snapshot), _shown)


async def resolve_meter(key: str, info: MeteringInfo) -> Meter | None:
    """The meter of this key."""
    context = info.context
    context.require(Scope.CATALOG_READ)
    found = await find_meter(context.snapshot, key)
    return None if found is None else _shown(found)


async def find_meter_node(name: MeterName, info: MeteringInfo) -> Meter | None:
    """The meter of a global id."""
    return await resolve_meter(name.key, info)


async def resolve_put_meter(given: PutMeterInput, info: MeteringInfo) -> PutMeterResult:
    """Make a meter, or give it another name."""
    context = info.context
    key = context.require(Scope.CATALOG_WRITE)
    return _shown(await context.service.put_meter(_definition(given), key))


def _definition(given: PutMeterInput) -> Definition:
    rounding = given.rounding or None
    return Definition(
        key=given.key,
        name=given.name,
        unit=given.unit,
        aggregation=given.aggregation,
        distinct=given.distinct or None,
        filters=filters_of(given.filter, FILTERED),
        rounding=None if rounding is None else steps.Rounding(rounding.mode, rounding.step),
    )


def _shown(meter: meters.Meter) -> Meter:
    definition = meter.definition
    rounding = definition.rounding
    return Meter(
        id=node_id("Meter", definition.key),
        key=definition.key,
        name=definition.name,
        unit=definition.unit,
        aggregation=definition.aggregation,
        distinct=definition.distinct,
        filter=JsonObject(filter_json(definition.filters)),
        rounding=None if rounding is None else Rounding(mode=rounding.mode, step=DecimalText(rounding.step)),
        created_at=Instant(meter.created_at),
    )
