"""`metering backtest`: would a scorecard have warned of those who left?"""

import asyncio
from collections.abc import AsyncIterator
from datetime import date
from pathlib import Path
from typing import Annotated, Any, Final

import msgspec
from cyclopts import Parameter

from health.backtest import Auc
from health.scorecards import Scorecard, Subject
from metering.cli.console import say, steps_bar
from metering.cli.running import unattended, with_database
from metering.config import Settings, read_settings
from metering.errors import InputIssue, InvalidInputError, NotFoundError
from metering.health.backtests import BacktestOrder, BacktestReport, Tried, read_past, sum_up, try_kept, try_measured
from metering.health.cards import ScorecardDraft, read_cards
from metering.limits import Limits
from metering.reach import EVERYTHING
from metering.store.snapshot import Snapshot

# As many of those that were missed are shown as a person reads.
_SHOWN: Final = 10
_OPTIONS: Final = {
    "scorecard": "--scorecard",
    "horizonDays": "--horizon-days",
    "from": "--from",
    "to": "--to",
    "warningBelow": "--warning-below",
    "healthyFrom": "--healthy-from",
}


class _Asked(msgspec.Struct, frozen=True, kw_only=True):
    """What the options say, before the card is looked up."""

    scorecard: str
    draft: ScorecardDraft | None
    measure_anew: bool
    horizon_days: int
    start: date
    end: date
    warning_below: float
    healthy_from: float


def backtest(
    *,
    scorecard: str,
    from_: Annotated[date, Parameter(name="--from")],
    to: date,
    horizon_days: int = 90,
    draft: Path | None = None,
    subject: Subject = Subject.ACCOUNT,
    purpose: str = "health",
    measure_anew: Annotated[bool, Parameter(negative="")] = False,
    warning_below: float = 50.0,
    healthy_from: float = 70.0,
    data_dir: Path | None = None,
) -> None:
    """Hold a scorecard against what became of customers: what it said of each, some days before it left or stayed.

    The figures are those of `backtest` over GraphQL, of one instant. Nothing is stored.

    Example: `metering backtest --scorecard account --from 2025-01-01 --to 2026-01-01 --measure-anew`

    Parameters
    ----------
    scorecard
        The key of a card, in its newest version; of a draft the key that it is to have.
    from_
        The first day of the outcomes.
    to
        The day after the last one.
    horizon_days
        How many days before an outcome, or before notice was given, scores are looked at.
    draft
        A JSON file with a card as `definition` of `scorecards` shows one.
    subject
        What a draft scores.
    purpose
        What a draft is for.
    measure_anew
        Measure everybody anew by what is dated before each day, instead of what was kept then: for a history that was loaded
        later. It takes long, and what was told late is used too.
    warning_below
        A score below it is a warning.
    healthy_from
        From this score on, who left was missed.
    data_dir
        Where the embedded PostgreSQL lives [METERING_DATA_DIR, ./.metering].
    """
    asked = _Asked(
        scorecard=scorecard,
        draft=None
        if draft is None
        else ScorecardDraft(key=scorecard, subject=subject, purpose=purpose, definition=_definition_of(draft)),
        measure_anew=measure_anew,
        horizon_days=horizon_days,
        start=from_,
        end=to,
        warning_below=warning_below,
        healthy_from=healthy_from,
    )
    with with_database(read_settings(data_dir=data_dir)) as settings:
        report = asyncio.run(_run(settings, asked))
    _say(report)


def _definition_of(path: Path) -> Any:
    try:
        return msgspec.json.decode(path.read_bytes())
    except (OSError, msgspec.DecodeError) as error:
        raise InvalidInputError([InputIssue(("--draft",), f"{str(path)!r:.200} holds no card: {error}.")]) from error


async def _run(settings: Settings, asked: _Asked) -> BacktestReport:
    try:
        async with unattended(settings) as (database, limits), Snapshot(database, EVERYTHING) as snapshot:
            return await _tried(snapshot, asked, limits)
    except InvalidInputError as error:
        raise InvalidInputError([_by_option(issue) for issue in error.issues]) from error


async def _tried(snapshot: Snapshot, asked: _Asked, limits: Limits) -> BacktestReport:
    order = BacktestOrder(
        card=await _card(snapshot, asked, limits),
        is_in_force=asked.draft is None,
        horizon_days=asked.horizon_days,
        start=asked.start,
        end=asked.end,
        warning_below=asked.warning_below,
        healthy_from=asked.healthy_from,
    )
    past = await read_past(snapshot, order, limits)
    walk = try_measured if asked.measure_anew else try_kept
    pages: AsyncIterator[list[Tried]] = walk(snapshot, order, past, limits)
    tried: list[Tried] = []
    with steps_bar() as bar:
        task = bar.add_task("Measuring" if asked.measure_anew else "Scoring", total=len(past))
        async for page in pages:
            tried += page
            bar.advance(task, len(page))
    return sum_up(order, tried)


async def _card(snapshot: Snapshot, asked: _Asked, limits: Limits) -> Scorecard:
    cards = await read_cards(snapshot)
    if asked.draft is not None:
        return cards.checked(asked.draft, limits)
    found = [each.card for each in cards.newest if each.card.key == asked.scorecard]
    if not found:
        known = ", ".join(each.card.key for each in cards.newest)
        raise NotFoundError(f"There is no scorecard {asked.scorecard!r:.60}; there are {known}.")
    return found[0]


def _by_option(issue: InputIssue) -> InputIssue:
    """A fault by the option that it is of; of a draft, with the way to it in the file."""
    first, *inside = issue.path
    if first == "input":
        of_file = inside[:1] == ["definition"]
        return InputIssue(("--draft", *inside[1:]) if of_file else ("--scorecard",), issue.message)
    return InputIssue((_OPTIONS.get(first, first), *inside), issue.message)


def _say(report: BacktestReport) -> None:
    found, order = report.found, report.order
    auc = found.auc
    say(f"{order.card.key} v{order.card.version}, {order.horizon_days} days before: {len(report.past):,} outcomes")
    say(
        f"  {auc.churned:,} left, {auc.stayed:,} stayed; {report.unscored:,} without a score, {report.not_for:,} not for it"
    )
    say(f"  AUC {_shown(auc)}")
    for band in found.bands:
        share = f"{band.churned / band.subjects:.3f} [{band.low:.3f}, {band.high:.3f}]"
        say(f"  {band.band}: {band.churned:,} of {band.subjects:,} left, {share}")
    if found.worst_tenth_lift is not None:
        say(f"  the lowest tenth left {found.worst_tenth_lift:.2f} times as often as all")
    lead = "" if found.lead_days is None else f", {found.lead_days:g} days before (median)"
    say(f"  {found.warned:,} of those that left were warned of{lead}")
    for worth in found.measures:
        lost = "" if worth.auc_lost_without is None else f", {worth.auc_lost_without:+.3f} lost without it"
        say(f"  {'.'.join(worth.path)}: AUC {_shown(worth.auc)}{lost}")
    for missed in found.missed[:_SHOWN]:
        past = report.past[int(missed.subject)]
        say(f"  missed: {past.ref.key}, {missed.score:.1f} before {past.on:%F}")
    if len(found.missed) > _SHOWN:
        say(f"  and {len(found.missed) - _SHOWN:,} more were missed")


def _shown(auc: Auc) -> str:
    return "not enough: 30 that left, and one that stayed" if auc.value is None else f"{auc.value:.3f}"
