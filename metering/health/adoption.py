"""What users make of features, on demand: who comes back to one, and whether those stay who tried one.

These are figures of features, and stand in no scorecard.
"""

from collections.abc import Mapping, Sequence
from datetime import date
from typing import Final

import msgspec

from health.proportions import Difference, difference_of
from metering.health.conventions import SERVICE_ACCOUNT, columns_of, read_conventions
from metering.health.gathering import Question, ask
from metering.store.queries import sql
from metering.store.snapshot import Snapshot

RETENTION_WEEKS: Final = 12
# With fewer users on either side nothing is said to be sticky.
_USERS_MIN: Final = 30


class WeekOfUse(msgspec.Struct, frozen=True):
    """Of the users of a feature whose week since the first use is over, how many used it in that week."""

    week: int
    users: int
    active: int


class Stickiness(msgspec.Struct, frozen=True):
    """Whether users stay who used a feature in their first 14 days: kept is active in the days from 56 to 83.

    An association: who stays anyway may try more. Not sticky where one side has fewer than 30 users.
    """

    feature: str
    used: int
    used_kept: int
    others: int
    others_kept: int
    lift: Difference

    @property
    def is_sticky(self) -> bool:
        """Whether more of the users stay, for all that chance can do."""
        return min(self.used, self.others) >= _USERS_MIN and self.lift.low > 0


async def read_feature_retention(
    snapshot: Snapshot, accounts: Sequence[str] | None, as_of: date
) -> Mapping[str, Sequence[WeekOfUse]]:
    """Of each feature, how many of its users come back, by whole weeks since the first use; incomplete ones are left out."""
    question = await ask(snapshot, accounts, as_of)
    service = await service_accounts(question)
    rows = await question.of_lookback(sql("adoption.list_retention"), *service, RETENTION_WEEKS)
    found: dict[str, list[WeekOfUse]] = {}
    for row in rows:
        found.setdefault(row["feature"], []).append(WeekOfUse(row["week"], row["users"], row["active"]))
    return found


async def read_stickiness(snapshot: Snapshot, accounts: Sequence[str] | None, as_of: date) -> Sequence[Stickiness]:
    """Of each feature, whether users stay who tried it; the largest lift first."""
    question = await ask(snapshot, accounts, as_of)
    rows = await question.of_lookback(sql("adoption.count_kept"), *await service_accounts(question))
    ((everybody, all_kept),) = ((row["users"], row["kept"]) for row in rows if row["feature"] is None)
    found = []
    for row in rows:
        if row["feature"] is not None:
            used, kept = row["users"], row["kept"]
            others, others_kept = everybody - used, all_kept - kept
            lift = difference_of(kept, used, others_kept, others)
            found.append(Stickiness(row["feature"], used, kept, others, others_kept, lift))
    return sorted(found, key=lambda each: (-each.lift.value, each.feature))


async def service_accounts(question: Question) -> tuple[list[str], list[str]]:
    """Users that are no persons as of the question's day: their accounts, and their keys."""
    conventions = await read_conventions(question.snapshot, question.accounts, question.as_of)
    return columns_of(conventions.users(SERVICE_ACCOUNT))
