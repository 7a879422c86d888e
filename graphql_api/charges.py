"""Charges: what the statements of a period come to, by any dimensions, all from one snapshot."""

from typing import Annotated

import msgspec
import strawberry

from graphql_api.context import Context, MeteringInfo
from graphql_api.lookahead import groups_asked, is_asked
from graphql_api.money import Money, money_of
from graphql_api.once import Once
from graphql_api.pages import Connection, CursorText, check_first, decode_cursor, edges_of, encode_cursor, page_info
from graphql_api.problems import InvalidInput, TooLarge
from graphql_api.questions import Period, UsageQuery, question_of
from graphql_api.scalars import Instant
from graphql_api.usage import UsageKey, UsageTotal, usage_totals
from metering.errors import InputIssue, InvalidInputError
from metering.events import Dimension
from metering.keys import Scope
from metering.questions import Question
from metering.rollups.read import Total
from metering.statements.charges import (
    Charges,
    GroupPage,
    count_unrated_usage,
    page_of,
    read_charges,
    read_unrated_usage,
)


class _Asked(msgspec.Struct, frozen=True):
    """What is asked, and where; what several fields need is asked once."""

    context: Context
    question: Question
    once: Once

    async def charges(self) -> Charges:
        """All amounts."""
        return await self.once.ask(
            "charges", lambda: read_charges(self.context.snapshot, self.question, self.context.limits)
        )

    async def unrated(self) -> tuple[Total, ...]:
        """The usage that no price covers."""
        return await self.once.ask(
            "unrated", lambda: read_unrated_usage(self.context.snapshot, self.question, self.context.limits)
        )

    async def distinct(self, dimension: Dimension, _: int, unit: str) -> int:
        """How many values of the dimension that usage has, in this unit."""
        counts = await self.once.ask(
            ("distinct", dimension),
            lambda: count_unrated_usage(self.context.snapshot, self.question, self.context.limits, dimension),
        )
        return counts.get(unit, 0)

    async def page(self, first: int, after: str | None) -> GroupPage:
        """A page of groups. Raises InvalidInputError for one that cannot be asked for."""
        check_first(first, self.context.limits, ("groups", "first"))
        place = None if after is None else decode_cursor(after, _GroupPlace, ("groups", "after"))
        if place is not None and (place.group_by, len(place.key)) != (self.group_by, len(self.group_by)):
            message = "This cursor is of a query with another groupBy."
            raise InvalidInputError([InputIssue(("groups", "after"), message)])
        return page_of(await self.charges(), first, None if place is None else place.key)

    @property
    def group_by(self) -> tuple[str, ...]:
        """The dimensions' names."""
        return tuple(dimension.value for dimension in self.question.group_by)


class _GroupPlace(msgspec.Struct, frozen=True, array_like=True):
    """What a cursor holds: the grouping it belongs to, and the group it stands behind."""

    group_by: tuple[str, ...]
    key: tuple[CursorText | None, ...]


@strawberry.type(description="A group has at least one amount that is not zero; together they may be.")
class ChargeGroup:
    """One group of a page."""

    key: UsageKey
    totals: list[Money]


@strawberry.type
class ChargeGroupConnection(Connection[ChargeGroup]):
    """One page of groups."""

    total_count: int
    remainder: list[Money] = strawberry.field(
        description="All groups that are not on this page, together: page plus remainder is the whole."
    )


@strawberry.type
class ChargesReport:
    """The answer to a question about charges."""

    period: Period
    group_by: list[Dimension]
    as_of: Instant = strawberry.field(description="Every event acknowledged before this instant is counted.")
    asked: strawberry.Private[_Asked]

    @strawberry.field(description="One for each currency; amounts are never added across currencies.")
    async def totals(self) -> list[Money]:
        """Everything, by currency."""
        return [money_of(total) for total in (await self.asked.charges()).totals]

    @strawberry.field(description="By key; what has no value comes last.")
    async def groups(self, first: int = 50, after: str | None = strawberry.UNSET) -> ChargeGroupConnection:
        """One page of groups."""
        asked = self.asked
        page = await asked.page(first, after or None)
        nodes = [
            ChargeGroup(
                key=UsageKey(**dict(zip(asked.group_by, group.key, strict=True))),
                totals=[money_of(total) for total in group.totals],
            )
            for group in page.groups
        ]
        cursors = [encode_cursor(_GroupPlace(asked.group_by, group.key)) for group in page.groups]
        return ChargeGroupConnection(
            edges=edges_of(nodes, cursors),
            nodes=nodes,
            page_info=page_info(cursors, has_next=page.has_next, has_previous=bool(after)),
            total_count=len((await asked.charges()).groups),
            remainder=[money_of(total) for total in page.remainder],
        )

    @strawberry.field(
        description="Usage that no price covered: no meter of a plan that was in effect counts it, or it names no "
        "subscription of its account. As it is now, also where statements are final."
    )
    async def unrated(self) -> list[UsageTotal]:
        """By unit."""
        return usage_totals(await self.asked.unrated(), self.asked)


ChargesResult = Annotated[ChargesReport | InvalidInput | TooLarge, strawberry.union("ChargesResult")]


async def resolve_charges(query: UsageQuery, info: MeteringInfo) -> ChargesResult:
    """Rated amounts in a period, by any dimensions."""
    context = info.context
    context.require(Scope.CHARGES_READ)
    question = question_of(query, context.limits)
    asked = _Asked(context, question, Once())
    # What is refused is the answer of `charges` itself: below it, an error would take the other answers with it.
    selections = info.selected_fields
    if is_asked(selections, "totals"):
        await asked.charges()
    for groups in groups_asked(selections):
        await asked.page(groups.first, groups.after)
    if is_asked(selections, "unrated"):
        await asked.unrated()
    horizon = await context.snapshot.horizon()
    return ChargesReport(
        period=Period(from_=query.period.from_, to=query.period.to),
        group_by=list(query.group_by),
        as_of=Instant(horizon.as_of),
        asked=asked,
    )
