"""What a period is rated by, in stages: from the terms that it was charged by to those that it is compared by. Pure.

Two periods are compared at the same prices: by one version of one plan, one discount and one number of seats, without a
trial. These are the *reference*. Between the terms that a period was charged by and the reference lie stages, each with one
thing changed, so that what each changes about the amounts is known.
"""

from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from decimal import Decimal

import msgspec

from rating.explain import ChangeCause
from rating.periods import Period
from rating.plans import Plan
from rating.subscriptions import (
    BillingPeriod,
    PlanChoice,
    PlanPhase,
    SeatChange,
    Subscription,
    billing_period_at,
    phases_of,
)


class Reference(msgspec.Struct, frozen=True):
    """What usage of both periods is rated by."""

    plan: Plan
    discount_percent: Decimal
    seats: int


class AsFrozen(msgspec.Struct, frozen=True):
    """What a frozen billing period was rated by, and that has no instant from which on it holds."""

    discount_percent: Decimal
    trial_ends_at: datetime | None


class Stage(msgspec.Struct, frozen=True):
    """Terms, and why amounts by them differ from those by the stage before, which is nearer to what was charged.

    Of billing periods in `frozen`, named by what of them is served, discount and trial are those.
    """

    cause: ChangeCause
    terms: Subscription
    frozen: Mapping[Period, AsFrozen] = {}

    def billed(self, asked: Period, until: datetime) -> Iterator[tuple[Subscription, BillingPeriod]]:
        """The billing periods that touch the asked one and begin before an instant, each with its terms."""
        for billing in _touching(self.terms, asked, until):
            kept = self.frozen.get(billing.served)
            terms = self.terms
            if kept is not None:
                terms = msgspec.structs.replace(
                    terms, discount_percent=kept.discount_percent, trial_ends_at=kept.trial_ends_at
                )
            yield terms, billing


def stages_before(charged: Subscription, frozen: Mapping[Period, AsFrozen], reference: Reference) -> list[Stage]:
    """From what the earlier period was charged by to the reference: seats, then prices of the same plan, then plans."""
    seated = _seated(charged, reference)
    same_plan = tuple(
        msgspec.structs.replace(phase, plan=reference.plan) if phase.plan.key == reference.plan.key else phase
        for phase in seated.phases
    )
    return [
        Stage(ChangeCause.RECURRING, seated, frozen),
        Stage(ChangeCause.PRICE, _at_reference(seated, reference, _joined(same_plan))),
        Stage(ChangeCause.PLAN, _at_reference(seated, reference, _one_phase(seated, reference))),
    ]


def stages_after(
    charged: Subscription,
    frozen: Mapping[Period, AsFrozen],
    reference: Reference,
    *,
    versions: Sequence[Plan],
    pinned: int | None,
    until: datetime,
) -> list[Stage]:
    """From what the later period was charged by to the reference: seats, then plans, then prices of the same plan.

    `versions` are those of the reference's plan; had the subscription stayed on it, it would have kept to the version
    `pinned`, or been on the newest one (None) where a billing period begins.
    """
    seated = _seated(charged, reference)
    choice = PlanChoice(seated.starts_at, reference.plan.key, pinned)
    stayed = phases_of(seated, [choice], {reference.plan.key: versions}, until)
    phases = [each for phase in seated.phases for each in _stayed(phase, stayed, reference.plan)]
    return [
        Stage(ChangeCause.RECURRING, seated, frozen),
        Stage(ChangeCause.PLAN, msgspec.structs.replace(seated, phases=_joined(phases)), frozen),
        Stage(ChangeCause.PRICE, _at_reference(seated, reference, _one_phase(seated, reference))),
    ]


def as_frozen(phases: Sequence[PlanPhase], parts: Sequence[PlanPhase], period: Period) -> tuple[PlanPhase, ...]:
    """Phases with the parts of a frozen period in place of what lies in it; where that was a trial they stay."""
    if not parts:
        return tuple(phases)
    inside = Period(parts[0].start, period.end)
    kept = [each for phase in phases for each in _without(phase, inside)]
    return _joined(sorted([*kept, *parts], key=lambda phase: phase.start))


def _seated(charged: Subscription, reference: Reference) -> Subscription:
    return msgspec.structs.replace(charged, seats=(SeatChange(charged.starts_at, reference.seats),))


def _at_reference(terms: Subscription, reference: Reference, phases: tuple[PlanPhase, ...]) -> Subscription:
    return msgspec.structs.replace(
        terms, phases=phases, trial_ends_at=None, discount_percent=reference.discount_percent
    )


def _one_phase(terms: Subscription, reference: Reference) -> tuple[PlanPhase, ...]:
    """The reference from the first plan on, without an end: its billing periods may be longer than those of the last one."""
    return tuple(PlanPhase(reference.plan, phase.start) for phase in terms.phases[:1])


def _stayed(phase: PlanPhase, stayed: Sequence[PlanPhase], otherwise: Plan) -> Iterator[PlanPhase]:
    """What would have applied in a phase, had the subscription stayed; `otherwise` where nothing was in effect."""
    if phase.plan.key == otherwise.key:
        yield phase
        return
    at = phase.start
    for each in stayed:
        start = max(each.start, at)
        ends = [end for end in (each.end, phase.end) if end is not None]
        end = min(ends) if ends else None
        if end is not None and end <= start:
            continue
        if phase.end is not None and start >= phase.end:
            break
        if at < start:
            yield PlanPhase(otherwise, at, start)
        yield PlanPhase(each.plan, start, end)
        if end is None:
            return
        at = end
    if phase.end is None or at < phase.end:
        yield PlanPhase(otherwise, at, phase.end)


def _without(phase: PlanPhase, inside: Period) -> Iterator[PlanPhase]:
    if phase.start < inside.start:
        yield PlanPhase(phase.plan, phase.start, inside.start if phase.end is None else min(phase.end, inside.start))
    if phase.end is None or phase.end > inside.end:
        yield PlanPhase(phase.plan, max(phase.start, inside.end), phase.end)


def _joined(phases: Sequence[PlanPhase]) -> tuple[PlanPhase, ...]:
    """Phases of one version that follow each other without a gap, as one."""
    joined: list[PlanPhase] = []
    for phase in phases:
        last = joined[-1] if joined else None
        if last is not None and last.plan == phase.plan and last.end == phase.start:
            joined[-1] = PlanPhase(phase.plan, last.start, phase.end)
        else:
            joined.append(phase)
    return tuple(joined)


def _touching(terms: Subscription, asked: Period, until: datetime) -> Iterator[BillingPeriod]:
    at, end = max(asked.start, terms.starts_at), min(asked.end, until)
    while at < end:
        billing = billing_period_at(terms, at)
        if billing is None:
            later = [phase.start for phase in terms.phases if phase.start > at]
            if not later:
                return
            at = min(later)
            continue
        yield billing
        at = billing.served.end
