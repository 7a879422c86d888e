"""Scorecards: the ones in force, and publishing others."""

from typing import Annotated

import msgspec
import strawberry

from graphql_api.context import MeteringInfo
from graphql_api.health import Driver, HealthChangePart, change_part_of, driver_of
from graphql_api.pages import check_first
from graphql_api.problems import Conflict, InvalidInput
from graphql_api.scalars import JsonObject
from health.change import change_between
from health.definitions import definition_of
from health.scorecards import Scorecard as Card
from health.scorecards import Subject
from metering.health.band_migration import BandMigration as Migration
from metering.health.band_migration import Migrated, Mover
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


@strawberry.type(
    description="A subject whose score would be lower, and why: by the same facts, so all of it is the card's doing."
)
class ScorecardMover:
    """One that would fall."""

    subject: Subject
    account: str
    key: str
    from_: str = strawberry.field(name="from", description="The band that it is in.")
    to: str
    score_before: float
    score_after: float
    parts: list[HealthChangePart] = strawberry.field(description="They add up to the difference; the largest first.")
    drivers: list[Driver] = strawberry.field(description="Of the score that it would have, what moves it most first.")


@strawberry.type
class PublishScorecardSuccess:
    """What was published, or would be."""

    scorecard: Scorecard | None = strawberry.field(description="With dryRun the version that it would be.")
    band_migration: list[BandMigration] = strawberry.field(
        description="How many subjects move from one band to another, by what was measured of them last."
    )
    migrated: strawberry.Private[Migrated]

    @strawberry.field(description="Whose score would fall furthest, also within a band; 100 of them are known.")
    def worst_movers(self, info: MeteringInfo, first: int = 10) -> list[ScorecardMover]:
        """The first of them."""
        check_first(first, info.context.limits, ("first",))
        return [_mover(each) for each in self.migrated.worst[:first]]


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
    card, migrated = await context.service.publish_scorecard(draft_of(given), key, dry_run=dry_run)
    bands = [_migration(each) for each in migrated.bands]
    return PublishScorecardSuccess(scorecard=_shown(card), band_migration=bands, migrated=migrated)


def draft_of(given: ScorecardInput) -> ScorecardDraft:
    """A scorecard as it was given."""
    return ScorecardDraft(key=given.key, subject=given.subject, purpose=given.purpose, definition=given.definition)


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


def _mover(mover: Mover) -> ScorecardMover:
    before, after = mover.before, mover.after
    assert before.score is not None, "who falls has a score"
    assert after.score is not None, "before and afterwards"
    # The same facts by the other card: what it moves is told as the card's, and not as the customer's.
    change = change_between(before, after, at_new_version=msgspec.structs.replace(after, as_of=before.as_of))
    return ScorecardMover(
        subject=mover.ref.subject,
        account=mover.ref.account,
        key=mover.ref.key,
        from_=before.band,
        to=after.band,
        score_before=before.score,
        score_after=after.score,
        parts=[change_part_of(part) for part in change.parts],
        drivers=[driver_of(each) for each in sorted(after.drivers, key=lambda each: -abs(each.contribution))],
    )
