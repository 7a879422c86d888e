"""What measures are made of, read by a few statements over sets of accounts: what usage shows, and what is sold.

A user is active on a day with an event that is neither a reversal (a quantity below zero) nor classified `background`. Days are
UTC days, and windows end before the day as of which is measured. Nothing is looked back for longer than 52 weeks.
"""

import asyncio
from bisect import bisect_left
from collections.abc import Collection, Iterator, Mapping, Sequence
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from itertools import compress, pairwise
from typing import Any, Final, TypeVar

import msgspec

from health.alarms import DEFAULTS, Thresholds
from health.measurements import Measurement, NotApplicable, Observed, Unknown
from health.scorecards import Subject
from metering.health.conventions import (
    CHAMPION,
    ONBOARDING_STEPS,
    SERVICE_ACCOUNT,
    Conventions,
    columns_of,
    read_conventions,
)
from metering.health.norms import Norms
from metering.health.thresholds import read_thresholds
from metering.store.queries import sql
from metering.store.snapshot import Snapshot
from metering.subjects import SubjectRef

WINDOW_DAYS: Final = 28
LOOKBACK_DAYS: Final = 364
BASELINE_DAYS: Final = 112
WEEKS_MAX: Final = 16

NO_CONTRACT: Final = NotApplicable("no contract is running")

# Days as PostgreSQL writes them, 0 and 1, as what is false and true.
_AS_FLAGS: Final = bytes.maketrans(b"01", b"\0\1")

Row = TypeVar("Row", bound=msgspec.Struct)


class Contract(msgspec.Struct, frozen=True):
    """A subscription that has begun. Seats as of the day, and their mean over the window; None where none are sold."""

    starts_on: date
    is_over: bool
    trial_ends_on: date | None
    renews_on: date | None
    monthly_amount: Decimal | None
    currency_code: str
    seats: int | None
    mean_seats: float | None


class Life(msgspec.Struct, frozen=True):
    """On which days of the lookback a subject was active, as their numbers; of a user also on which subscriptions."""

    since: date
    days: tuple[int, ...] = ()
    events: int = 0
    setup_events: int = 0
    subscriptions: Sequence[str] = ()
    # Of the window.
    window_events: int = 0
    trouble_events: int = 0
    # The first and the last active day: computed once, for they are asked often.
    first_on: date | None = None
    last_on: date | None = None

    def __post_init__(self) -> None:
        if self.days:
            msgspec.structs.force_setattr(self, "first_on", self.since + timedelta(days=self.days[0]))
            msgspec.structs.force_setattr(self, "last_on", self.since + timedelta(days=self.days[-1]))

    def count(self, days_from: int, days_to: int = 0) -> int:
        """How many days were active, from so many before the day to so many before it."""
        first, end = LOOKBACK_DAYS - days_from, LOOKBACK_DAYS - days_to
        return bisect_left(self.days, end) - bisect_left(self.days, first)

    def before_window(self) -> tuple[int, ...]:
        """The active days before the window."""
        return self.days[: bisect_left(self.days, LOOKBACK_DAYS - WINDOW_DAYS)]

    def gaps(self) -> list[int]:
        """The days between neighbouring active days."""
        return [later - earlier for earlier, later in pairwise(self.days)]

    def ages(self, began_on: date, days_max: int) -> list[int]:
        """On which days since a subject began it was active, 0 for the first."""
        start = (began_on - self.since).days
        return [day - start for day in self.days if start <= day < start + days_max]


class FeatureUse(msgspec.Struct, frozen=True):
    """Which features a subject used; events are those with a feature, in 28 days and in the 84 before."""

    feature_events: float
    feature_events_before: float
    features: list[str]
    first_uses: list[date]
    used: list[str]
    used_before: int
    products: list[str]
    effective: float | None
    divergence: float | None


class People(msgspec.Struct, frozen=True):
    """How usage is spread over the users of an account or a subscription."""

    active: int = 0
    active_before: int = 0
    retained: int = 0
    stickiness: float | None = None
    power_users: int = 0
    core_users: int = 0
    casual_users: int = 0
    median_days: float = 0.0
    median_events: float | None = None
    top_share: float | None = None
    effective: float | None = None
    bus_factor: int = 0
    gini: float | None = None
    several_devices: int = 0


class Weeks(msgspec.Struct, frozen=True):
    """What whole weeks say; None with too few of them."""

    drop_z: float | None
    drop_z_week: float | None
    trend: float | None
    usual_dispersion: float
    usual_change: float
    usual_fast_change: float


class Gathered(msgspec.Struct, kw_only=True):
    """All of it, by subject."""

    as_of: date
    conventions: Conventions
    # Who is a champion is said by the thresholds of warnings.
    thresholds: Thresholds = DEFAULTS
    # As they were a window ago.
    champions_before: Mapping[SubjectRef, bool]
    contracts: Mapping[SubjectRef, Contract]
    lives: Mapping[SubjectRef, Life]
    uses: Mapping[SubjectRef, FeatureUse]
    people: Mapping[SubjectRef, People] = {}
    weeks: Mapping[SubjectRef, Weeks] = {}
    # Users of accounts, and contracts of accounts.
    users_of: Mapping[str, list[SubjectRef]] = {}
    contracts_of: Mapping[str, list[SubjectRef]] = {}

    def began_on(self, ref: SubjectRef) -> date | None:
        """When a subject began: with its contract, an account with its first one; otherwise with its first activity."""
        if ref.subject is not Subject.USER:
            refs = [ref] if ref.subject is Subject.SUBSCRIPTION else self.contracts_of.get(ref.account, [])
            starts = [self.contracts[each].starts_on for each in refs if each in self.contracts]
            if starts:
                return min(starts)
        life = self.lives.get(ref)
        return None if life is None else life.first_on

    def running(self, ref: SubjectRef) -> list[Contract]:
        """The contracts of a subject that are not over."""
        refs = [ref] if ref.subject is Subject.SUBSCRIPTION else self.contracts_of.get(ref.account, [])
        contracts = (self.contracts.get(each) for each in refs)
        return [each for each in contracts if each is not None and not each.is_over]

    def seats(self, ref: SubjectRef) -> int | None:
        """The seats of a subject; None where none are sold."""
        seats = [each.seats for each in self.running(ref) if each.seats is not None]
        return sum(seats) if seats else None

    def monthly_amount(self, ref: SubjectRef) -> Measurement:
        """The recurring revenue of a month, in the currency of the subscriptions, if there is one."""
        running = self.running(ref)
        amounts = [each.monthly_amount for each in running if each.monthly_amount is not None]
        if not running:
            return NO_CONTRACT
        if not amounts:
            return Unknown("no amount was told")
        if len({each.currency_code for each in running}) > 1:
            return Unknown("amounts of several currencies")
        return Observed(float(sum(amounts)))


class Question(msgspec.Struct, frozen=True):
    """What every statement about usage is given."""

    snapshot: Snapshot
    accounts: Sequence[str] | None
    as_of: date
    days_end: datetime
    complete_at: datetime
    has_pending: bool

    @property
    def rollups(self) -> tuple[datetime, datetime, bool]:
        """Where the rollups stand, as statements take it."""
        return self.days_end, self.complete_at, self.has_pending

    async def rows(self, statement: str, *arguments: object) -> list[Any]:
        """The rows of a statement; whatever it joins may be large, and PostgreSQL expects little of it."""
        return await self.snapshot.fetch(statement, arguments, hashed=True)

    async def of_lookback(self, statement: str, *arguments: object) -> list[Any]:
        """The rows of a statement over all that is looked back to."""
        since = self.as_of - timedelta(days=LOOKBACK_DAYS)
        return await self.rows(statement, self.accounts, self.as_of, since, *self.rollups, *arguments)

    async def of_window(self, statement: str, *arguments: object) -> list[Any]:
        """The rows of a statement that says itself how far it looks back."""
        return await self.rows(statement, self.accounts, self.as_of, *self.rollups, *arguments)


def within(snapshot: Snapshot, accounts: Collection[str] | None) -> list[str] | None:
    """Those of these accounts (None: of all) that the snapshot reaches; None means all."""
    reached = snapshot.reach.of_accounts(accounts)
    return None if reached is None else sorted(reached)


async def ask(snapshot: Snapshot, accounts: Collection[str] | None, as_of: date) -> Question:
    """The question of what these accounts (None: all) did before a day, with where the rollups of the snapshot stand."""
    horizon = await snapshot.horizon()
    complete_at = horizon.complete_at.astimezone(UTC)
    days_end = complete_at.replace(hour=0, minute=0, second=0, microsecond=0)
    return Question(snapshot, within(snapshot, accounts), as_of, days_end, complete_at, horizon.has_pending)


async def gather(question: Question, *, is_for_norms: bool = False) -> Gathered:
    """All that needs nothing but itself. Norms need features only where these say when onboarding is over."""
    snapshot, accounts, as_of = question.snapshot, question.accounts, question.as_of
    conventions = await read_conventions(snapshot, accounts, as_of)
    before = await read_conventions(snapshot, accounts, as_of - timedelta(days=WINDOW_DAYS))
    service = columns_of(conventions.users(SERVICE_ACCOUNT))
    contracts = await question.rows(sql("measures.list_contracts"), accounts, as_of, WINDOW_DAYS)
    of_contracts = {
        SubjectRef(Subject.SUBSCRIPTION, row["account"], row["key"]): _struct(Contract, row) for row in contracts
    }
    of_everything = sql("measures.list_lives") if is_for_norms else sql("measures.list_uses")
    used = await question.of_lookback(of_everything, *service)
    lives = await asyncio.to_thread(_lives, question, used)
    if is_for_norms:
        with_steps = sorted({ref.account for ref, said in conventions.of.items() if ONBOARDING_STEPS in said})
        of_these = msgspec.structs.replace(question, accounts=with_steps)
        used = await of_these.of_lookback(sql("measures.list_uses"), *service) if with_steps else []
    return Gathered(
        as_of=as_of,
        conventions=conventions,
        thresholds=(await read_thresholds(snapshot)).thresholds,
        champions_before={ref: flag for ref in before.of if (flag := before.flag(ref, CHAMPION)) is not None},
        contracts=of_contracts,
        lives=lives,
        uses=dict(_by_subject(FeatureUse, used)),
        users_of=_by_account(ref for ref in lives if ref.subject is Subject.USER),
        contracts_of=_by_account(of_contracts),
    )


async def gather_people(
    question: Question, gathered: Gathered, expected: Mapping[SubjectRef, int], absent: Sequence[SubjectRef]
) -> None:
    """How usage is spread over users: so many are expected of each subject, and these users are not."""
    service = columns_of(gathered.conventions.users(SERVICE_ACCOUNT))
    rows = await question.of_window(
        sql("measures.list_people"),
        *service,
        *columns_of(absent),
        *subjects_of(expected),
        list(expected.values()),
        [gathered.seats(ref) for ref in expected],
    )
    gathered.people = dict(_by_subject(People, rows))


async def gather_weeks(
    question: Question, gathered: Gathered, weeks: Mapping[SubjectRef, int], norms: Norms | None
) -> None:
    """Drops and trends, of so many whole weeks of each subject; without norms, against what these accounts do."""
    usual = (None, None, None) if norms is None else (norms.dispersion, norms.change, norms.fast_change)
    rows = await question.of_window(sql("measures.list_weeks"), *subjects_of(weeks), list(weeks.values()), *usual)
    gathered.weeks = dict(_by_subject(Weeks, rows))


def subjects_of(refs: Mapping[SubjectRef, object]) -> tuple[list[str], list[str], list[str]]:
    """Subjects as statements take them: kinds, accounts, keys."""
    return [ref.subject.value for ref in refs], [ref.account for ref in refs], [ref.key for ref in refs]


def _lives(question: Question, rows: Sequence[Any]) -> dict[SubjectRef, Life]:
    since = question.as_of - timedelta(days=LOOKBACK_DAYS)
    return {
        _ref(row): Life(
            since,
            tuple(compress(range(LOOKBACK_DAYS), row["days"].encode().translate(_AS_FLAGS))),
            row["events"],
            row["setup_events"],
            row["subscriptions"],
            row["window_events"],
            row["trouble_events"],
        )
        for row in rows
    }


def _by_subject(kind: type[Row], rows: Sequence[Any]) -> Iterator[tuple[SubjectRef, Row]]:
    for row in rows:
        yield _ref(row), _struct(kind, row)


def _struct(kind: type[Row], row: Any) -> Row:
    return kind(*(row[name] for name in kind.__struct_fields__))


def _ref(row: Any) -> SubjectRef:
    return SubjectRef(Subject(row["subject"]), row["account"], row["key"])


def _by_account(refs: Any) -> dict[str, list[SubjectRef]]:
    of: dict[str, list[SubjectRef]] = {}
    for ref in refs:
        of.setdefault(ref.account, []).append(ref)
    return of
