"""Thresholds of early warnings: data, in versions that never change; before the first one, the defaults of health/alarms.py."""

from collections.abc import Mapping
from datetime import date, datetime
from typing import Any

import msgspec

from health.alarms import DEFAULTS, Thresholds
from health.threshold_faults import checked_thresholds
from metering.errors import ForbiddenError, InputIssue, InvalidInputError
from metering.events import in_utc
from metering.health.known import midnight_after
from metering.keys import Caller
from metering.store.pool import Database
from metering.store.queries import sql
from metering.store.snapshot import Snapshot


class PutThresholds(msgspec.Struct, frozen=True):
    """Thresholds in a version; those that are there from the start are version 0, which nobody put."""

    version: int
    thresholds: Thresholds
    put_at: datetime | None


FIRST = PutThresholds(0, DEFAULTS, None)


async def read_thresholds(snapshot: Snapshot) -> PutThresholds:
    """The thresholds in force."""
    rows = await snapshot.fetch(sql("thresholds.find_newest"))
    return _put(rows[0]) if rows else FIRST


async def read_thresholds_of(snapshot: Snapshot, day: date) -> PutThresholds:
    """The thresholds that were in force as a UTC day ended. One statement."""
    rows = await snapshot.fetch(sql("thresholds.find_of_day"), [midnight_after(day)])
    return _put(rows[0]) if rows else FIRST


async def put_thresholds(database: Database, given: Mapping[str, Any], key: Caller) -> PutThresholds:
    """Have these thresholds in force, those that are left out as they are by default; the same again are the same version.

    Raises InvalidInputError with every fault; ForbiddenError for a key that is bound to accounts.
    """
    if key.accounts is not None:
        raise ForbiddenError(f"The key {key.prefix} is bound to accounts; thresholds are everyone's.")
    checked = checked_thresholds(given)
    if not isinstance(checked, Thresholds):
        raise InvalidInputError(
            [
                InputIssue(("input", "thresholds", *fault.path), f"{fault.message[0].upper()}{fault.message[1:]}.")
                for fault in checked
            ]
        )
    async with database.transaction() as connection:
        await connection.execute(sql("attributes.take_turns"), "warning thresholds")
        row = await connection.fetchrow(sql("thresholds.find_newest"))
        newest = FIRST if row is None else _put(row)
        if newest.thresholds == checked:
            return newest
        text = msgspec.json.encode(checked).decode()
        made = await connection.fetchrow(sql("thresholds.insert_thresholds"), newest.version + 1, text, key.signature)
        return _put(made)


def _put(row: Any) -> PutThresholds:
    thresholds = msgspec.json.decode(row["thresholds"], type=Thresholds)
    return PutThresholds(row["version"], thresholds, in_utc(row["put_at"]))
