"""`unmetCommitments`: whose commitments of the running billing period will not be used at today's pace."""

from datetime import UTC
from typing import Final

import strawberry

from graphql_api.accounts import Account, AccountFilter, account_of, chosen_of
from graphql_api.context import MeteringInfo
from graphql_api.lists import AccountFigures, figures_of
from graphql_api.money import Money, money_of
from graphql_api.money_place import page_behind, place_asked
from graphql_api.pages import Connection, edges_of
from graphql_api.questions import Period
from graphql_api.scalars import DecimalText, Instant
from metering.health.listing import read_figures, scored_since
from metering.health.unmet_commitments import PASSED_MIN, Unmet, read_unmet
from metering.keys import Scope
from rating import commitments

UNMET_COMMITMENTS: Final = (
    "Which commitments will not be used? Subscriptions whose plan's minimum, or that of one of its prices, will not be reached "
    "in the running billing period at today's pace: what meters added up since its part with this plan began is scaled to the "
    "whole of it, and rated. By currency, who is short of most first. Left out are those of which less than "
    f"{PASSED_MIN:.0%} has passed, or whose usage is not kept any more. More subscriptions than one answer has time for are "
    "TOO_LARGE. Needs CHARGES_READ besides; empty for a caller that is bound to accounts. It cannot see a pace that changes, "
    "periods before the running one, and commitments that no plan says."
)


@strawberry.type(description="expected + short = committed.")
class Commitment:
    """A minimum that will not be reached."""

    price: str | None = strawberry.field(description="The price's key; null where it is that of the whole plan.")
    committed: Money
    used: Money = strawberry.field(
        description="What counts towards it so far: of a price what it comes to, of a plan all prices with their own minimums, "
        "after discounts. What is owed for time counts in full."
    )
    expected: Money = strawberry.field(description="What will count towards it in the end, at today's pace.")
    short: Money = strawberry.field(description="What will be missing to it then.")


@strawberry.type
class UnmetCommitment:
    """A subscription with commitments that will not be used."""

    account: Account
    subscription: str
    plan: str
    period: Period = strawberry.field(description="The part of the running billing period in which the plan applies.")
    passed: DecimalText = strawberry.field(description="The share of it that is over; cut after six digits.")
    short: Money = strawberry.field(description="What will be owed beyond all that is used: that of all commitments.")
    commitments: list[Commitment]
    figures: AccountFigures


@strawberry.type
class UnmetCommitmentConnection(Connection[UnmetCommitment]):
    """One page of subscriptions."""

    total_count: int
    as_of: Instant = strawberry.field(description="Every event acknowledged before this instant is counted.")


async def resolve_unmet_commitments(
    filter_: AccountFilter, first: int, after: str | None, info: MeteringInfo
) -> UnmetCommitmentConnection:
    """A page of them."""
    context = info.context
    context.require(Scope.CHARGES_READ)
    place_asked(first, after, context.limits)
    snapshot = context.snapshot
    found = await read_unmet(snapshot, chosen_of(filter_, context.limits), context.limits)
    page = page_behind(found, first, after, context.limits)
    as_of = (await snapshot.horizon()).as_of
    day = as_of.astimezone(UTC).date()
    accounts = sorted({each.customer.key for each in page.rows})
    figures = await read_figures(snapshot, accounts, await scored_since(snapshot, day), day) if accounts else {}
    nodes = [_shown(each, figures_of(figures[each.customer.key])) for each in page.rows]
    return UnmetCommitmentConnection(
        edges=edges_of(nodes, page.cursors),
        nodes=nodes,
        page_info=page.info,
        total_count=len(found),
        as_of=Instant(as_of),
    )


def _shown(found: Unmet, figures: AccountFigures) -> UnmetCommitment:
    return UnmetCommitment(
        account=account_of(found.customer, is_new=False),
        subscription=found.subscription,
        plan=found.plan,
        period=Period(from_=Instant(found.period.start), to=Instant(found.period.end)),
        passed=DecimalText(found.passed),
        short=money_of(found.short),
        commitments=[_commitment(each) for each in found.commitments],
        figures=figures,
    )


def _commitment(found: commitments.Commitment) -> Commitment:
    return Commitment(
        price=found.price,
        committed=money_of(found.committed),
        used=money_of(found.used),
        expected=money_of(found.expected),
        short=money_of(found.short),
    )
