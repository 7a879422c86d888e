"""A subscription over time: which plan applies when, how many seats it has, and the billing periods that follow."""

from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta, tzinfo
from decimal import Decimal
from typing import Final

import msgspec

from rating.billing_periods import period_at
from rating.exact import ZERO
from rating.periods import Period, PeriodShare, share_of
from rating.plans import Plan
from rating.rate import SeatStretch

_NEVER: Final = datetime.max.replace(tzinfo=UTC)


class PlanPhase(msgspec.Struct, frozen=True):
    """One version of one plan, and from when until when it applies; an end of None is not known yet."""

    plan: Plan
    start: datetime
    end: datetime | None = None


class SeatChange(msgspec.Struct, frozen=True):
    """From then on there are so many seats."""

    since: datetime
    seats: int


class PlanChoice(msgspec.Struct, frozen=True):
    """From then on the subscription is on this plan: on one version for good, or on the newest at each period's start."""

    since: datetime
    plan: str
    version: int | None = None


class Subscription(msgspec.Struct, frozen=True, kw_only=True):
    """What a subscription was, is and will be; all instants are UTC.

    Periods are counted from the anchor (`starts_at` where there is none) in the zone. Nothing is owed before
    `trial_ends_at`. `phases` and `seats` are in order of time; before the first change there are no seats.
    """

    starts_at: datetime
    zone: tzinfo
    phases: tuple[PlanPhase, ...]
    ends_at: datetime | None = None
    trial_ends_at: datetime | None = None
    billing_anchor: datetime | None = None
    seats: tuple[SeatChange, ...] = ()
    discount_percent: Decimal = ZERO

    @property
    def anchor(self) -> datetime:
        """Where periods are counted from."""
        return self.starts_at if self.billing_anchor is None else self.billing_anchor


class BillingPeriod(msgspec.Struct, frozen=True):
    """A whole period of the calendar, and what of it is the subscription's; shares are of the whole."""

    whole: Period
    served: Period


class PlanPart(msgspec.Struct, frozen=True):
    """A part of a billing period in which one version of one plan applies and is charged."""

    plan: Plan
    period: Period
    share: PeriodShare


def billing_period_at(subscription: Subscription, instant: datetime) -> BillingPeriod | None:
    """The billing period that an instant lies in; None where the subscription has no plan then.

    Where the next plan has another interval, its periods begin with it: the running period is served until then.
    """
    index = _phase_at(subscription, instant)
    if index is None or not _lives(subscription, instant):
        return None
    interval = subscription.phases[index].plan.interval
    whole = period_at(instant, subscription.anchor, subscription.zone, interval)
    first = last = index
    while first > 0 and subscription.phases[first - 1].plan.interval is interval:
        first -= 1
    while last + 1 < len(subscription.phases) and subscription.phases[last + 1].plan.interval is interval:
        last += 1
    start = max(whole.start, subscription.starts_at, subscription.phases[first].start)
    ends = [end for end in (whole.end, subscription.ends_at, subscription.phases[last].end) if end is not None]
    return BillingPeriod(whole, Period(start, min(ends)))


def billing_periods(
    subscription: Subscription, until: datetime, since: datetime | None = None
) -> Iterator[BillingPeriod]:
    """The subscription's billing periods in order of time, up to the last that begins before an instant.

    With `since` from the first one that ends after it on; those before are not looked at.
    """
    at = subscription.starts_at if since is None else max(since, subscription.starts_at)
    while _lives(subscription, at):
        period = billing_period_at(subscription, at)
        if period is not None:
            if period.served.start >= until:
                return
            yield period
            at = period.served.end
            continue
        later = [phase.start for phase in subscription.phases if phase.start > at]
        if not later:
            return
        at = min(later)


def parts_of(subscription: Subscription, period: BillingPeriod) -> tuple[PlanPart, ...]:
    """The parts of a billing period, one for each phase that touches it; a trial belongs to none."""
    trial_end = subscription.trial_ends_at
    parts = []
    for phase in subscription.phases:
        start = phase.start if trial_end is None else max(phase.start, trial_end)
        end = period.served.end if phase.end is None else phase.end
        part = Period(start, end).within(period.served) if start < end else None
        if part is not None:
            parts.append(PlanPart(phase.plan, part, share_of(part, period.whole)))
    return tuple(parts)


def seat_stretches(subscription: Subscription, part: PlanPart, period: BillingPeriod) -> tuple[SeatStretch, ...]:
    """The seats over a part of a billing period; of two changes at one instant the later in the list holds."""
    seats, start, stretches = 0, part.period.start, []
    for change in subscription.seats:
        if change.since >= part.period.end:
            break
        if change.since > start and change.seats != seats:
            stretches.append((seats, Period(start, change.since)))
            start = change.since
        seats = change.seats
    stretches.append((seats, Period(start, part.period.end)))
    return tuple(SeatStretch(Decimal(count), stretch, share_of(stretch, period.whole)) for count, stretch in stretches)


def phases_of(
    subscription: Subscription,
    choices: Sequence[PlanChoice],
    versions: Mapping[str, Sequence[Plan]],
    until: datetime,
) -> tuple[PlanPhase, ...]:
    """Which version applies when, from the choices (in order of time) and what was published, in every billing period that
    begins before an instant.

    A choice of a version keeps to it. Otherwise the newest version applies that is in effect where a billing period, or the
    choice itself, begins. While there is none, no phase is there, and usage is not covered by a price.
    """
    phases: list[PlanPhase] = []
    for index, choice in enumerate(choices):
        ends = [subscription.ends_at, choices[index + 1].since if index + 1 < len(choices) else None]
        end = min((at for at in ends if at is not None), default=_NEVER)
        at = max(choice.since, subscription.starts_at)
        published = [plan for plan in versions.get(choice.plan, ()) if choice.version in {None, plan.version}]
        while at < min(end, until):
            plan = _newest(published, at, pinned=choice.version is not None)
            if plan is None:
                at = min((plan.effective_from for plan in published if plan.effective_from > at), default=until)
                continue
            # It applies in all periods that begin before another version is in effect; these need not be walked through.
            others = [] if choice.version is not None else [each.effective_from for each in published]
            stop = min(end, until, *(since for since in others if since > at))
            last = period_at(stop - timedelta.resolution, subscription.anchor, subscription.zone, plan.interval)
            _extend(phases, PlanPhase(plan, at, min(last.end, end)))
            at = last.end
    return tuple(phases)


def on_plan(subscription: Subscription, plan: Plan) -> Subscription:
    """The subscription as if it had been on one version of one plan all the time that it had any."""
    if not subscription.phases:
        return subscription
    phase = PlanPhase(plan, subscription.phases[0].start, subscription.phases[-1].end)
    return msgspec.structs.replace(subscription, phases=(phase,))


def _newest(published: Sequence[Plan], at: datetime, *, pinned: bool) -> Plan | None:
    """The version in effect at an instant: of two from the same instant on, the one with the higher number."""
    in_effect = [plan for plan in published if pinned or plan.effective_from <= at]
    return max(in_effect, key=lambda plan: (plan.effective_from, plan.version), default=None)


def _extend(phases: list[PlanPhase], phase: PlanPhase) -> None:
    """Add a phase, as the continuation of the last one where that is the same version without a gap."""
    if phases and phases[-1].plan == phase.plan and phases[-1].end == phase.start:
        phases[-1] = PlanPhase(phase.plan, phases[-1].start, phase.end)
    else:
        phases.append(phase)


def _phase_at(subscription: Subscription, instant: datetime) -> int | None:
    for index, phase in enumerate(subscription.phases):
        if phase.start <= instant and (phase.end is None or instant < phase.end):
            return index
    return None


def _lives(subscription: Subscription, instant: datetime) -> bool:
    return subscription.starts_at <= instant and (subscription.ends_at is None or instant < subscription.ends_at)
