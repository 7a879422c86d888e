"""Attributes over time: what accounts, subscriptions and users are said to be, from when on, and since when we know it.

Rows are only added. What an account or a subscription has now stays beside it, as it was put; here is how it came about, so
that segments, roles, plans and champions have a history. Users have their attributes here alone.
"""

from collections.abc import Mapping, Sequence
from datetime import date, datetime
from typing import Any

import msgspec

from metering.store.pool import Connection
from metering.store.queries import sql
from metering.store.snapshot import Snapshot
from metering.subjects import SubjectRef, names_of


async def log_attributes(
    connection: Connection, ref: SubjectRef, attributes: Mapping[str, Any], by: str, at: datetime | None = None
) -> None:
    """Log that from an instant on (now, if None) a subject has these attributes and no others; what is so already is not said
    again. Its scores are then to be computed anew. Within the caller's transaction, in which nobody else says anything of it.
    """
    written = msgspec.json.encode(attributes).decode()
    since = await connection.fetchval(
        sql("attributes.log_attributes"), ref.account, ref.subject.value, ref.key, written, at, by
    )
    if since is not None:
        await mark_dirty(connection, ref.account, since)


async def mark_dirty(connection: Connection, account: str, since: date | None = None) -> None:
    """Have the scores of an account, and of all in it, computed anew from a UTC day on (today, if None)."""
    await connection.execute(sql("attributes.mark_dirty"), [account], [since])


async def mark_dirty_of(connection: Connection, since: Mapping[str, date]) -> None:
    """The same of several accounts, each from its own day on."""
    await connection.execute(sql("attributes.mark_dirty"), list(since), list(since.values()))


async def read_attributes(snapshot: Snapshot, refs: Sequence[SubjectRef], at: datetime) -> list[dict[str, Any]]:
    """What subjects are said to be at an instant, in order; nothing to who reaches some subscriptions only, for it is said of
    users and accounts as a whole. One statement; which subjects are within reach is the caller's to know.
    """
    found: list[dict[str, Any]] = [{} for _ in refs]
    if snapshot.reach.subscriptions is not None:
        return found
    for row in await snapshot.fetch(sql("attributes.find_attributes"), [*names_of(refs), at]):
        found[row["position"]] = msgspec.json.decode(row["attributes"] or "{}")
    return found
