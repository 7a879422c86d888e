"""What users do within a session, from the events themselves: the ways that are walked, and how many are there at once.

Every statement stands on *uses*: events of users, each with the session that it is of. A session is a stretch of a user's uses,
as far as they are asked for, and ends with half an hour without one. A statement's text depends only on its shape, so each shape
is built and compiled once.

Parameters, besides those of filters: `period_from`, `period_to`, and the users that are no persons, by `service_accounts` and
`service_users`.
"""

from functools import lru_cache
from typing import Any, Final

import sqlalchemy as sa

from metering.store.tables import INSTANT, TEXT, event
from metering.store.usage_query import Compiled, FilterShape, _array, compiled, keeps

_PAUSE: Final[sa.ColumnElement[Any]] = sa.literal_column("interval '30 minutes'")
_BACKGROUND: Final[sa.ColumnElement[Any]] = sa.literal_column("'background'")
_ZERO: Final[sa.ColumnElement[Any]] = sa.literal_column("0")
_ONE: Final[sa.ColumnElement[Any]] = sa.literal_column("1")
_LESS_ONE: Final[sa.ColumnElement[Any]] = sa.literal_column("-1")
_USER: Final = ("account", "user")
_FEATURE: Final = ("product", "feature")
_WAY: Final = ("first_product", "first_feature", "then_product", "then_feature")


@lru_cache(maxsize=1_000)
def ways_statement(filters: tuple[FilterShape, ...]) -> Compiled:
    """The `first` ways that are walked most often, one row each, and what all of them come to, which stands in each row.

    A way is of two features that a user uses one right after the other in a session; of a feature and itself only where
    `repeats` is said. Without a way there is one row, whose `times` is NULL. `bounds` are those of the days.
    """
    use = _uses(filters, (), with_days=True)
    # Of each user, and then of all: as groups, which are hashed. DISTINCT of rows is sorted, which takes several times as long.
    of_user = _walked(use)
    ends = [of_user.c[name] for name in _WAY]
    columns = [_sum(of_user.c.times).label("times"), sa.func.count().label("users"), _sum(of_user.c.days).label("days")]
    way = sa.select(*ends, *columns).group_by(*ends).cte("way")
    total = _total(use, of_user, way)
    order = [way.c.times.desc(), *(way.c[name] for name in _WAY)]
    first = sa.bindparam("first", type_=sa.BigInteger)
    page = sa.select(way).order_by(*order).limit(first).subquery("page")
    joined = total.outerjoin(page, sa.true())
    return compiled(
        sa.select(total, page).select_from(joined).order_by(page.c.times.desc(), *(page.c[name] for name in _WAY))
    )


@lru_cache(maxsize=1_000)
def peaks_statement(filters: tuple[FilterShape, ...], keys: tuple[str, ...]) -> Compiled:
    """The most users that were there at once, of each group: the `first` largest, each with the first instant of it (`at`).

    `groups` is how many groups there are; without keys there is one, of everything, and none where nobody was there.
    """
    present = _present(filters, keys, bucketed=False)
    by = [present.c[f"key_{name}"] for name in keys]
    order = (present.c.users.desc(), present.c.at)
    place = sa.func.row_number().over(partition_by=by or None, order_by=order).label("place")
    ranked = sa.select(present, place).cte("ranked")
    shown = [ranked.c[f"key_{name}"] for name in keys]
    groups = sa.func.count().over().label("groups")
    statement = sa.select(*shown, ranked.c.users, ranked.c.at, groups).where(ranked.c.place == _ONE)
    first = sa.bindparam("first", type_=sa.BigInteger)
    return compiled(statement.order_by(ranked.c.users.desc(), *shown).limit(first))


@lru_cache(maxsize=1_000)
def peaks_by_bucket_statement(filters: tuple[FilterShape, ...]) -> Compiled:
    """The most users that were there at once in each bucket, which counts from 1; `bounds` are those of the buckets."""
    present = _present(filters, (), bucketed=True)
    bucket = sa.func.width_bucket(present.c.at, _array("bounds", INSTANT)).label("bucket")
    statement = sa.select(bucket, sa.func.max(present.c.users).label("users"))
    # The last bound begins no bucket.
    inside = present.c.at < sa.bindparam("period_to", type_=INSTANT)
    return compiled(statement.where(inside).group_by(bucket).order_by(bucket))


# ---------------------------------------------------------------- uses and sessions


def _uses(filters: tuple[FilterShape, ...], keys: tuple[str, ...], *, with_days: bool) -> sa.CTE:
    """Uses with the number of the session, which counts for each user and group from 1.

    What is no use: reversals, what happens in the background, what names no user, and what no person does.
    """
    names = tuple(dict.fromkeys((*_USER, *keys)))
    service = sa.func.unnest(_array("service_accounts", TEXT), _array("service_users", TEXT))
    no_persons = service.table_valued("account", "user").render_derived(name="no_person")
    at = event.c.occurred_at
    before = sa.func.lag(at).over(partition_by=[event.c[name] for name in names], order_by=(at, event.c.key))
    shown = [event.c[name] for name in dict.fromkeys((*names, *_FEATURE))]
    used = (
        sa.select(*shown, at, event.c.key, (at - before < _PAUSE).label("goes_on"))
        .where(
            at >= sa.bindparam("period_from", type_=INSTANT),
            at < sa.bindparam("period_to", type_=INSTANT),
            ~event.c.voided,
            event.c.quantity >= _ZERO,
            event.c.classification.is_distinct_from(_BACKGROUND),
            event.c.user.is_not(None),
            sa.tuple_(event.c.account, event.c.user).not_in(sa.select(no_persons.c.account, no_persons.c.user)),
            *(keeps(event.c[chosen.dimension], chosen) for chosen in filters),
        )
        .cte("used")
    )
    begins = sa.func.count().filter(used.c.goes_on.is_not(sa.true()))
    session = begins.over(
        partition_by=[used.c[name] for name in names], order_by=(used.c.occurred_at, used.c.key), rows=(None, 0)
    )
    columns = [session.label("session")]
    if with_days:
        columns.append(sa.func.width_bucket(used.c.occurred_at, _array("bounds", INSTANT)).label("day"))
    return sa.select(used, *columns).cte("use")


def _walked(use: sa.CTE) -> sa.CTE:
    """Which ways each user walked, from the feature before it in the session to each one: how often, and on how many days."""
    order = (use.c.occurred_at, use.c.key)
    before = [
        sa.func.lag(use.c[name]).over(partition_by=(use.c.account, use.c.user), order_by=order).label(f"first_{name}")
        for name in (*_FEATURE, "session")
    ]
    followed = sa.select(use, *before).where(use.c.feature.is_not(None)).cte("followed")
    is_other = sa.or_(
        sa.bindparam("repeats", type_=sa.Boolean),
        followed.c.first_product != followed.c.product,
        followed.c.first_feature != followed.c.feature,
    )
    ends = [
        followed.c.first_product,
        followed.c.first_feature,
        followed.c.product.label("then_product"),
        followed.c.feature.label("then_feature"),
    ]
    by = [followed.c.account, followed.c.user, *ends]
    within = sa.and_(followed.c.first_session == followed.c.session, is_other)
    times = sa.func.count().label("times")
    of_day = sa.select(*by, followed.c.day, times).where(within).group_by(*by, followed.c.day).subquery("of_day")
    keys = [of_day.c[name] for name in (*_USER, *_WAY)]
    figures = [_sum(of_day.c.times).label("times"), sa.func.count().label("days")]
    return sa.select(*keys, *figures).group_by(*keys).cte("of_user")


def _total(use: sa.CTE, of_user: sa.CTE, way: sa.CTE) -> sa.Subquery:
    """One row: what is true of all ways, and of all users."""
    day = sa.select(use.c.account, use.c.user, use.c.day).group_by(use.c.account, use.c.user, use.c.day).subquery("day")
    days = sa.func.count().label("days")
    active = sa.select(days).select_from(day).group_by(day.c.account, day.c.user).cte("active")
    most = sa.func.max(of_user.c.days).label("days")
    usual = sa.select(most).group_by(of_user.c.account, of_user.c.user).cte("usual")
    figures = {
        "all_times": sa.select(_sum(way.c.times)),
        "all_ways": sa.select(sa.func.count()).select_from(way),
        "all_users": sa.select(sa.func.count()).select_from(active),
        "active_days": sa.select(_sum(active.c.days)),
        "walkers": sa.select(sa.func.count()).select_from(usual),
        "routine_days": sa.select(_sum(usual.c.days)),
    }
    return sa.select(*(each.scalar_subquery().label(name) for name, each in figures.items())).subquery("total")


def _sum(column: Any) -> Any:
    return sa.func.coalesce(sa.func.sum(column), _ZERO).cast(sa.BigInteger)


def _present(filters: tuple[FilterShape, ...], keys: tuple[str, ...], *, bucketed: bool) -> sa.CTE:
    """How many users of each group were there from each instant on; a session lasts from its first use to its last."""
    use = _uses(filters, keys, with_days=False)
    by = [use.c[name].label(f"key_{name}") for name in keys]
    who = [use.c[name] for name in dict.fromkeys((*_USER, *keys))]
    at = use.c.occurred_at
    bounds = (sa.func.min(at).label("began_at"), sa.func.max(at).label("ended_at"))
    session = sa.select(*by, *bounds).group_by(*who, use.c.session).cte("session")
    of = [session.c[f"key_{name}"] for name in keys]
    steps = [
        sa.select(*of, session.c.began_at.label("at"), _ONE.label("change")),
        sa.select(*of, session.c.ended_at.label("at"), _LESS_ONE.label("change")),
    ]
    if bucketed:
        # Who is there as a bucket begins is there in it, whether or not anybody comes.
        starts = sa.func.unnest(_array("bounds", INSTANT)).table_valued("at").render_derived(name="bound")
        steps.append(sa.select(starts.c.at, _ZERO.label("change")))
    step = sa.union_all(*steps).cte("step")
    grouped = [step.c[f"key_{name}"] for name in keys]
    # Who begins at the instant at which another ends is there with that one.
    users = sa.func.sum(step.c.change).over(
        partition_by=grouped or None, order_by=(step.c.at, step.c.change.desc()), rows=(None, 0)
    )
    return sa.select(*grouped, step.c.at, users.label("users")).cte("present")
