"""What is wrong with thresholds: every fault at once, each with the name of the threshold that it is of."""

from collections.abc import Iterator, Mapping
from typing import Any, Final

import msgspec

from health.alarms import Thresholds
from health.faults import Fault

# Below, and above, a threshold would tell always, or never. By the name in JSON; both ends belong to it.
THRESHOLD_BOUNDS: Final[Mapping[str, tuple[float, float]]] = {
    "dropZFourWeeks": (0.5, 50),
    "dropZOneWeek": (0.5, 50),
    "commonChangeMax": (0.01, 10),
    "silenceMin": (0.5, 50),
    "championTenureDaysMin": (0, 364),
    "championShareMin": (0, 1),
    "championFeaturesMin": (0, 1_000),
    "singleThreadedSeatsMin": (0, 1_000_000),
    "singleThreadedBusFactorMax": (0, 1_000),
    "singleThreadedEffectiveUsersBelow": (0, 1_000),
    "underusedBelow": (0, 1),
    "underusedSeatsMin": (0, 1_000_000),
    "underusedAgeDaysMin": (0, 364),
    "renewalDaysMax": (0, 730),
    "renewalScoreBelow": (0, 100),
    "scoreDropMin": (0.1, 100),
    "scoreDropDays": (1, 56),
    "cooldownDays": (1, 364),
    "budgetPerYear": (0, 366),
}
_WHOLE: Final = frozenset(field.encode_name for field in msgspec.structs.fields(Thresholds) if field.type is int)


def checked_thresholds(given: Mapping[str, Any]) -> Thresholds | tuple[Fault, ...]:
    """The thresholds that a JSON object says, the others as they are by default; or everything that is wrong with it."""
    faults = tuple(_faults(given))
    return faults or msgspec.convert(dict(given), Thresholds, strict=False)


def _faults(given: Mapping[str, Any]) -> Iterator[Fault]:
    for name, value in given.items():
        bounds = THRESHOLD_BOUNDS.get(name)
        if bounds is None:
            yield Fault((name,), "no threshold has this name")
        elif isinstance(value, bool) or not isinstance(value, int | float):
            yield Fault((name,), "this is no number")
        elif not bounds[0] <= value <= bounds[1]:
            yield Fault((name,), f"this must be from {bounds[0]:g} to {bounds[1]:g}")
        elif name in _WHOLE and value != int(value):
            yield Fault((name,), "this must be a whole number")
