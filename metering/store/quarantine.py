"""The quarantine as the writer sees it: kept and removed in the transaction of the events that came with it.

Whoever changes the quarantine locks the one row of `quarantine_size` first and until it commits: so its bounds hold at every
commit, whoever else writes, and nobody meets anybody's row locks in another order. Requests of which nothing is refused never
come here. See docs/adr/0006.
"""

from collections.abc import Sequence
from datetime import datetime
from typing import Final, NamedTuple

import msgspec

from metering.limits import Limits
from metering.store.pool import Connection, Database
from metering.store.queries import sql


class RejectedRow(NamedTuple):
    """A rejected event to be kept; the fields are the columns, in the order of the statement."""

    # The row that it replaces, if that is still there; None for one of its own.
    id: int | None
    received_at: datetime
    digest: bytes
    sent_by: str
    source: str | None
    code: str
    message: str
    path: str | None
    media_type: str
    body: str
    body_bytes: int
    is_exact: bool
    kept_bytes: int


class Changes(msgspec.Struct, frozen=True):
    """What a transaction changes in the quarantine: rows to be kept, and ids of those whose events are recorded now."""

    refused: Sequence[RejectedRow] = ()
    settled: Sequence[int] = ()

    @property
    def is_nothing(self) -> bool:
        """Whether there is nothing to do."""
        return not self.refused and not self.settled


NO_CHANGES: Final = Changes()


async def change(connection: Connection, changes: Changes, limits: Limits) -> None:
    """Make these changes in the transaction of this connection, and stay within the bounds."""
    refused = changes.refused
    size = await connection.fetchrow(sql("quarantine.enter"), len(refused), sum(row.kept_bytes for row in refused))
    assert size is not None, "the migration puts one row there"
    replaced = [row.id for row in refused if row.id is not None]
    if replaced or changes.settled:
        removed = await connection.fetch(sql("quarantine.remove"), [*replaced, *changes.settled])
        there = {row["id"] for row in removed}
        # One that is gone was recorded, or forgotten, meanwhile: it does not come back.
        refused = [row for row in refused if row.id is None or row.id in there]
        # Of two that say the same, the one that was retried stays: whoever retried it finds it again.
        await connection.execute(sql("quarantine.remove_twins"), [row.digest for row in refused if row.id is not None])
    rows = _one_for_each_digest(refused)
    if rows:
        await connection.execute(sql("quarantine.keep"), *map(list, zip(*rows, strict=True)))
    if size["events"] > limits.rejected_events_max or size["bytes"] > limits.rejected_bytes_max:
        # A tenth at a time, so that counting everything is shared by the many that fill it again.
        room = (_nine_tenths(limits.rejected_events_max), _nine_tenths(limits.rejected_bytes_max))
        await connection.execute(sql("quarantine.trim"), *room)
        await connection.execute(sql("quarantine.recount"))


async def forget_older(database: Database, before: datetime) -> int:
    """Forget what was received before this instant, and say how many that were."""
    async with database.transaction() as connection:
        if not await connection.fetchval(sql("quarantine.has_older"), before):
            return 0
        await connection.execute(sql("quarantine.enter"), 0, 0)
        forgotten: int = await connection.fetchval(sql("quarantine.forget_older"), before)
        return forgotten


def _one_for_each_digest(rows: Sequence[RejectedRow]) -> list[RejectedRow]:
    """Without those that say the same again; one that replaces a row comes before one that would be new."""
    return list({row.digest: row for row in sorted(rows, key=lambda row: row.id is not None)}.values())


def _nine_tenths(whole: int) -> int:
    return whole - whole // 10
