"""`metering simulate`: what everybody would owe for a month on another plan."""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC
from decimal import Decimal
from pathlib import Path
from typing import Annotated, Any, Final

import msgspec
from cyclopts import Parameter
from cyclopts.validators import Number

from metering.cli.console import say, steps_bar
from metering.cli.export_destination import Destination
from metering.cli.export_files import Table
from metering.cli.running import unattended, with_database
from metering.cli.statements import month_of
from metering.config import Settings, read_settings
from metering.errors import InputIssue, InvalidInputError
from metering.limits import LIMITS, Limits
from metering.reach import EVERYTHING
from metering.statements import simulations
from metering.statements.simulations import PageAsked, Report, Row, SimulationOrder, check_order
from metering.store.snapshot import Snapshot
from rating.definitions import plan_of
from rating.periods import instant_text
from rating.plans import Plan

# What a version's number fits into.
_VERSION_MAX: Final = 2**31 - 1
# As many rows are shown as a person reads.
_SHOWN: Final = PageAsked(10, None)
_TEXTS: Final = ("account", "subscription", "user", "weight", "currency")
_AMOUNTS: Final = ("current", "simulated", "difference")
# Where the options are that a simulation's faults are named by.
_OPTIONS: Final = {"plan": "--plan", "version": "--plan-version", "draft": "--draft", "period": "--period"}


def simulate(
    *,
    period: str,
    plan: str | None = None,
    plan_version: Annotated[int | None, Parameter(validator=Number(gte=1, lte=_VERSION_MAX))] = None,
    draft: Path | None = None,
    account: str | None = None,
    by_user: Annotated[bool, Parameter(negative="")] = False,
    output: Path | None = None,
    escape_formulas: Annotated[bool, Parameter(negative="")] = False,
    data_dir: Path | None = None,
) -> None:
    """Rate a month's usage of all subscriptions under another plan, and say who would pay more, and who less.

    The figures are those of `simulatePlan` over GraphQL, of one instant, for any number of subscriptions. Nothing is stored.

    Example: `metering simulate --period 2026-10 --draft lean.json --by-user --output october.csv`

    Parameters
    ----------
    period
        The month, such as 2026-10, in UTC.
    plan
        A published plan.
    plan_version
        Its version; the newest one when left out.
    draft
        A JSON file with a plan as `definition` of `plan` shows one; key, version and effectiveFrom are ignored.
    account
        Only the subscriptions of this account.
    by_user
        Also split by user into light and heavy.
    output
        A file (.csv or .parquet) for all rows, by subscription and user; without it the biggest differences are shown.
    escape_formulas
        Put an apostrophe before texts that a spreadsheet would compute; without it every text is as it was recorded.
    data_dir
        Where the embedded PostgreSQL lives [METERING_DATA_DIR, ./.metering].
    """
    bounds = month_of(period).bounds(UTC)
    order = SimulationOrder(
        plan=plan,
        version=plan_version,
        draft=None if draft is None else _draft_of(draft),
        start=bounds.start,
        end=bounds.end,
        accounts=None if account is None else [account],
        by_user=by_user,
    )
    destination = Destination(output=output, escape_formulas=escape_formulas, data_dir=data_dir)
    _check(destination)
    with _opened(destination) as (settings, table):
        report = asyncio.run(_run(settings, order, table))
    _say(report, is_written=output is not None)


def _draft_of(path: Path) -> Plan:
    """The plan of a file; what names it, and from when on it applies, is ignored. Raises InvalidInputError."""
    ignored = {"key": "draft", "version": 0, "effectiveFrom": instant_text(LIMITS.asked_from_min)}
    try:
        # Numbers are decimals as they are written.
        given: dict[str, Any] = msgspec.json.Decoder(dict[str, Any], float_hook=Decimal).decode(path.read_bytes())
        return plan_of({"interval": "MONTH", **given, **ignored})
    except (OSError, msgspec.DecodeError) as error:
        raise InvalidInputError([InputIssue(("--draft",), f"{str(path)!r:.200} holds no plan: {error}.")]) from error


def _check(destination: Destination) -> None:
    """Raise InvalidInputError where rows cannot be written as that."""
    output = destination.output
    if output is None:
        return
    if output.suffix.lower() not in {".csv", ".parquet"}:
        raise InvalidInputError([InputIssue(("--output",), f"{output.name} is not .csv or .parquet; name it so.")])
    issues = destination.faults()
    if issues:
        raise InvalidInputError(issues)


@contextmanager
def _opened(destination: Destination) -> Iterator[tuple[Settings, Table | None]]:
    """The database, and the table where rows are to be written."""
    if destination.output is None:
        with with_database(read_settings(data_dir=destination.data_dir)) as settings:
            yield settings, None
    else:
        kinds = {"instants": (), "decimals": _AMOUNTS, "numbers": ()}
        with destination.table((*_TEXTS, *_AMOUNTS), _TEXTS, **kinds) as opened:
            yield opened


async def _run(settings: Settings, order: SimulationOrder, table: Table | None) -> Report:
    try:
        async with unattended(settings) as (database, limits), Snapshot(database, EVERYTHING) as snapshot:
            return await _walked(snapshot, order, table, limits)
    except InvalidInputError as error:
        raise InvalidInputError([_by_option(issue) for issue in error.issues]) from error


async def _walked(snapshot: Snapshot, order: SimulationOrder, table: Table | None, limits: Limits) -> Report:
    """What it comes to; the rows go into the table as they are found."""
    simulation = await check_order(snapshot, order, limits)
    report = Report(simulation, [_SHOWN])
    with steps_bar() as bar:
        task = bar.add_task("Rating", total=simulation.subscriptions)
        async for batch in simulations.simulate(snapshot, simulation, limits):
            report.add(batch)
            rows = [_cells(row) for each in batch for row in each.rows]
            if table is not None and rows:
                table.write(rows)
            bar.advance(task, len(batch))
    return report


def _by_option(issue: InputIssue) -> InputIssue:
    """A fault by the option that it is of; of a draft, with the way to it in the file."""
    first, *below = issue.path
    if first != "input":
        return issue  # of a file's column
    name, *inside = below
    return InputIssue((_OPTIONS[name], *(inside if name == "draft" else ())), issue.message)


def _cells(row: Row) -> tuple[object, ...]:
    both = row.compared
    weight = None if row.weight is None else row.weight.value
    amounts = (both.current.amount, both.simulated.amount, both.difference.amount)
    return (row.account, row.subscription, row.user, weight, both.current.currency.code, *amounts)


def _say(report: Report, *, is_written: bool) -> None:
    sums, code = report.subscriptions, report.simulation.currency.code
    say(f"{sums.pay_more:,} would pay more, {sums.pay_less:,} less, {sums.unchanged:,} the same")
    say(f"  {sums.compared.current.amount:,f} {code} now, {sums.compared.simulated.amount:,f} {code} then")
    for weight, users in report.users.items():
        if report.simulation.by_user:
            now, then = users.compared.current.amount, users.compared.simulated.amount
            say(f"  {users.count:,} {weight.value.lower()} users: {now:,f} {code} now, {then:,f} {code} then")
    if report.simulation.other_currency:
        say(f"  {report.simulation.other_currency:,} subscriptions are in another currency, and left out")
    for row in () if is_written else report.page(_SHOWN).rows:
        name = row.subscription if row.user is None else f"{row.subscription}, {row.user}"
        say(f"  {row.compared.difference.amount:+,f} {code} {name}")
