"""Features of products: which are used, by how many and how often; which users come back to; which are sold and not used."""

from collections.abc import Mapping, Sequence
from datetime import date
from enum import Enum

import msgspec

from health.scorecards import Subject
from metering.errors import InputIssue, InvalidInputError
from metering.health.adoption import Stickiness, service_accounts
from metering.health.conventions import FEATURES, read_conventions
from metering.health.gathering import WINDOW_DAYS, Question, ask
from metering.limits import Limits
from metering.store.queries import sql
from metering.store.snapshot import Snapshot
from metering.subjects import SubjectRef


class FeatureKind(Enum):
    """Which features are asked for."""

    USED = "USED"
    UNUSED = "UNUSED"
    STICKY = "STICKY"


class FeatureFigures(msgspec.Struct, frozen=True, kw_only=True):
    """A feature of a product in the 28 days before a day; without a product where it is sold and nobody used it in a year."""

    product: str | None
    feature: str
    users: int
    users_before: int
    # Days on which somebody used it, user by user.
    user_days: int
    events: int
    accounts: int
    # Within a year.
    first_on: date | None
    last_on: date | None
    product_users: int
    product_accounts: int
    # Accounts with a contract that runs of which it is said that they are entitled to it; and those of them without a use.
    entitled: int
    unused: int

    @property
    def order(self) -> tuple[int, int, str, str]:
        """Most users first, then most accounts; those alike by name."""
        return -self.users, -self.accounts, self.feature, self.product or ""


def check_day(day: date, limits: Limits) -> None:
    """Raise InvalidInputError for a day beyond all calendars that are asked about."""
    if not limits.asked_from_min.date() <= day < limits.asked_to_max.date():
        message = f"This must be from {limits.asked_from_min:%F} on and before {limits.asked_to_max:%F}."
        raise InvalidInputError([InputIssue(("asOf",), message)])


async def read_features(snapshot: Snapshot, accounts: Sequence[str] | None, as_of: date) -> list[FeatureFigures]:
    """Every feature of the year before a UTC day, in order. Accounts of None are all that the snapshot reaches."""
    question = await ask(snapshot, accounts, as_of)
    entitled = await _entitled(question)
    rows = await question.of_lookback(
        sql("features.list_features"),
        *await service_accounts(question),
        [account for account, _ in entitled],
        [feature for _, feature in entitled],
    )
    found = [FeatureFigures(**{name: row[name] for name in FeatureFigures.__struct_fields__}) for row in rows]
    return sorted(found, key=lambda each: each.order)


def chosen_features(
    features: Sequence[FeatureFigures],
    product: str | None,
    kind: FeatureKind | None,
    stickiness: Mapping[str, Stickiness],
) -> list[FeatureFigures]:
    """Those of a product (None: of all), and of a kind (None: of all)."""

    def is_chosen(each: FeatureFigures) -> bool:
        match kind:
            case None:
                return True
            case FeatureKind.USED:
                return each.accounts > 0
            case FeatureKind.UNUSED:
                return each.accounts == 0
            case FeatureKind.STICKY:
                return each.feature in stickiness and stickiness[each.feature].is_sticky

    return [each for each in features if product in {None, each.product} and is_chosen(each)]


async def _entitled(question: Question) -> list[tuple[str, str]]:
    """Which features accounts are entitled to by the contracts that run, as far as somebody said it."""
    conventions = await read_conventions(question.snapshot, question.accounts, question.as_of)
    contracts = await question.rows(sql("measures.list_contracts"), question.accounts, question.as_of, WINDOW_DAYS)
    pairs = {
        (row["account"], feature)
        for row in contracts
        if not row["is_over"]
        for feature in conventions.listed(SubjectRef(Subject.SUBSCRIPTION, row["account"], row["key"]), FEATURES)
    }
    return sorted(pairs)
