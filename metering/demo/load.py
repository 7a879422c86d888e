"""Load the demo's year through the real endpoint, once; broken off, it goes on with the same year."""

from collections.abc import Callable, Iterator
from datetime import UTC, date, datetime
from typing import Final

import msgspec

from metering.config import Settings
from metering.demo.story import demo_events
from metering.errors import ConfigurationError
from metering.limits import LIMITS
from metering.sender import NumberedLine, Sent, send_events
from metering.store.pool import Database
from metering.store.queries import sql

_ENCODER: Final = msgspec.json.Encoder()


class DemoYear(msgspec.Struct, frozen=True):
    """The year that the demo shows: it ends before `through`."""

    through: date
    loaded: bool


async def begin(settings: Settings, through: date | None = None) -> DemoYear:
    """The year that is loaded, or being loaded; else the one before `through`, or before today, begins now.

    Raises ConfigurationError where another year is there already, or the year is not over.
    """
    database = await Database.connect(settings, LIMITS)
    try:
        async with database.transaction() as connection:
            row = await connection.fetchrow(sql("demo.read_load"))
            if row is not None:
                _check_same(row["through"], through)
                return DemoYear(row["through"], loaded=row["loaded_at"] is not None)
            today = datetime.now(UTC).date()
            through = through or today
            if through > today:
                raise ConfigurationError([f"--through: {through} is yet to come; the year ends before it."])
            await connection.execute(sql("demo.begin_load"), through)
            return DemoYear(through, loaded=False)
    finally:
        await database.close()


def _check_same(loaded: date, asked: date | None) -> None:
    if asked not in {None, loaded}:
        message = (
            f"--through: the year before {loaded} is here already, not that before {asked}; choose another --data-dir."
        )
        raise ConfigurationError([message])


async def load(settings: Settings, year: DemoYear, url: str, key: str, on_batch: Callable[[int], None]) -> Sent:
    """Send the year's events to the service at `url`, and remember that it is done."""
    sent = await send_events(_lines(year.through), url, key, on_batch)
    database = await Database.connect(settings, LIMITS)
    try:
        async with database.connection() as connection:
            await connection.execute(sql("demo.finish_load"), year.through)
    finally:
        await database.close()
    return sent


def _lines(through: date) -> Iterator[NumberedLine]:
    for number, event in enumerate(demo_events(through), start=1):
        yield number, _ENCODER.encode(event)
