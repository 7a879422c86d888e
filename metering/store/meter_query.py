"""The figures of meters: what is added up, from the parts of usage or from the events themselves.

Every statement stands on a *basis*, whose rows have an instant `at`, dimensions, and what figures are made of:

    parts     rows of rollups and raw events, as in usage_query.py: SUM, COUNT, MAX, MIN, AVERAGE, UNIQUE_COUNT
    newest    events, each with a mark that sorts by instant, key and account: LATEST
    changes   by how much levels change, and when: TIME_WEIGHTED

and answers with *tallies* (see metering/aggregations.py): an amount and a number of events. A statement's text depends
only on its shape, so each shape is built and compiled once.

A level is of a gauge: the events with the same values in all dimensions but the classification. Each event sets the level
until the next event of its gauge, whatever that one's classification; so a filter by classification is put to levels, and
every other filter to events.
"""

from functools import lru_cache
from typing import Any, Final

import msgspec
import sqlalchemy as sa
from sqlalchemy.dialects import postgresql

from metering.aggregations import QUOTIENT_DIGITS, Aggregation
from metering.store.tables import GAUGE, INSTANT, TEXT, carried_level, event
from metering.store.usage_query import (
    Compiled,
    FilterShape,
    PartsShape,
    _array,
    _behind,
    _parts,
    _same_key,
    _sort_columns,
    _wanted,
    compiled,
    keeps,
)

_ZERO: Final[sa.ColumnElement[Any]] = sa.literal_column("0")
_ONE: Final[sa.ColumnElement[Any]] = sa.literal_column("1")
_TWO: Final[sa.ColumnElement[Any]] = sa.literal_column("2")
_UTC: Final[sa.ColumnElement[Any]] = sa.literal_column("'UTC'")
_SORTABLE: Final[sa.ColumnElement[Any]] = sa.literal_column("'YYYYMMDDHH24MISSUS'")
_HEX: Final[sa.ColumnElement[Any]] = sa.literal_column("'hex'")
_NO_KEY: Final[sa.ColumnElement[Any]] = sa.literal_column("''::bytea")
_QUANTITY_OF_MARK: Final[sa.ColumnElement[Any]] = sa.literal_column("4")
_ALL: Final[sa.ColumnElement[Any]] = sa.literal_column(f"1{'0' * QUOTIENT_DIGITS}::numeric")
_LAST_DIGIT: Final[sa.ColumnElement[Any]] = sa.literal_column(f"0.{'1'.rjust(QUOTIENT_DIGITS, '0')}")


class EventsShape(msgspec.Struct, frozen=True, kw_only=True):
    """Raw events: what they show and what they keep."""

    dimensions: tuple[str, ...]
    filters: tuple[FilterShape, ...]


class MeterShape(msgspec.Struct, frozen=True, kw_only=True):
    """What is brought together, and how."""

    aggregation: Aggregation
    # What a UNIQUE_COUNT counts the values of.
    distinct: str | None
    basis: PartsShape | EventsShape


# ---------------------------------------------------------------- statements


@lru_cache(maxsize=1_000)
def tally_statement(shape: MeterShape) -> Compiled:
    """One row: the tally of everything together."""
    basis = _basis(shape)
    return compiled(sa.select(*_tally(shape, basis)))


@lru_cache(maxsize=1_000)
def remainder_statement(shape: MeterShape, keys: tuple[str, ...]) -> Compiled:
    """One row: the tally of all groups but the wanted ones, together."""
    basis = _basis(shape)
    wanted = _wanted(keys)
    on_page = sa.exists(sa.select(1).select_from(wanted).where(_same_key(basis, wanted, keys)))
    # Without keys there is one group; that a remainder is asked for says that it is not on the page.
    return compiled(sa.select(*_tally(shape, basis)).where(~on_page if keys else sa.true()))


@lru_cache(maxsize=1_000)
def meter_groups_statement(
    shape: MeterShape, keys: tuple[str, ...], order: str, *, descending: bool, after: bool
) -> Compiled:
    """One page of groups. `groups` is how many there are, `available` how many from the cursor on.

    Where the page is empty there is one row, without a `position`, that tells these two.
    """
    basis = _basis(shape)
    by = [basis.c[name] for name in keys]
    grouped = (
        sa.select(*(column.label(f"key_{name}") for name, column in zip(keys, by, strict=True)), *_tally(shape, basis))
        .group_by(*by)
        .having(sa.func.count() > _ZERO)
        .cte("grouped")
    )
    valued = sa.select(grouped, _order_value(shape, grouped, order).label("order_value")).cte("valued")
    sort = _sort_columns(valued, keys, order, descending=descending)
    behind = _behind(valued, keys, order, descending=descending) if after else sa.true()
    passed = sa.case((behind, _ZERO), else_=_ONE)
    position = sa.func.row_number().over(order_by=[passed, *sort]).label("position")
    ranked = sa.select(valued, passed.label("passed"), position).cte("ranked")
    counted = sa.select(
        sa.func.count().label("groups"),
        sa.func.count().filter(ranked.c.passed == _ZERO).label("available"),
    ).cte("counted")
    first = sa.bindparam("first", type_=sa.BigInteger)
    on_page = sa.and_(ranked.c.passed == _ZERO, ranked.c.position <= first)
    columns = [ranked.c.position, *(ranked.c[f"key_{name}"] for name in keys), ranked.c.order_value]
    figures = [ranked.c.amount, ranked.c.events, counted.c.groups, counted.c.available]
    page = sa.select(*columns, *figures).select_from(counted.outerjoin(ranked, on_page))
    return compiled(page.order_by(ranked.c.position))


@lru_cache(maxsize=1_000)
def meter_series_statement(shape: MeterShape, keys: tuple[str, ...]) -> Compiled:
    """Tallies of the wanted groups by bucket: `position` is the group's among the wanted ones, `bucket` counts from 1.

    Of levels, `amount` runs to the end of the whole period, and `change` is by how much the level changed in the bucket.
    """
    basis = _basis(shape)
    wanted = _wanted(keys)
    bucket = sa.func.width_bucket(basis.c.at, _array("bounds", INSTANT)).label("bucket")
    figures = _tally(shape, basis)
    if shape.aggregation is Aggregation.TIME_WEIGHTED:
        figures.append(sa.func.sum(basis.c.change).label("change"))
    joined = basis.join(wanted, _same_key(basis, wanted, keys))
    statement = sa.select(wanted.c.position, bucket, *figures).select_from(joined).group_by(wanted.c.position, bucket)
    return compiled(statement.order_by(wanted.c.position, bucket))


# ---------------------------------------------------------------- tallies


def _tally(shape: MeterShape, basis: sa.CTE) -> list[Any]:
    events = sa.func.coalesce(sa.func.sum(basis.c.events), _ZERO).cast(sa.BigInteger)
    return [_amount(shape, basis).cast(sa.Numeric).label("amount"), events.label("events")]


def _amount(shape: MeterShape, basis: sa.CTE) -> Any:
    match shape.aggregation:
        case Aggregation.SUM | Aggregation.AVERAGE:
            return sa.func.sum(basis.c.quantity)
        case Aggregation.COUNT:
            return sa.func.sum(basis.c.events)
        case Aggregation.MAX:
            return sa.func.max(basis.c.maximum)
        case Aggregation.MIN:
            return sa.func.min(basis.c.minimum)
        case Aggregation.UNIQUE_COUNT:
            assert shape.distinct is not None, "a meter that counts values says of which dimension"
            return sa.func.count(basis.c[shape.distinct].distinct())
        case Aggregation.LATEST:
            return sa.func.max(basis.c.mark, type_=postgresql.ARRAY(TEXT))[_QUANTITY_OF_MARK]
        case Aggregation.TIME_WEIGHTED:
            return sa.func.sum(basis.c.change * _seconds(basis.c.at, _instant("period_to")))


def _order_value(shape: MeterShape, grouped: sa.CTE, order: str) -> Any:
    """What groups are put in order by: the exact figure, as metering/aggregations.py makes it of the tally."""
    if order == "KEY":
        return sa.null().cast(sa.Numeric)
    if order == "EVENTS":
        return grouped.c.events.cast(sa.Numeric)
    if shape.aggregation is Aggregation.AVERAGE:
        return _quotient(grouped.c.amount, grouped.c.events)
    if shape.aggregation is Aggregation.TIME_WEIGHTED:
        return _quotient(grouped.c.amount, _seconds(_instant("period_from"), _instant("period_to")))
    return grouped.c.amount


def _quotient(dividend: Any, divisor: Any) -> Any:
    """Rounded half away from zero in the last digit, by a division of whole numbers: PostgreSQL's own would round twice."""
    whole = sa.func.div(_TWO * sa.func.abs(dividend) * _ALL + divisor, _TWO * divisor)
    return sa.func.sign(dividend) * whole * _LAST_DIGIT


def _seconds(start: Any, end: Any) -> Any:
    # Numeric to the microsecond, since PostgreSQL 14; of a difference of instants, which knows no months.
    return sa.cast(sa.extract("epoch", end - start), sa.Numeric)


# ---------------------------------------------------------------- bases


def _basis(shape: MeterShape) -> sa.CTE:
    basis = shape.basis
    if isinstance(basis, PartsShape):
        return _parts(basis)
    return _newest(basis) if shape.aggregation is Aggregation.LATEST else _changes(basis)


def _newest(shape: EventsShape) -> sa.CTE:
    # The greatest mark is the newest event's. An array, because records have no maximum before PostgreSQL 18.
    mark = postgresql.array(
        [
            sa.collate(sa.func.to_char(sa.func.timezone(_UTC, event.c.occurred_at), _SORTABLE), "C"),
            sa.collate(sa.func.encode(event.c.key, _HEX), "C"),
            sa.collate(event.c.account, "C"),
            sa.collate(event.c.quantity.cast(sa.Text), "C"),
        ]
    )
    shown = [event.c[name] for name in shape.dimensions]
    kept = [keeps(event.c[chosen.dimension], chosen) for chosen in shape.filters]
    at = event.c.occurred_at
    return (
        sa.select(at.label("at"), *shown, mark.label("mark"), _ONE.label("events"))
        .where(at >= _instant("period_from"), at < _instant("period_to"), ~event.c.voided, *kept)
        .cte("newest")
    )


def _changes(shape: EventsShape) -> sa.CTE:
    """Each level as two changes, up by it where it begins and down where it ends, unless it lasts to the period's end."""
    level = _levels(shape)
    shown = [level.c[name] for name in shape.dimensions]
    kept = [keeps(level.c.classification, chosen) for chosen in shape.filters if _is_of_levels(chosen)]
    # A level that was carried into the period counts for nothing where it is zero, or ends before it has begun.
    lasts = sa.and_(level.c.quantity != _ZERO, level.c.starts < level.c.ends)
    counts = [sa.or_(level.c.measured == _ONE, lasts), *kept]
    columns = [level.c.starts.label("at"), *shown, level.c.quantity.label("change"), level.c.measured.label("events")]
    up = sa.select(*columns).where(*counts)
    down = sa.select(level.c.ends, *shown, -level.c.quantity, _ZERO).where(
        level.c.quantity != _ZERO, level.c.ends < _instant("period_to"), *counts
    )
    return sa.union_all(up, down).cte("changes")


def _levels(shape: EventsShape) -> sa.CTE:
    """Which level each gauge held from when to when, inside the period; `measured` is 1 where an event there set it."""
    start, end = _instant("period_from"), _instant("period_to")
    inside = _readings(event, shape).where(event.c.occurred_at >= start, event.c.occurred_at < end)
    known = sa.union_all(sa.select(_carried(shape)), inside).cte("known")
    following = sa.func.lead(known.c.occurred_at).over(
        partition_by=[known.c[name] for name in GAUGE], order_by=[known.c.occurred_at, known.c.key]
    )
    return sa.select(
        *(known.c[name] for name in (*GAUGE, "classification")),
        known.c.quantity,
        sa.func.greatest(known.c.occurred_at, start).label("starts"),
        sa.func.coalesce(following, end).label("ends"),
        sa.case((known.c.occurred_at >= start, _ONE), else_=_ZERO).label("measured"),
    ).cte("level")


def _carried(shape: EventsShape) -> sa.CTE:
    """Of each gauge the last event before the period: of those that are there, or else of those that were given up."""
    at = event.c.occurred_at
    there = _readings(event, shape).where(at >= _instant("raw_from"), at < _instant("period_from"))
    before = sa.union_all(there, _readings(carried_level, shape)).subquery("before")
    gauge = [before.c[name] for name in GAUGE]
    return (
        sa.select(before)
        .ext(postgresql.distinct_on(*gauge))
        .order_by(*gauge, before.c.occurred_at.desc(), before.c.key.desc())
        .cte("carried")
    )


def _readings(table: sa.Table, shape: EventsShape) -> sa.Select[Any]:
    """What gauges say in the events that are there, or in those that were given up."""
    kept = [keeps(table.c[chosen.dimension], chosen) for chosen in shape.filters if not _is_of_levels(chosen)]
    # Of those that were given up there is one for each gauge, and before all others.
    key, in_effect = (event.c.key, [~event.c.voided]) if table is event else (_NO_KEY.label("key"), [])
    columns = [*(table.c[name] for name in (*GAUGE, "classification")), table.c.occurred_at, key, table.c.quantity]
    return sa.select(*columns).where(*in_effect, *kept)


def _is_of_levels(chosen: FilterShape) -> bool:
    return chosen.dimension == "classification"


def _instant(name: str) -> sa.BindParameter[Any]:
    return sa.bindparam(name, type_=INSTANT)
