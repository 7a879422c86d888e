"""A subscription in one of two periods that are compared: what it was charged by, and its lines at every stage. Pure.

What was charged is what statements say: final ones as they were frozen, also where other terms were put for that time since.
They are rated at other prices by the figures that they were made of, as far as these are told; by others only where a meter
was not asked for, or not for that stretch of time.
"""

from bisect import bisect_left
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import datetime, timedelta
from functools import cached_property
from typing import Final

import msgspec

from metering.aggregations import Aggregation
from metering.meters import Definition
from metering.statements.figures import Needed
from metering.statements.history import FinalStatement, History
from metering.statements.read import Statement
from metering.statements.records import PartTerms, RatedTerms, figures_of
from rating.exact import ZERO, add
from rating.explain import Billed, ChangeCause
from rating.lines import Line, LineKind
from rating.meters import Figure, Meter
from rating.periods import Period
from rating.plans import Plan
from rating.stages import AsFrozen, Reference, Stage, as_frozen, stages_after, stages_before
from rating.statements import Figures, figures_needed, statement_of
from rating.subscriptions import PlanPhase, Subscription, parts_of

# All versions of each plan that is concerned.
Versions = Mapping[str, Sequence[Plan]]
# The figures of a period's parts, and of keys, add up to that of the whole.
ADDED: Final = frozenset({Aggregation.SUM, Aggregation.COUNT})


class Compared(msgspec.Struct, frozen=True, dict=True):
    """A subscription in a period, with the statements whose periods touch it."""

    history: History
    statements: Sequence[Statement]
    asked: Period

    @cached_property
    def current(self) -> tuple[Statement, ...]:
        """The statements of billing periods that there are, in order of time."""
        begun = {each.served for each in self.history.begun}
        kept = [each for each in self.statements if not each.is_closing and each.period in begun]
        return tuple(sorted(kept, key=lambda each: each.period.start))

    @property
    def charged(self) -> Mapping[Period, Sequence[Line]]:
        """The own lines of these, by period."""
        return {each.period: [line for line in _lines(each) if not _adjusts(line)] for each in self.current}

    @property
    def beside(self) -> Sequence[Sequence[Line]]:
        """What else was charged: adjustments, and what was frozen of periods that are no billing periods any more."""
        current = {id(each) for each in self.current}
        return [
            [line for line in _lines(each) if id(each) not in current or _adjusts(line)] for each in self.statements
        ]

    @property
    def until(self) -> datetime:
        """Billing periods that begin before it have begun."""
        return self.history.as_of + timedelta.resolution

    @cached_property
    def parts(self) -> tuple[tuple[PartTerms, RatedTerms], ...]:
        """What it was on in the asked period, in order of time, each with the terms of its statement."""
        return tuple(
            (part, terms)
            for terms in (each.evidence.terms for each in self.current)
            if terms is not None
            for part in terms.parts
            if part.period.within(self.asked) is not None
        )

    @property
    def plans(self) -> set[str]:
        """The plans that statements of it were made by."""
        rated = (each.evidence.terms for each in self.current)
        return {part.plan for terms in rated if terms is not None for part in terms.parts}

    def terms(self, versions: Versions) -> tuple[Subscription, Mapping[Period, AsFrozen]]:
        """The terms that it was charged by, and what frozen periods kept besides."""
        phases, frozen = self.history.terms.phases, {}
        for each in self.current:
            if not isinstance(each, FinalStatement):
                continue
            terms = each.evidence.terms
            assert terms is not None, "a statement of a billing period has terms"
            parts = [
                PlanPhase(_version(versions, part.plan, part.version), part.period.start, part.period.end)
                for part in terms.parts
            ]
            phases = as_frozen(phases, parts, each.period)
            charged_from = parts[0].start if parts else each.period.end
            trial_ends_at = charged_from if charged_from > each.period.start else None
            frozen[each.period] = AsFrozen(terms.discount_percent, trial_ends_at)
        return msgspec.structs.replace(self.history.terms, phases=phases), frozen

    def known(self, definitions: Mapping[str, Definition]) -> "KnownFigures":
        """The figures that its statements were made of."""
        figures = {pair: figure for each in self.current for pair, figure in figures_of(each.evidence.figures).items()}
        return KnownFigures(figures, definitions)


def _lines(statement: Statement) -> Iterator[Line]:
    return (each.line for each in statement.lines)


def _adjusts(line: Line) -> bool:
    return line.kind is LineKind.ADJUSTMENT


def _version(versions: Versions, plan: str, version: int) -> Plan:
    return next(each for each in versions[plan] if each.version == version)


class KnownFigures(msgspec.Struct, frozen=True, dict=True):
    """Figures by meter and period; those of one meter do not overlap."""

    figures: Figures
    definitions: Mapping[str, Definition]

    def find(self, meter: str, period: Period) -> Figure | None:
        """The figure, also where it is told by those of the period's parts; None where it is to be read."""
        found = self.figures.get((meter, period))
        if found is not None or self.definitions[meter].aggregation not in ADDED:
            return found
        in_order = self._in_order.get(meter, [])
        at, quantity, events = period.start, ZERO, 0
        for part, figure in in_order[bisect_left(in_order, at, key=lambda each: each[0].start) :]:
            if part.start != at or part.end > period.end:
                return None
            at, quantity, events = part.end, add(quantity, figure.quantity), events + figure.events
            if at == period.end:
                return Figure(quantity, events)
        return None

    @cached_property
    def _in_order(self) -> Mapping[str, list[tuple[Period, Figure]]]:
        """Each meter's figures, in order of time."""
        by_meter: dict[str, list[tuple[Period, Figure]]] = {}
        for meter, period in sorted(self.figures):
            by_meter.setdefault(meter, []).append((period, self.figures[meter, period]))
        return by_meter


# ---------------------------------------------------------------- stages


def reference_of(before: Compared, after: Compared, versions: Versions) -> Reference | None:
    """What both are compared by: what the subscription was on last in the earlier period; where it was on nothing then, what
    it was on first in the later one. None where it was on nothing at all.
    """
    if before.parts:
        return _of_part(*before.parts[-1], before.asked.end, versions)
    if (trial := _phases_within(before)) is not None:
        return _of_phase(before.history.terms, trial[-1], before.asked.end)
    if after.parts:
        part, terms = after.parts[0]
        return _of_part(part, terms, max(part.period.start, after.asked.start) + timedelta.resolution, versions)
    if (trial := _phases_within(after)) is not None:
        return _of_phase(after.history.terms, trial[0], max(trial[0].start, after.asked.start) + timedelta.resolution)
    return None


def _phases_within(compared: Compared) -> Sequence[PlanPhase] | None:
    """The phases of begun time in the asked period; None where there are none."""
    end = min(compared.asked.end, compared.until)
    found = [
        each
        for each in compared.history.terms.phases
        if each.start < end and (each.end is None or each.end > compared.asked.start)
    ]
    return found or None


def _of_part(part: PartTerms, terms: RatedTerms, until: datetime, versions: Versions) -> Reference:
    seats = [count for stretch, count in part.seats if stretch.start < until]
    return Reference(_version(versions, part.plan, part.version), terms.discount_percent, int(seats[-1]))


def _of_phase(terms: Subscription, phase: PlanPhase, until: datetime) -> Reference:
    seats = [change.seats for change in terms.seats if change.since < until]
    return Reference(phase.plan, terms.discount_percent, seats[-1] if seats else 0)


def stages_of(
    compared: Compared, reference: Reference, versions: Versions, *, is_before: bool, pinned: int | None
) -> list[Stage]:
    """The stages from what was charged to the reference."""
    terms, frozen = compared.terms(versions)
    if is_before:
        return stages_before(terms, frozen, reference)
    of_plan = versions[reference.plan.key]
    return stages_after(terms, frozen, reference, versions=of_plan, pinned=pinned, until=compared.until)


def figures_of_stages(compared: Compared, stages: Iterable[Stage]) -> set[Needed]:
    """The figures that rating the stages takes."""
    return {
        Needed(compared.history.subscriber, *pair)
        for stage in stages
        for terms, billing in stage.billed(compared.asked, compared.until)
        for pair in figures_needed(parts_of(terms, billing))
    }


def rated_stages(
    compared: Compared, stages: Iterable[Stage], figures: Figures, meters: Mapping[str, Meter]
) -> list[tuple[ChangeCause, Billed]]:
    """The lines of every stage."""
    return [
        (
            stage.cause,
            {
                billing.served: statement_of(terms, billing, figures, meters).lines
                for terms, billing in stage.billed(compared.asked, compared.until)
            },
        )
        for stage in stages
    ]
