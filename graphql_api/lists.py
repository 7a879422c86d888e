"""The lists that sales, customer success and marketing ask for: who is on each, why, and the account's key figures."""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from datetime import UTC, date
from decimal import Decimal
from itertools import chain
from typing import Annotated, Any, Final

import msgspec
import strawberry

from graphql_api.accounts import Account, AccountFilter, account_of, chosen_of
from graphql_api.auth import requires
from graphql_api.context import Context, MeteringInfo
from graphql_api.left_out import given_or_none
from graphql_api.money import Money, money_of
from graphql_api.pages import CursorText, Edge, PageInfo, check_first, decode_cursor, edges_of, encode_cursor, page_info
from graphql_api.scalars import Instant
from health.lists.conditions import Sign
from health.lists.cross_selling import BLIND, LIFT_ABOVE, USERS_MIN
from health.lists.customer_success import (
    ADOPTION_GAPS,
    CHAMPIONS,
    DROP_OFFS,
    RENEWALS_AT_RISK,
    SILENT_ACCOUNTS,
    UNUSED_SEATS,
    USERS_NEEDING_HELP,
    VALUE_FOR_RENEWAL,
)
from health.lists.marketing import CAMPAIGN_AUDIENCE, REFERENCE_CUSTOMERS, TRAINING_CANDIDATES
from health.lists.rules import Rule, with_thresholds
from health.lists.sales import DISCOUNTS_TO_PHASE_OUT, TRIALS_LIKELY_TO_CLOSE, UPSELLS
from health.lists.thresholds import DEFAULTS
from health.scorecards import Subject
from metering.errors import InputIssue, InvalidInputError
from metering.health.closing import closing_reasons
from metering.health.cross_selling import list_cross_sells
from metering.health.listing import (
    CustomerFigures,
    ListAsked,
    ListedSubject,
    ListPage,
    ListPlace,
    Reason,
    SubscriptionAmount,
    list_subjects,
    read_amounts,
    read_figures,
    rule_of_day,
)
from metering.health.valuing import value_reasons
from metering.keys import Scope
from rating.money import currency_of, rounded


@strawberry.type(description="Why somebody is on a list: a metric with its value and threshold, and in words.")
class ListReason:
    """One reason."""

    metric: str = strawberry.field(description="A metric of scorecards, or a fact that docs/lists.md names.")
    name: str | None = strawberry.field(description="Of the feature, product or user that it is about, where it is.")
    value: float | None = strawberry.field(description="Null where nothing is known, which then is the reason.")
    threshold: float | None = strawberry.field(description="Null where the metric only tells.")
    text: str


@strawberry.type(name="AccountFigures", description="An account's key figures on the day of a list.")
class AccountFigures:
    """The figures of one account."""

    score: float | None = strawberry.field(description="For the purpose `health`; null when too little is known.")
    band: str
    monthly_amount: list[Money] = strawberry.field(
        description="What the subscriptions that run pay a month, as far as it is said; one for each currency."
    )
    seats: int | None = strawberry.field(description="Null where none are sold.")
    renews_at: Instant | None = strawberry.field(description="The first renewal of the subscriptions that run.")
    usage_change: float | None = strawberry.field(
        description="The change of usage in four weeks, as a share, by the trend of twelve; null while these are unknown."
    )


@strawberry.type(
    name="ListedSubject", description="An account, or a subscription or a user of it, with why it is on a list."
)
class ListedSubjectNode:
    """One row."""

    account: Account
    subscription: str | None = strawberry.field(default=None, description="The key, in lists of subscriptions.")
    user: str | None = strawberry.field(default=None, description="The key, in lists of users.")
    product: str | None = strawberry.field(default=None, description="What to offer, in `crossSells`.")
    as_of: date = strawberry.field(description="The UTC day at whose end it was so.")
    reasons: list[ListReason] = strawberry.field(description="What the list requires comes first.")
    figures: AccountFigures
    amount: Money | None = strawberry.field(
        default=None,
        description="Of a month: in `unusedSeats` what the unused seats cost, in other lists of subscriptions what the "
        "subscription pays; null where that was not told.",
    )


@strawberry.type
class ListedSubjectConnection:
    """One page of a list."""

    edges: list[Edge[ListedSubjectNode]]
    nodes: list[ListedSubjectNode]
    page_info: PageInfo
    total_count: int
    as_of: date = strawberry.field(description="The UTC day of the list.")


class _Place(msgspec.Struct, frozen=True, array_like=True):
    """What a cursor holds."""

    signs: Annotated[int, msgspec.Meta(ge=0, le=100)]
    rank: float | None
    account: CursorText
    key: CursorText


@strawberry.input(description="A threshold in place of a list's own: in every condition on the metric.")
class ListThreshold:
    """One threshold."""

    metric: str
    value: float


def _with_thresholds(rule: Rule, given: Sequence[ListThreshold]) -> Rule:
    """The rule with the thresholds that are given. Raises InvalidInputError with every one that it has no use for."""
    known, seen, issues = {each.metric for each in rule.conditions}, set(), []
    for place, each in enumerate(given):
        message = None
        if each.metric not in known:
            message = f"This list compares {', '.join(sorted(known))}; {each.metric!r:.60} is none of these."
        elif each.metric in seen:
            message = f"{each.metric} has a threshold already."
        seen.add(each.metric)
        if message is not None:
            issues.append(InputIssue(("thresholds", str(place), "metric"), message))
    if issues:
        raise InvalidInputError(issues)
    return with_thresholds(rule, {each.metric: each.value for each in given})


# What is told besides a rule's own reasons.
_BESIDES: Final[Mapping[str, Callable[..., Awaitable[list[tuple[Reason, ...]]]]]] = {
    TRIALS_LIKELY_TO_CLOSE.name: closing_reasons,
    VALUE_FOR_RENEWAL.name: value_reasons,
}


async def _list(
    base: Rule,
    given: Sequence[ListThreshold],
    filter_: AccountFilter,
    as_of: date | None,
    first: int,
    after: str | None,
    info: MeteringInfo,
) -> ListedSubjectConnection:
    """A page of the list of a rule, with the thresholds of its day, and those that are given in their place."""
    context = info.context
    asked = await _asked(as_of, first, after, context)
    rule = _with_thresholds(await rule_of_day(context.snapshot, base, asked.day, context.limits), given)
    chosen = chosen_of(filter_, context.limits)
    page = await list_subjects(context.snapshot, rule, chosen, asked, context.limits)
    besides = _BESIDES.get(rule.name)
    told: list[tuple[Reason, ...]] = [()] * len(page.rows)
    if besides is not None and page.rows:
        told = await besides(context.snapshot, rule, page.rows, asked.day)
    is_sold = rule.subject is Subject.SUBSCRIPTION
    amounts = await read_amounts(context.snapshot, [row.key for row in page.rows]) if is_sold and page.rows else {}
    figures = await _read_figures(page, asked, context)
    nodes = [
        ListedSubjectNode(
            account=account_of(row.customer, is_new=False),
            subscription=row.key if is_sold else None,
            user=row.key if rule.subject is Subject.USER else None,
            as_of=row.as_of,
            reasons=[_reason(each) for each in (*row.reasons, *more)],
            figures=figures[row.customer.key],
            amount=_amount(rule, row, amounts.get(row.key)),
        )
        for row, more in zip(page.rows, told, strict=True)
    ]
    return _connection(page, asked, nodes)


async def _list_cross_sells(
    filter_: AccountFilter, as_of: date | None, first: int, after: str | None, info: MeteringInfo
) -> ListedSubjectConnection:
    """A page of products to offer."""
    context = info.context
    asked = await _asked(as_of, first, after, context)
    page = await list_cross_sells(context.snapshot, chosen_of(filter_, context.limits), asked, context.limits)
    figures = await _read_figures(page, asked, context)
    nodes = [
        ListedSubjectNode(
            account=account_of(row.customer, is_new=False),
            product=row.key,
            as_of=row.as_of,
            reasons=[_reason(each) for each in row.reasons],
            figures=figures[row.customer.key],
        )
        for row in page.rows
    ]
    return _connection(page, asked, nodes)


async def _asked(as_of: date | None, first: int, after: str | None, context: Context) -> ListAsked:
    """Which page is asked for. Raises InvalidInputError for one that cannot be."""
    check_first(first, context.limits, ("first",))
    cursor = decode_cursor(after, _Place, ("after",)) if after else None
    place = None if cursor is None else ListPlace(cursor.signs, cursor.rank, cursor.account, cursor.key)
    day = given_or_none(as_of) or (await context.snapshot.horizon()).as_of.astimezone(UTC).date()
    return ListAsked(day, first, place)


async def _read_figures(page: ListPage, asked: ListAsked, context: Context) -> dict[str, AccountFigures]:
    """The key figures of a page's accounts. One statement."""
    accounts = sorted({row.customer.key for row in page.rows})
    found = await read_figures(context.snapshot, accounts, page.since, asked.day) if accounts else {}
    return {account: figures_of(each) for account, each in found.items()}


def _connection(page: ListPage, asked: ListAsked, nodes: list[ListedSubjectNode]) -> ListedSubjectConnection:
    cursors = [encode_cursor(_Place(*msgspec.structs.astuple(row.place))) for row in page.rows]
    return ListedSubjectConnection(
        edges=edges_of(nodes, cursors),
        nodes=nodes,
        page_info=page_info(cursors, has_next=page.has_next, has_previous=asked.after is not None),
        total_count=page.total,
        as_of=asked.day,
    )


def _reason(reason: Reason) -> ListReason:
    return ListReason(
        metric=reason.metric, name=reason.name, value=reason.value, threshold=reason.threshold, text=reason.words
    )


def figures_of(found: CustomerFigures) -> AccountFigures:
    """An account's figures as the API shows them."""
    return AccountFigures(
        score=found.score,
        band=found.band,
        monthly_amount=[_money(amount, code) for code, amount in sorted(found.amounts.items())],
        seats=found.seats,
        renews_at=None if found.renews_at is None else Instant(found.renews_at),
        usage_change=found.usage_change,
    )


def _amount(rule: Rule, row: ListedSubject, paid: SubscriptionAmount | None) -> Money | None:
    if paid is None:
        return None
    amount = paid.amount
    if rule.name == UNUSED_SEATS.name:
        # Counts of seats are whole.
        amount = amount * Decimal(int(row.values["unused_seats"])) / Decimal(int(row.values["seats"]))
    return _money(amount, paid.currency_code)


def _money(amount: Decimal, code: str) -> Money:
    currency = currency_of(code)
    assert currency is not None, "a subscription is in the currency of a plan, which has a minor unit"
    return money_of(rounded(amount, currency))


# ---------------------------------------------------------------- fields of the root


def description_of(rule: Rule) -> str:
    """What a list is, how it is computed, and what it cannot see, as its field tells it."""
    parts = [rule.question]
    if rule.required:
        parts.append(f"All of {rule_text(rule.required)}.")
    if rule.signs:
        parts.append(f"At least {rule.signs_min} of {'; '.join(rule_text(sign) for sign in rule.signs)}.")
        parts.append(f"More of these come first, then by `{rule.rank.metric}`.")
    else:
        parts.append(f"In order of `{rule.rank.metric}`.")
    if any(each.warning for each in (*rule.required, *chain(*rule.signs))):
        parts.append(
            "A name in brackets is the threshold of early warnings that is compared with, as it was on the day."
        )
    if rule.is_internal:
        parts.append("Empty for a caller that is bound to accounts.")
    parts.append(f"It cannot see {rule.blind}.")
    return " ".join(parts)


def rule_text(conditions: Sign) -> str:
    """Conditions as descriptions and docs/lists.md write them."""
    return ", ".join(
        f"`{each.metric}` {each.comparison.value} {each.threshold:g}"
        f"{'' if each.warning is None else f' (`{each.warning}`)'}{'' if each.unknown is None else ' or unknown'}"
        for each in conditions
    )


_DAY: Final = "A UTC day; today, unless given. What was measured last, up to its end, counts."


def _field(rule: Rule) -> Any:
    """The root field of a list."""

    async def resolve(
        info: MeteringInfo,
        filter: AccountFilter = AccountFilter(),  # noqa: B008 - an input without fields, which nobody changes
        thresholds: list[ListThreshold] = [],  # noqa: B006 - as above
        as_of: Annotated[date | None, strawberry.argument(description=_DAY)] = strawberry.UNSET,
        first: int = 50,
        after: str | None = strawberry.UNSET,
    ) -> ListedSubjectConnection:
        return await _list(rule, thresholds, filter, as_of, first, after or None, info)

    return strawberry.field(resolver=resolve, description=description_of(rule), **requires(Scope.HEALTH_READ))


def _field_of_subjects(rules: Mapping[Subject, Rule]) -> Any:
    """The root field of a list that there is of every kind of subjects."""

    async def resolve(
        info: MeteringInfo,
        subject: Subject = Subject.ACCOUNT,
        filter: AccountFilter = AccountFilter(),  # noqa: B008 - as above
        thresholds: list[ListThreshold] = [],  # noqa: B006 - as above
        as_of: Annotated[date | None, strawberry.argument(description=_DAY)] = strawberry.UNSET,
        first: int = 50,
        after: str | None = strawberry.UNSET,
    ) -> ListedSubjectConnection:
        return await _list(rules[subject], thresholds, filter, as_of, first, after or None, info)

    described = " ".join(
        f"Of {subject.value.lower()}s: {description_of(rule)}" for subject, rule in sorted(rules.items(), key=_by_kind)
    )
    return strawberry.field(resolver=resolve, description=described, **requires(Scope.HEALTH_READ))


def _field_of_products() -> Any:
    """The root field of products to offer."""

    async def resolve(
        info: MeteringInfo,
        filter: AccountFilter = AccountFilter(),  # noqa: B008 - as above
        as_of: Annotated[date | None, strawberry.argument(description=_DAY)] = strawberry.UNSET,
        first: int = 50,
        after: str | None = strawberry.UNSET,
    ) -> ListedSubjectConnection:
        return await _list_cross_sells(filter, as_of, first, after or None, info)

    described = (
        "Which products could be sold besides? Each product that an account did not use in 90 days, and that is more common "
        f"among the customers of one that it uses than among all: of {USERS_MIN} customers or more, the lower bound of their "
        f"share (Wilson, 95 %) is more than {LIFT_ABOVE:g} times the share of all. The strongest come first; accounts with a "
        f"score below {DEFAULTS.upsell_score_min:g} are left out. Empty for a caller that is bound to accounts. It cannot "
        f"see {BLIND}."
    )
    return strawberry.field(resolver=resolve, description=described, **requires(Scope.HEALTH_READ))


def _by_kind(one: tuple[Subject, Rule]) -> str:
    return one[0].value


@strawberry.type
class Lists:
    """The root fields of the lists, one for each question."""

    unused_seats: ListedSubjectConnection = _field(UNUSED_SEATS)
    drop_offs: ListedSubjectConnection = _field_of_subjects(DROP_OFFS)
    renewals_at_risk: ListedSubjectConnection = _field(RENEWALS_AT_RISK)
    champions: ListedSubjectConnection = _field(CHAMPIONS)
    users_needing_help: ListedSubjectConnection = _field(USERS_NEEDING_HELP)
    trials_likely_to_close: ListedSubjectConnection = _field(TRIALS_LIKELY_TO_CLOSE)
    upsells: ListedSubjectConnection = _field(UPSELLS)
    cross_sells: ListedSubjectConnection = _field_of_products()
    adoption_gaps: ListedSubjectConnection = _field(ADOPTION_GAPS)
    silent_accounts: ListedSubjectConnection = _field(SILENT_ACCOUNTS)
    reference_customers: ListedSubjectConnection = _field(REFERENCE_CUSTOMERS)
    value_for_renewal: ListedSubjectConnection = _field(VALUE_FOR_RENEWAL)
    discounts_to_phase_out: ListedSubjectConnection = _field(DISCOUNTS_TO_PHASE_OUT)
    training_candidates: ListedSubjectConnection = _field(TRAINING_CANDIDATES)
    campaign_audience: ListedSubjectConnection = _field(CAMPAIGN_AUDIENCE)
