"""Scorecards: the ones in force, and publishing others."""

from typing import Annotated

import strawberry

from graphql_api.context import MeteringInfo
from graphql_api.problems import Conflict, InvalidInput
from graphql_api.scalars import JsonObject
from health.definitions import definition_of
from health.scorecards import Scorecard as Card
from health.scorecards import Subject
from metering.health.band_migration import BandMigration as Migration
from metering.health.cards import ScorecardDraft
from metering.keys import Scope


@strawberry.type(
    description="How a score is made: a tree of measures with weights, bands and caps. A version never changes."
)
class Scorecard:
    """One version of a scorecard."""

    key: str
    version: int
    subject: Subject
    purpose: str
    definition: JsonObject


@strawberry.input
class ScorecardInput:
    """A scorecard as it is published."""

    key: str
    subject: Subject
    purpose: str = "health"
    definition: JsonObject = strawberry.field(
        description="The card as `scorecards` show it: `bands`, `tree`, and `when`, `priority`, `minCoverage`, `hysteresis`, "
        "`caps`, `expressions` where they are wanted."
    )


@strawberry.type
class BandMigration:
    """Who moves from one band to another."""

    from_: str = strawberry.field(name="from")
    to: str
    subjects: int


@strawberry.type
class PublishScorecardSuccess:
    """What was published, or would be."""

    scorecard: Scorecard | None = strawberry.field(description="With dryRun the version that it would be.")
    band_migration: list[BandMigration] = strawberry.field(
        description="How many subjects move from one band to another, by what was measured of them last."
    )


PublishScorecardResult = Annotated[
    PublishScorecardSuccess | InvalidInput | Conflict, strawberry.union("PublishScorecardResult")
]


async def resolve_scorecards(info: MeteringInfo) -> list[Scorecard]:
    """Each in its newest version; none for who is bound to accounts: how customers are judged is not for them."""
    context = info.context
    if not context.snapshot.reach.is_everything:
        return []
    return [_shown(each.card) for each in (await context.loaders.cards(context.snapshot)).newest]


async def resolve_publish_scorecard(
    given: ScorecardInput, info: MeteringInfo, *, dry_run: bool
) -> PublishScorecardResult:
    """Publish a version, or show what it would do."""
    context = info.context
    key = context.require(Scope.HEALTH_WRITE)
    draft = ScorecardDraft(key=given.key, subject=given.subject, purpose=given.purpose, definition=given.definition)
    card, moved = await context.service.publish_scorecard(draft, key, dry_run=dry_run)
    return PublishScorecardSuccess(scorecard=_shown(card), band_migration=[_migration(each) for each in moved])


def _shown(card: Card) -> Scorecard:
    return Scorecard(
        key=card.key,
        version=card.version,
        subject=card.subject,
        purpose=card.purpose,
        definition=JsonObject(definition_of(card)),
    )


def _migration(moved: Migration) -> BandMigration:
    return BandMigration(from_=moved.start, to=moved.end, subjects=moved.subjects)
