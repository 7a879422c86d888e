"""The one dynamic query: usage by any dimensions, from rollups and raw events together, exact in one snapshot.

Every statement stands on the same parts (see metering/rollups/cover.py), joined by UNION ALL:

    days      rows of a daily rollup, but for account-days that are pending
    quarters  rows of a rollup by quarter hours, but for those of accounts that are pending; and the quarters of pending days
    minutes   rows of the tail, but for account-minutes that are pending
    open      rows of the minute that is not over yet, the same
    late      events of these that came too late for the rows
    raw       events of the edges and of the last seconds; and the events of pending quarters and minutes

A rollup without account cannot leave out an account: what is pending is taken away from it, as a rollup with accounts has
it. Extremes cannot be taken away, and on an engine whose rollups change one by one they may not have the same events: there
the narrowest rollup with accounts stands in for the whole bucket wherever anything of it is pending.

A statement's text depends only on its shape, so each shape is built and compiled once.
"""

from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any, Final

import msgspec
import sqlalchemy as sa
from sqlalchemy.dialects import postgresql
from sqlalchemy.dialects.postgresql import aggregate_order_by
from sqlalchemy.dialects.postgresql import asyncpg as asyncpg_dialect
from sqlalchemy.sql.elements import Grouping

from metering.store.tables import (
    DAILY_ROLLUPS,
    INSTANT,
    MINUTE_ROLLUPS,
    QUARTER_HOUR_ROLLUPS,
    ROLLUP_TABLES,
    STEPPED_MINUTES,
    TEXT,
    Rollup,
    event,
    late_event,
    narrowest,
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
_SECONDS: Final[sa.ColumnElement[Any]] = sa.literal_column("'epoch'")
_NOTHING: Final[sa.ColumnElement[Any]] = sa.literal_column("NULL::numeric")
# So many periods of a part are asked for one by one: PostgreSQL then sees how little each of them is. More are joined.
APART_MAX: Final = 4

# How the parameters begin that hold a statement to the caller's reach; see metering/store/held.py.
REACH: Final = "reach_"


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
    late: bool = False
    # Whether the least and the largest quantity of an event are shown.
    extremes: bool = True
    # Whether every rollup has what any other one has of the same events, in any snapshot.
    rollups_agree: bool = False

    @property
    def is_taken_away(self) -> bool:
        """Whether what is pending of an account can be taken away from figures of everyone: sums can, extremes cannot."""
        return self.rollups_agree and not self.extremes

    @property
    def needed(self) -> set[str]:
        """Every dimension that is shown or filtered by."""
        return {*self.dimensions, *(chosen.dimension for chosen in self.filters)}

    def narrowest(self, rollups: Sequence[Rollup], *, with_account: bool = False) -> Rollup:
        """The narrowest of these rollups that has every dimension that is needed."""
        needed = self.needed | {"account"} if with_account else self.needed
        return narrowest(rollups, needed)


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
    held = sorted({name.removeprefix(REACH) for name in names if name.startswith(REACH)})
    return Compiled(f"-- reach: {', '.join(held)}\n{text}" if held else str(text), tuple(names))


# ---------------------------------------------------------------- statements


@lru_cache(maxsize=1_000)
def totals_statement(parts: PartsShape) -> Compiled:
    """Figures of everything together, one row for each unit."""
    part = _parts(parts)
    return compiled(sa.select(part.c.unit, *_sums(part)).group_by(part.c.unit).order_by(part.c.unit))


@lru_cache(maxsize=1_000)
def series_statement(parts: PartsShape, keys: tuple[str, ...]) -> Compiled:
    """The courses of the wanted groups, one row for each unit: `position` is the group's among the wanted ones."""
    part = _parts(parts)
    bucket = _bucket(part.c.at)
    by = [part.c[name] for name in sorted({*keys, "unit"})]
    # Added up before they are joined with the wanted groups: PostgreSQL believes that the join leaves next to nothing, and
    # would sort all rows.
    added = sa.select(*by, bucket, *_sums(part)).group_by(*by, bucket).cte("added")
    wanted = _wanted(keys)
    joined = added.join(wanted, _same_key(added, wanted, keys))
    by = [wanted.c.position, added.c.unit]
    return compiled(sa.select(*by, *_course(added)).select_from(joined).group_by(*by).order_by(*by))


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
    parts: PartsShape,
    keys: tuple[str, ...],
    order: str,
    *,
    descending: bool,
    after: bool,
    one_unit: bool,
    bucketed: bool = False,
) -> Compiled:
    """One page of groups, and the rest.

    Rows with a `position` (from 1) are the page, one for each group and unit; the row without is the remainder, one for
    each unit. `groups` is how many groups there are, `available` how many from the cursor on. `one_unit` says that the
    filters leave but one. `bucketed` adds the course of each row of the page.

    Groups are added up once, into what spills to disk where there are many, and then passed over: to rank and count
    them, keeping no more than a page of them in order; and to take the page apart from the rest.
    """
    part = _parts(parts)
    detailed = _grouped(part, keys, name="detailed", bucketed=True) if bucketed else None
    grouped = _grouped(part, keys) if detailed is None else _without_buckets(detailed, keys)
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
    statement = statement.group_by(page.c.position, grouped.c.unit)
    if detailed is None:
        return compiled(statement.order_by(page.c.position, grouped.c.unit))
    return compiled(_with_courses(statement.cte("answer"), _courses(detailed, page, keys)))


@lru_cache(maxsize=1_000)
def rows_statement(parts: PartsShape, keys: tuple[str, ...], *, bucketed: bool) -> Compiled:
    """Figures of every group by bucket, where buckets are asked for (counted from 0), and unit; in this order."""
    grouped = _grouped(_parts(parts), keys, bucketed=bucketed)
    by_key = [*_sort_columns(grouped, keys, "KEY", descending=False), grouped.c.unit]
    if not bucketed:
        return compiled(sa.select(grouped).order_by(*by_key))
    figures = [column for column in grouped.c if column is not grouped.c.bucket]
    rows = sa.select(_place(grouped.c.bucket).label("place"), *figures)
    return compiled(rows.order_by(grouped.c.bucket, *by_key))


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
    # What is looked up, taken away, or of many periods, is found once; each of the others has an index.
    joined = [select for select in selects if not all(isinstance(each, sa.Table) for each in select.get_final_froms())]
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


def _grouped(part: sa.CTE, keys: Sequence[str], *, name: str = "grouped", bucketed: bool = False) -> sa.CTE:
    columns = [part.c[name].label(f"key_{name}") for name in keys]
    by = [part.c[name] for name in dict.fromkeys([*keys, "unit"])]
    if bucketed:
        bucket = _bucket(part.c.at)
        columns, by = [bucket, *columns], [bucket, *by]
    return sa.select(*columns, part.c.unit, *_sums(part)).group_by(*by).cte(name)


def _without_buckets(detailed: sa.CTE, keys: Sequence[str]) -> sa.CTE:
    """Groups from groups by bucket: what both need is read once."""
    columns = [detailed.c[f"key_{name}"] for name in keys]
    return sa.select(*columns, detailed.c.unit, *_sums(detailed)).group_by(*columns, detailed.c.unit).cte("grouped")


def _bucket(at: Any) -> Any:
    """The start of the bucket that an instant lies in. Buckets are given as stretches of one width, of which there are few."""
    stretch = _stretch(at)
    return sa.func.date_bin(_of_stretches("widths", stretch), at, _of_stretches("starts", stretch)).label("bucket")


def _place(start: Any) -> Any:
    """How many buckets begin before the one that begins at this instant."""
    stretch = _stretch(start)
    seconds_before = _seconds(start - _of_stretches("starts", stretch))
    # A whole number, but for what the quotient of two such numbers is off by: it is far from the next one.
    before = sa.func.round(seconds_before / _seconds(_of_stretches("widths", stretch))).cast(sa.Integer)
    return _of_stretches("places", stretch) + before


def _stretch(at: Any) -> Any:
    return sa.func.width_bucket(at, _array("bucket_starts", INSTANT))


def _of_stretches(name: str, number: Any) -> Any:
    kind = {"starts": INSTANT, "widths": sa.Interval(), "places": sa.Integer()}[name]
    # In brackets, or PostgreSQL would read the number as a part of the array's type.
    return Grouping(_array(f"bucket_{name}", kind))[number]


def _seconds(interval: Any) -> Any:
    return sa.func.date_part(_SECONDS, interval, type_=sa.Double())


def _course(added: sa.CTE) -> list[Any]:
    """The buckets of a group (counted from 0) and their figures as arrays of one order; quantities as they are shown."""
    columns = {
        "buckets": _place(added.c.bucket),
        "quantities": sa.func.trim_scale(added.c.quantity).cast(sa.Text),
        "counts": added.c.events,
    }
    return [
        sa.func.array_agg(aggregate_order_by(column, added.c.bucket)).label(name) for name, column in columns.items()
    ]


def _courses(detailed: sa.CTE, page: sa.CTE, keys: Sequence[str]) -> sa.CTE:
    """For each group of the page and unit its course."""
    joined = detailed.join(page, _same_group(detailed, page, keys))
    courses = sa.select(page.c.position, detailed.c.unit, *_course(detailed)).select_from(joined)
    return courses.group_by(page.c.position, detailed.c.unit).cte("course")


def _with_courses(answer: sa.CTE, course: sa.CTE) -> sa.Select[Any]:
    same = sa.and_(course.c.position == answer.c.position, course.c.unit == answer.c.unit)
    columns = [course.c[name] for name in ("buckets", "quantities", "counts")]
    statement = sa.select(answer, *columns).select_from(answer.outerjoin(course, same))
    return statement.order_by(answer.c.position, answer.c.unit)


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
        days = None if late is None else _Pending(late.days, late.days.c.day)
        selects += _rolled_up(shape, DAILY_ROLLUPS, "days", shape.days, days)
    if shape.quarters:
        quarters = None if late is None else _Pending(late.quarters, late.quarters.c.bucket)
        selects += _rolled_up(shape, QUARTER_HOUR_ROLLUPS, "quarters", shape.quarters, quarters)
    minutes = _late_minutes(shape) if shape.pending_minutes else None
    if shape.minutes:
        selects += _rolled_up(shape, MINUTE_ROLLUPS, "minutes", shape.minutes, minutes)
    if shape.open:
        selects += _rolled_up(shape, STEPPED_MINUTES, "open", shape.open, minutes)
    if shape.late:
        selects.append(_late_for_tail(shape, minutes))
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
    if shape.is_taken_away:
        return [_without_pending(shape, rollups, name, count, pending)]
    whole = [_rows(shape, rollup, [*inside, ~pending.touches(rollup)]) for inside in periods]
    with_account = ROLLUP_TABLES[shape.narrowest(rollups, with_account=True).name]
    touched = [pending.touches(with_account), ~pending.has(with_account)]
    return whole + [
        _rows(shape, with_account, [*inside, *touched]) for inside in _in_periods(with_account.c.bucket, name, count)
    ]


def _without_pending(
    shape: PartsShape, rollups: Sequence[Rollup], name: str, count: int, pending: _Pending
) -> sa.Select[Any]:
    """Rows of everyone in the periods of this name, less what they have of what is pending.

    What is read for that does not grow with what else there is of the days that are touched.
    """
    everyone = ROLLUP_TABLES[shape.narrowest(rollups).name]
    rows = [_rows(shape, everyone, inside) for inside in _in_periods(everyone.c.bucket, name, count)]
    of_account = ROLLUP_TABLES[shape.narrowest(rollups, with_account=True).name]
    same = [of_account.c.account == pending.of.c.account, of_account.c.bucket == pending.bucket]
    rows += [
        _looked_up(_rows(shape, of_account, [*same, *inside], is_taken_away=True), pending.of)
        for inside in _in_periods(of_account.c.bucket, name, count)
    ]
    left = sa.union_all(*rows).subquery()
    by = [left.c[name] for name in ("at", *_shown(shape))]
    # What nothing is left of is not there: it is neither counted among groups nor among values.
    return sa.select(*by, *_sums(left)).group_by(*by).having(sa.func.sum(left.c.events) != _ZERO)


def _quarters_of_late_days(shape: PartsShape, late: "_Late") -> sa.Select[Any]:
    rollup = ROLLUP_TABLES[shape.narrowest(QUARTER_HOUR_ROLLUPS, with_account=True).name]
    of_day = [
        *_between(rollup.c.bucket, "late_from", "late_to"),
        rollup.c.account == late.days.c.account,
        rollup.c.bucket >= late.days.c.day,
        rollup.c.bucket < late.days.c.day + _DAY,
        ~_Pending(late.quarters, late.quarters.c.bucket).has(rollup),
    ]
    return _looked_up(_rows(shape, rollup, of_day), late.days)


def _raw_of_late(shape: PartsShape, late: _Pending, width: Any, bounds: tuple[str, str]) -> sa.Select[Any]:
    """The events of pending buckets. The bounds choose the partitions, and end the minute that is rolled up in part."""
    of_bucket = [
        *_between(event.c.occurred_at, *bounds),
        event.c.account == late.of.c.account,
        event.c.occurred_at >= late.bucket,
        event.c.occurred_at < late.bucket + width,
    ]
    return _looked_up(_raw(shape, of_bucket), late.of)


def _looked_up(rows: sa.Select[Any], of: sa.FromClause, conditions: Sequence[Any] = ()) -> sa.Select[Any]:
    """Rows that are looked up for each row of what is pending.

    PostgreSQL knows next to nothing of that, and would compare all of it with all that the table has of its time. What is
    kept of them is said within, so that nothing else is taken out of a columnstore.
    """
    found = rows.offset(_ZERO).correlate(of).lateral("found")
    return sa.select(found).select_from(of.join(found, sa.true())).where(*conditions)


def _rows(
    shape: PartsShape, rollup: sa.FromClause, conditions: Sequence[Any], *, is_taken_away: bool = False
) -> sa.Select[Any]:
    dimensions = [rollup.c[name] for name in _shown(shape)]
    sums = [rollup.c.quantity, rollup.c.events]
    added = [(-each).label(each.name) for each in sums] if is_taken_away else sums
    figures = [*added, *_extremes(shape, rollup.c.minimum, rollup.c.maximum)]
    return sa.select(rollup.c.bucket.label("at"), *dimensions, *figures).where(*conditions, *_kept(rollup, shape))


def _raw(shape: PartsShape, conditions: Sequence[Any]) -> sa.Select[Any]:
    dimensions = [event.c[name] for name in _shown(shape)]
    quantity = event.c.quantity
    figures = [
        quantity.label("quantity"),
        sa.literal_column("1::bigint").label("events"),
        *_extremes(shape, quantity, quantity),
    ]
    kept = [~event.c.voided, *_kept(event, shape)]
    return sa.select(event.c.occurred_at.label("at"), *dimensions, *figures).where(*conditions, *kept)


def _extremes(shape: PartsShape, least: Any, largest: Any) -> list[Any]:
    extremes = [least, largest] if shape.extremes else [_NOTHING, _NOTHING]
    return [extreme.label(name) for extreme, name in zip(extremes, ("minimum", "maximum"), strict=True)]


def _shown(shape: PartsShape) -> list[str]:
    return sorted({*shape.dimensions, "unit"})


class _Late(msgspec.Struct, frozen=True):
    """Account-quarters with late events, below the horizon, inside the periods that rollups answer; and their days."""

    quarters: sa.CTE
    days: sa.CTE


def _late(shape: PartsShape) -> _Late:
    bucket = pending_bucket.c.bucket
    in_days = _in_some_period(bucket, "days", shape.days)
    in_quarters = _in_some_period(bucket, "quarters", shape.quarters)
    account = pending_bucket.c.account
    quarters = (
        sa.select(account, bucket, in_days.label("of_day"))
        .where(sa.or_(in_days, in_quarters), *_kept_accounts(pending_bucket, shape))
        # Each once, and as they lie on disk, where they are looked up. Grouped, for of what is DISTINCT in order TimescaleDB
        # makes a skip scan, which fails for some bounds ("ScanKey for skip qual not found", 2.29.2).
        .group_by(bucket, account)
        .order_by(bucket, account)
        .cte("late")
    )
    day, of = _binned(_DAY, quarters.c.bucket).label("day"), quarters.c.account
    days = sa.select(of, day).where(quarters.c.of_day).group_by(day, of).order_by(day, of)
    return _Late(quarters, days.cte("late_day"))


def _late_minutes(shape: PartsShape) -> _Pending:
    """Account-minutes with corrected events, inside the periods that the tail answers."""
    account, bucket = pending_minute.c.account, pending_minute.c.bucket
    minutes = (
        sa.select(account, bucket)
        .where(_in_tail(bucket, shape), *_kept_accounts(pending_minute, shape))
        .group_by(bucket, account)
        .cte("late_minute")
    )
    return _Pending(minutes, minutes.c.bucket)


def _late_for_tail(shape: PartsShape, minutes: "_Pending | None") -> sa.Select[Any]:
    """The events that the tail does not hold yet, but for those of account-minutes that are pending."""
    name = late_event.c
    is_named = [
        event.c.account == name.account,
        event.c.occurred_at == name.occurred_at,
        event.c.key == name.key,
        # The bounds choose the partitions.
        *_between(event.c.occurred_at, "tail_from", "tail_to"),
    ]
    conditions = [_in_tail(name.occurred_at, shape), *_kept_accounts(late_event, shape)]
    if minutes is not None:
        bucket = _binned(_MINUTE, name.occurred_at)
        conditions.append(sa.tuple_(name.account, bucket).not_in(sa.select(minutes.of.c.account, minutes.bucket)))
    return _looked_up(_raw(shape, is_named), late_event, conditions)


def _in_tail(at: Any, shape: PartsShape) -> Any:
    """Whether an instant, or a minute, lies in one of the periods that the tail answers."""
    return sa.or_(_in_some_period(at, "minutes", shape.minutes), _in_some_period(at, "open", shape.open))


def _kept_accounts(log: sa.Table, shape: PartsShape) -> list[Any]:
    return [keeps(log.c.account, chosen) for chosen in shape.filters if chosen.dimension == "account"]


def _between(at: Any, low: str, high: str) -> list[Any]:
    return [at >= sa.bindparam(low, type_=INSTANT), at < sa.bindparam(high, type_=INSTANT)]


def _binned(width: Any, at: Any) -> Any:
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


def _in_some_period(at: Any, name: str, count: int) -> Any:
    """The same as one condition."""
    periods = _in_periods(at, name, count)
    if count <= APART_MAX:
        return sa.or_(sa.false(), *(sa.and_(*inside) for inside in periods))
    low, high, *inside = periods[0]
    return sa.and_(low, high, sa.exists(sa.select(1).where(*inside).correlate(at.table)))


def _kept(table: sa.FromClause, shape: PartsShape) -> list[Any]:
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


def _sums(part: sa.CTE | sa.Subquery) -> list[Any]:
    return [
        sa.func.sum(part.c.quantity).label("quantity"),
        sa.func.sum(part.c.events).cast(sa.BigInteger).label("events"),
        sa.func.min(part.c.minimum).label("minimum"),
        sa.func.max(part.c.maximum).label("maximum"),
    ]
