"""`explainCharges`: why the charges of one period differ from another's, and whose part it is."""

from collections.abc import Mapping
from typing import Annotated, Any, Final

import strawberry

from graphql_api.context import MeteringInfo
from graphql_api.left_out import given_or_none
from graphql_api.money import Money, money_of
from graphql_api.problems import InvalidInput, NotFound
from graphql_api.questions import PeriodInput
from graphql_api.scalars import CurrencyCode, DecimalText, Instant
from graphql_api.usage import UsageKey
from metering.events import Dimension
from metering.keys import Scope
from metering.statements.explain import Comparison, Explained, compare, explain_charges
from rating.explain import ChangeCause, ExplainedPart
from rating.periods import Period

_CAUSES: Final[Mapping[ChangeCause, str]] = {
    ChangeCause.VOLUME: "Other usage, at the prices of before; also of a subscription that began or ended.",
    ChangeCause.PRICE: "Another version of the plan that it was on before, another discount on the subscription, the end of "
    "a trial: what they change about usage.",
    ChangeCause.PLAN: "Another plan: what it changes about usage.",
    ChangeCause.RECURRING: "What is owed for time: flat prices and seats, whatever changed about them.",
    ChangeCause.ADJUSTMENT: "What was made up for other periods.",
}
_cause: Any = strawberry.enum(ChangeCause)
for _value in _cause.__strawberry_definition__.values:
    _value.description = _CAUSES[ChangeCause(_value.value)]


@strawberry.input
class ExplainChargesInput:
    """Which charges are compared."""

    account: str
    period: PeriodInput = strawberry.field(description="What is to be explained: `after`.")
    compared_with: PeriodInput = strawberry.field(
        description="What it is compared with: `before`. The periods may be of different lengths, and overlap."
    )
    by: list[Dimension] = strawberry.field(description="What parts are told apart by, besides their cause.")
    top: int = strawberry.field(default=10, description="How many parts are told: the largest.")
    currency_code: CurrencyCode | None = strawberry.field(
        default=strawberry.UNSET, description="Needed where the account is charged in several currencies."
    )


@strawberry.type
class ChargesPart:
    """One part of the difference."""

    cause: ChangeCause
    key: UsageKey = strawberry.field(
        description="As `charges` attributes amounts: what has no usage behind it has nulls."
    )
    amount: Money
    quantity_before: DecimalText | None = strawberry.field(
        description="Of usage, what the key used in both periods, at the plan of before; where that is of one meter, which is "
        "a SUM or a COUNT."
    )
    quantity_after: DecimalText | None
    unit: str | None = strawberry.field(description="The meter's.")


@strawberry.type(description="before + the parts + remainder = after, exactly.")
class ChargesExplanation:
    """Why charges differ."""

    before: Money
    after: Money
    difference: Money
    parts: list[ChargesPart] = strawberry.field(
        description="The largest first, whether they add or take away; of those alike, by cause and key."
    )
    remainder: Money = strawberry.field(description="All parts that are not told, together.")
    as_of: Instant = strawberry.field(description="Every event acknowledged before this instant is counted.")


ExplainChargesResult = Annotated[ChargesExplanation | InvalidInput | NotFound, strawberry.union("ExplainChargesResult")]


async def resolve_explain_charges(given: ExplainChargesInput, info: MeteringInfo) -> ExplainChargesResult:
    """Why the charges of a period differ from those of another."""
    context = info.context
    context.require(Scope.CHARGES_READ)
    wanted = compare(
        Comparison(
            account=given.account,
            before=Period(given.compared_with.from_, given.compared_with.to),
            after=Period(given.period.from_, given.period.to),
            by=tuple(given.by),
            top=given.top,
            currency_code=given_or_none(given.currency_code),
        ),
        context.limits,
    )
    explained = await explain_charges(context.snapshot, wanted, context.limits)
    explanation = explained.explanation
    return ChargesExplanation(
        before=money_of(explanation.before),
        after=money_of(explanation.after),
        difference=money_of(explanation.difference),
        parts=[_part_of(part, wanted, explained) for part in explanation.parts],
        remainder=money_of(explanation.remainder),
        as_of=Instant((await context.snapshot.horizon()).as_of),
    )


def _part_of(part: ExplainedPart, wanted: Comparison, explained: Explained) -> ChargesPart:
    before, after = part.quantity_before, part.quantity_after
    return ChargesPart(
        cause=part.cause,
        key=UsageKey(**{by.value: value for by, value in zip(wanted.by, part.key, strict=True)}),
        amount=money_of(part.amount),
        quantity_before=None if before is None else DecimalText(before),
        quantity_after=None if after is None else DecimalText(after),
        unit=None if part.meter is None else explained.units[part.meter],
    )
