"""docs/api.md as a program reads it: sections, each with who asks, its documents, and the answers that it shows; and its year."""

import asyncio
import re
from datetime import date, timedelta
from itertools import islice
from pathlib import Path
from typing import Final

import msgspec

from metering.config import Settings
from metering.demo.story import demo_events
from metering.health.measuring import Measurer
from metering.health.scoring import keep, score_accounts
from metering.keys import Scope
from metering.limits import LIMITS
from metering.reach import EVERYTHING
from metering.store.pool import Database
from metering.store.snapshot import Snapshot
from tests.conftest import running
from tests.metering.billing import roll_up

GUIDE: Final = Path(__file__).parents[2] / "docs" / "api.md"
# The day before which the guide's year ends, and of whom it tells.
THROUGH: Final = date(2026, 9, 1)
ACCOUNTS: Final = frozenset(
    {
        *("ashdown-family", "fennimore-gardens", "zephyr-drones", "kingfisher-canals"),
        *("blue-heron-tours", "paper-kite-films"),
    }
)
_BLOCK: Final = re.compile(r"```graphql\n(.*?)```\n\n```json\n(.*?)```", re.DOTALL)


class Asked(msgspec.Struct, frozen=True):
    """A document, and the text of its answer's data."""

    document: str
    answer: str


class Section(msgspec.Struct, frozen=True):
    """What one audience asks, with which scopes, bound to which account."""

    audience: str
    scopes: list[Scope]
    account: str | None
    asked: list[Asked]


def sections(text: str) -> list[Section]:
    """The sections of the guide."""
    found = []
    for part in text.split("\n## ")[1:]:
        audience, _, body = part.partition("\n")
        scopes = re.findall(r"`(\w+)`", re.findall(r"^Scopes: (.*)$", body, re.MULTILINE)[0])
        bound = re.findall(r"^Bound to the account `(.*)`\.$", body, re.MULTILINE)
        asked = [Asked(document, answer) for document, answer in _BLOCK.findall(body)]
        found.append(Section(audience, [Scope(scope) for scope in scopes], bound[0] if bound else None, asked))
    return found


def load_year(url: str) -> None:
    """Fill a database with the year of the accounts that the guide tells of, and roll it up as a service does in time."""
    with running(url) as api:
        events = iter(demo_events(THROUGH, accounts=ACCOUNTS))
        while page := list(islice(events, LIMITS.body_events_max)):
            assert len(page) == api.send(page)["accepted"]
    asyncio.run(_rolled_up(url))


def score_last_day(url: str) -> None:
    """Score these accounts on the year's last day, as a service does that is there then."""
    asyncio.run(_scored(url))


async def _scored(url: str) -> None:
    database = await Database.connect(Settings(database_url=url), LIMITS)
    try:
        async with Snapshot(database, EVERYTHING) as snapshot:
            measure = Measurer(database).measure
            scores = await score_accounts(snapshot, measure, sorted(ACCOUNTS), THROUGH - timedelta(days=1))
        async with database.transaction() as connection:
            await keep(connection, scores)
    finally:
        await database.close()


async def _rolled_up(url: str) -> None:
    database = await Database.connect(Settings(database_url=url), LIMITS)
    try:
        await roll_up(database)
        async with database.connection() as connection:
            # As the database does by itself, a while after so much was added.
            await connection.execute("ANALYZE")
    finally:
        await database.close()
