"""Recorded events by the same filters as figures, a page at a time in a total order."""

from functools import lru_cache
from typing import Final

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql

from metering.store.tables import INSTANT, TEXT, event
from metering.store.usage_query import Compiled, FilterShape, compiled, keeps

_COLUMNS: Final = tuple(event.c)


@lru_cache(maxsize=1_000)
def events_statement(filters: tuple[FilterShape, ...], *, after: bool, attributes: bool) -> Compiled:
    """Events of a period, newest first; ties by account and key."""
    at, account, key = event.c.occurred_at, event.c.account, event.c.key
    conditions = [
        at >= sa.bindparam("period_from", type_=INSTANT),
        at < sa.bindparam("period_to", type_=INSTANT),
        *(keeps(event.c[chosen.dimension], chosen) for chosen in filters),
    ]
    if attributes:
        conditions.append(event.c.attributes.contains(sa.bindparam("attributes", type_=postgresql.JSONB)))
    if after:
        after_at = sa.bindparam("after_at", type_=INSTANT)
        after_account = sa.bindparam("after_account", type_=TEXT)
        after_key = sa.bindparam("after_key", type_=sa.LargeBinary)
        behind = sa.tuple_(account, key) > sa.tuple_(after_account, after_key)
        # The first comparison alone is what the index and the partitions understand.
        conditions += [at <= after_at, sa.or_(at < after_at, behind)]
    order = (at.desc(), account, key)
    first = sa.bindparam("first", type_=sa.BigInteger)
    return compiled(sa.select(*_COLUMNS).where(*conditions).order_by(*order).limit(first))
