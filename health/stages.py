"""Which stage a subscription is in: what a scorecard's condition on `stage` asks about."""

from datetime import date, timedelta
from enum import Enum
from typing import Final

import msgspec

ONBOARDING_DAYS: Final = 60
MATURE_DAYS: Final = 180
RENEWAL_DAYS: Final = 90


class Stage(Enum):
    """From trial to the end; a renewal that is near goes before all that is running."""

    TRIAL = "trial"
    ONBOARDING = "onboarding"
    ADOPTION = "adoption"
    MATURE = "mature"
    RENEWAL = "renewal"
    CHURNED = "churned"


class Life(msgspec.Struct, frozen=True, kw_only=True):
    """The days of a subscription; each is the first on which it is so. `activated_on` ends the onboarding early."""

    starts_on: date
    trial_ends_on: date | None = None
    activated_on: date | None = None
    renews_on: date | None = None
    ends_on: date | None = None


def onboarded_on(life: Life, *, onboarding_days: int = ONBOARDING_DAYS) -> date:
    """The day on which onboarding is over: baselines begin here, so that its burst is in none of them."""
    latest = life.starts_on + timedelta(days=onboarding_days)
    return latest if life.activated_on is None else min(latest, life.activated_on)


def stage_of(life: Life, day: date, *, onboarding_days: int = ONBOARDING_DAYS) -> Stage:
    """The stage on a day. A renewal that is past due and not decided is one still."""
    if life.ends_on is not None and life.ends_on <= day:
        return Stage.CHURNED
    if life.trial_ends_on is not None and day < life.trial_ends_on:
        return Stage.TRIAL
    if life.renews_on is not None and (life.renews_on - day).days <= RENEWAL_DAYS:
        return Stage.RENEWAL
    if day < onboarded_on(life, onboarding_days=onboarding_days):
        return Stage.ONBOARDING
    return Stage.MATURE if (day - life.starts_on).days >= MATURE_DAYS else Stage.ADOPTION
