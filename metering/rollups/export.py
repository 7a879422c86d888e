"""Usage as rows of a table: what they are called, and what may be asked for."""

from collections.abc import Sequence
from typing import Final

from metering.errors import InputIssue, InvalidInputError
from metering.events import Dimension
from metering.limits import Limits
from metering.periods import SHORTEST, Bucket
from metering.questions import Question
from metering.rollups.read import UsageRow, series_bounds

_FIGURES: Final = ("quantity", "events", "minimum", "maximum")


def column_names(question: Question) -> tuple[str, ...]:
    """The columns, in order: the bucket's (or the period's) bounds, the dimensions as asked for, the unit, the figures."""
    return ("from", "to", *(dimension.value for dimension in _shown(question)), "unit", *_FIGURES)


def text_columns(question: Question) -> tuple[str, ...]:
    """The names of the columns that hold what producers wrote."""
    return (*(dimension.value for dimension in _shown(question)), "unit")


def cells(question: Question, row: UsageRow) -> tuple[object, ...]:
    """The values of a row, by column."""
    named = dict(zip(question.group_by, row.key, strict=True))
    total = row.total
    figures = (total.quantity, total.events, total.minimum, total.maximum)
    return (row.start, row.end, *(named[dimension] for dimension in _shown(question)), total.unit, *figures)


def check_buckets(question: Question, bucket: Bucket, limits: Limits) -> None:
    """Raise InvalidInputError when the period has more buckets than one table may have."""
    count = (question.period.end - question.period.start) // SHORTEST[bucket]
    if count <= 2 * limits.export_buckets_max:  # else about how many will do
        count = len(series_bounds(question, bucket)) - 1
    if count > limits.export_buckets_max:
        message = (
            f"{bucket.value} cuts this period into {count:,} buckets; one export may have "
            f"{limits.export_buckets_max:,}. Ask for a shorter period or a larger bucket, or export in parts."
        )
        raise InvalidInputError([InputIssue(("bucket",), message)])


def _shown(question: Question) -> Sequence[Dimension]:
    # A unit is a column in any case, and stands where it always stands.
    return [dimension for dimension in question.group_by if dimension is not Dimension.UNIT]
