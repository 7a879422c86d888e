"""`surveyCandidates`: whom to ask about a feature, who was not asked for a while."""

from collections.abc import Mapping
from datetime import UTC, date
from typing import Any, Final

import msgspec
import strawberry

from graphql_api.context import MeteringInfo
from graphql_api.left_out import given_or_none
from graphql_api.pages import Connection, CursorText, check_first, decode_cursor, edges_of, encode_cursor, page_info
from metering.health.surveys import Candidate, CandidatePlace, Lifecycle, SurveyAsked, list_candidates

_LIFECYCLES: Final[Mapping[Lifecycle, str]] = {
    Lifecycle.NEW: "Was never active before, as far as a year shows.",
    Lifecycle.RETAINED: "Was active in the 28 days before, too.",
    Lifecycle.RESURRECTED: "Was active before, and not in the 28 days before.",
}
_lifecycle: Any = strawberry.enum(
    Lifecycle, name="UserLifecycle", description="What a user's activity of 28 days comes after."
)
for _value in _lifecycle.__strawberry_definition__.values:
    _value.description = _LIFECYCLES[Lifecycle(_value.value)]


@strawberry.input(description="All that are given must hold.")
class SurveyFilter:
    """Whom the survey is for."""

    product: str | None = strawberry.field(default=strawberry.UNSET, description="Used it in the 28 days.")
    feature: str | None = strawberry.field(default=strawberry.UNSET, description="Used it in the 28 days.")
    lifecycle: Lifecycle | None = strawberry.UNSET
    not_asked_days: int = strawberry.field(
        default=90, description="For so many days before the day, and since, nobody asked them."
    )
    asked_by: list[str] = strawberry.field(
        default_factory=lambda: ["nps", "csat", "ces"],
        description="A signal of a user of one of these names says that the user was asked.",
    )
    draw: str = strawberry.field(
        default="", description="The same text puts users in the same order, another one in another: by a hash of it."
    )


@strawberry.type
class SurveyCandidate:
    """A user who may be asked."""

    account: str
    user: str
    role: str | None = strawberry.field(description="As it was said before the day.")
    lifecycle: Lifecycle
    active_days: int = strawberry.field(description="On how many of the 28 days it was used.")
    last_used_on: date


@strawberry.type
class SurveyCandidateConnection(Connection[SurveyCandidate]):
    """One page of candidates."""

    total_count: int


class _Place(msgspec.Struct, frozen=True, array_like=True):
    """What a cursor holds."""

    lot: CursorText
    account: CursorText
    user: CursorText


async def resolve_survey_candidates(
    given: SurveyFilter, as_of: date | None, first: int, after: str | None, info: MeteringInfo
) -> SurveyCandidateConnection:
    """A page of them, by lot."""
    context = info.context
    check_first(first, context.limits, ("first",))
    place = decode_cursor(after, _Place, ("after",)) if after else None
    asked = SurveyAsked(
        as_of=given_or_none(as_of) or (await context.snapshot.horizon()).as_of.astimezone(UTC).date(),
        product=given_or_none(given.product),
        feature=given_or_none(given.feature),
        lifecycle=given_or_none(given.lifecycle),
        asked_by=given.asked_by,
        not_asked_days=given.not_asked_days,
        draw=given.draw,
    )
    behind = None if place is None else CandidatePlace(place.lot, place.account, place.user)
    page = await list_candidates(context.snapshot, asked, first, behind, context.limits)
    cursors = [encode_cursor(_Place(each.place.lot, each.place.account, each.place.user)) for each in page.candidates]
    nodes = [_shown(each) for each in page.candidates]
    return SurveyCandidateConnection(
        edges=edges_of(nodes, cursors),
        nodes=nodes,
        page_info=page_info(cursors, has_next=page.has_next, has_previous=place is not None),
        total_count=page.total,
    )


def _shown(found: Candidate) -> SurveyCandidate:
    return SurveyCandidate(
        account=found.place.account,
        user=found.place.user,
        role=found.role,
        lifecycle=found.lifecycle,
        active_days=found.days,
        last_used_on=found.last_on,
    )
