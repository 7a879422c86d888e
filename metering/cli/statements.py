"""`metering statements`: a month's statements of all subscriptions, computed or frozen."""

import asyncio
import re
import sys
from collections import Counter
from decimal import Decimal
from pathlib import Path
from typing import Annotated, Final

import msgspec
from cyclopts import Parameter

from metering.cli.console import ERR, say, steps_bar
from metering.cli.running import unattended, with_database
from metering.config import Settings, read_settings
from metering.errors import InputIssue, InvalidInputError
from metering.limits import LIMITS
from metering.statements.batch import Billed, Month, Outcome, bill, count_subscriptions
from rating.exact import ZERO, add, subtract

_BY: Final = "metering statements"
# As many failures are shown as a person reads.
_FAILURES_SHOWN: Final = 10
_MONTH_FORM: Final = re.compile(r"([0-9]{4})-(0[1-9]|1[0-2])")


class _Run(msgspec.Struct):
    """What a run has come to so far: outcomes, amounts by currency and what credits pay of them, statements with unrated usage,
    failures.
    """

    counts: Counter[Outcome] = msgspec.field(default_factory=Counter)
    totals: dict[str, Decimal] = {}
    credits: dict[str, Decimal] = {}
    unrated: int = 0
    failures: list[Billed] = []

    def add(self, billed: Billed) -> None:
        """Count one statement."""
        self.counts[billed.outcome] += 1
        statement = billed.statement
        if statement is None:
            self.failures.append(billed)
            return
        code = statement.currency.code
        self.totals[code] = add(self.totals.get(code, ZERO), statement.total.amount)
        paid = subtract(statement.owed.amount, statement.total.amount)
        self.credits[code] = add(self.credits.get(code, ZERO), paid)
        self.unrated += bool(statement.evidence.unrated)


def statements(
    *,
    period: str,
    finalize: Annotated[bool, Parameter(negative="")] = False,
    data_dir: Path | None = None,
) -> None:
    """Compute a month's statements of all subscriptions, and say what they come to; with --finalize, freeze them.

    The statements are those of billing periods that end in the month, in each subscription's time zone, and what is to be
    made up for to subscriptions that have ended. What is final stays as it is, so a run that was broken off is simply
    started again; several at once do no harm. Exits 1 when a statement could not be computed.

    Example: `metering statements --period 2026-10`, and when it looks right `metering statements --period 2026-10 --finalize`

    Parameters
    ----------
    period
        The month, such as 2026-10.
    finalize
        Freeze the statements of periods that are over; without it nothing is stored.
    data_dir
        Where the embedded PostgreSQL lives [METERING_DATA_DIR, ./.metering].
    """
    month = month_of(period)
    with with_database(read_settings(data_dir=data_dir)) as settings:
        run = asyncio.run(_run(settings, month, finalize=finalize))
    _report(period, run)
    if run.failures:
        sys.exit(1)


def month_of(text: str) -> Month:
    """The month that --period names. Raises InvalidInputError for what is none that can be asked about."""
    form = _MONTH_FORM.fullmatch(text)
    years = range(LIMITS.asked_from_min.year, LIMITS.asked_to_max.year - 1)
    if form is None or int(form[1]) not in years:
        message = f"{text!r:.60} is not a month, such as 2026-10, of the years {years[0]} to {years[-1]}."
        raise InvalidInputError([InputIssue(("--period",), message)])
    return Month(int(form[1]), int(form[2]))


async def _run(settings: Settings, month: Month, *, finalize: bool) -> _Run:
    run = _Run()
    async with unattended(settings) as (database, limits):
        with steps_bar() as bar:
            task = bar.add_task("Freezing" if finalize else "Rating", total=await count_subscriptions(database))
            async for page in bill(database, month, limits, by=_BY, finalize=finalize):
                for billed in page.billed:
                    run.add(billed)
                bar.advance(task, page.subscriptions)
    return run


def _report(period: str, run: _Run) -> None:
    outcomes = ", ".join(f"{run.counts[outcome]:,} {outcome.value}" for outcome in Outcome if run.counts[outcome])
    say(f"{period}: {outcomes or 'no statements'}")
    for code, total in sorted(run.totals.items()):
        paid = run.credits.get(code, ZERO)
        say(f"  {total:,f} {code}" + (f" before credits, and {paid:,f} {code} of credits" if paid else ""))
    if run.unrated:
        say(f"  {run.unrated:,} with usage that no price covers: `metering export statements` names them")
    for billed in run.failures[:_FAILURES_SHOWN]:
        ERR.print(f"metering: {billed.reason}", markup=False)
    if len(run.failures) > _FAILURES_SHOWN:
        ERR.print(f"metering: and {len(run.failures) - _FAILURES_SHOWN:,} more", markup=False)
