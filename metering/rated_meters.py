"""Meters as rating sees them: which events each counts, said of all its dimensions, and how its figure is rounded."""

from collections.abc import Collection, Mapping

from metering.aggregations import TRAITS, Aggregation
from metering.events import Dimension
from metering.meters import Definition, read_definitions
from metering.questions import ValueFilter
from metering.store.snapshot import Snapshot
from rating.meters import DimensionFilter, Meter, MeterFilter


async def read_rated_meters(snapshot: Snapshot, keys: Collection[str]) -> Mapping[str, Meter]:
    """The meters of these keys as prices see them, as far as there are any; one statement."""
    return {key: rated_meter(definition) for key, definition in (await read_definitions(snapshot, keys)).items()}


def rated_meter(definition: Definition) -> Meter:
    """A meter as prices see it. Where quantities are brought together and no filter names a unit, its own unit counts."""
    filters = dict(definition.filters)
    if TRAITS[definition.aggregation].of_quantities:
        filters.setdefault(Dimension.UNIT, ValueFilter((definition.unit,)))
    return Meter(
        key=definition.key,
        filter=MeterFilter(
            **{
                dimension.value: DimensionFilter(frozenset(chosen.values), excluded=chosen.negated)
                for dimension, chosen in filters.items()
            }
        ),
        rounding=definition.rounding,
        is_level=definition.aggregation is Aggregation.TIME_WEIGHTED,
    )
