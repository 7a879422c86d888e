"""How often warnings were raised, against the budget: of each type, for each subject and year that was watched."""

from datetime import date

import msgspec

from health.alarms import AlarmRate, AlarmType, alarm_rate
from metering.health.thresholds import read_thresholds
from metering.store.queries import sql
from metering.store.snapshot import Snapshot


class WarningRate(msgspec.Struct, frozen=True):
    """A rate of a kind of subjects (EVERYONE, where it is of all customers), and the budget that it is held against."""

    subject: str
    rate: AlarmRate
    budget_per_year: float


async def read_warning_rates(snapshot: Snapshot, since: date) -> list[WarningRate]:
    """The rates of what was raised on a day or later, withdrawn ones left out; none for who is bound to accounts."""
    if not snapshot.reach.is_everything:
        return []
    thresholds = (await read_thresholds(snapshot)).thresholds
    return [
        WarningRate(
            row["subject"],
            alarm_rate(AlarmType(row["type"]), row["warnings"], row["subject_days"], thresholds),
            thresholds.budget_per_year,
        )
        for row in await snapshot.fetch(sql("warnings.count_rates"), [since])
    ]
