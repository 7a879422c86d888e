"""What of a score is not for whoever is bound to accounts: a manager's word, notes, and how others do.

The equation holds for them, too: what is not disclosed is one driver, which has no value and no name.
"""

from collections.abc import Iterable
from math import fsum
from typing import Final

import msgspec

from health.change import HealthChange, HealthChangePart
from health.expressions import metrics_in
from health.score import Adjustment, Driver, DriverState, Health
from health.scorecards import Path, Scorecard, leaves_of

INTERNAL_METRICS: Final = frozenset({"pulse"})
UNDISCLOSED: Final = "undisclosed"
_PATH: Final[Path] = (UNDISCLOSED,)


def internal_paths(card: Scorecard) -> frozenset[Path]:
    """The measures of a card that are a manager's word, are made of it, or compare with other customers."""
    internal = set(INTERNAL_METRICS)
    # Expressions may be made of each other: as often as there are any, each is looked at again.
    for _ in card.expressions:
        internal |= {name for name, made in card.expressions.items() if internal & set(metrics_in(made))}
    return frozenset(
        leaf.path
        for leaf in leaves_of(card)
        if leaf.measure.peers or leaf.measure.prior == "peers" or leaf.measure.metric in internal
    )


def disclosed(health: Health, card: Scorecard) -> Health:
    """A score as who is bound to accounts may see it."""
    internal = internal_paths(card)
    hidden = [driver for driver in health.drivers if driver.path in internal]
    drivers = tuple(driver for driver in health.drivers if driver.path not in internal)
    # What is usual among others would stand in the baseline: it is the card's constant there, and the rest is not disclosed.
    constants = {leaf.path: leaf.measure.constant_prior for leaf in leaves_of(card)}
    usual = fsum(driver.weight * (driver.prior - constants[driver.path]) for driver in hidden)
    if hidden:
        drivers = (*drivers, _together(hidden, usual))
    adjustment = None if health.adjustment is None else Adjustment(health.adjustment.contribution, UNDISCLOSED)
    return msgspec.structs.replace(health, baseline=health.baseline - usual, drivers=drivers, adjustment=adjustment)


def disclosed_change(change: HealthChange, cards: Iterable[Scorecard]) -> HealthChange:
    """Why a score moved, the same."""
    internal = frozenset(path for card in cards for path in internal_paths(card))
    parts = [part for part in change.parts if part.path not in internal]
    for cause in dict.fromkeys(part.cause for part in change.parts if part.path in internal):
        moved = fsum(part.contribution for part in change.parts if part.path in internal and part.cause is cause)
        parts.append(HealthChangePart(metric=UNDISCLOSED, path=_PATH, cause=cause, contribution=moved))
    return msgspec.structs.replace(change, parts=tuple(parts))


def _together(hidden: list[Driver], usual: float) -> Driver:
    weight = fsum(driver.weight for driver in hidden)
    prior = fsum(driver.weight * driver.prior for driver in hidden) / weight if weight else hidden[0].prior
    return Driver(
        path=_PATH,
        metric=UNDISCLOSED,
        state=DriverState.OBSERVED,
        weight=weight,
        prior=prior,
        known=0.0,
        contribution=fsum([usual, *(driver.contribution for driver in hidden)]),
        reason=UNDISCLOSED,
    )
