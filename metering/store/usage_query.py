"""The one dynamic query: usage by any dimensions, from rollups and raw events together, exact in one snapshot.

Every statement stands on the same parts (see metering/rollups/cover.py), joined by UNION ALL:

    days    rows of a daily rollup, but for account-days that are pending
    hours   rows of the hourly rollup, but for account-hours that are pending; and the hours of pending days
    raw     events of the edges and the tail; and the events of pending hours

A statement's text depends only on its shape, so each shape is built and compiled once.
"""

from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any, Final

import msgspec
import sqlalchemy as sa
from sqlalchemy.dialects import postgresql
from sqlalchemy.dialects.postgresql import asyncpg as asyncpg_dialect

from metering.store.tables import DAILY_ROLLUPS, INSTANT, ROLLUP_TABLES, TEXT, event, pending_bucket

_DIALECT: Final = asyncpg_dialect.dialect()  # type: ignore[no-untyped-call]
_HOUR: Final[sa.ColumnElement[Any]] = sa.literal_column("interval '1 hour'")
_DAY: Final[sa.ColumnElement[Any]] = sa.literal_column("interval '1 day'")
_ZERO: Final[sa.ColumnElement[Any]] = sa.literal_column("0")
_ONE: Final[sa.ColumnElement[Any]] = sa.literal_column("1")
_EMPTY: Final[sa.ColumnElement[Any]] = sa.literal_column("''")
_FIGURES: Final = ("quantity", "events", "minimum", "maximum")


class FilterShape(msgspec.Struct, frozen=True):
    """A filter without its values: which dimension, whether it keeps or drops them, and whether NULL is among them."""

    parameter: str
    dimension: str
    negated: bool
    with_null: bool


class PartsShape(msgspec.Struct, frozen=True, kw_only=True):
    """Which parts there are: how many periods each covers (0, 1, or 2 for many), what they show and what they keep."""

    days: int
    hours: int
    raw: int
    pending: bool
    # What the parts show besides figures.
    dimensions: tuple[str, ...]
    filters: tuple[FilterShape, ...]

    @property
    def daily_rollup(self) -> str:
        """The narrowest daily rollup that has every dimension shown or filtered by."""
        needed = {*self.dimensions, *(chosen.dimension for chosen in self.filters)}
        return next(rollup.name for rollup in DAILY_ROLLUPS if needed <= set(rollup.dimensions))


class Compiled(msgspec.Struct, frozen=True):
    """A statement's text and the names of its parameters, in order."""

    text: str
    parameters: tuple[str, ...]

    def arguments(self, values: Mapping[str, object]) -> list[object]:
        """The values in the order of the parameters."""
        return [values[name] for name in self.parameters]


def compiled(statement: sa.Select[Any] | sa.CompoundSelect[Any]) -> Compiled:
    """A statement as asyncpg takes it; all its values are parameters."""
    text = statement.compile(dialect=_DIALECT)
    names = getattr(text, "positiontup", None)
    assert names is not None, "the asyncpg dialect numbers its parameters"
    fixed = {name: value for name, value in text.params.items() if value is not None}
    assert not fixed, f"a value is part of the statement's shape: {fixed}"
    return Compiled(str(text), tuple(names))


# ---------------------------------------------------------------- statements


@lru_cache(maxsize=1_000)
def totals_statement(parts: PartsShape) -> Compiled:
    """Figures of everything together, one row for each unit."""
    part = _parts(parts)
    return compiled(sa.select(part.c.unit, *_sums(part)).group_by(part.c.unit).order_by(part.c.unit))


@lru_cache(maxsize=1_000)
def series_statement(parts: PartsShape, keys: tuple[str, ...]) -> Compiled:
    """Figures of the wanted groups by bucket: `position` is the group's among the wanted ones, `bucket` counts from 1."""
    part = _parts(parts)
    wanted = _wanted(keys)
    bucket = sa.func.width_bucket(part.c.at, _array("bounds", INSTANT)).label("bucket")
    columns = (wanted.c.position, part.c.unit, bucket)
    joined = part.join(wanted, _same_key(part, wanted, keys))
    statement = sa.select(*columns, *_sums(part)).select_from(joined).group_by(*columns)
    return compiled(statement.order_by(wanted.c.position, part.c.unit, bucket))


@lru_cache(maxsize=1_000)
def distinct_statement(parts: PartsShape, keys: tuple[str, ...], dimension: str, *, remainder: bool) -> Compiled:
    """How many values of a dimension the wanted groups have, by unit; or all groups but these, together (position 0)."""
    part = _parts(parts)
    wanted = _wanted(keys)
    count = sa.func.count(part.c[dimension].distinct()).label("count")
    if remainder:
        # Without keys there is one group; that a remainder is asked for says that it is not on the page.
        on_page = sa.exists(sa.select(1).select_from(wanted).where(_same_key(part, wanted, keys)))
        outside = ~on_page if keys else sa.true()
        zero = _ZERO.label("position")
        return compiled(sa.select(zero, part.c.unit, count).where(outside).group_by(part.c.unit))
    columns = (wanted.c.position, part.c.unit)
    joined = part.join(wanted, _same_key(part, wanted, keys))
    return compiled(sa.select(*columns, count).select_from(joined).group_by(*columns))


@lru_cache(maxsize=1_000)
def groups_statement(
    parts: PartsShape, keys: tuple[str, ...], order: str, *, descending: bool, after: bool, one_unit: bool
) -> Compiled:
    """One page of groups, and the rest.

    Rows with a `position` (from 1) are the page, one for each group and unit; the row without is the remainder, one for
    each unit. `groups` is how many groups there are, `available` how many from the cursor on. `one_unit` says that the
    filters leave but one.

    Groups are added up once, into what spills to disk where there are many, and then passed over: to rank and count
    them, keeping no more than a page of them in order; and to take the page apart from the rest.
    """
    grouped = _grouped(_parts(parts), keys)
    ordering = _ordering(grouped, order)
    ranked = _ranked(grouped, ordering, keys, order, alone=one_unit or "unit" in keys)
    behind = [_behind(ranked, keys, order, descending=descending)] if after else []
    sort = _sort_columns(ranked, keys, order, descending=descending)
    first = sa.bindparam("first", type_=sa.BigInteger)
    chosen = sa.select(ranked).where(*behind).order_by(*sort).limit(first).subquery("chosen")
    position = sa.func.row_number().over(order_by=_sort_columns(chosen, keys, order, descending=descending))
    page = sa.select(chosen, position.label("position")).cte("page")
    available = sa.func.count().filter(*behind) if behind else sa.func.count()
    counted = (
        sa.select(sa.func.count().label("groups"), available.label("available")).select_from(ranked).cte("counted")
    )
    statement = sa.select(
        page.c.position, *(sa.func.min(page.c[f"key_{name}"]).label(f"key_{name}") for name in keys), grouped.c.unit,
        sa.select(ordering.c.order_unit).scalar_subquery().label("order_unit"),
        sa.func.min(page.c.order_value).label("order_value"), *_sums(grouped),
        *(sa.select(counted.c[name]).scalar_subquery().label(name) for name in ("groups", "available")),
    ).select_from(grouped.outerjoin(page, _same_group(grouped, page, keys)))  # fmt: skip
    return compiled(statement.group_by(page.c.position, grouped.c.unit).order_by(page.c.position, grouped.c.unit))


@lru_cache(maxsize=1_000)
def rows_statement(parts: PartsShape, keys: tuple[str, ...], *, bucketed: bool) -> Compiled:
    """Figures of every group by bucket, where buckets are asked for (counted from 1), and unit; in this order."""
    grouped = _grouped(_parts(parts), keys, bucketed=bucketed)
    order = [*([grouped.c.bucket] if bucketed else []), *_sort_columns(grouped, keys, "KEY", descending=False)]
    return compiled(sa.select(grouped).order_by(*order, grouped.c.unit))


@lru_cache(maxsize=1_000)
def values_statement(parts: PartsShape, dimension: str) -> Compiled:
    """The first values that a dimension has, in order, of those that begin with a prefix; the prefix is no pattern."""
    part = _parts(parts)
    prefix, first = sa.bindparam("prefix", type_=TEXT), sa.bindparam("first", type_=sa.BigInteger)
    if dimension == "account":
        return _accounts_statement(part, prefix, first)
    value = part.c[dimension]
    wanted = sa.and_(value.is_not(None), sa.func.starts_with(value, prefix))
    return compiled(sa.select(value.label("value")).where(wanted).distinct().order_by(value).limit(first))


def _accounts_statement(part: sa.CTE, prefix: Any, first: Any) -> Compiled:
    """Accounts come first in every index: each is looked up behind the one before, however much usage that has."""
    found = sa.select(sa.null().cast(TEXT).label("value"), _ZERO.label("place")).cte("found", recursive=True)
    union = part.element
    assert isinstance(union, sa.CompoundSelect), "parts are a union"
    selects = [select for select in union.selects if isinstance(select, sa.Select)]
    # What is late, or of many periods, is joined, and so found once; each of the others has an index.
    joined = [select for select in selects if len(select.get_final_froms()) > 1]
    sources: list[sa.FromClause] = [select.subquery() for select in selects if select not in joined]
    if joined:
        rows = sa.union_all(*joined).subquery()
        sources.append(sa.select(rows.c.account).distinct().cte("joined").prefix_with("MATERIALIZED"))
    firsts = []
    # Of each source by itself: PostgreSQL does not look into a union in order.
    for source in sources:
        account = source.c.account
        behind = sa.and_(sa.func.starts_with(account, prefix), account > sa.func.coalesce(found.c.value, _EMPTY))
        firsts.append(sa.select(account).where(behind).order_by(account).limit(_ONE).correlate(found))
    least = sa.union_all(*firsts).subquery()
    following = sa.select(sa.select(sa.func.min(least.c.account)).scalar_subquery(), found.c.place + _ONE)
    more = sa.and_(found.c.place < first, sa.or_(found.c.place == _ZERO, found.c.value.is_not(None)))
    found = found.union_all(following.where(more))
    return compiled(sa.select(found.c.value).where(found.c.value.is_not(None)).order_by(found.c.place))


# ---------------------------------------------------------------- pages


def _grouped(part: sa.CTE, keys: Sequence[str], *, bucketed: bool = False) -> sa.CTE:
    columns = [part.c[name].label(f"key_{name}") for name in keys]
    by = [part.c[name] for name in dict.fromkeys([*keys, "unit"])]
    if bucketed:
        bucket = sa.func.width_bucket(part.c.at, _array("bounds", INSTANT)).label("bucket")
        columns, by = [bucket, *columns], [bucket, *by]
    return sa.select(*columns, part.c.unit, *_sums(part)).group_by(*by).cte("grouped")


def _ordering(grouped: sa.CTE, order: str) -> sa.CTE:
    """One row: the unit by whose quantity groups are put in order; NULL where it is by events or key."""
    if order != "QUANTITY":
        return sa.select(sa.null().cast(TEXT).label("order_unit")).cte("ordering")
    least, greatest = sa.func.min(grouped.c.unit), sa.func.max(grouped.c.unit)
    only = sa.case((least == greatest, least))
    chosen = sa.bindparam("order_unit", type_=TEXT)
    return sa.select(sa.func.coalesce(chosen, only).label("order_unit")).select_from(grouped).cte("ordering")


def _ranked(grouped: sa.CTE, ordering: sa.CTE, keys: Sequence[str], order: str, *, alone: bool) -> sa.CTE:
    """One row for each group, with the value that it is put in order by; `alone`: a group has one unit, so one row."""
    key_columns = [grouped.c[f"key_{name}"] for name in keys]
    order_unit = sa.select(ordering.c.order_unit).scalar_subquery()
    of_unit = sa.case((grouped.c.unit == order_unit, grouped.c.quantity), else_=_ZERO)
    events = grouped.c.events if alone else sa.func.sum(grouped.c.events)
    quantity = of_unit if alone else sa.func.sum(of_unit)
    value = {
        "QUANTITY": sa.case((order_unit.is_(None), events), else_=quantity),
        "EVENTS": events,
        "KEY": sa.null(),
    }[order].cast(sa.Numeric)
    rows = sa.select(*key_columns, value.label("order_value"))
    if alone:
        # Nothing is added up, so nothing need be kept: each pass computes it anew from what `grouped` holds.
        return rows.cte("ranked").prefix_with("NOT MATERIALIZED")
    # Without keys the group of everything is one row also of nothing: it is a group where there is usage.
    return rows.group_by(*key_columns).having(sa.func.count() > _ZERO).cte("ranked")


def _sort_columns(groups: sa.FromClause, keys: Sequence[str], order: str, *, descending: bool) -> list[Any]:
    """The total order of groups: value, then key; a missing value of a dimension comes last. Ties are by ascending key."""
    flip = descending and order == "KEY"
    by_key: list[Any] = []
    for name in keys:
        column = groups.c[f"key_{name}"]
        pair = (column.is_(None), sa.func.coalesce(column, _EMPTY))
        by_key += [expression.desc() for expression in pair] if flip else pair
    if order == "KEY":
        return by_key
    return [groups.c.order_value.desc() if descending else groups.c.order_value, *by_key]


def _behind(ranked: sa.CTE, keys: Sequence[str], order: str, *, descending: bool) -> Any:
    """Whether a group stands behind the cursor: the comparison that `_sort_columns` sorts by."""
    left: list[Any] = []
    right: list[Any] = []
    if order != "KEY":
        value, cursor = ranked.c.order_value, sa.bindparam("after_value", type_=sa.Numeric)
        # Values descend while keys ascend: negated, they all ascend and one row comparison does.
        left, right = ([-value], [-cursor]) if descending else ([value], [cursor])
    for name in keys:
        column, cursor_key = ranked.c[f"key_{name}"], sa.bindparam(f"after_{name}", type_=TEXT)
        left += [column.is_(None), sa.func.coalesce(column, _EMPTY)]
        right += [cursor_key.is_(None), sa.func.coalesce(cursor_key, _EMPTY)]
    if not left:  # in order by a key of nothing there is one group, and the cursor stands at it
        return sa.false()
    greater, less = (left, right) if not (descending and order == "KEY") else (right, left)
    return sa.tuple_(*greater) > sa.tuple_(*less)


# ---------------------------------------------------------------- parts


def _parts(shape: PartsShape) -> sa.CTE:
    selects: list[sa.Select[Any]] = []
    late = _late(shape) if shape.pending else None
    if shape.days:
        selects.append(_days(shape, late))
    if shape.hours:
        selects.append(_hours(shape, late))
    if late is not None and shape.days:
        selects.append(_hours_of_late_days(shape, late))
    if shape.raw:
        selects.append(_raw(shape, _in_periods(event.c.occurred_at, "raw", shape.raw)))
    if late is not None:
        selects.append(_raw_of_late_hours(shape, late))
    if not selects:  # an empty period has no parts; the raw one, without periods, says so
        selects.append(_raw(shape, [sa.false()]))
    return sa.union_all(*selects).cte("part")


def _days(shape: PartsShape, late: "_Late | None") -> sa.Select[Any]:
    rollup = ROLLUP_TABLES[shape.daily_rollup]
    conditions = _in_periods(rollup.c.bucket, "days", shape.days)
    if late is not None:
        # NOT IN, here and in _not_late: PostgreSQL hashes the list, whose size it cannot guess (none of it is NULL). For
        # NOT EXISTS it may choose a nested loop over tens of thousands of pending hours.
        pending = sa.select(late.days.c.account, late.days.c.day)
        conditions.append(sa.tuple_(rollup.c.account, rollup.c.bucket).not_in(pending))
    return _rows(shape, rollup, rollup.c.bucket, conditions)


def _hours(shape: PartsShape, late: "_Late | None") -> sa.Select[Any]:
    rollup = ROLLUP_TABLES["usage_hour"]
    conditions = _in_periods(rollup.c.bucket, "hours", shape.hours)
    if late is not None:
        conditions.append(_not_late(rollup, late))
    return _rows(shape, rollup, rollup.c.bucket, conditions)


def _hours_of_late_days(shape: PartsShape, late: "_Late") -> sa.Select[Any]:
    rollup = ROLLUP_TABLES["usage_hour"]
    of_day = [
        *_late_bounds(rollup.c.bucket),
        late.days.c.account == rollup.c.account,
        late.days.c.day == _binned(_DAY, rollup.c.bucket),
        rollup.c.bucket >= late.days.c.day,
        rollup.c.bucket < late.days.c.day + _DAY,
        _not_late(rollup, late),
    ]
    return _rows(shape, rollup, rollup.c.bucket, of_day)


def _raw_of_late_hours(shape: PartsShape, late: "_Late") -> sa.Select[Any]:
    of_hour = [
        *_late_bounds(event.c.occurred_at),
        late.hours.c.account == event.c.account,
        late.hours.c.bucket == _binned(_HOUR, event.c.occurred_at),
        event.c.occurred_at >= late.hours.c.bucket,
        event.c.occurred_at < late.hours.c.bucket + _HOUR,
    ]
    return _raw(shape, of_hour)


def _rows(shape: PartsShape, rollup: sa.Table, at: Any, conditions: Sequence[Any]) -> sa.Select[Any]:
    dimensions = [rollup.c[name] for name in _shown(shape)]
    figures = [rollup.c[name] for name in _FIGURES]
    return sa.select(at.label("at"), *dimensions, *figures).where(*conditions, *_kept(rollup, shape))


def _raw(shape: PartsShape, conditions: Sequence[Any]) -> sa.Select[Any]:
    dimensions = [event.c[name] for name in _shown(shape)]
    quantity = event.c.quantity
    figures = [
        quantity.label("quantity"),
        sa.literal_column("1::bigint").label("events"),
        quantity.label("minimum"),
        quantity.label("maximum"),
    ]
    kept = [~event.c.voided, *_kept(event, shape)]
    return sa.select(event.c.occurred_at.label("at"), *dimensions, *figures).where(*conditions, *kept)


def _shown(shape: PartsShape) -> list[str]:
    return sorted({*shape.dimensions, "unit"})


class _Late(msgspec.Struct, frozen=True):
    """Account-hours with late events, below the horizon, inside the periods that rollups answer; and their days."""

    hours: sa.CTE
    days: sa.CTE


def _late(shape: PartsShape) -> _Late:
    bucket = pending_bucket.c.bucket
    kept = [keeps(pending_bucket.c.account, chosen) for chosen in shape.filters if chosen.dimension == "account"]
    in_days, in_hours = _in_some_period(bucket, "days", shape.days), _in_some_period(bucket, "hours", shape.hours)
    hours = (
        sa.select(pending_bucket.c.account, bucket, in_days.label("of_day"))
        .where(sa.or_(in_days, in_hours), *kept)
        .distinct()
        .cte("late")
    )
    day = _binned(_DAY, hours.c.bucket).label("day")
    days = sa.select(hours.c.account, day).where(hours.c.of_day).distinct().cte("late_day")
    return _Late(hours, days)


def _late_bounds(at: Any) -> list[Any]:
    """Between the first and the last period that rollups answer: what chooses the partitions."""
    return [at >= sa.bindparam("late_from", type_=INSTANT), at < sa.bindparam("late_to", type_=INSTANT)]


def _binned(width: Any, at: Any) -> Any:
    # Said besides the range, because an equality can be hashed: which is better depends on how many are late.
    return sa.func.date_bin(width, at, sa.literal_column("timestamptz 'epoch'"))


def _not_late(rollup: sa.Table, late: _Late) -> Any:
    pending = sa.select(late.hours.c.account, late.hours.c.bucket)
    return sa.tuple_(rollup.c.account, rollup.c.bucket).not_in(pending)


# ---------------------------------------------------------------- conditions


def _in_periods(at: Any, name: str, count: int) -> list[Any]:
    """`at` lies in one of the periods of this name: one is compared, many are joined (they are apart, so once at most)."""
    low, high = sa.bindparam(f"{name}_from", type_=INSTANT), sa.bindparam(f"{name}_to", type_=INSTANT)
    conditions = [at >= low, at < high]
    if count > 1:
        starts, ends = _array(f"{name}_starts", INSTANT), _array(f"{name}_ends", INSTANT)
        period = sa.func.unnest(starts, ends).table_valued("starts", "ends").render_derived(name=f"{name}_period")
        conditions += [at >= period.c.starts, at < period.c.ends]
    return conditions


def _in_some_period(at: Any, name: str, count: int) -> Any:
    """The same as a condition that stands for itself, as one side of an OR."""
    if count <= 1:
        return sa.and_(*_in_periods(at, name, count)) if count else sa.false()
    low, high, *inside = _in_periods(at, name, count)
    return sa.and_(low, high, sa.exists(sa.select(1).where(*inside).correlate(pending_bucket)))


def _kept(table: sa.Table, shape: PartsShape) -> list[Any]:
    return [keeps(table.c[chosen.dimension], chosen) for chosen in shape.filters]


def keeps(column: Any, chosen: FilterShape) -> Any:
    """The condition of a filter on this column."""
    listed = column == sa.any_(_array(chosen.parameter, TEXT))
    if chosen.negated:
        absent = column.is_not(None) if chosen.with_null else column.is_(None)
        is_other = sa.and_(column.is_not(None), ~listed)
        return is_other if chosen.with_null else sa.or_(absent, is_other)
    return sa.or_(column.is_(None), listed) if chosen.with_null else listed


def _wanted(keys: Sequence[str]) -> sa.TableValuedAlias:
    """The wanted groups: for each key an array of values; without keys there is one group, of everything."""
    if not keys:
        one = sa.func.unnest(sa.literal_column("ARRAY[1]"))
        return one.table_valued("nothing", with_ordinality="position").render_derived(name="wanted")
    arrays = [_array(f"wanted_{name}", TEXT) for name in keys]
    columns = [f"key_{name}" for name in keys]
    return sa.func.unnest(*arrays).table_valued(*columns, with_ordinality="position").render_derived(name="wanted")


def _same_key(part: sa.CTE, wanted: sa.TableValuedAlias, keys: Sequence[str]) -> Any:
    """Equality that takes NULL for a value; written so that it can be hashed, as IS NOT DISTINCT FROM cannot."""
    pairs = [(part.c[name], wanted.c[f"key_{name}"].cast(TEXT)) for name in keys]
    empties = [
        (left.is_(None) == right.is_(None), sa.func.coalesce(left, _EMPTY) == sa.func.coalesce(right, _EMPTY))
        for left, right in pairs
    ]
    return sa.and_(sa.true(), *(condition for pair in empties for condition in pair))


def _same_group(grouped: sa.CTE, page: sa.CTE, keys: Sequence[str]) -> Any:
    """The same of two groups that both occur: no text that does is empty, so that stands for NULL."""
    return sa.and_(
        sa.true(),
        *(
            sa.func.coalesce(grouped.c[f"key_{name}"], _EMPTY) == sa.func.coalesce(page.c[f"key_{name}"], _EMPTY)
            for name in keys
        ),
    )


def _array(name: str, item: Any) -> sa.BindParameter[Any]:
    return sa.bindparam(name, type_=postgresql.ARRAY(item))


def _sums(part: sa.CTE) -> list[Any]:
    return [
        sa.func.sum(part.c.quantity).label("quantity"),
        sa.func.sum(part.c.events).cast(sa.BigInteger).label("events"),
        sa.func.min(part.c.minimum).label("minimum"),
        sa.func.max(part.c.maximum).label("maximum"),
    ]
