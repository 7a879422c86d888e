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
    return {metric: _read(cells) for metric, cells in _METRICS.decode(text).items()}


def drivers_json(drivers: tuple[Driver, ...]) -> str:
    """The reasons of a score."""
    return _json(drivers)


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


class _Cells(msgspec.Struct):
    """A measurement of any kind: with a state it is none that was observed."""

    state: str | None = None
    reason: str = ""
    value: float | None = None
    observed_at: datetime | None = None
    expires_at: datetime | None = None
    respondents: int | None = None
    percentile: float | None = None
    users: tuple[str, ...] | None = None


_METRICS: Final = msgspec.json.Decoder(dict[str, _Cells])
_DRIVERS: Final = msgspec.json.Decoder(tuple[Driver, ...])
_ADJUSTMENT: Final = msgspec.json.Decoder(Adjustment)


def _json(value: object) -> str:
    return msgspec.json.encode(value).decode()


def _measurement(found: Measurement) -> Observed | dict[str, str]:
    match found:
        case Observed():
            return found
        case Unknown():
            return {"state": DriverState.UNKNOWN.value, "reason": found.reason}
        case NotApplicable():
            return {"state": DriverState.NOT_APPLICABLE.value, "reason": found.reason}


def _read(cells: _Cells) -> Measurement:
    if cells.state is not None:
        return (Unknown if cells.state == DriverState.UNKNOWN.value else NotApplicable)(cells.reason)
    assert cells.value is not None, "what was observed has a value"
    observed_at, expires_at = _in_utc(cells.observed_at), _in_utc(cells.expires_at)
    return Observed(cells.value, observed_at, expires_at, cells.respondents, cells.percentile, cells.users)


def _in_utc(at: datetime | None) -> datetime | None:
    return None if at is None else at.astimezone(UTC)
