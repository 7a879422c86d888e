"""How far subscriptions use what their plans include: by the meter of each price, projected to the end of the period."""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, time
from typing import Final

import msgspec

from health.measurements import Measurement, NotApplicable, Observed, Unknown
from health.scorecards import Subject
from metering.health.gathering import Gathered
from metering.meters import read_definitions
from metering.statements.figures import Needed, Subscriber, read_figures
from metering.store.snapshot import Snapshot
from metering.subjects import SubjectRef
from metering.subscriptions import RatedSubscription, read_rated
from rating.periods import Period
from rating.plans import PlanPrice
from rating.subscriptions import PlanPart, billing_period_at, parts_of

_NOTHING: Final = NotApplicable("no plan includes any quantity")
_ELAPSED_MIN: Final = 0.2


class Allowance(msgspec.Struct, frozen=True):
    """A price of the running period that includes a quantity, and what is needed to know how much of it is used."""

    ref: SubjectRef
    price: PlanPrice
    part: PlanPart
    needed: Needed

    def measured(self, quantity: float) -> Measurement:
        """What is used by what is included in as much of the period as is over."""
        elapsed = (self.needed.period.end - self.part.period.start) / (self.part.period.end - self.part.period.start)
        if elapsed < _ELAPSED_MIN:
            return Unknown("less than a fifth of the period is over")
        whole = self.price.included_quantity
        included = float(self.part.share.of(whole) if self.price.prorated else whole)
        return Observed(quantity / (included * elapsed)) if included else _NOTHING


async def read_allowance_use(snapshot: Snapshot, gathered: Gathered) -> Mapping[SubjectRef, Measurement]:
    """Of each running subscription the price whose included quantity is used most; of accounts, of their subscriptions."""
    end = datetime.combine(gathered.as_of, time(), UTC)
    running = [ref.key for ref, contract in gathered.contracts.items() if not contract.is_over]
    if not running:
        return {}
    rated, _ = await read_rated(snapshot, len(running), until=end, keys=running)
    allowances = [each for subscription in rated for each in _allowances(subscription, end)]
    definitions = await read_definitions(snapshot, {each.needed.meter for each in allowances})
    read = await read_figures(snapshot, {each.needed for each in allowances}, definitions)
    found: dict[SubjectRef, list[Measurement]] = {}
    for each in allowances:
        figure = read.figures.get(each.needed)
        measured = (
            Unknown("usage that is not kept any more") if figure is None else each.measured(float(figure.quantity))
        )
        for ref in (each.ref, SubjectRef(Subject.ACCOUNT, each.ref.account, each.ref.account)):
            found.setdefault(ref, []).append(measured)
    return {ref: _most(of_ref) for ref, of_ref in found.items()}


def allowance_metric(used: Mapping[SubjectRef, Measurement], ref: SubjectRef) -> Measurement:
    """The metric of an account or a subscription."""
    return used.get(ref, _NOTHING)


def _allowances(subscription: RatedSubscription, end: datetime) -> list[Allowance]:
    """What is included in the part of a period that runs just before an instant."""
    last = end - datetime.resolution
    period = billing_period_at(subscription.terms, last)
    parts = () if period is None else parts_of(subscription.terms, period)
    ref = SubjectRef(Subject.SUBSCRIPTION, subscription.account, subscription.key)
    subscriber = Subscriber(subscription.account, subscription.key)
    return [
        Allowance(ref, price, part, Needed(subscriber, price.meter, Period(part.period.start, end)))
        for part in parts
        if part.period.start <= last < part.period.end
        for price in part.plan.prices
        if price.included_quantity and price.meter is not None
    ]


def _most(measured: Sequence[Measurement]) -> Measurement:
    """The largest that is observed; otherwise why there is none."""
    observed = [each for each in measured if isinstance(each, Observed)]
    return max(observed, key=lambda each: each.value) if observed else measured[0]
