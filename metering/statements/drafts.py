"""Drafts: a statement as it is at the moment, computed from figures that somebody read. Pure; nothing is stored."""

from collections.abc import Iterable, Mapping
from datetime import datetime

import msgspec

from metering.rollups.read import Total
from metering.statements.credit_lines import Basis, CreditLine, owed_after
from metering.statements.figures import Needed
from metering.statements.history import Carried, Due, History, StatementStatus
from metering.statements.records import (
    AdjustedPeriod,
    Evidence,
    RatedTerms,
    StatementLine,
    recorded_figures,
    terms_of,
)
from rating.adjustments import adjustment_lines
from rating.lines import Line
from rating.meters import Figure, Meter
from rating.money import Currency, Money, sum_of
from rating.periods import Period
from rating.statements import Figures, figures_needed, statement_of
from rating.subscriptions import BillingPeriod, Subscription, parts_of


class Draft(msgspec.Struct, frozen=True, kw_only=True):
    """A statement as of an instant, with the evidence that it would be frozen with."""

    account: str
    subscription: str
    period: Period
    is_closing: bool
    currency: Currency
    total: Money
    as_of: datetime
    lines: tuple[StatementLine, ...]
    evidence: Evidence
    # What it would draw of credits, where that was asked for; the total is before it.
    credits: tuple[CreditLine, ...] = ()
    basis: Basis | None = None

    @property
    def status(self) -> StatementStatus:
        """DRAFT."""
        return StatementStatus.DRAFT

    @property
    def owed(self) -> Money:
        """The total after credits."""
        return owed_after(self.total, self.credits)

    @property
    def is_empty(self) -> bool:
        """Whether a closing statement has nothing to say."""
        return self.is_closing and not self.lines and not self.evidence.unrated


class Task(msgspec.Struct, frozen=True):
    """A statement to be drafted: of which subscription, for which period, and what it has to make up for."""

    history: History
    due: Due
    carried: tuple[Carried, ...]

    def needed(self) -> list[Needed]:
        """The figures of its own period."""
        return [] if self.due.billing is None else self._needed(self.history.terms, self.due.billing)

    def needed_again(self, carried: Carried) -> list[Needed]:
        """The figures of a frozen period that it carries."""
        return [] if carried.again is None else self._needed(*carried.again)

    def _needed(self, terms: Subscription, billing: BillingPeriod) -> list[Needed]:
        pairs = figures_needed(parts_of(terms, billing))
        return [Needed(self.history.subscriber, meter, period) for meter, period in pairs]


def task_of(history: History, due: Due) -> Task:
    """What drafting a statement takes."""
    return Task(history, due, history.carried_by(due))


def draft_of(
    task: Task, figures: Mapping[Needed, Figure], meters: Mapping[str, Meter], unrated: tuple[Total, ...] = ()
) -> Draft:
    """The draft; a frozen period of which a figure is not to be had any more stays as it is."""
    history, due = task.history, task.due
    own = _figures(task.needed(), figures)
    lines: list[StatementLine] = []
    terms: RatedTerms | None = None
    if due.billing is not None:
        terms = terms_of(history.terms, due.billing)
        rated = statement_of(history.terms, due.billing, own, meters)
        lines.extend(StatementLine(line) for line in rated.lines)
    adjusted = []
    for carried in task.carried:
        needed = task.needed_again(carried)
        if all(each in figures for each in needed):
            record, made = _adjusted(carried, _figures(needed, figures), meters, due.period, history.currency)
            if made:
                adjusted.append(record)
                lines.extend(StatementLine(line, carried.of) for line in made)
    return Draft(
        account=history.subscription.account,
        subscription=history.subscription.key,
        period=due.period,
        is_closing=due.billing is None,
        currency=history.currency,
        total=sum_of((each.line.amount for each in lines), history.currency),
        as_of=history.as_of,
        lines=tuple(lines),
        evidence=Evidence(terms, recorded_figures(own), tuple(adjusted), unrated),
    )


def _figures(needed: Iterable[Needed], figures: Mapping[Needed, Figure]) -> Figures:
    return {(each.meter, each.period): figures[each] for each in needed}


def _adjusted(
    carried: Carried, figures: Figures, meters: Mapping[str, Meter], carried_by: Period, currency: Currency
) -> tuple[AdjustedPeriod, tuple[Line, ...]]:
    """What it was rated again by, and the lines that make up for what is different."""
    record, again = AdjustedPeriod(carried.of), tuple[Line, ...]()
    if carried.again is not None:
        terms = terms_of(*carried.again)
        record = AdjustedPeriod(carried.of, terms, recorded_figures(figures))
        if _is_as_frozen(carried, record):
            return record, ()
        again = statement_of(*carried.again, figures, meters).lines
    lines = adjustment_lines(
        [each.line for each in carried.frozen_lines],
        [each.line for each in carried.adjusted_lines],
        again,
        of=carried.of,
        carried_by=carried_by,
        currency=currency,
    )
    return record, lines


def _is_as_frozen(carried: Carried, record: AdjustedPeriod) -> bool:
    """Whether all that it was rated by is what it was: then it need not be rated, nor its lines be read."""
    if carried.adjusting or len(carried.frozen) != 1:
        return False
    (frozen,) = carried.frozen
    return (frozen.evidence.terms, frozen.evidence.figures) == (record.terms, record.figures)
