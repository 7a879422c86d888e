"""Alert rules: from which bound of which figure on somebody is told."""

from typing import Annotated, Final

import strawberry

from graphql_api.context import MeteringInfo
from graphql_api.left_out import given_or_none
from graphql_api.pages import Connection, page_by_key
from graphql_api.problems import Conflict, InvalidInput
from graphql_api.questions import UsageFilter, filters_of
from graphql_api.scalars import CurrencyCode, DecimalText, Instant, JsonObject, ZoneName
from metering.alerts import rules
from metering.alerts.crossings import Bounds
from metering.alerts.rules import (
    Amount,
    IncludedShare,
    Measure,
    Quantity,
    RuleDefinition,
    RuleOrder,
    Slice,
    StatementTotal,
    read_rules,
    shown_measure,
)
from metering.errors import InputIssue, InvalidInputError
from metering.events import Dimension
from metering.keys import Scope
from metering.periods import Bucket

_BY_ACCOUNT: Final = (Dimension.ACCOUNT,)


@strawberry.type(
    description="A rule: an alert is raised where its measure is at or above `threshold`, and resolved where it is strictly "
    "below `resolveBelow`; once for each crossing, in each period anew."
)
class AlertRule:
    """One rule."""

    key: str
    name: str
    measure: JsonObject = strawberry.field(description="As it was put.")
    threshold: DecimalText
    resolve_below: DecimalText
    accounts: list[str] | None = strawberry.field(description="About these only; null: about all.")
    enabled: bool
    fault: str | None = strawberry.field(description="Why it cannot be evaluated now.")
    created_at: Instant
    changed_at: Instant


AlertRuleConnection = Connection[AlertRule]


@strawberry.input(description="What a meter shows in a calendar period, by any dimensions.")
class QuantityMeasureInput:
    """A quantity."""

    meter: str
    group_by: list[Dimension] = strawberry.field(
        default_factory=lambda: list(_BY_ACCOUNT), description="One figure for each combination that occurs."
    )
    filter: UsageFilter = strawberry.field(default_factory=UsageFilter)
    bucket: Bucket = strawberry.field(default=Bucket.MONTH, description="The period, which is cut in the time zone.")
    time_zone: ZoneName = ZoneName("UTC")


@strawberry.input(description="What `charges` come to in a calendar period, by any dimensions.")
class AmountMeasureInput:
    """An amount."""

    currency_code: CurrencyCode
    budget: DecimalText | None = strawberry.field(
        default=strawberry.UNSET, description="With it the bounds are shares of it: 0.8 is 80 %."
    )
    group_by: list[Dimension] = strawberry.field(
        default_factory=lambda: list(_BY_ACCOUNT), description="One figure for each combination that occurs."
    )
    filter: UsageFilter = strawberry.field(default_factory=UsageFilter)
    bucket: Bucket = strawberry.field(default=Bucket.MONTH, description="The period, which is cut in the time zone.")
    time_zone: ZoneName = ZoneName("UTC")


@strawberry.input(
    description="Which share of what its plan includes of a meter each subscription has used in its billing period; 1 is all. "
    "Of several prices that include some, the one that includes the least counts."
)
class IncludedShareMeasureInput:
    """A share of an included quantity."""

    meter: str


@strawberry.input(
    description="What each subscription's statement comes to in its billing period, before credits; of those in this currency."
)
class StatementTotalMeasureInput:
    """A statement's total."""

    currency_code: CurrencyCode
    budget: DecimalText | None = strawberry.field(
        default=strawberry.UNSET, description="With it the bounds are shares of it: 0.8 is 80 %."
    )


@strawberry.input(one_of=True, description="What a rule looks at.")
class AlertMeasureInput:
    """One of the measures."""

    quantity: QuantityMeasureInput | None = strawberry.UNSET
    amount: AmountMeasureInput | None = strawberry.UNSET
    included_share: IncludedShareMeasureInput | None = strawberry.UNSET
    statement_total: StatementTotalMeasureInput | None = strawberry.UNSET


@strawberry.input
class PutAlertRuleInput:
    """A rule as it is put."""

    key: str
    name: str
    measure: AlertMeasureInput
    threshold: DecimalText = strawberry.field(description="An alert is raised at or above it.")
    resolve_below: DecimalText | None = strawberry.field(
        default=strawberry.UNSET, description="It is resolved strictly below this one; `threshold`, unless given."
    )
    accounts: list[str] | None = strawberry.field(
        default=strawberry.UNSET, description="About these accounts only; about all when left out."
    )
    enabled: bool = True


PutAlertRuleResult = Annotated[AlertRule | InvalidInput | Conflict, strawberry.union("PutAlertRuleResult")]


async def resolve_alert_rules(first: int, after: str | None, info: MeteringInfo) -> AlertRuleConnection:
    """Rules, by key; who reaches some accounts sees those that are of them alone."""
    context = info.context
    context.require(Scope.CATALOG_READ)

    async def read(count: int, behind: str | None) -> tuple[list[rules.AlertRule], bool]:
        return await read_rules(context.snapshot, count, behind)

    return await page_by_key(first, after, context.limits, read, _shown)


async def resolve_put_alert_rule(given: PutAlertRuleInput, info: MeteringInfo) -> PutAlertRuleResult:
    """Make a rule, or change it."""
    context = info.context
    key = context.require(Scope.CATALOG_WRITE)
    return _shown(await context.service.put_alert_rule(_order(given), key))


def _order(given: PutAlertRuleInput) -> RuleOrder:
    resolve_below = given_or_none(given.resolve_below)
    accounts = given_or_none(given.accounts)
    bounds = Bounds(given.threshold, given.threshold if resolve_below is None else resolve_below)
    return RuleOrder(
        key=given.key,
        name=given.name,
        definition=RuleDefinition(measure=_measure(given.measure), bounds=bounds),
        accounts=None if accounts is None else frozenset(accounts),
        enabled=given.enabled,
    )


def _measure(given: AlertMeasureInput) -> Measure:
    if given.quantity:
        return Quantity(meter=given.quantity.meter, slice=_slice(given.quantity))
    if given.amount:
        return Amount(
            currency_code=given.amount.currency_code,
            budget=given_or_none(given.amount.budget),
            slice=_slice(given.amount),
        )
    if given.included_share:
        return IncludedShare(meter=given.included_share.meter)
    if given.statement_total:
        of = given.statement_total
        return StatementTotal(currency_code=of.currency_code, budget=given_or_none(of.budget))
    # GraphQL lets exactly one through, but that one may be null.
    raise InvalidInputError([InputIssue(("input", "measure"), "Say what is measured; null is nothing.")])


def _slice(given: QuantityMeasureInput | AmountMeasureInput) -> Slice:
    return Slice(
        group_by=tuple(given.group_by),
        filters=dict(filters_of(given.filter, Dimension)),
        bucket=given.bucket,
        time_zone=given.time_zone,
    )


def _shown(rule: rules.AlertRule) -> AlertRule:
    bounds = rule.definition.bounds
    return AlertRule(
        key=rule.key,
        name=rule.name,
        measure=JsonObject(shown_measure(rule.definition.measure)),
        threshold=DecimalText(bounds.threshold),
        resolve_below=DecimalText(bounds.resolve_below),
        accounts=None if rule.accounts is None else sorted(rule.accounts),
        enabled=rule.enabled,
        fault=rule.fault,
        created_at=Instant(rule.created_at),
        changed_at=Instant(rule.changed_at),
    )
