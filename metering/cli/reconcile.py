"""`metering reconcile`: are the rollups what their events make of them?"""

import asyncio
import secrets
import sys
from datetime import timedelta
from pathlib import Path
from typing import Any, Final

import msgspec

from metering.cli.console import say, steps_bar
from metering.cli.running import unattended, with_database
from metering.config import Settings, read_settings
from metering.errors import InputIssue, InvalidInputError
from metering.rollups.reconcile import Compared, Drift, DriftingRow, Figures, Reconciler
from rating.exact import plain
from rating.periods import instant_text

_SAMPLE: Final = 100
_SEEDS: Final = 2**32


def reconcile(
    *,
    sample: int | None = None,
    seed: int | None = None,
    all: bool = False,
    json: bool = False,
    data_dir: Path | None = None,
) -> None:
    """Compute buckets of the rollups anew from their events, and report what differs; changes nothing.

    May run beside a service that is at work. Exits 1 when something differs: figures are then wrong, which is a bug.

    Example: `metering reconcile --sample 500`, or `metering reconcile --all`

    Parameters
    ----------
    sample
        How many buckets to compare, by chance; 100 when left out.
    seed
        Repeats the sample of an earlier run, which names its seed.
    all
        Compare every bucket: reads every event once for each rollup.
    json
        Answer as one JSON document instead of lines.
    data_dir
        Where the embedded PostgreSQL lives [METERING_DATA_DIR, ./.metering].
    """
    _check(sample, seed, everything=all)
    chosen = None if all else (sample or _SAMPLE, secrets.randbelow(_SEEDS) if seed is None else seed)
    with with_database(read_settings(data_dir=data_dir)) as settings:
        found = asyncio.run(_compared(settings, chosen))
    buckets = sum(each.buckets for each in found)
    drift = [bucket for each in found for bucket in each.drift]
    if json:
        say(_document(buckets, drift, None if chosen is None else chosen[1]))
    else:
        _report(buckets, drift, None if chosen is None else chosen[1])
    if drift:
        sys.exit(1)


def _check(sample: int | None, seed: int | None, *, everything: bool) -> None:
    issues = []
    if sample is not None and sample < 1:
        issues.append(InputIssue(("--sample",), f"must be 1 or more; this is {sample:,}."))
    if seed is not None and not 0 <= seed < _SEEDS:
        issues.append(InputIssue(("--seed",), f"must be 0 to {_SEEDS - 1:,}; an earlier run named its own."))
    if everything and (sample is not None or seed is not None):
        issues.append(
            InputIssue(("--all",), "compares every bucket; leave out --sample and --seed, or leave out --all.")
        )
    if issues:
        raise InvalidInputError(issues)


async def _compared(settings: Settings, chosen: tuple[int, int] | None) -> list[Compared]:
    retention = None if settings.retention_days is None else timedelta(days=settings.retention_days)
    async with unattended(settings) as (database, limits):
        reconciler = Reconciler(database, limits, retention)
        steps = await (reconciler.plan_all() if chosen is None else reconciler.plan_sample(*chosen))
        with steps_bar() as bar:
            return [await reconciler.compare(step) for step in bar.track(steps, description="Comparing with events")]


def _report(buckets: int, drift: list[Drift], seed: int | None) -> None:
    for each in drift:
        say(f"{each.rollup} {instant_text(each.bucket.start)}: {each.row_count:,} rows differ")
        for row in each.rows:
            key = " ".join(f"{name}={value!r}" for name, value in row.key.items() if value is not None)
            say(f"  {key}: the rollup says {_shown(row.told)}; the events say {_shown(row.counted)}")
        if each.row_count > len(each.rows):
            say(f"  and {each.row_count - len(each.rows):,} more")
    of = f"{buckets:,} buckets" if seed is None else f"{buckets:,} buckets (--seed {seed})"
    say(f"{len(drift):,} of {of} differ from their events." if drift else f"{of} agree with their events.")


def _shown(figures: Figures | None) -> str:
    if figures is None:
        return "nothing"
    shown = f"{plain(figures.quantity)} in {figures.events:,} events"
    if figures.minimum is None or figures.maximum is None:
        return shown
    return f"{shown} of {plain(figures.minimum)} to {plain(figures.maximum)}"


def _document(buckets: int, drift: list[Drift], seed: int | None) -> str:
    document = {
        "buckets": buckets,
        "seed": seed,
        "drift": [
            {
                "rollup": each.rollup,
                "from": instant_text(each.bucket.start),
                "to": instant_text(each.bucket.end),
                "row_count": each.row_count,
                "rows": [_row(row) for row in each.rows],
            }
            for each in drift
        ],
    }
    return msgspec.json.encode(document).decode()


def _row(row: DriftingRow) -> dict[str, Any]:
    return {"key": row.key, "rollup": _fields(row.told), "events": _fields(row.counted)}


def _fields(figures: Figures | None) -> dict[str, str | int | None] | None:
    if figures is None:
        return None
    return {
        "quantity": plain(figures.quantity),
        "events": figures.events,
        "minimum": None if figures.minimum is None else plain(figures.minimum),
        "maximum": None if figures.maximum is None else plain(figures.maximum),
    }
