"""What a score itself gives reason to tell: another band, a fall, a renewal at risk."""

from collections.abc import Sequence
from datetime import date
from typing import Final

from health.alarms import DEFAULTS, Alarm, AlarmType, Thresholds
from health.change import change_between
from health.score import Health

_REASONS: Final = 3


def band_changed(subject: str, before: Health, after: Health) -> Alarm | None:
    """Whether a score is in another band than the day before; with the parts of the change that did most."""
    if before.band == after.band:
        return None
    return Alarm(
        type=AlarmType.BAND_CHANGED,
        subject=subject,
        as_of=after.as_of,
        evidence={"before": before.band, "after": after.band, **_reasons(before, after)},
    )


def score_dropped(
    subject: str, history: Sequence[Health], after: Health, thresholds: Thresholds = DEFAULTS
) -> Alarm | None:
    """Whether a score is far below its highest of the last days; `history` are earlier scores, in any order."""
    recent = [
        (one.score, one)
        for one in history
        if one.score is not None and 0 < (after.as_of - one.as_of).days <= thresholds.score_drop_days
    ]
    if after.score is None or not recent:
        return None
    highest, before = max(recent, key=lambda pair: (pair[0], pair[1].as_of))
    if highest - after.score < thresholds.score_drop_min:
        return None
    return Alarm(
        type=AlarmType.SCORE_DROPPED,
        subject=subject,
        as_of=after.as_of,
        evidence={"before": highest, "after": after.score, **_reasons(before, after)},
    )


def renewal_at_risk(
    subject: str,
    health: Health,
    renewal_days: float | None,
    *,
    as_of: date,
    monthly_amount: float | None = None,
    thresholds: Thresholds = DEFAULTS,
) -> Alarm | None:
    """Whether a renewal is near while the score is low; also a renewal that is past due and not decided."""
    if health.score is None or renewal_days is None:
        return None
    if renewal_days > thresholds.renewal_days_max or health.score >= thresholds.renewal_score_below:
        return None
    evidence: dict[str, float | str] = {"score": health.score, "band": health.band, "renewal_days": renewal_days}
    if monthly_amount is not None:
        evidence["monthly_amount"] = monthly_amount
    return Alarm(type=AlarmType.RENEWAL_AT_RISK, subject=subject, as_of=as_of, evidence=evidence)


def _reasons(before: Health, after: Health) -> dict[str, float | str]:
    """The parts of the change that did most, in words that need no table beside them."""
    parts = change_between(before, after).parts[:_REASONS]
    return {
        f"reason_{number}": f"{' / '.join(part.path) or 'caps'} {part.cause.value} {part.contribution:+.1f}"
        for number, part in enumerate(parts, 1)
    }
