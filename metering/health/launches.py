"""How a new feature is received: who took it up since its first use, who came back, and what those say who use it."""

import asyncio
from collections.abc import Sequence
from datetime import date, timedelta
from typing import Any, Final

import msgspec

from health.reception import Uptake
from metering.health.adoption import service_accounts
from metering.health.gathering import LOOKBACK_DAYS, ask
from metering.store.queries import sql
from metering.store.snapshot import Snapshot

# Of users, these are what surveys are answered with.
ANSWERS: Final = ("ces", "csat", "nps")


class Launch(msgspec.Struct, frozen=True):
    """A feature since its first use within a year: who was active in the product from that day on, with days counted from it."""

    first_on: date
    days: int
    # Account and key of each, in the order of `users`.
    names: Sequence[tuple[str, str]]
    users: Sequence[Uptake]


class Answers(msgspec.Struct, frozen=True):
    """Of a survey: how many users answered, and the mean of their newest answers."""

    name: str
    has_used: bool
    answers: int
    mean: float


async def read_launch(
    snapshot: Snapshot, accounts: Sequence[str] | None, product: str, feature: str, as_of: date
) -> Launch | None:
    """A feature of a product in the year before a UTC day; None where nobody used it. Accounts of None are all within reach."""
    if "\0" in product + feature:
        return None
    question = await ask(snapshot, accounts, as_of)
    service = await service_accounts(question)
    rows = await question.of_lookback(sql("launches.list_uptake"), *service, product, feature)
    # Of many users this takes a while, in which others are served.
    return await asyncio.to_thread(_launch, rows, as_of)


async def read_answers(snapshot: Snapshot, launch: Launch, as_of: date) -> list[Answers]:
    """What those answered since the launch who used the feature, and what the others did."""
    rows = await snapshot.fetch(
        sql("launches.compare_answers"),
        [
            [account for account, _ in launch.names],
            [key for _, key in launch.names],
            [bool(user.used) for user in launch.users],
            *(launch.first_on, as_of, ANSWERS),
        ],
        hashed=True,
    )
    return [Answers(row["name"], row["has_used"], row["answers"], row["mean"]) for row in rows]


def _launch(rows: Sequence[Any], as_of: date) -> Launch | None:
    lives = [((row["account"], row["key"]), _days(row["days"]), _days(row["used"])) for row in rows]
    start = min((used[0] for _, _, used in lives if used), default=None)
    if start is None:
        return None
    since = [(name, _since(days, start), _since(used, start)) for name, days, used in lives]
    eligible = [(name, Uptake(days, used)) for name, days, used in since if days]
    return Launch(
        first_on=as_of - timedelta(days=LOOKBACK_DAYS - start),
        days=LOOKBACK_DAYS - start,
        names=[name for name, _ in eligible],
        users=[uptake for _, uptake in eligible],
    )


def _days(bits: str) -> tuple[int, ...]:
    return tuple(day for day, is_active in enumerate(bits) if is_active == "1")


def _since(days: Sequence[int], start: int) -> tuple[int, ...]:
    return tuple(day - start for day in days if day >= start)
