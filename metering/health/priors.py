"""Priors: what is usual among those whom a scorecard scores, frozen for a version and month.

A measure whose prior is "peers" has the median of its scores where they were observed, of all whom its card scored; its card's
condition is what makes them alike. It is computed once in a month from what was measured before, and then holds until the next
one: scores do not drift with everybody else's from day to day, and when priors move, the change says BASELINE.
"""

import asyncio
from collections.abc import Collection, Mapping, Sequence
from datetime import date, timedelta
from typing import Any, Final

import msgspec

from health.peers import prior_of
from health.score import DriverState, evaluate
from health.scorecards import Path, Scorecard, leaves_of
from metering.health.cards import Version, read_cards
from metering.health.choosing import Priors
from metering.health.known import list_customers
from metering.health.records import metrics_of
from metering.limits import Limits
from metering.reach import EVERYTHING
from metering.store.pool import Database
from metering.store.queries import sql
from metering.store.snapshot import Snapshot

_DAY: Final = timedelta(days=1)


class Frozen(msgspec.Struct, frozen=True):
    """Priors of a version, and from which day on they hold."""

    since: date
    priors: Priors


async def read_priors(snapshot: Snapshot, cards: Sequence[Scorecard], day: date) -> dict[Version, Frozen]:
    """The priors of these cards that hold on a day. No statement where no card has any."""
    if not any(peer_paths(card) for card in cards):
        return {}
    found: dict[Version, dict[Path, float]] = {}
    since: dict[Version, date] = {}
    for row in await snapshot.fetch(sql("priors.find_priors"), [day]):
        version = row["key"], row["version"]
        since[version] = row["since"]
        found.setdefault(version, {})[tuple(msgspec.json.decode(row["path"]))] = row["prior"]
    return {version: Frozen(since[version], priors) for version, priors in found.items()}


async def list_priors(snapshot: Snapshot, card: Scorecard) -> list[Frozen]:
    """All priors that a card ever had, the earliest first. No statement where it has none."""
    if not peer_paths(card):
        return []
    found: dict[date, dict[Path, float]] = {}
    for row in await snapshot.fetch(sql("priors.list_priors"), [card.key, card.version]):
        found.setdefault(row["since"], {})[tuple(msgspec.json.decode(row["path"]))] = row["prior"]
    return [Frozen(since, priors) for since, priors in found.items()]


def priors_on(frozen: Sequence[Frozen], day: date) -> Priors:
    """Those that held on a day, of all that a card ever had."""
    return next((each.priors for each in reversed(frozen) if each.since <= day), {})


async def priors_of(snapshot: Snapshot, cards: Sequence[Scorecard], day: date) -> dict[Version, Priors]:
    """The same, without since when."""
    return {version: frozen.priors for version, frozen in (await read_priors(snapshot, cards, day)).items()}


class Freezer:
    """Freezes priors when they are due."""

    def __init__(self, database: Database, limits: Limits) -> None:
        self._database = database
        self._limits = limits
        # Of whom enough peers were not known on a day: nobody is looked through again for that day.
        self._tried: set[tuple[Version, date]] = set()

    async def run(self, day: date) -> None:
        """Freeze the priors of each card in force that has none of this day's month, where enough peers are known."""
        async with Snapshot(self._database, EVERYTHING) as snapshot:
            cards = [each.card for each in (await read_cards(snapshot)).newest if peer_paths(each.card)]
            known = await read_priors(snapshot, cards, day)
            missing = [card for card in cards if self._is_due(card, known, day)]
            found = [(card, await medians(snapshot, card, day, self._limits)) for card in missing]
        # The daily scores may be as far behind as days are scored again.
        since = day - (self._limits.health_restated_days_max + 1) * _DAY
        self._tried = {(version, tried_on) for version, tried_on in self._tried if tried_on >= since}
        for card, priors in found:
            self._tried.add(((card.key, card.version), day))
            if priors:
                await self._keep(card, priors, day)

    def _is_due(self, card: Scorecard, known: Mapping[Version, Frozen], day: date) -> bool:
        version = card.key, card.version
        frozen = known.get(version)
        is_of_month = frozen is not None and (frozen.since.year, frozen.since.month) == (day.year, day.month)
        return not is_of_month and (version, day) not in self._tried

    async def _keep(self, card: Scorecard, priors: Mapping[Path, tuple[float, int]], day: date) -> None:
        paths = [msgspec.json.encode(path).decode() for path in priors]
        usual, peers = zip(*priors.values(), strict=True)
        async with self._database.transaction() as connection:
            await connection.execute(
                sql("priors.keep_priors"), card.key, card.version, day, paths, list(usual), list(peers)
            )


async def medians(snapshot: Snapshot, card: Scorecard, day: date, limits: Limits) -> dict[Path, tuple[float, int]]:
    """The median of each measure of peers as of a day, and of how many it is; none where these are too few."""
    paths = peer_paths(card)
    scores: dict[Path, list[float]] = {path: [] for path in paths}
    after: str | None = None
    while accounts := await list_customers(snapshot, after, limits.health_page_accounts, day):
        after = accounts[-1]
        rows = await snapshot.fetch(
            sql("priors.list_measured"), [accounts, card.subject.value, card.purpose, card.key, day - _DAY]
        )
        # A moment of calculation for each: others are served meanwhile.
        for path, of_page in (await asyncio.to_thread(_scores, card, paths, rows)).items():
            scores[path] += of_page
    usual = {path: (prior_of(of_path), len(of_path)) for path, of_path in scores.items()}
    return {path: (prior, peers) for path, (prior, peers) in usual.items() if prior is not None}


def _scores(card: Scorecard, paths: Collection[Path], rows: Sequence[Any]) -> dict[Path, list[float]]:
    """What these measures come to by the card, where they are known."""
    found: dict[Path, list[float]] = {}
    for row in rows:
        for driver in evaluate(card, metrics_of(row["metrics"]), as_of=row["as_of"]).drivers:
            is_known = driver.state in {DriverState.OBSERVED, DriverState.STALE} and driver.known > 0
            if is_known and driver.path in paths and driver.score is not None:
                found.setdefault(driver.path, []).append(driver.score)
    return found


def peer_paths(card: Scorecard) -> frozenset[Path]:
    """The measures of a card whose prior is of peers."""
    return frozenset(leaf.path for leaf in leaves_of(card) if leaf.measure.prior == "peers")
