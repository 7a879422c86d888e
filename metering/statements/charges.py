"""Charges: what the statements of a period come to, by any dimensions; and the usage that no price covers.

Every statement whose period touches the one that is asked for counts: final ones as they were frozen, all others as they
are in the snapshot. Their lines are shared out by the usage as it is in the snapshot, some subscriptions at a time.
"""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from datetime import timedelta

import msgspec

from metering.errors import ConflictError, InputIssue, InvalidInputError, TooLargeError
from metering.events import Dimension, in_utc
from metering.limits import Limits
from metering.meters import read_definitions
from metering.questions import Question, ValueFilter
from metering.rated_meters import rated_meter
from metering.rollups.read import Key, Total, read_rows
from metering.statements.behind import GRAIN, by_subscriber, check_shares, read_behind
from metering.statements.drafts import task_of
from metering.statements.figures import SUBSCRIBER, Needed, Subscriber
from metering.statements.history import History
from metering.statements.kept import read_histories
from metering.statements.read import Statement, draft_all
from metering.statements.unrated import coverings_of, read_uncovered, together
from metering.store.snapshot import Snapshot
from metering.subscriptions import read_rated
from rating.charges import Behind, Charge, UsageBehind, charges_within, metered_by, shares_held
from rating.exact import add
from rating.money import Money
from rating.periods import Period


class Group(msgspec.Struct, frozen=True):
    """A combination of values that amounts are for, and what they come to, by currency."""

    key: Key
    totals: tuple[Money, ...]


class Charges(msgspec.Struct, frozen=True):
    """All groups, by key (what has no value comes last), and what they come to altogether; one amount for each currency."""

    groups: tuple[Group, ...]
    totals: tuple[Money, ...]


class GroupPage(msgspec.Struct, frozen=True):
    """One page of groups; page plus remainder is the whole."""

    groups: tuple[Group, ...]
    has_next: bool
    remainder: tuple[Money, ...]


def page_of(charges: Charges, first: int, after: Key | None) -> GroupPage:
    """The `first` groups behind a key."""
    behind = [each for each in charges.groups if after is None or _order(each.key) > _order(after)]
    page = tuple(behind[:first])
    on_page = {each.key for each in page}
    rest = [money for each in charges.groups if each.key not in on_page for money in each.totals]
    return GroupPage(page, len(behind) > first, _by_currency(rest))


async def read_charges(snapshot: Snapshot, question: Question, limits: Limits) -> Charges:
    """The amounts that a question is about; its zone plays no part.

    Raises InvalidInputError where a statement, or the usage behind its lines, cannot be computed any more; TooLargeError
    where there are more groups than are held, or where one statement's amounts have more shares.
    """
    places = [GRAIN.index(dimension) for dimension in question.group_by]
    sums = await sum_charges(snapshot, question, limits, lambda charge: tuple(charge.key[place] for place in places))
    groups = tuple(Group(key, _ordered(sums[key])) for key in sorted(sums, key=_order))
    return Charges(groups, _by_currency(money for group in groups for money in group.totals))


async def sum_charges(
    snapshot: Snapshot, question: Question, limits: Limits, key_of: Callable[[Charge], Key]
) -> dict[Key, dict[str, Money]]:
    """The amounts that a question is about, added up by a key and by currency. Raises what read_charges raises."""
    sums: dict[Key, dict[str, Money]] = {}
    async for histories in _pages(snapshot, question, limits):
        statements = await statements_within(snapshot, histories, _asked(question))
        await _share_out(snapshot, statements, question, limits, _Sums(key_of, sums))
    return sums


class _Sums(msgspec.Struct, frozen=True):
    """Amounts that are added up, and by which key."""

    key_of: Callable[[Charge], Key]
    amounts: dict[Key, dict[str, Money]]


def _asked(question: Question) -> Period:
    return Period(in_utc(question.period.start), in_utc(question.period.end))


# ---------------------------------------------------------------- statements


async def _pages(snapshot: Snapshot, question: Question, limits: Limits) -> AsyncIterator[list[History]]:
    """The subscriptions that the question is about, some at a time, with what was frozen of them."""
    # Events may be a little ahead of us; they are rated in periods that begin then.
    until = (await snapshot.horizon()).as_of + limits.occurred_ahead_max + timedelta.resolution
    keys = _named(question.filters.get(Dimension.SUBSCRIPTION))
    accounts = _named(question.filters.get(Dimension.ACCOUNT))
    last, has_more = None, True
    while has_more:
        page, has_more = await read_rated(
            snapshot, limits.statement_page_subscriptions, last, until=until, keys=keys, accounts=accounts
        )
        last = page[-1].key if page else None
        kept = [each for each in page if _is_asked(Subscriber(each.account, each.key), question)]
        yield await read_histories(snapshot, kept)


def _named(chosen: ValueFilter | None) -> frozenset[str] | None:
    """The values that something must have one of; None where it may have others."""
    if chosen is None or chosen.negated:
        return None
    return frozenset(value for value in chosen.values if value is not None)


def _is_asked(subscriber: Subscriber, question: Question) -> bool:
    key = (subscriber.account, subscriber.subscription)
    return _keeps(question.filters, dict(zip(SUBSCRIBER, key, strict=True)))


def _keeps(filters: Mapping[Dimension, ValueFilter], values: Mapping[Dimension, str | None]) -> bool:
    """Whether these values are let through, as far as they are known."""
    return all(
        dimension not in values or (values[dimension] in chosen.values) is not chosen.negated
        for dimension, chosen in filters.items()
    )


async def statements_within(snapshot: Snapshot, histories: Sequence[History], asked: Period) -> list[Statement]:
    """The statements that count and whose periods touch the one that is asked for.

    Raises InvalidInputError where one was not frozen and cannot be computed any more.
    """
    statements: list[Statement] = [
        final for history in histories for final in history.finals if final.period.within(asked) is not None
    ]
    tasks = [
        task_of(history, due) for history in histories for due in history.drafts if due.period.within(asked) is not None
    ]
    for draft in await draft_all(snapshot, tasks):
        if isinstance(draft, ConflictError):
            raise InvalidInputError([InputIssue(("query", "period"), str(draft))])
        statements.append(draft)
    return statements


# ---------------------------------------------------------------- their lines


async def _share_out(
    snapshot: Snapshot,
    statements: Sequence[Statement],
    question: Question,
    limits: Limits,
    sums: _Sums,
) -> None:
    """Add up what falls into the period; where the usage behind many statements is too much to be held, of some at a time."""
    try:
        usage = await _usage(snapshot, statements, question, limits)
    except TooLargeError:
        if len(statements) == 1:
            raise
        half = len(statements) // 2
        await _share_out(snapshot, statements[:half], question, limits, sums)
        await _share_out(snapshot, statements[half:], question, limits, sums)
        return
    # Of many statements this takes a while, in which others are served.
    await asyncio.to_thread(_add_up, sums, statements, usage, question)
    if len(sums.amounts) > limits.points_max:
        raise TooLargeError(len(sums.amounts), limits.points_max)


async def _usage(
    snapshot: Snapshot, statements: Sequence[Statement], question: Question, limits: Limits
) -> Mapping[Needed, Sequence[Behind]]:
    """The usage behind the lines, as far as it decides about what is asked.

    Raises TooLargeError where it is more, or some statement's lines have more shares in it, than is held.
    """
    asked = _asked(question)
    # What falls into the period as a whole is an account's and a subscription's, whoever used it.
    is_coarse = {*question.group_by, *question.filters} <= set(SUBSCRIBER)
    needed = {
        Needed(_subscriber(statement), *metered)
        for statement in statements
        for each in statement.lines
        if (metered := metered_by(each.line)) is not None and not (is_coarse and metered[1].within(asked) == metered[1])
    }
    definitions = await read_definitions(snapshot, {each.meter for each in needed})
    usage = await read_behind(snapshot, needed, definitions, asked, limits.shares_max)
    behind = by_subscriber(usage)
    for statement in statements:
        own = behind.get(_subscriber(statement), {})
        check_shares(shares_held([each.line for each in statement.lines], own), limits.shares_max)
    return usage


def _subscriber(statement: Statement) -> Subscriber:
    return Subscriber(statement.account, statement.subscription)


def _add_up(
    sums: _Sums,
    statements: Sequence[Statement],
    usage: Mapping[Needed, Sequence[Behind]],
    question: Question,
) -> None:
    asked = _asked(question)
    behind = by_subscriber(usage)
    for statement in statements:
        of = _subscriber(statement)
        nobody: Key = (of.account, of.subscription, *[None] * (len(GRAIN) - len(SUBSCRIBER)))
        own: UsageBehind = behind.get(of, {})
        for charge in charges_within([each.line for each in statement.lines], own, nobody, asked):
            if _keeps(question.filters, dict(zip(GRAIN, charge.key, strict=True))):
                _add(sums.amounts.setdefault(sums.key_of(charge), {}), charge.amount)


def _add(sums: dict[str, Money], money: Money) -> None:
    known = sums.get(money.currency.code)
    amount = money.amount if known is None else add(known.amount, money.amount)
    sums[money.currency.code] = Money(amount, money.currency)


def _by_currency(amounts: Iterable[Money]) -> tuple[Money, ...]:
    sums: dict[str, Money] = {}
    for money in amounts:
        _add(sums, money)
    return _ordered(sums)


def _ordered(sums: Mapping[str, Money]) -> tuple[Money, ...]:
    return tuple(sums[code] for code in sorted(sums))


def _order(key: Key) -> tuple[tuple[bool, str], ...]:
    """As groups of usage are: what has no value comes last."""
    return tuple((value is None, value or "") for value in key)


# ---------------------------------------------------------------- what no price covers


async def read_unrated_usage(snapshot: Snapshot, question: Question, limits: Limits) -> tuple[Total, ...]:
    """The usage that is asked for and that no price covers, by unit; also what is no subscription's."""
    sums: dict[str, Total] = {}
    async for total, _ in _unrated(snapshot, question, limits):
        known = sums.get(total.unit)
        sums[total.unit] = total if known is None else together(known, total)
    return tuple(sums[unit] for unit in sorted(sums))


async def count_unrated_usage(
    snapshot: Snapshot, question: Question, limits: Limits, dimension: Dimension
) -> Mapping[str, int]:
    """How many values of a dimension it has, by unit."""
    values: dict[str, set[str]] = {}
    async for total, shown in _unrated(snapshot, question, limits, dimension):
        value = shown[dimension]
        values.setdefault(total.unit, set()).update([] if value is None else [value])
    return {unit: len(of_unit) for unit, of_unit in values.items()}


async def _unrated(
    snapshot: Snapshot, question: Question, limits: Limits, *also: Dimension
) -> AsyncIterator[tuple[Total, Mapping[Dimension, str | None]]]:
    """Rows of it: of subscriptions, what no price in effect counts; and what names none, or one that is not its account's."""
    asked = _asked(question)
    filters: dict[Dimension, ValueFilter] = {
        dimension: chosen for dimension, chosen in question.filters.items() if dimension not in SUBSCRIBER
    }
    known: set[Key] = set()
    async for histories in _pages(snapshot, question, limits):
        known |= {(each.subscriber.account, each.subscriber.subscription) for each in histories}
        coverings = [
            covering
            for place, history in enumerate(histories)
            for covering in coverings_of(place, history.subscriber, history.terms, asked)
        ]
        definitions = await read_definitions(snapshot, {key for each in coverings for key in each.meters})
        meters = {key: rated_meter(definition) for key, definition in definitions.items()}
        async for _, total, values in read_uncovered(snapshot, coverings, meters, also=also, filters=filters):
            yield total, values
    group_by = tuple(dict.fromkeys((*SUBSCRIBER, *(each for each in also if each is not Dimension.UNIT))))
    whole = msgspec.structs.replace(question, group_by=group_by)
    async for rows in read_rows(snapshot, whole, None, limits.export_rows_held_max):
        for row in rows:
            if row.key[: len(SUBSCRIBER)] not in known:
                yield row.total, dict(zip(group_by, row.key, strict=True)) | {Dimension.UNIT: row.total.unit}
