"""How likely running trials are to be paid for, by what became of those that are over."""

from collections.abc import Sequence
from datetime import date
from typing import Final

from health.lists.rules import Rule
from health.lists.trials import Shown, closing_probability
from metering.health.listing import ListedSubject, Reason
from metering.health.revenue import TRIAL_GRACE_DAYS
from metering.store.queries import sql
from metering.store.rule_paths import rule_paths
from metering.store.snapshot import Snapshot

_METRIC: Final = "closing_probability"


async def closing_reasons(
    snapshot: Snapshot, rule: Rule, rows: Sequence[ListedSubject], day: date
) -> list[tuple[Reason, ...]]:
    """Of each trial how likely it is to be paid for, where enough trials are over to tell. One statement."""
    paths = rule_paths(rule)
    found = await snapshot.fetch(sql("lists.list_trials"), [paths.signs, paths.thresholds, day, TRIAL_GRACE_DAYS])
    finished: dict[Shown, tuple[int, int]] = {tuple(row["signs"]): (row["trials"], row["closed"]) for row in found}
    return [_told(row.shown, finished) for row in rows]


def _told(shown: Shown, finished: dict[Shown, tuple[int, int]]) -> tuple[Reason, ...]:
    probability = closing_probability(shown, finished)
    if probability is None:
        return ()
    trials, closed = finished.get(shown, (0, 0))
    alike = f"{closed} of {trials} trials with the same signs were" if trials else "no trial had the same signs"
    words = f"{probability:.0%} likely to be paid for: {alike}"
    return (Reason(_METRIC, words, value=probability),)
