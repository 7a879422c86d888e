"""Simulations: what everybody, or one account, would owe for a period on another plan.

Both sides are rated from the usage of the moment, in one snapshot, without adjustments: what is frozen is rated again. They
are walked some subscriptions at a time, and nothing is held of those that were walked but sums and the rows of a page: rows
stand in order of their differences, so a page is found by walking through all and keeping the first ones behind its place.
"""

import asyncio
from collections.abc import AsyncIterator, Collection, Iterable, Iterator, Mapping, Sequence
from datetime import datetime, timedelta
from decimal import Decimal
from heapq import nsmallest
from itertools import chain
from typing import Final

import msgspec

from metering.errors import InputIssue, InvalidInputError, NotFoundError, TooLargeError
from metering.events import Dimension, in_utc
from metering.limits import Limits
from metering.meters import read_definitions
from metering.plans import draft_issues, find_plan
from metering.rated_meters import rated_meter
from metering.statements.behind import GRAIN, read_behind
from metering.statements.figures import Needed, Subscriber, read_figures
from metering.store.queries import sql
from metering.store.snapshot import Snapshot
from metering.subscriptions import RatedSubscription, read_rated
from rating.attribution import Key
from rating.charges import Behind
from rating.exact import ZERO, add
from rating.meters import Figure, Meter
from rating.money import Currency, currency_of
from rating.periods import Period
from rating.plans import Plan
from rating.simulations import Compared, Side, Weight, compared, owed_within, put_on, side_of, usage_of, weights

_USER: Final = GRAIN.index(Dimension.USER)
# A draft has no name of its own here: that is ignored, as is from when on it would apply.
_DRAFT_KEY: Final = "draft"


class SimulationOrder(msgspec.Struct, frozen=True, kw_only=True):
    """What is to be simulated, as it is asked for: a plan (in a version, or its newest) or a draft; accounts None means all."""

    plan: str | None = None
    version: int | None = None
    draft: Plan | None = None
    start: datetime
    end: datetime
    accounts: Collection[str] | None = None
    by_user: bool = False


class Simulation(msgspec.Struct, frozen=True, kw_only=True):
    """What is simulated, now that it was checked; and how many subscriptions there are in the period that can be on the plan.

    Those in another currency cannot: amounts are not converted.
    """

    plan: Plan
    currency: Currency
    period: Period
    accounts: Collection[str] | None
    by_user: bool
    subscriptions: int
    other_currency: int


class Row(msgspec.Struct, frozen=True):
    """What a subscription owes on both sides; by user, the part that is a user's (None: of no user)."""

    account: str
    subscription: str
    user: str | None
    weight: Weight | None
    compared: Compared

    @property
    def place(self) -> "Place":
        """Where it stands among all rows."""
        return Place(self.compared.difference.amount.copy_abs(), self.subscription, self.user)


class Place(msgspec.Struct, frozen=True):
    """The biggest difference stands first, whichever way it goes; those alike by subscription and user, no user last."""

    difference: Decimal
    subscription: str
    user: str | None

    @property
    def order(self) -> tuple[Decimal, str, bool, str]:
        """What places are compared by."""
        return self.difference.copy_negate(), self.subscription, self.user is None, self.user or ""


class Simulated(msgspec.Struct, frozen=True):
    """A subscription on both sides, and its rows: one; by user one for each user, and one for what has no user."""

    compared: Compared
    rows: tuple[Row, ...]


# ---------------------------------------------------------------- what is asked


async def check_order(snapshot: Snapshot, order: SimulationOrder, limits: Limits) -> Simulation:
    """What an order means. Raises InvalidInputError with every fault, paths lead from `input`; NotFoundError where nothing
    else is wrong than that there is no such plan or version.
    """
    issues = [*_choice_issues(order), *period_issues(order, limits)]
    period = None if issues else Period(in_utc(order.start), in_utc(order.end))
    missing: InputIssue | None = None
    plan: Plan | None = None
    if order.draft is not None:
        plan = msgspec.structs.replace(order.draft, key=_DRAFT_KEY, effective_from=limits.asked_from_min)
        faults = await draft_issues(snapshot, plan, limits)
        issues += [InputIssue(("input", "draft", *issue.path[1:]), issue.message) for issue in faults]
    elif order.plan is not None:
        found = await find_plan(snapshot, order.plan, order.version)
        plan = None if found is None else found.plan
        missing = await _missing(snapshot, order.plan, order.version) if plan is None else None
    currency = None if plan is None else currency_of(plan.currency_code)
    counts: Mapping[str, int] = {}
    if period is not None and currency is not None:
        counts = await count_by_currency(snapshot, order.accounts, period)
        if counts and currency.code not in counts:
            issues.append(_currency_issue(order, currency, counts))
    if issues:
        raise InvalidInputError([*issues, *([] if missing is None else [missing])])
    if missing is not None:
        raise NotFoundError(missing.message)
    assert plan is not None, "an order without faults names a plan, or brings one"
    assert period is not None, "its period has no faults either"
    assert currency is not None, "and a plan without faults is in a currency"
    subscriptions = counts.get(currency.code, 0)
    return Simulation(
        plan=plan,
        currency=currency,
        period=period,
        accounts=order.accounts,
        by_user=order.by_user,
        subscriptions=subscriptions,
        other_currency=sum(counts.values()) - subscriptions,
    )


def check_size(simulation: Simulation, limits: Limits) -> None:
    """Raise TooLargeError for more subscriptions than one answer has time for."""
    maximum = limits.simulation_subscriptions_max
    if simulation.subscriptions > maximum:
        raise TooLargeError(
            simulation.subscriptions,
            maximum,
            message=f"{simulation.subscriptions:,} subscriptions would be rated twice, and one answer has time for {maximum:,}. "
            "Ask for an account, or let `metering simulate` do it for everybody.",
        )


def _choice_issues(order: SimulationOrder) -> Iterator[InputIssue]:
    if order.plan is None and order.draft is None:
        yield InputIssue(("input", "plan"), "Name a plan, or give a draft of one.")
    if order.plan is not None and order.draft is not None:
        yield InputIssue(("input", "draft"), "This is a draft, and `plan` names a plan: one of them can be simulated.")
    if order.version is not None and order.version < 1:
        yield InputIssue(("input", "version"), "Versions are counted from 1.")
    if order.version is not None and order.plan is None:
        yield InputIssue(("input", "version"), "A version is that of a plan: name it, or leave the version out.")


def period_issues(order: SimulationOrder, limits: Limits) -> Iterator[InputIssue]:
    """What is wrong with the period of an order."""
    if order.start >= order.end:
        message = "`to` must be later than `from`; a period is half-open [from, to)."
        yield InputIssue(("input", "period", "to"), message)
    elif order.end - order.start > timedelta(days=limits.simulation_days_max):
        message = f"A simulation is of {limits.simulation_days_max} days at most; ask for the years one by one."
        yield InputIssue(("input", "period"), message)
    if not (limits.asked_from_min <= order.start and order.end <= limits.asked_to_max):
        message = f"A period lies between {limits.asked_from_min:%Y-%m-%d} and {limits.asked_to_max:%Y-%m-%d}."
        yield InputIssue(("input", "period"), message)


async def _missing(snapshot: Snapshot, key: str, version: int | None) -> InputIssue:
    newest = None if version is None else await find_plan(snapshot, key)
    if newest is None:
        return InputIssue(("input", "plan"), f"There is no plan {key!r:.60}; publish it first, or give a draft.")
    message = f"There is no version {version} of the plan {key!r:.60}; its newest is {newest.plan.version}."
    return InputIssue(("input", "version"), message)


def _currency_issue(order: SimulationOrder, currency: Currency, counts: Mapping[str, int]) -> InputIssue:
    path = ("plan",) if order.draft is None else ("draft", "currencyCode")
    there = ", ".join(f"{count:,} in {code}" for code, count in counts.items())
    message = (
        f"The plan is in {currency.code}, and of the subscriptions there are {there}: amounts are not converted, so none "
        "of them can be on it."
    )
    return InputIssue(("input", *path), message)


async def count_by_currency(snapshot: Snapshot, accounts: Collection[str] | None, period: Period) -> Mapping[str, int]:
    """How many subscriptions there are in the period that have begun."""
    reach = snapshot.reach
    within = (reach.of_subscriptions(None), reach.of_accounts(accounts))
    chosen = [None if texts is None else [text for text in texts if "\0" not in text] for texts in within]
    until = min(period.end, await until_now(snapshot))
    rows = await snapshot.fetch(sql("subscriptions.count_by_currency"), [*chosen, period.start, until])
    return {row["currency_code"]: row["subscriptions"] for row in rows}


async def until_now(snapshot: Snapshot) -> datetime:
    """Billing periods that begin before it have begun."""
    return in_utc((await snapshot.horizon()).as_of) + timedelta.resolution


# ---------------------------------------------------------------- rating both sides


class _Pair(msgspec.Struct, frozen=True):
    """A subscription as it is, and as it would be."""

    subscription: RatedSubscription
    sides: tuple[Side, Side]

    @property
    def subscriber(self) -> Subscriber:
        """Whose usage counts."""
        return Subscriber(self.subscription.account, self.subscription.key)

    def needed(self) -> Iterator[Needed]:
        """The figures of both sides; many are the same."""
        for side in self.sides:
            for meter, period in side.needed():
                yield Needed(self.subscriber, meter, period)


async def simulate(snapshot: Snapshot, simulation: Simulation, limits: Limits) -> AsyncIterator[list[Simulated]]:
    """All subscriptions by key, some at a time; no more than that is held.

    Raises InvalidInputError where the usage that either side is made of is not kept any more.
    """
    until = await until_now(snapshot)
    first = limits.simulation_user_page_subscriptions if simulation.by_user else limits.statement_page_subscriptions
    last, has_more = None, True
    while has_more:
        page, has_more = await read_rated(
            snapshot, first, last, until=min(simulation.period.end, until), accounts=simulation.accounts
        )
        last = page[-1].key if page else None
        pairs = [_pair(each, simulation, until) for each in page if _is_simulated(each, simulation, until)]
        if pairs:
            yield await _simulated(snapshot, pairs, simulation, limits)


def _is_simulated(subscription: RatedSubscription, simulation: Simulation, until: datetime) -> bool:
    """As they are counted: those in the plan's currency that live in the period, and have begun."""
    terms, period = subscription.terms, simulation.period
    lives = terms.starts_at < min(period.end, until) and (terms.ends_at is None or terms.ends_at > period.start)
    return lives and subscription.currency_code == simulation.currency.code


def _pair(subscription: RatedSubscription, simulation: Simulation, until: datetime) -> _Pair:
    terms = subscription.terms
    sides = [side_of(each, simulation.period, until) for each in (terms, put_on(terms, simulation.plan))]
    return _Pair(subscription, (sides[0], sides[1]))


async def _simulated(
    snapshot: Snapshot, pairs: Sequence[_Pair], simulation: Simulation, limits: Limits
) -> list[Simulated]:
    """Rated on both sides; by halves, where the usage behind the lines of all would be too much to hold."""
    try:
        return await _rated(snapshot, pairs, simulation, limits)
    except TooLargeError:
        if len(pairs) == 1:
            raise
    middle = len(pairs) // 2
    halves = [await _simulated(snapshot, half, simulation, limits) for half in (pairs[:middle], pairs[middle:])]
    return [each for half in halves for each in half]


async def _rated(snapshot: Snapshot, pairs: Sequence[_Pair], simulation: Simulation, limits: Limits) -> list[Simulated]:
    needed = {each for pair in pairs for each in pair.needed()}
    used = await read_used(snapshot, needed, simulation.period, limits, by_user=simulation.by_user)
    return await asyncio.to_thread(_compare, pairs, used, simulation)


class Used(msgspec.Struct, frozen=True):
    """What sides are rated from: figures, the meters that show them, and the usage behind those that are shared out."""

    figures: Mapping[Needed, Figure]
    meters: Mapping[str, Meter]
    behind: Mapping[Needed, Sequence[Behind]]

    def owed(self, side: Side, of: Subscriber, period: Period) -> dict[Key, Decimal]:
        """What of a side falls into a period, by key."""
        needed = [Needed(of, meter, asked) for meter, asked in side.needed()]
        own = {(each.meter, each.period): self.figures[each] for each in needed}
        usage = {(each.meter, each.period): self.behind[each] for each in needed if each in self.behind}
        nobody: Key = (of.account, of.subscription, *[None] * (len(GRAIN) - 2))
        return owed_within(side, own, self.meters, period, usage, nobody)


async def read_used(
    snapshot: Snapshot, needed: Collection[Needed], period: Period, limits: Limits, *, by_user: bool = False
) -> Used:
    """Read it, exactly.

    Raises InvalidInputError where it is not kept any more; TooLargeError where the usage behind lines is too much to hold.
    """
    definitions = await read_definitions(snapshot, {each.meter for each in needed})
    read = await read_figures(snapshot, needed, definitions)
    if read.unreadable:
        of, fault = min(read.unreadable.items(), key=lambda item: (item[0].subscriber, item[0].meter, item[0].period))
        raise _gone(f"The usage of the subscription {of.subscriber.subscription!r:.60} is not kept any more.", fault)
    # What is inside the period as a whole is the subscription's, whoever used it.
    shared = {each for each in needed if by_user or each.period.within(period) != each.period}
    try:
        behind = await read_behind(snapshot, shared, definitions, period, limits.shares_max)
    except InvalidInputError as fault:
        raise _gone("The usage of a billing period that begins or ends beside this one is needed.", fault) from fault
    return Used(read.figures, {key: rated_meter(definition) for key, definition in definitions.items()}, behind)


def _gone(words: str, fault: InvalidInputError) -> InvalidInputError:
    reasons = " ".join(issue.message for issue in fault.issues)
    return InvalidInputError([InputIssue(("input", "period"), f"{words} {reasons}")])


def _compare(pairs: Sequence[_Pair], used: Used, simulation: Simulation) -> list[Simulated]:
    """Rate all of them. Of many subscriptions this takes a while."""
    return [_compared(pair, used, simulation) for pair in pairs]


def _compared(pair: _Pair, used: Used, simulation: Simulation) -> Simulated:
    of, currency = pair.subscriber, simulation.currency
    current, simulated = (used.owed(side, of, simulation.period) for side in pair.sides)
    whole = compared(current.values(), simulated.values(), currency)
    if not simulation.by_user:
        return Simulated(whole, (Row(of.account, of.subscription, None, None, whole),))
    needed = dict.fromkeys(pair.needed())
    users = weights(usage_of(used.behind[each], _USER) for each in needed if each in used.behind)
    now, then = _by_user(current), _by_user(simulated)
    rows = []
    for user in [*sorted(users), None]:
        part = compared([now.get(user, ZERO)], [then.get(user, ZERO)], currency)
        if user is not None or not users or part.current.amount or part.simulated.amount:
            rows.append(Row(of.account, of.subscription, user, None if user is None else users[user], part))
    return Simulated(whole, tuple(rows))


def _by_user(amounts: Mapping[Key, Decimal]) -> dict[str | None, Decimal]:
    sums: dict[str | None, Decimal] = {}
    for key, amount in amounts.items():
        sums[key[_USER]] = add(sums.get(key[_USER], ZERO), amount)
    return sums


# ---------------------------------------------------------------- adding up


class Sums(msgspec.Struct):
    """What some come to on both sides, and how many of them would pay more, less, or the same."""

    currency: Currency
    current: Decimal = ZERO
    simulated: Decimal = ZERO
    pay_more: int = 0
    pay_less: int = 0
    unchanged: int = 0

    def add(self, one: Compared) -> None:
        """Count one more."""
        self.current = add(self.current, one.current.amount)
        self.simulated = add(self.simulated, one.simulated.amount)
        difference = one.difference.amount
        self.pay_more += difference > ZERO
        self.pay_less += difference < ZERO
        self.unchanged += not difference

    @property
    def count(self) -> int:
        """How many they are."""
        return self.pay_more + self.pay_less + self.unchanged

    @property
    def compared(self) -> Compared:
        """All of them together."""
        return compared([self.current], [self.simulated], self.currency)


class PageAsked(msgspec.Struct, frozen=True):
    """So many rows behind a place."""

    first: int
    after: Place | None


class Page(msgspec.Struct, frozen=True):
    """Rows in their order, and whether there are more."""

    rows: tuple[Row, ...]
    has_next: bool


class Report:
    """What a simulation comes to: sums over subscriptions, over light and heavy users, and the pages that are asked for.

    What is held is that, however many rows are added.
    """

    def __init__(self, simulation: Simulation, pages: Iterable[PageAsked] = ()) -> None:
        self.simulation = simulation
        self.subscriptions = Sums(simulation.currency)
        self.users = {weight: Sums(simulation.currency) for weight in Weight}
        self.row_count = 0
        # One row more than a page has tells whether there are more.
        self._kept: dict[PageAsked, list[Row]] = {asked: [] for asked in pages}

    def add(self, batch: Sequence[Simulated]) -> None:
        """Take in some subscriptions more."""
        for each in batch:
            self.subscriptions.add(each.compared)
            self.row_count += len(each.rows)
            for row in each.rows:
                if row.weight is not None:
                    self.users[row.weight].add(row.compared)
        for asked, kept in self._kept.items():
            rows = (row for each in batch for row in each.rows if _is_behind(row, asked.after))
            self._kept[asked] = nsmallest(asked.first + 1, chain(kept, rows), key=lambda row: row.place.order)

    def page(self, asked: PageAsked) -> Page:
        """One of the pages that were asked for."""
        kept = self._kept[asked]
        return Page(tuple(kept[: asked.first]), len(kept) > asked.first)


def _is_behind(row: Row, after: Place | None) -> bool:
    return after is None or row.place.order > after.order


async def report_of(snapshot: Snapshot, simulation: Simulation, pages: Iterable[PageAsked], limits: Limits) -> Report:
    """Walk through all subscriptions. Raises TooLargeError for more of them, or of their users, than one answer has time for."""
    check_size(simulation, limits)
    report = Report(simulation, pages)
    async for batch in simulate(snapshot, simulation, limits):
        report.add(batch)
        if simulation.by_user and report.row_count > limits.points_max:
            raise TooLargeError(
                report.row_count,
                limits.points_max,
                message=f"These subscriptions have more than {limits.points_max:,} users. Ask for an account, or let "
                "`metering simulate` do it for everybody.",
            )
    return report
