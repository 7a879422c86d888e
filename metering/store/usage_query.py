"""The one dynamic query: usage by any dimensions, from rollups and raw events together, exact in one snapshot.

Every statement stands on the same parts (see metering/rollups/cover.py), joined by UNION ALL:

    days      rows of a daily rollup, but for account-days that are pending
    quarters  rows of a rollup by quarter hours, but for those of accounts that are pending; and the quarters of pending days
    minutes   rows of the tail, but for account-minutes that are pending
    open      rows of the minute that is not over yet, the same
    raw       events of the edges and of the last seconds; and the events of pending quarters and minutes

A rollup without account cannot leave out an account: where anything of a bucket is pending, the narrowest rollup with
accounts stands in for the whole bucket.

A statement's text depends only on its shape, so each shape is built and compiled once.
"""

from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any, Final

import msgspec
import sqlalchemy as sa
from sqlalchemy.dialects import postgresql
from sqlalchemy.dialects.postgresql import asyncpg as asyncpg_dialect

from metering.store.tables import (
    DAILY_ROLLUPS,
    INSTANT,
    MINUTE_BY_PRODUCT,
    MINUTE_ROLLUPS,
    QUARTER_HOUR_ROLLUPS,
    ROLLUP_TABLES,
    TEXT,
    Rollup,
    event,
    pending_bucket,
    pending_minute,
)

_DIALECT: Final = asyncpg_dialect.dialect()  # type: ignore[no-untyped-call]
_MINUTE: Final[sa.ColumnElement[Any]] = sa.literal_column("interval '1 minute'")
_QUARTER_HOUR: Final[sa.ColumnElement[Any]] = sa.literal_column("interval '15 minutes'")
_DAY: Final[sa.ColumnElement[Any]] = sa.literal_column("interval '1 day'")
_ZERO: Final[sa.ColumnElement[Any]] = sa.literal_column("0")
_ONE: Final[sa.ColumnElement[Any]] = sa.literal_column("1")
_EMPTY: Final[sa.ColumnElement[Any]] = sa.literal_column("''")
_FIGURES: Final = ("quantity", "events", "minimum", "maximum")
# So many periods of a part are asked for one by one: PostgreSQL then sees how little each of them is. More are joined.
APART_MAX: Final = 4


class FilterShape(msgspec.Struct, frozen=True):
    """A filter without its values: which dimension, whether it keeps or drops them, and whether NULL is among them."""

    parameter: str
    dimension: str
    negated: bool
    with_null: bool


class PartsShape(msgspec.Struct, frozen=True, kw_only=True):
    """Which parts there are: how many periods each covers (more than APART_MAX are many), what they show, what they keep."""

    # What the parts show besides figures.
    dimensions: tuple[str, ...]
    filters: tuple[FilterShape, ...]
    days: int = 0
    quarters: int = 0
    minutes: int = 0
    # The minute that is rolled up in part: at most one.
    open: int = 0
    raw: int = 0
    pending: bool = False
    pending_minutes: bool = False

    @property
    def needed(self) -> set[str]:
        """Every dimension that is shown or filtered by."""
        return {*self.dimensions, *(chosen.dimension for chosen in self.filters)}

    def narrowest(self, rollups: Sequence[Rollup], *, with_account: bool = False) -> Rollup:
        """The narrowest of these rollups that has every dimension that is needed."""
        needed = self.needed | {"account"} if with_account else self.needed
        return next(rollup for rollup in rollups if needed <= set(rollup.dimensions))


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
    bucket = sa.func.width_bucket(part.c.at, _array("bounds", INSTANT)).label("bucket")
    by = [part.c[name] for name in sorted({*keys, "unit"})]
    # Added up before they are joined with the wanted groups: PostgreSQL believes that the join leaves next to nothing, and
    # would sort all rows.
    added = sa.select(*by, bucket, *_sums(part)).group_by(*by, bucket).cte("added")
    wanted = _wanted(keys)
    joined = added.join(wanted, _same_key(added, wanted, keys))
    columns = [wanted.c.position, added.c.unit, added.c.bucket, added.c.quantity, added.c.events]
    statement = sa.select(*columns).select_from(joined)
    return compiled(statement.order_by(wanted.c.position, added.c.unit, added.c.bucket))


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
    parts: PartsShape, keys: tuple[str, ...], order: str, *, descending: bool, after: bool
) -> Compiled:
    """One page of groups, and the rest.

    Rows with a `position` (from 1) are the page, one for each group and unit; rows without are the remainder, one for
    each unit. `groups` is how many groups there are, `available` how many from the cursor on.
    """
    grouped = _grouped(_parts(parts), keys)
    valued = _valued(grouped, keys, order)
    sort = _sort_columns(valued, keys, order, descending=descending)
    passed = _passed(valued, keys, order, descending=descending) if after else _ZERO
    position = sa.func.dense_rank().over(order_by=[passed, *sort]).label("position")
    ranked = sa.select(valued, passed.label("passed"), position).cte("ranked")
    counted = sa.select(
        sa.func.coalesce(sa.func.max(ranked.c.position), _ZERO).label("groups"),
        sa.func.coalesce(sa.func.max(ranked.c.position).filter(ranked.c.passed == _ZERO), _ZERO).label("available"),
    ).cte("counted")
    first = sa.bindparam("first", type_=sa.BigInteger)
    on_page = sa.and_(ranked.c.passed == _ZERO, ranked.c.position <= first)
    facts = (counted.c.groups, counted.c.available)
    page = sa.select(
        ranked.c.position, *(ranked.c[f"key_{name}"] for name in keys), ranked.c.unit, ranked.c.order_unit,
        ranked.c.order_value, *(ranked.c[name] for name in _FIGURES), *facts,
    ).select_from(ranked.join(counted, sa.true())).where(on_page)  # fmt: skip
    nothing = [sa.null().cast(TEXT) for _ in keys]
    rest = sa.select(
        sa.null().cast(sa.BigInteger), *nothing, ranked.c.unit, ranked.c.order_unit, sa.null().cast(sa.Numeric),
        sa.func.sum(ranked.c.quantity), sa.func.sum(ranked.c.events).cast(sa.BigInteger),
        sa.func.min(ranked.c.minimum), sa.func.max(ranked.c.maximum), *facts,
    ).select_from(ranked.join(counted, sa.true())).where(~on_page)  # fmt: skip
    rest = rest.group_by(ranked.c.unit, ranked.c.order_unit, *facts)
    return compiled(sa.union_all(page, rest).order_by("position", "unit"))


# ---------------------------------------------------------------- pages


def _grouped(part: sa.CTE, keys: Sequence[str]) -> sa.CTE:
    key_columns = [part.c[name].label(f"key_{name}") for name in keys]
    by = [part.c[name] for name in keys]
    unit = part.c.unit
    return sa.select(*key_columns, unit, *_sums(part)).group_by(*by, *([] if "unit" in keys else [unit])).cte("grouped")


def _valued(grouped: sa.CTE, keys: Sequence[str], order: str) -> sa.CTE:
    """Each row of a group with the value that the group is put in order by, and the unit that this is of."""
    chosen = sa.bindparam("order_unit", type_=TEXT)
    only = sa.select(
        sa.case((sa.func.min(grouped.c.unit) == sa.func.max(grouped.c.unit), sa.func.min(grouped.c.unit)))
    ).scalar_subquery()
    order_unit = (sa.func.coalesce(chosen, only) if order == "QUANTITY" else sa.null().cast(TEXT)).label("order_unit")
    base = sa.select(grouped, order_unit).cte("based")
    partition = [base.c[f"key_{name}"] for name in keys] or None
    events = sa.func.sum(base.c.events).over(partition_by=partition)
    of_unit = sa.case((base.c.unit == base.c.order_unit, base.c.quantity), else_=_ZERO)
    quantity = sa.func.sum(of_unit).over(partition_by=partition)
    value = {
        "QUANTITY": sa.case((base.c.order_unit.is_(None), events), else_=quantity),
        "EVENTS": events,
        "KEY": sa.null().cast(sa.Numeric),
    }[order]
    return sa.select(base, value.label("order_value")).cte("valued")


def _sort_columns(valued: sa.CTE, keys: Sequence[str], order: str, *, descending: bool) -> list[Any]:
    """The total order of groups: value, then key; a missing value of a dimension comes last. Ties are by ascending key."""
    flip = descending and order == "KEY"
    by_key: list[Any] = []
    for name in keys:
        column = valued.c[f"key_{name}"]
        pair = (column.is_(None), sa.func.coalesce(column, _EMPTY))
        by_key += [expression.desc() for expression in pair] if flip else pair
    if order == "KEY":
        return by_key
    return [valued.c.order_value.desc() if descending else valued.c.order_value, *by_key]


def _passed(valued: sa.CTE, keys: Sequence[str], order: str, *, descending: bool) -> Any:
    """1 where a group stands at or before the cursor, 0 after it: the comparison that `_sort_columns` sorts by."""
    left: list[Any] = []
    right: list[Any] = []
    if order != "KEY":
        value, cursor = valued.c.order_value, sa.bindparam("after_value", type_=sa.Numeric)
        # Values descend while keys ascend: negated, they all ascend and one row comparison does.
        left, right = ([-value], [-cursor]) if descending else ([value], [cursor])
    for name in keys:
        column, cursor_key = valued.c[f"key_{name}"], sa.bindparam(f"after_{name}", type_=TEXT)
        left += [column.is_(None), sa.func.coalesce(column, _EMPTY)]
        right += [cursor_key.is_(None), sa.func.coalesce(cursor_key, _EMPTY)]
    if not left:  # in order by a key of nothing there is one group, and the cursor stands at it
        return _ONE
    before, after = (left, right) if not (descending and order == "KEY") else (right, left)
    return sa.case((sa.tuple_(*before) <= sa.tuple_(*after), _ONE), else_=_ZERO)


# ---------------------------------------------------------------- parts


def _parts(shape: PartsShape) -> sa.CTE:
    selects: list[sa.Select[Any]] = []
    late = _late(shape) if shape.pending else None
    if shape.days:
        days = None if late is None else _Pending(late.days, late.days.c.day)
        selects += _rolled_up(shape, DAILY_ROLLUPS, "days", shape.days, days)
    if shape.quarters:
        quarters = None if late is None else _Pending(late.quarters, late.quarters.c.bucket)
        selects += _rolled_up(shape, QUARTER_HOUR_ROLLUPS, "quarters", shape.quarters, quarters)
    minutes = _late_minutes(shape) if shape.pending_minutes else None
    if shape.minutes:
        selects += _rolled_up(shape, MINUTE_ROLLUPS, "minutes", shape.minutes, minutes)
    if shape.open:
        selects += _rolled_up(shape, [MINUTE_BY_PRODUCT], "open", shape.open, minutes)
    if minutes is not None:
        selects.append(_raw_of_late(shape, minutes, _MINUTE, ("tail_from", "tail_to")))
    if late is not None and shape.days:
        selects.append(_quarters_of_late_days(shape, late))
    selects += [_raw(shape, inside) for inside in _in_periods(event.c.occurred_at, "raw", shape.raw)]
    if late is not None:
        quarters = _Pending(late.quarters, late.quarters.c.bucket)
        selects.append(_raw_of_late(shape, quarters, _QUARTER_HOUR, ("late_from", "late_to")))
    if not selects:  # an empty period has no parts; the raw one, without periods, says so
        selects.append(_raw(shape, [sa.false()]))
    return sa.union_all(*selects).cte("part")


class _Pending(msgspec.Struct, frozen=True):
    """Buckets of accounts that rollups do not answer."""

    of: sa.CTE
    bucket: Any

    def has(self, rollup: sa.Table) -> Any:
        """Whether the row's bucket and account are among them."""
        # IN, and NOT IN: PostgreSQL hashes the list, whose size it cannot guess (none of it is NULL). For NOT EXISTS it may
        # choose a nested loop over tens of thousands of them.
        return sa.tuple_(rollup.c.account, rollup.c.bucket).in_(sa.select(self.of.c.account, self.bucket))

    def touches(self, rollup: sa.Table) -> Any:
        """Whether the row's bucket is among them, of whichever account."""
        return rollup.c.bucket.in_(sa.select(self.bucket))


def _rolled_up(
    shape: PartsShape, rollups: Sequence[Rollup], name: str, count: int, pending: _Pending | None
) -> list[sa.Select[Any]]:
    """Rows of the narrowest of these rollups in the periods of this name, but for what is pending."""
    narrowest = shape.narrowest(rollups)
    rollup = ROLLUP_TABLES[narrowest.name]
    periods = _in_periods(rollup.c.bucket, name, count)
    if pending is None:
        return [_rows(shape, rollup, inside) for inside in periods]
    if narrowest.has_account:
        return [_rows(shape, rollup, [*inside, ~pending.has(rollup)]) for inside in periods]
    whole = [_rows(shape, rollup, [*inside, ~pending.touches(rollup)]) for inside in periods]
    with_account = ROLLUP_TABLES[shape.narrowest(rollups, with_account=True).name]
    touched = [pending.touches(with_account), ~pending.has(with_account)]
    return whole + [
        _rows(shape, with_account, [*inside, *touched]) for inside in _in_periods(with_account.c.bucket, name, count)
    ]


def _quarters_of_late_days(shape: PartsShape, late: "_Late") -> sa.Select[Any]:
    rollup = ROLLUP_TABLES[shape.narrowest(QUARTER_HOUR_ROLLUPS, with_account=True).name]
    of_day = [
        *_between(rollup.c.bucket, "late_from", "late_to"),
        late.days.c.account == rollup.c.account,
        late.days.c.day == _binned(_DAY, rollup.c.bucket),
        rollup.c.bucket >= late.days.c.day,
        rollup.c.bucket < late.days.c.day + _DAY,
        ~_Pending(late.quarters, late.quarters.c.bucket).has(rollup),
    ]
    return _rows(shape, rollup, of_day)


def _raw_of_late(shape: PartsShape, late: _Pending, width: Any, bounds: tuple[str, str]) -> sa.Select[Any]:
    """The events of pending buckets. The bounds choose the partitions, and end the minute that is rolled up in part."""
    of_bucket = [
        *_between(event.c.occurred_at, *bounds),
        late.of.c.account == event.c.account,
        late.bucket == _binned(width, event.c.occurred_at),
        event.c.occurred_at >= late.bucket,
        event.c.occurred_at < late.bucket + width,
    ]
    return _raw(shape, of_bucket)


def _rows(shape: PartsShape, rollup: sa.Table, conditions: Sequence[Any]) -> sa.Select[Any]:
    dimensions = [rollup.c[name] for name in _shown(shape)]
    figures = [rollup.c[name] for name in _FIGURES]
    return sa.select(rollup.c.bucket.label("at"), *dimensions, *figures).where(*conditions, *_kept(rollup, shape))


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
    """Account-quarters with late events, below the horizon, inside the periods that rollups answer; and their days."""

    quarters: sa.CTE
    days: sa.CTE


def _late(shape: PartsShape) -> _Late:
    bucket = pending_bucket.c.bucket
    in_days = _in_some_period(pending_bucket, "days", shape.days)
    in_quarters = _in_some_period(pending_bucket, "quarters", shape.quarters)
    quarters = (
        sa.select(pending_bucket.c.account, bucket, in_days.label("of_day"))
        .where(sa.or_(in_days, in_quarters), *_kept_accounts(pending_bucket, shape))
        .distinct()
        .cte("late")
    )
    day = _binned(_DAY, quarters.c.bucket).label("day")
    days = sa.select(quarters.c.account, day).where(quarters.c.of_day).distinct().cte("late_day")
    return _Late(quarters, days)


def _late_minutes(shape: PartsShape) -> _Pending:
    """Account-minutes with late events, inside the periods that the tail answers."""
    in_minutes = _in_some_period(pending_minute, "minutes", shape.minutes)
    inside = sa.or_(in_minutes, _in_some_period(pending_minute, "open", shape.open))
    minutes = (
        sa.select(pending_minute.c.account, pending_minute.c.bucket)
        .where(inside, *_kept_accounts(pending_minute, shape))
        .distinct()
        .cte("late_minute")
    )
    return _Pending(minutes, minutes.c.bucket)


def _kept_accounts(pending: sa.Table, shape: PartsShape) -> list[Any]:
    return [keeps(pending.c.account, chosen) for chosen in shape.filters if chosen.dimension == "account"]


def _between(at: Any, low: str, high: str) -> list[Any]:
    return [at >= sa.bindparam(low, type_=INSTANT), at < sa.bindparam(high, type_=INSTANT)]


def _binned(width: Any, at: Any) -> Any:
    # Said besides the range, because an equality can be hashed: which is better depends on how many are late.
    return sa.func.date_bin(width, at, sa.literal_column("timestamptz 'epoch'"))


# ---------------------------------------------------------------- conditions


def _in_periods(at: Any, name: str, count: int) -> list[list[Any]]:
    """`at` lies in one of the periods of this name: conditions for each, or, where they are many, for a join with them.

    Periods are apart, so at most one of them holds.
    """
    if count <= APART_MAX:
        return [_between(at, f"{name}_from_{index}", f"{name}_to_{index}") for index in range(count)]
    starts, ends = _array(f"{name}_starts", INSTANT), _array(f"{name}_ends", INSTANT)
    period = sa.func.unnest(starts, ends).table_valued("starts", "ends").render_derived(name=f"{name}_period")
    return [[*_between(at, f"{name}_from", f"{name}_to"), at >= period.c.starts, at < period.c.ends]]


def _in_some_period(pending: sa.Table, name: str, count: int) -> Any:
    """The same of a pending bucket, as one condition."""
    periods = _in_periods(pending.c.bucket, name, count)
    if count <= APART_MAX:
        return sa.or_(sa.false(), *(sa.and_(*inside) for inside in periods))
    low, high, *inside = periods[0]
    return sa.and_(low, high, sa.exists(sa.select(1).where(*inside).correlate(pending)))


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


def _array(name: str, item: Any) -> sa.BindParameter[Any]:
    return sa.bindparam(name, type_=postgresql.ARRAY(item))


def _sums(part: sa.CTE) -> list[Any]:
    return [
        sa.func.sum(part.c.quantity).label("quantity"),
        sa.func.sum(part.c.events).cast(sa.BigInteger).label("events"),
        sa.func.min(part.c.minimum).label("minimum"),
        sa.func.max(part.c.maximum).label("maximum"),
    ]
