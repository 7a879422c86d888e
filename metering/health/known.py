"""What is known of accounts and of all in them on a day, but for what is measured: who there is, what they are said to be."""

from collections.abc import Mapping, Sequence
from datetime import UTC, date, datetime, time, timedelta
from typing import Any, Final

import msgspec

from health.overrides import Override
from health.score import Health
from health.scorecards import Scalar, Subject
from health.stages import Life
from metering.health.choosing import Contract
from metering.health.records import health_of
from metering.store.queries import sql
from metering.store.snapshot import Snapshot
from metering.subjects import SubjectRef, names_of

# Who has not been seen for so long, and of whom nothing was said, is nobody's user any more.
_USERS_SEEN_DAYS: Final = 180
# Accounts that were never put are known by usage within the windows of all metrics.
_CUSTOMERS_SEEN_DAYS: Final = 112


class Known(msgspec.Struct, frozen=True):
    """Subjects, with what is known of each."""

    refs: tuple[SubjectRef, ...]
    contracts: Mapping[str, Sequence[Contract]]
    attributes: Mapping[SubjectRef, Mapping[str, Scalar]]
    overrides: Mapping[SubjectRef, Mapping[str, Sequence[Override]]]


async def list_customers(snapshot: Snapshot, after: str | None, first: int, day: date) -> list[str]:
    """The first accounts by key behind one that there are on a day."""
    start = midnight_after(day) - timedelta(days=_CUSTOMERS_SEEN_DAYS)
    accounts = snapshot.reach.accounts
    within = None if accounts is None else list(accounts)
    rows = await snapshot.fetch(sql("health.list_customers"), [after, start, midnight_after(day), first, within])
    return [row["account"] for row in rows]


async def read_known(snapshot: Snapshot, accounts: Sequence[str], day: date) -> Known:
    """What is known of these accounts at the end of a UTC day. Four statements."""
    end = midnight_after(day)
    contracts: dict[str, list[Contract]] = {}
    refs = [SubjectRef(Subject.ACCOUNT, account, account) for account in accounts]
    for row in await snapshot.fetch(sql("health.list_contracts"), [accounts, end]):
        contracts.setdefault(row["account"], []).append(_contract(row))
    refs += [each.ref for account in accounts for each in contracts.get(account, ())]
    seen_from = end - timedelta(days=_USERS_SEEN_DAYS)
    users = await snapshot.fetch(sql("health.list_users"), [accounts, seen_from, end])
    refs += [SubjectRef(Subject.USER, row["account"], row["user"]) for row in users]
    attributes: dict[SubjectRef, dict[str, Scalar]] = {}
    for row in await snapshot.fetch(sql("health.list_attributes"), [accounts, end]):
        value = msgspec.json.decode(row["value"])
        if isinstance(value, str | int | float | bool):
            attributes.setdefault(_ref(row), {})[row["name"]] = value
    return Known(tuple(refs), contracts, attributes, await _overrides(snapshot, accounts, day))


async def read_previous(
    snapshot: Snapshot, refs: Sequence[SubjectRef], purposes: Mapping[Subject, Sequence[str]], day: date
) -> Mapping[SubjectRef, Mapping[str, Health]]:
    """The scores of subjects as of a day, by purpose."""
    asked = [(ref, purpose) for ref in refs for purpose in purposes[ref.subject]]
    rows = await snapshot.fetch(
        sql("health.find_scores"),
        [
            *names_of([ref for ref, _ in asked]),
            [purpose for _, purpose in asked],
            [day] * len(asked),
            [None] * len(asked),
        ],
    )
    found: dict[SubjectRef, dict[str, Health]] = {}
    for row in rows:
        ref, purpose = asked[row["position"]]
        found.setdefault(ref, {})[purpose] = health_of(row)
    return found


def midnight_after(day: date) -> datetime:
    """The first instant that is after a UTC day."""
    return datetime.combine(day + timedelta(days=1), time(), UTC)


async def _overrides(
    snapshot: Snapshot, accounts: Sequence[str], day: date
) -> Mapping[SubjectRef, Mapping[str, Sequence[Override]]]:
    found: dict[SubjectRef, dict[str, list[Override]]] = {}
    for row in await snapshot.fetch(sql("health.list_overrides"), [accounts, day]):
        override = Override(
            reason=row["reason"],
            set_on=row["set_on"],
            expires_on=row["expires_on"],
            min=row["lowest"],
            max=row["highest"],
        )
        found.setdefault(_ref(row), {}).setdefault(row["purpose"], []).append(override)
    return found


def _ref(row: Any) -> SubjectRef:
    return SubjectRef(Subject(row["subject"]), row["account"], row["key"])


def _contract(row: Any) -> Contract:
    life = Life(
        starts_on=_day(row["starts_at"]),
        trial_ends_on=None if row["trial_ends_at"] is None else _day(row["trial_ends_at"]),
        renews_on=None if row["renews_at"] is None else _day(row["renews_at"]),
        ends_on=None if row["ends_at"] is None else _day(row["ends_at"]),
    )
    weight = 0.0 if row["monthly_amount"] is None else float(row["monthly_amount"])
    return Contract(SubjectRef(Subject.SUBSCRIPTION, row["account"], row["key"]), life, row["plan"], weight)


def _day(instant: datetime) -> date:
    return instant.astimezone(UTC).date()
