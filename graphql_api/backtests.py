"""Back-tests: would a scorecard have warned?"""

from datetime import date
from typing import Annotated

import strawberry

from graphql_api.context import MeteringInfo
from graphql_api.left_out import given_or_none
from graphql_api.pages import check_first
from graphql_api.problems import Conflict, InvalidInput, NotFound, TooLarge
from graphql_api.scalars import Instant
from graphql_api.scorecards import ScorecardInput, draft_of
from health import backtest as core
from health.scorecards import Scorecard
from metering.errors import InputIssue, InvalidInputError, NotFoundError
from metering.health.backtests import BacktestOrder, BacktestReport, back_test, require_everything


@strawberry.type(
    description="How often one who stayed scored higher than one who left, equals half; 0.5 is chance. No value where fewer than "
    "30 left, or nobody stayed."
)
class Auc:
    """The area under the curve."""

    value: float | None
    churned: int
    stayed: int


@strawberry.type(description="How many of a band left, and where the true share is with 95 % confidence (Wilson).")
class BacktestBand:
    """One band."""

    band: str
    subjects: int
    churned: int
    low: float
    high: float


@strawberry.type(
    description="What a measure tells by itself, and what the card would lose without it; below zero it would gain."
)
class MeasureWorth:
    """One measure."""

    path: list[str]
    auc: Auc
    auc_lost_without: float | None


@strawberry.type(description="A customer that left with a score that gave no warning.")
class MissedChurn:
    """One that was missed."""

    account: str
    key: str
    score: float
    on: Instant = strawberry.field(description="When it gave notice, or left.")


@strawberry.type(
    description="What a card was worth: scores as they were known so many days before customers left or stayed. Nothing is said "
    "of customers without an outcome."
)
class Backtest:
    """Would it have warned."""

    scorecard: str
    version: int = strawberry.field(description="Of a draft the version that it would be.")
    horizon_days: int
    outcomes: int
    noticed: int = strawberry.field(description="Those that gave notice: looked at so many days before that.")
    unscored: int = strawberry.field(description="Those of whom too little was known then.")
    not_for: int = strawberry.field(description="Those that the card's condition leaves out.")
    auc: Auc
    bands: list[BacktestBand] = strawberry.field(description="The lowest scores first.")
    measures: list[MeasureWorth] = strawberry.field(description="What the card would miss most comes first.")
    warned: int = strawberry.field(description="Of those that left, how many had a score below `warningBelow`.")
    lead_days: float | None = strawberry.field(
        description="The median of how many days before the outcome the warning began that was not taken back."
    )
    worst_tenth_lift: float | None = strawberry.field(
        description="How many times as often the lowest tenth left as all; null where fewer than 30 left."
    )
    missed_count: int
    report: strawberry.Private[BacktestReport]

    @strawberry.field(description="Who left with a score of `healthyFrom` or more, the highest first.")
    def missed(self, info: MeteringInfo, first: int = 50) -> list[MissedChurn]:
        """The first of them."""
        check_first(first, info.context.limits, ("first",))
        found = []
        for each in self.report.found.missed[:first]:
            past = self.report.past[int(each.subject)]
            found.append(MissedChurn(account=past.ref.account, key=past.ref.key, score=each.score, on=Instant(past.on)))
        return found


BacktestResult = Annotated[Backtest | InvalidInput | NotFound | Conflict | TooLarge, strawberry.union("BacktestResult")]


@strawberry.input(
    description="Which card is tried, and on which outcomes: those told by `recordOutcomes` of the days from `from` on and "
    "before `to`."
)
class BacktestInput:
    """A back-test as it is asked for."""

    scorecard: str | None = strawberry.field(
        default=strawberry.UNSET, description="The key of a card in force; this or `draft`."
    )
    version: int | None = strawberry.field(default=strawberry.UNSET, description="The newest one, unless given.")
    draft: ScorecardInput | None = strawberry.field(
        default=strawberry.UNSET, description="A card that is not published."
    )
    horizon_days: int = strawberry.field(
        default=90, description="How many days before the outcome, or before notice was given, scores are looked at."
    )
    from_: date = strawberry.field(name="from")
    to: date
    warning_below: float = 50.0
    healthy_from: float = 70.0


async def resolve_backtest(given: BacktestInput, info: MeteringInfo) -> BacktestResult:
    """By what is kept; see metering/health/backtests.py."""
    context = info.context
    # Before anything is said of the card: whom it is for, and whether there is one.
    require_everything(context.snapshot)
    card, is_in_force = await _card(given, info)
    order = BacktestOrder(
        card=card,
        is_in_force=is_in_force,
        horizon_days=given.horizon_days,
        start=given.from_,
        end=given.to,
        warning_below=given.warning_below,
        healthy_from=given.healthy_from,
    )
    try:
        return _shown(await back_test(context.snapshot, order, context.limits))
    except InvalidInputError as error:
        issues = [InputIssue(("input", *issue.path), issue.message) for issue in error.issues]
        raise InvalidInputError(issues) from error


async def _card(given: BacktestInput, info: MeteringInfo) -> tuple[Scorecard, bool]:
    """The card, and whether it has scores that are kept."""
    context = info.context
    key, draft, version = given_or_none(given.scorecard), given_or_none(given.draft), given_or_none(given.version)
    if (key is None) == (draft is None) or (draft is not None and version is not None):
        message = "Say which card by `scorecard`, and perhaps `version`, or give a `draft`; not both."
        raise InvalidInputError([InputIssue(("input", "scorecard"), message)])
    cards = await context.loaders.cards(context.snapshot)
    if draft is not None:
        try:
            return cards.checked(draft_of(draft), context.limits), False
        except InvalidInputError as error:
            issues = [InputIssue(("input", "draft", *issue.path[1:]), issue.message) for issue in error.issues]
            raise InvalidInputError(issues) from error
    found = [card for card in cards.all if card.key == key and version in (None, card.version)]
    if not found:
        which = "" if version is None else f" in version {version}"
        raise NotFoundError(f"There is no scorecard {key!r:.60}{which}.")
    return found[-1], True


def _shown(report: BacktestReport) -> Backtest:
    found, card = report.found, report.order.card
    return Backtest(
        scorecard=card.key,
        version=card.version,
        horizon_days=report.order.horizon_days,
        outcomes=len(report.past),
        noticed=report.noticed,
        unscored=report.unscored,
        not_for=report.not_for,
        auc=_auc(found.auc),
        bands=[
            BacktestBand(band=each.band, subjects=each.subjects, churned=each.churned, low=each.low, high=each.high)
            for each in found.bands
        ],
        measures=[
            MeasureWorth(path=list(each.path), auc=_auc(each.auc), auc_lost_without=each.auc_lost_without)
            for each in found.measures
        ],
        warned=found.warned,
        lead_days=found.lead_days,
        worst_tenth_lift=found.worst_tenth_lift,
        missed_count=len(found.missed),
        report=report,
    )


def _auc(found: core.Auc) -> Auc:
    return Auc(value=found.value, churned=found.churned, stayed=found.stayed)
