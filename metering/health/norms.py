"""What is usual among all customers on a day: what a subject is measured against, and computed once for all of them.

Norms of a day are kept, so that one account is measured anew in a moment, against the same as everybody was that day. They
are made anew when they were computed before the day was rolled up to its end, and when a load has added to the 28 days before
more than a share of their events; while nobody had sent anything they hold only until somebody has.
"""

from collections.abc import Mapping
from datetime import date
from typing import Final

import msgspec

from health.drops import TYPICAL_DISPERSION
from health.silence import UNCALIBRATED, ActivityModel

# Below this many others of the same age a place among them says nothing.
COHORT_MIN: Final = 30
COHORT_DAYS: Final = 90
# What comes late now and then changes no median; a load of the past does.
CHANGED_SHARE_MAX: Final = 0.05


class Norms(msgspec.Struct, frozen=True, kw_only=True):
    """Norms as of a day. Defaults are what holds where nobody is there to tell."""

    as_of: date
    # The last day, of 28, on which anything came in from anybody; None: nothing did.
    last_on: date | None = None
    usual_gap_days: float = 1.0
    # Of accounts' weeks; and by what the logarithm of everybody's usage changed, over four weeks and over one.
    dispersion: float = TYPICAL_DISPERSION
    change: float = 0.0
    fast_change: float = 0.0
    # By product, what it offers as far as usage tells.
    offered: Mapping[str, tuple[str, ...]] = {}
    # By kind of subject: will it be active again?
    models: Mapping[str, ActivityModel] = {}
    # By kind of subject and age in days: how many subjects had so many active days by then.
    cohorts: Mapping[str, Mapping[int, Mapping[int, int]]] = {}
    # Signals that anybody is told of at all.
    told: frozenset[str] = frozenset()

    def model(self, subject: str) -> ActivityModel:
        """The model of a kind of subjects."""
        return self.models.get(subject, UNCALIBRATED)

    def place(self, subject: str, age_days: int, active_days: int) -> float | None:
        """The share of the others that had fewer active days at this age, those alike counted half: 0 to 100.

        The subject itself is one of those counted. None where there are too few others.
        """
        counts = self.cohorts.get(subject, {}).get(age_days, {})
        others = sum(counts.values()) - 1
        if others < COHORT_MIN:
            return None
        below = sum(count for days, count in counts.items() if days < active_days)
        return 100.0 * (below + (counts.get(active_days, 0) - 1) / 2) / others
