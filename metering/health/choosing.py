"""Which card scores a subject, and what comes of it: pure, from what is known of the subject on a day."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import date
from math import fsum
from typing import Final, TypeAlias

import msgspec

from health.measurements import Measurement, NotApplicable, Observed, Unknown
from health.overrides import Override
from health.score import Health, evaluate
from health.scorecards import CHURNED_BAND, Path, Scalar, Scorecard, card_for
from health.stages import Life, Stage, stage_of
from metering.health.cards import Version
from metering.health.records import Scored
from metering.subjects import SubjectRef

# What a condition on a card may ask besides what was said of a subject.
STAGE: Final = "stage"
# What is usual among those whom a version of a scorecard scores, by measure.
Priors: TypeAlias = Mapping[Path, float]
_NO_PRIORS: Final[Mapping[Version, Priors]] = {}


class Contract(msgspec.Struct, frozen=True):
    """A subscription as a score sees it; the amount is of a month, and only weighs."""

    ref: SubjectRef
    life: Life
    plan: str
    weight: float


class Profile(msgspec.Struct, frozen=True, kw_only=True):
    """What is known of a subject on a day. Overrides and earlier scores are by purpose."""

    ref: SubjectRef
    attributes: Mapping[str, Scalar]
    stage: Stage | None
    measurements: Mapping[str, Measurement]
    overrides: Mapping[str, Sequence[Override]]
    previous: Mapping[str, Health]


def stage_of_account(lives: Iterable[Life], day: date) -> Stage | None:
    """The stage of whoever has these subscriptions: a renewal that is near first, then the furthest of those that run."""
    stages = {stage_of(life, day) for life in lives if life.starts_on <= day}
    order = (Stage.RENEWAL, Stage.MATURE, Stage.ADOPTION, Stage.ONBOARDING, Stage.TRIAL, Stage.CHURNED)
    return next((stage for stage in order if stage in stages), None)


def score_profile(
    cards: Sequence[Scorecard], profile: Profile, as_of: date, priors: Mapping[Version, Priors] = _NO_PRIORS
) -> Iterator[Scored]:
    """The scores of a subject, one for each purpose that a card is for. Who has left keeps the last score, once.

    `priors` are those of peers, by version of a card.
    """
    purposes = {card.purpose for card in cards if card.subject is profile.ref.subject}
    for purpose in sorted(purposes):
        previous = profile.previous.get(purpose)
        if profile.stage is Stage.CHURNED:
            if previous is not None and previous.band != CHURNED_BAND:
                yield Scored(profile.ref, purpose, msgspec.structs.replace(previous, as_of=as_of, band=CHURNED_BAND))
            continue
        card = card_for(tuple(cards), profile.ref.subject, purpose, attributes_of(profile))
        if card is not None:
            health = evaluate(
                card,
                profile.measurements,
                as_of=as_of,
                priors=priors.get((card.key, card.version), {}),
                overrides=profile.overrides.get(purpose, ()),
                previous_band=None if previous is None else previous.band,
            )
            yield Scored(profile.ref, purpose, health)


def attributes_of(profile: Profile) -> dict[str, Scalar]:
    """What conditions ask: what was said, and the stage, which is nobody's to say."""
    stage = {} if profile.stage is None else {STAGE: profile.stage.value}
    return {**profile.attributes, **stage}


def of_subscriptions(scores: Mapping[SubjectRef, Health], contracts: Iterable[Contract]) -> dict[str, Measurement]:
    """The metrics of an account that are made of its subscriptions' scores: the mean by amount, and the lowest."""
    found = [(each.weight, scores[each.ref]) for each in contracts if each.ref in scores]
    running = [(weight, health.score) for weight, health in found if health.band != CHURNED_BAND]
    known = [(weight, score) for weight, score in running if score is not None]
    missing: Measurement = Unknown("no subscription has a score") if running else NotApplicable("no subscription runs")
    if not known:
        return {"subscriptions_score_mean": missing, "subscriptions_score_lowest": missing}
    # Where no amount is known, each counts the same.
    weights = [weight for weight, _ in known] if any(weight for weight, _ in known) else [1.0] * len(known)
    mean = fsum(weight * score for weight, (_, score) in zip(weights, known, strict=True)) / fsum(weights)
    return {
        "subscriptions_score_mean": Observed(mean),
        "subscriptions_score_lowest": Observed(min(score for _, score in known)),
    }
