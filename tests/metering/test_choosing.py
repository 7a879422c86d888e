"""Which card scores a subject: by the stage of its contracts, and with what their scores come to."""

from datetime import date

from health.measurements import NotApplicable, Observed, Unknown
from health.score import Health
from health.scorecards import CHURNED_BAND, UNKNOWN_BAND, Subject
from health.stages import Life, Stage
from metering.health.choosing import Contract, of_subscriptions, stage_of_account
from metering.subjects import SubjectRef

DAY = date(2026, 6, 1)
STARTED = date(2026, 1, 1)


def contract(key: str, weight: float) -> Contract:
    """A contract of acme."""
    return Contract(SubjectRef(Subject.SUBSCRIPTION, "acme", key), Life(starts_on=STARTED), "team", weight)


def health(score: float | None, band: str = "high") -> Health:
    """A score."""
    return Health(
        scorecard="c", version=1, as_of=DAY, score=score, band=band, coverage=1, baseline=50, raw=50, drivers=()
    )


def test_the_stage_of_an_account() -> None:
    """A renewal that is near comes first, then the furthest contract that runs; churned is who has none that does."""
    ended = Life(starts_on=STARTED, ends_on=date(2026, 5, 1))
    trial = Life(starts_on=date(2026, 5, 25), trial_ends_on=date(2026, 6, 10))
    adopted = Life(starts_on=date(2026, 3, 1))
    renewing = Life(starts_on=STARTED, renews_on=date(2026, 7, 1))
    later = Life(starts_on=date(2026, 7, 1))

    assert [None, None, Stage.CHURNED, Stage.TRIAL, Stage.ADOPTION, Stage.RENEWAL] == [
        stage_of_account(lives, DAY)
        for lives in ([], [later], [ended], [ended, trial], [trial, adopted, later], [adopted, renewing, ended])
    ]


def test_what_subscriptions_scores_come_to() -> None:
    """The mean is weighted by amounts, or even without any; who has no score, and who has left, is left out."""
    first, second, third = contract("s-1", 300), contract("s-2", 100), contract("s-3", 0)
    scores = {first.ref: health(80.0), second.ref: health(40.0), third.ref: health(10.0, CHURNED_BAND)}

    assert {
        "subscriptions_score_mean": Observed(70.0),
        "subscriptions_score_lowest": Observed(40.0),
    } == of_subscriptions(scores, [first, second, third])
    even = [contract("s-1", 0), contract("s-2", 0)]
    assert Observed(60.0) == of_subscriptions(scores, even)["subscriptions_score_mean"]
    unknown = {first.ref: health(None, UNKNOWN_BAND)}
    assert Unknown("no subscription has a score") == of_subscriptions(unknown, [first])["subscriptions_score_mean"]
    assert NotApplicable("no subscription runs") == of_subscriptions(scores, [third])["subscriptions_score_lowest"]
