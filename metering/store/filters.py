"""A question's filters as shapes and values: the shape decides a statement's text, the values are its parameters."""

from metering.events import Dimension
from metering.questions import Question, ValueFilter
from metering.reach import Reach
from metering.store.usage_query import REACH, FilterShape


def filter_shapes(question: Question, reach: Reach) -> list[tuple[FilterShape, list[str]]]:
    """The question's own filters, and the caller's reach: what every statement about usage is held to."""
    filters = [
        filter_shape(f"filter_{dimension.value}", dimension, chosen) for dimension, chosen in question.filters.items()
    ]
    filters += [
        filter_shape(f"{REACH}{dimension.value}", dimension, ValueFilter(values))
        for dimension, values in reach.narrowed()
    ]
    return filters


def filter_shape(parameter: str, dimension: Dimension, chosen: ValueFilter) -> tuple[FilterShape, list[str]]:
    """One filter: NULL is part of the shape, for SQL compares it differently; the other values are its parameter."""
    shape = FilterShape(parameter, dimension.value, chosen.negated, None in chosen.values)
    return shape, [value for value in chosen.values if value is not None]
