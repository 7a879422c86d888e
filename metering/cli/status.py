"""`metering status`."""

import asyncio
from datetime import datetime, timedelta
from pathlib import Path
from typing import Final

import msgspec
import rich.table
from rich.text import Text

from metering.cli.console import OUT, say
from metering.cli.running import with_database
from metering.config import Settings, read_settings
from metering.limits import LIMITS
from metering.loops import Loop, read_loops
from metering.store.pool import Database

_SECOND: Final = timedelta(seconds=1)


def status(*, json: bool = False, data_dir: Path | None = None) -> None:
    """Show the loops of background work: who runs each, when it ran last, how far behind it is, and what it fails of.

    Example: `metering status`, or `metering status --json`

    Parameters
    ----------
    json
        Answer as one JSON document instead of a table.
    data_dir
        Where the embedded PostgreSQL lives [METERING_DATA_DIR, ./.metering].
    """
    with with_database(read_settings(data_dir=data_dir)) as settings:
        loops = asyncio.run(_read(settings))
    if json:
        say(msgspec.json.encode([_document(each) for each in loops]).decode())
        return
    table = rich.table.Table("loop", "run by", "last run", "last success", "lag", "failures", "failed of")
    for each in loops:
        cells = [
            each.name,
            each.process or "nobody yet",
            _shown(each.started_at),
            _shown(each.ran_at),
            "" if each.lag is None else f"{each.lag // _SECOND:,} s",
            f"{each.failures:,}",
            f"{each.fault_code}: {each.fault}" if each.failures else "",
        ]
        table.add_row(*(Text(cell) for cell in cells))
    OUT.print(table)


async def _read(settings: Settings) -> list[Loop]:
    database = await Database.connect(settings, LIMITS)
    try:
        return await read_loops(database)
    finally:
        await database.close()


def _shown(instant: datetime | None) -> str:
    return "never" if instant is None else f"{instant:%FT%TZ}"


def _document(loop: Loop) -> dict[str, object]:
    """A loop as JSON; its lag in seconds."""
    document = msgspec.structs.asdict(loop)
    lag = document.pop("lag")
    return {**document, "lag_seconds": None if lag is None else lag.total_seconds()}
