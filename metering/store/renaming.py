"""Other names for users and devices of an account, in every rollup; together with events, so that both say the same."""

from collections.abc import Mapping
from typing import Final

import msgspec

from metering.store.pool import Connection, Database
from metering.store.rollup_statements import rename
from metering.store.rollup_tables import rollups_of
from metering.store.tables import MINUTE_ROLLUPS, ROLLUPS

# A user's years, in a table of everyone's.
_STATEMENT_SECONDS_MAX: Final = 3_600
_PERSONAL: Final = ("user", "device")


async def rename_in_rollups(
    connection: Connection, database: Database, account: str, names: Mapping[str, Mapping[str, str]]
) -> None:
    """Rename the values of these dimensions, from which to what, in a transaction in which nobody refreshes rollups."""
    assert connection.is_in_transaction(), "rollups and events are renamed together"
    kept_in = await rollups_of(database).kept_in(connection)
    for rollup in (*ROLLUPS, *MINUTE_ROLLUPS):
        for dimension in _PERSONAL:
            if dimension in rollup.dimensions and names.get(dimension):
                table = kept_in.get(rollup.name, rollup.name)
                told = msgspec.json.encode(names[dimension]).decode()
                await connection.execute(rename(dimension, table), account, told, timeout=_STATEMENT_SECONDS_MAX)
