"""Commitments that will not be used: of each subscription that runs, what its plan's minimums of the running billing period
will be short of at today's pace. Both sides are rated from one snapshot: the period as it is, and as it will be.
"""

import asyncio
from collections.abc import Collection, Iterator, Mapping
from datetime import UTC, datetime
from decimal import Decimal
from typing import Final

import msgspec

from metering.aggregations import Aggregation
from metering.errors import TooLargeError
from metering.events import in_utc
from metering.health.customers import Customer, CustomerFilter
from metering.health.known import midnight_after
from metering.limits import Limits
from metering.meters import Definition, read_definitions
from metering.rated_meters import rated_meter
from metering.statements.figures import FiguresRead, Needed, Subscriber, read_figures
from metering.statements.simulations import until_now
from metering.store.queries import sql
from metering.store.snapshot import Snapshot
from metering.subscriptions import RatedSubscription, read_rated
from rating.commitments import Commitment, at_pace, is_committed, passed, running_part, unmet
from rating.meters import Meter
from rating.money import Money, sum_of
from rating.periods import Period
from rating.statements import figures_needed, statement_of
from rating.subscriptions import BillingPeriod, PlanPart, parts_of

# Before so much of the time has passed, its pace says little.
PASSED_MIN: Final = Decimal("0.2")
# What these show grows with time; the figures of the others do not.
_ADDING: Final = frozenset({Aggregation.SUM, Aggregation.COUNT})


class Unmet(msgspec.Struct, frozen=True, kw_only=True):
    """A subscription with minimums that will not be reached, each by itself; of the part of its billing period in which its plan
    applies, `passed` is the share that is over.
    """

    customer: Customer
    subscription: str
    plan: str
    period: Period
    passed: Decimal
    commitments: tuple[Commitment, ...]

    @property
    def short(self) -> Money:
        """What will be owed beyond what is used: a plan's minimum counts what fills up to those of its prices."""
        return sum_of((each.short for each in self.commitments), self.commitments[0].short.currency)

    @property
    def order(self) -> tuple[str, Decimal, str]:
        """By currency, who is short of most first; those alike by key."""
        return self.short.currency.code, self.short.amount.copy_negate(), self.subscription


class _Committed(msgspec.Struct, frozen=True):
    """A subscription whose plan of the moment has a minimum."""

    subscription: RatedSubscription
    period: BillingPeriod
    part: PlanPart

    def needed(self, now: datetime) -> Iterator[Needed]:
        """The figures of all that has begun of the period."""
        terms = self.subscription.terms
        begun = [each for each in parts_of(terms, self.period) if each.period.start <= now]
        subscriber = Subscriber(self.subscription.account, self.subscription.key)
        return (Needed(subscriber, meter, period) for meter, period in figures_needed(begun))


class _Used(msgspec.Struct, frozen=True):
    """What meters show, and what they are."""

    read: FiguresRead
    meters: Mapping[str, Meter]
    adding: Collection[str]


async def read_unmet(snapshot: Snapshot, chosen: CustomerFilter, limits: Limits) -> list[Unmet]:
    """All of them in order, of these customers. None for who does not see everything: what is sold next is the seller's.

    What cannot be rated any more, as its usage is not kept, is left out. Raises TooLargeError for more subscriptions than one
    answer has time for.
    """
    if not snapshot.reach.is_everything or "\0" in (chosen.text or ""):
        return []
    now = in_utc((await snapshot.horizon()).as_of)
    found = await _committed(snapshot, now, limits)
    customers = await _kept(snapshot, chosen, {each.subscription.account for each in found}, now)
    kept = [each for each in found if each.subscription.account in customers]
    needed = {each for of in kept for each in of.needed(now)}
    definitions = await read_definitions(snapshot, {each.meter for each in needed})
    used = _Used(
        await read_figures(snapshot, needed, definitions),
        {key: rated_meter(definition) for key, definition in definitions.items()},
        {key for key, definition in definitions.items() if _adds_up(definition)},
    )
    # Of many subscriptions this takes a while, in which others are served.
    rated = await asyncio.to_thread(lambda: [_unmet(each, customers, used, now) for each in kept])
    return sorted((each for each in rated if each is not None), key=lambda each: each.order)


async def _committed(snapshot: Snapshot, now: datetime, limits: Limits) -> list[_Committed]:
    """Those that run, and of which enough of the time has passed."""
    found: list[_Committed] = []
    last, has_more = None, True
    until = await until_now(snapshot)
    while has_more:
        page, has_more = await read_rated(snapshot, limits.statement_page_subscriptions, last, until=until)
        last = page[-1].key if page else None
        for each in page:
            running = running_part(each.terms, now)
            if running is None:
                continue
            period, part = running
            if is_committed(part.plan) and passed(part.period, now) >= PASSED_MIN:
                found.append(_Committed(each, period, part))
        maximum = limits.simulation_subscriptions_max
        if len(found) > maximum:
            message = (
                f"More than {maximum:,} subscriptions have commitments, and would be rated twice: one answer has time for no "
                "more. Of everybody `metering export charges` tells what fills up to a minimum."
            )
            raise TooLargeError(len(found), maximum, message=message)
    return found


async def _kept(
    snapshot: Snapshot, chosen: CustomerFilter, accounts: Collection[str], now: datetime
) -> Mapping[str, Customer]:
    """The customers among these accounts that are asked for. One statement."""
    day = now.astimezone(UTC).date()
    rows = await snapshot.fetch(
        sql("lists.keep_accounts"),
        [
            *(sorted(accounts), day, midnight_after(day)),
            None if chosen.bands is None else [band for band in chosen.bands if "\0" not in band],
            *(chosen.attributes, chosen.text, chosen.renews_before),
        ],
    )
    return {row["account"]: Customer(row["account"], row["name"], row["attributes"]) for row in rows}


def _unmet(of: _Committed, customers: Mapping[str, Customer], used: _Used, now: datetime) -> Unmet | None:
    needed = list(of.needed(now))
    if any(each in used.read.unreadable for each in needed):
        return None
    terms, part = of.subscription.terms, of.part
    so_far = {(each.meter, each.period): used.read.figures[each] for each in needed}
    now_owed, expected = (
        statement_of(terms, of.period, figures, used.meters)
        for figures in (so_far, at_pace(so_far, part.period, now, used.adding))
    )
    commitments = unmet(now_owed, expected, part)
    if not commitments:
        return None
    return Unmet(
        customer=customers[of.subscription.account],
        subscription=of.subscription.key,
        plan=part.plan.key,
        period=part.period,
        passed=passed(part.period, now),
        commitments=commitments,
    )


def _adds_up(definition: Definition) -> bool:
    return definition.aggregation in _ADDING
