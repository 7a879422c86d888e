"""What is kept as JSON: what was measured of a subject, and the reasons of its score. Numbers come back as they were."""

from collections.abc import Mapping
from datetime import UTC, date, datetime
from typing import Any, Final

import msgspec

from health.measurements import Measurement, NotApplicable, Observed, Unknown
from health.score import Adjustment, Driver, DriverState, Health
from metering.subjects import SubjectRef


class Scored(msgspec.Struct, frozen=True):
    """A score of a subject, and for what it is."""

    ref: SubjectRef
    purpose: str
    health: Health


def metrics_json(measurements: Mapping[str, Measurement]) -> str:
    """Measurements by metric."""
    return _json({metric: _measurement(found) for metric, found in measurements.items()})


def metrics_of(text: str) -> dict[str, Measurement]:
    """Measurements as metrics_json() wrote them."""
    return {metric: _read(cells) for metric, cells in msgspec.json.decode(text).items()}


def drivers_json(drivers: tuple[Driver, ...]) -> str:
    """The reasons of a score."""
    return _json([_without_nothing(driver) for driver in drivers])


def adjustment_json(adjustment: Adjustment | None) -> str | None:
    """What caps and overrides did, and why."""
    return None if adjustment is None else _json(adjustment)


def health_of(row: Any) -> Health:
    """A score as it is kept."""
    as_of: date = row["as_of"]
    return Health(
        scorecard=row["scorecard"],
        version=row["version"],
        as_of=as_of,
        score=row["score"],
        band=row["band"],
        coverage=row["coverage"],
        baseline=row["baseline"],
        raw=row["raw"],
        drivers=_DRIVERS.decode(row["drivers"]),
        adjustment=None if row["adjustment"] is None else _ADJUSTMENT.decode(row["adjustment"]),
    )


_DRIVERS: Final = msgspec.json.Decoder(tuple[Driver, ...])
_ADJUSTMENT: Final = msgspec.json.Decoder(Adjustment)
_OBSERVED: Final = {"observed_at", "expires_at"}


def _json(value: object) -> str:
    return msgspec.json.encode(value).decode()


def _without_nothing(struct: msgspec.Struct) -> dict[str, Any]:
    return {name: value for name, value in msgspec.structs.asdict(struct).items() if value is not None}


def _measurement(found: Measurement) -> dict[str, Any]:
    match found:
        case Observed():
            return _without_nothing(found)
        case Unknown():
            return {"state": DriverState.UNKNOWN.value, "reason": found.reason}
        case NotApplicable():
            return {"state": DriverState.NOT_APPLICABLE.value, "reason": found.reason}


def _read(cells: dict[str, Any]) -> Measurement:
    state = cells.get("state")
    if state is None:
        instants = {name: datetime.fromisoformat(cells[name]).astimezone(UTC) for name in _OBSERVED & cells.keys()}
        users = {"users": tuple(cells["users"])} if "users" in cells else {}
        return Observed(**{**cells, "value": float(cells["value"]), **instants, **users})
    return (Unknown if state == DriverState.UNKNOWN.value else NotApplicable)(cells["reason"])
