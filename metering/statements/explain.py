"""Why an account's charges in one period differ from those in another, split by cause and by any dimensions."""

import asyncio
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import timedelta
from typing import Final

import msgspec

from metering.errors import InputIssue, InvalidInputError, NotFoundError, TooLargeError
from metering.events import Dimension
from metering.limits import Limits
from metering.meters import Definition, read_definitions
from metering.plans import versions_of
from metering.rated_meters import rated_meter
from metering.statements.behind import GRAIN, by_subscriber, check_shares, read_behind
from metering.statements.charges import statements_within
from metering.statements.compared import (
    ADDED,
    Compared,
    Versions,
    figures_of_stages,
    rated_stages,
    reference_of,
    stages_of,
)
from metering.statements.figures import SUBSCRIBER, Needed, Subscriber, read_figures
from metering.statements.history import History
from metering.statements.kept import read_histories
from metering.statements.read import Statement
from metering.store.snapshot import Snapshot
from metering.subscriptions import Subscription, choices_of, rated, read_subscriptions
from rating.charges import Behind, UsageBehind, shares_held
from rating.exact import ZERO
from rating.explain import Changes, Explanation, Side, metered
from rating.meters import Figure
from rating.money import Currency, currency_of
from rating.periods import Period, instant_text
from rating.stages import Stage

# The arguments that tell the two periods.
_BEFORE: Final = "comparedWith"
_AFTER: Final = "period"


class Comparison(msgspec.Struct, frozen=True, kw_only=True):
    """Which charges are compared, and how parts are told apart. Make one with `compare`, which checks it."""

    account: str
    before: Period
    after: Period
    by: tuple[Dimension, ...]
    # So many parts are told; what all others come to is one remainder.
    top: int
    currency_code: str | None


class Explained(msgspec.Struct, frozen=True):
    """The answer, and the unit of each meter."""

    explanation: Explanation
    units: Mapping[str, str]


def compare(wanted: Comparison, limits: Limits) -> Comparison:
    """What is wanted. Raises InvalidInputError with every fault; paths lead from the GraphQL argument `input`."""
    issues = [*_period_issues(wanted.after, _AFTER, limits), *_period_issues(wanted.before, _BEFORE, limits)]
    if len(set(wanted.by)) != len(wanted.by):
        issues.append(InputIssue(("input", "by"), "A dimension is named twice; there are eight, each is named once."))
    if not 1 <= wanted.top <= limits.page_rows_max:
        message = f"`top` must be 1 to {limits.page_rows_max:,}; this is {wanted.top:,}."
        issues.append(InputIssue(("input", "top"), message))
    if wanted.currency_code is not None and currency_of(wanted.currency_code) is None:
        message = f"{wanted.currency_code!r:.60} is no currency of ISO 4217 with a minor unit, such as EUR."
        issues.append(InputIssue(("input", "currencyCode"), message))
    if issues:
        raise InvalidInputError(issues)
    return wanted


def _period_issues(period: Period, name: str, limits: Limits) -> Iterator[InputIssue]:
    if period.start >= period.end:
        message = "`to` must be later than `from`; a period is half-open [from, to)."
        yield InputIssue(("input", name, "to"), message)
    if not (limits.asked_from_min <= period.start and period.end <= limits.asked_to_max):
        message = f"A period lies between {limits.asked_from_min:%Y-%m-%d} and {limits.asked_to_max:%Y-%m-%d}."
        yield InputIssue(("input", name), message)


async def explain_charges(snapshot: Snapshot, wanted: Comparison, limits: Limits) -> Explained:
    """Why the charges of two periods differ, as far as they are within the snapshot's reach.

    Raises NotFoundError where the account is not there, or has never had a subscription; InvalidInputError where it is charged in
    several currencies and none is named, or not in the one that is, and where usage that this takes is not kept any more.
    """
    found = _Found({}, set(), {})
    async for page in _pages(snapshot, wanted.account, limits):
        await _add_page(snapshot, page, wanted, found, limits)
    if not found.changes:
        raise NotFoundError(
            f"There is no account {wanted.account!r:.60} with a subscription: nothing is charged to it."
        )
    changes = found.of_currency(wanted.currency_code)
    adding_up = {key for key, each in found.definitions.items() if each.aggregation in ADDED}
    explanation = await asyncio.to_thread(changes.explanation, wanted.top, adding_up)
    return Explained(explanation, {key: each.unit for key, each in found.definitions.items()})


class _Found(msgspec.Struct):
    """What has been added up, by currency; those in which something was charged in either period; and the meters."""

    changes: dict[str, Changes]
    charged: set[str]
    definitions: dict[str, Definition]

    def of_currency(self, code: str | None) -> Changes:
        """What changed in this currency, or in the only one there is."""
        if code in self.changes:
            return self.changes[code]
        there = sorted(self.charged or self.changes)
        if code is None and len(there) == 1:
            return self.changes[there[0]]
        message = (
            f"The account is charged in {', '.join(there)}. Amounts are never added across currencies, so one is explained at "
            "a time: name it."
        )
        raise InvalidInputError([InputIssue(("input", "currencyCode"), message)])


async def _pages(snapshot: Snapshot, account: str, limits: Limits) -> AsyncIterator[list[Subscription]]:
    """The account's subscriptions, some at a time."""
    last, has_more = None, True
    while has_more:
        page, has_more = await read_subscriptions(
            snapshot, limits.statement_page_subscriptions, last, accounts=[account]
        )
        if page:
            last = page[-1].key
            yield page


# ---------------------------------------------------------------- one page


class _Staged(msgspec.Struct, frozen=True):
    """A subscription in one of the periods, and the stages from what was charged to the reference."""

    compared: Compared
    stages: Sequence[Stage]


async def _add_page(
    snapshot: Snapshot, page: Sequence[Subscription], wanted: Comparison, found: _Found, limits: Limits
) -> None:
    """Read, rate and add up what changed of these subscriptions; of some at a time, where all of it is too much to be held."""
    for each in page:
        code = each.currency_code
        if code not in found.changes:
            found.changes[code] = Changes(_currency(code), [GRAIN.index(by) for by in wanted.by])
    page = [each for each in page if wanted.currency_code in {None, each.currency_code}]
    try:
        before, after = await _both_sides(snapshot, page, wanted, found, limits)
    except TooLargeError as error:
        if len(page) == 1:
            raise InvalidInputError([InputIssue(("input",), str(error))]) from error
        half = len(page) // 2
        await _add_page(snapshot, page[:half], wanted, found, limits)
        await _add_page(snapshot, page[half:], wanted, found, limits)
        return
    for each, side_before, side_after in zip(page, before, after, strict=True):
        changes = found.changes[each.currency_code]
        # Of many keys this takes a while, in which others are served.
        await asyncio.to_thread(changes.add, side_before, side_after)
        if changes.size > limits.points_max:
            held = f"{limits.points_max:,} are held"
            message = f"The difference has {changes.size:,} parts; {held}. Tell them apart by fewer dimensions."
            raise InvalidInputError([InputIssue(("input", "by"), message)])


async def _both_sides(
    snapshot: Snapshot, page: Sequence[Subscription], wanted: Comparison, found: _Found, limits: Limits
) -> tuple[list[Side], list[Side]]:
    """These subscriptions in both periods, rated at every stage. Raises TooLargeError where that is more than is held."""
    versions = await versions_of(snapshot, {terms.plan for each in page for terms in each.terms})
    until = (await snapshot.horizon()).as_of + limits.occurred_ahead_max + timedelta.resolution
    histories = await read_histories(snapshot, [rated(each, versions, until) for each in page])
    before = await _compared(snapshot, histories, wanted.before, _BEFORE)
    after = await _compared(snapshot, histories, wanted.after, _AFTER)
    found.charged |= {
        each.history.currency.code
        for each in [*before, *after]
        if any(statement.lines or not statement.is_closing for statement in each.statements)
    }
    others = {plan for each in [*before, *after] for plan in each.plans} - versions.keys()
    versions = {**versions, **await versions_of(snapshot, others)} if others else versions
    found.definitions |= await read_definitions(snapshot, _metered(versions))
    staged = [_staged(*each, versions) for each in zip(page, before, after, strict=True)]
    return (
        await _sides(snapshot, [each for each, _ in staged], found.definitions, wanted, _BEFORE, limits),
        await _sides(snapshot, [each for _, each in staged], found.definitions, wanted, _AFTER, limits),
    )


def _currency(code: str) -> Currency:
    currency = currency_of(code)
    assert currency is not None, "a subscription is in the currency of a plan, which has a minor unit"
    return currency


def _metered(versions: Versions) -> set[str]:
    prices = (price for plans in versions.values() for plan in plans for price in plan.prices)
    return {price.meter for price in prices if price.meter is not None}


async def _compared(snapshot: Snapshot, histories: Sequence[History], asked: Period, name: str) -> list[Compared]:
    """The subscriptions in a period, with their statements."""
    with _told_of(name):
        statements = await statements_within(snapshot, histories, asked)
    of_each: dict[str, list[Statement]] = {}
    for each in statements:
        of_each.setdefault(each.subscription, []).append(each)
    return [Compared(history, of_each.get(history.subscription.key, []), asked) for history in histories]


def _staged(
    subscription: Subscription, before: Compared, after: Compared, versions: Versions
) -> tuple[_Staged, _Staged]:
    reference = reference_of(before, after, versions)
    if reference is None:
        return _Staged(before, ()), _Staged(after, ())
    kept = [each for each in choices_of(subscription.terms) if each.since < before.asked.end]
    pinned = kept[-1].version if kept and kept[-1].plan == reference.plan.key else None
    return (
        _Staged(before, stages_of(before, reference, versions, is_before=True, pinned=pinned)),
        _Staged(after, stages_of(after, reference, versions, is_before=False, pinned=pinned)),
    )


# ---------------------------------------------------------------- one of the two periods


async def _sides(
    snapshot: Snapshot,
    staged: Sequence[_Staged],
    definitions: Mapping[str, Definition],
    wanted: Comparison,
    name: str,
    limits: Limits,
) -> list[Side]:
    """The subscriptions in a period, rated at every stage, with the usage that amounts are shared by."""
    figures = await _figures(snapshot, staged, definitions, name)
    # Of many subscriptions this takes a while, in which others are served.
    sides = await asyncio.to_thread(_rated, staged, figures, definitions)
    # What falls into the period as a whole is an account's and a subscription's, whoever used it.
    is_coarse = set(wanted.by) <= set(SUBSCRIBER)
    needed: set[Needed] = set()
    told: dict[Needed, Sequence[Behind]] = {}
    for each, side in zip(staged, sides, strict=True):
        for of in _lines_needed(each.compared, side):
            if not is_coarse or of.period.within(side.asked) != of.period:
                needed.add(of)
            elif of in figures and definitions[of.meter].aggregation in ADDED:
                told[of] = [Behind(side.nobody, figures[of].quantity, ZERO, figures[of].quantity)]
    with _told_of(name):
        asked = wanted.before if name == _BEFORE else wanted.after
        read = await read_behind(snapshot, needed, definitions, asked, limits.shares_max)
    _check_held(staged, sides, by_subscriber(read), limits)
    usage = by_subscriber({**told, **read})
    return [
        msgspec.structs.replace(side, usage=usage.get(each.compared.history.subscriber, {}))
        for each, side in zip(staged, sides, strict=True)
    ]


def _check_held(
    staged: Sequence[_Staged], sides: Sequence[Side], usage: Mapping[Subscriber, UsageBehind], limits: Limits
) -> None:
    """Raise TooLargeError where one billing period's lines have more shares, at any stage, than are held."""
    for each, side in zip(staged, sides, strict=True):
        own = usage.get(each.compared.history.subscriber, {})
        for billed in (side.charged, *(lines for _, lines in side.stages)):
            for lines in billed.values():
                check_shares(shares_held(lines, own), limits.shares_max)


async def _figures(
    snapshot: Snapshot, staged: Sequence[_Staged], definitions: Mapping[str, Definition], name: str
) -> dict[Needed, Figure]:
    """What rating the stages takes: as the statements tell it, and else as it is now."""
    figures: dict[Needed, Figure] = {}
    unknown: set[Needed] = set()
    for each in staged:
        known = each.compared.known(definitions)
        for needed in figures_of_stages(each.compared, each.stages):
            figure = known.find(needed.meter, needed.period)
            if figure is None:
                unknown.add(needed)
            else:
                figures[needed] = figure
    read = await read_figures(snapshot, unknown, definitions)
    if read.unreadable:
        raise InvalidInputError([InputIssue(("input", name), message) for message in _reasons(read.unreadable)])
    return {**figures, **read.figures}


def _reasons(unreadable: Mapping[Needed, InvalidInputError]) -> list[str]:
    """Why, once for each stretch of time."""
    by_period = {needed.period: error for needed, error in unreadable.items()}
    return [
        f"Usage from {instant_text(period.start)} to {instant_text(period.end)} is to be rated at other prices, and is not kept "
        f"any more. {' '.join(issue.message for issue in by_period[period].issues)}"
        for period in sorted(by_period)
    ]


def _rated(
    staged: Sequence[_Staged], figures: Mapping[Needed, Figure], definitions: Mapping[str, Definition]
) -> list[Side]:
    meters = {key: rated_meter(definition) for key, definition in definitions.items()}
    of_each: dict[Subscriber, dict[tuple[str, Period], Figure]] = {}
    for needed, figure in figures.items():
        of_each.setdefault(needed.subscriber, {})[needed.meter, needed.period] = figure
    sides = []
    for compared, stages in ((each.compared, each.stages) for each in staged):
        of = compared.history.subscriber
        sides.append(
            Side(
                asked=compared.asked,
                nobody=(of.account, of.subscription, *[None] * (len(GRAIN) - len(SUBSCRIBER))),
                charged=compared.charged,
                beside=compared.beside,
                stages=rated_stages(compared, stages, of_each.get(of, {}), meters),
            )
        )
    return sides


def _lines_needed(compared: Compared, side: Side) -> set[Needed]:
    """The usage behind all of its lines."""
    billed = [side.charged, *(lines for _, lines in side.stages)]
    lines = [*(of for each in billed for of in each.values()), *side.beside]
    return {Needed(compared.history.subscriber, *pair) for of in lines for pair in metered(of)}


@contextmanager
def _told_of(name: str) -> Iterator[None]:
    """What cannot be answered of a period is said of the argument that it is."""
    try:
        yield
    except InvalidInputError as error:
        issues = [InputIssue(("input", name), issue.message) for issue in error.issues]
        raise InvalidInputError(issues) from error
