"""`metering export`: figures as a table, for spreadsheets and data frames."""

import asyncio
from collections.abc import Sequence
from datetime import date, datetime
from typing import Annotated, Final

import msgspec
from cyclopts import App, Parameter
from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from metering.cli.console import ERR
from metering.cli.export_destination import STANDARD_OUTPUT, Destination
from metering.cli.export_files import Table
from metering.cli.running import unattended
from metering.config import Settings
from metering.errors import InputIssue, InvalidInputError
from metering.events import Dimension, in_utc
from metering.limits import LIMITS
from metering.periods import Bucket, Period, day_start, zone_of
from metering.questions import Question, ValueFilter, ask
from metering.reach import EVERYTHING
from metering.rollups.export import cells, check_buckets, column_names, text_columns
from metering.rollups.read import read_rows
from metering.store.snapshot import Snapshot

export = App(
    name="export",
    help="Write figures as a table. Example: `metering export usage --from 2026-10-01 --to 2026-11-01 --by account`",
)
export.command("metering.cli.export_statements:statements")
export.command("metering.cli.export_statements:charges")
# Where the options are that a question's faults are named by.
_OPTIONS: Final = {"period": "--from, --to", "timeZone": "--zone", "groupBy": "--by", "filter": "--where"}


@export.command
def usage(
    *,
    start: Annotated[str, Parameter(name="--from")],
    end: Annotated[str, Parameter(name="--to")],
    by: Annotated[list[Dimension] | None, Parameter(negative="")] = None,
    bucket: Bucket | None = None,
    zone: str = "UTC",
    where: Annotated[list[str] | None, Parameter(negative="")] = None,
    destination: Destination = STANDARD_OUTPUT,
) -> None:
    """Write the usage of a period as CSV or Parquet: a row for each bucket, group and unit that has some.

    The figures are those that GraphQL answers, of one instant, whatever is recorded meanwhile. A file has its name only
    when it is complete, and then replaces one that was there.

    Example: `metering export usage --from 2026-10-01 --to 2026-11-01 --by account --bucket day --output october.csv`

    Parameters
    ----------
    start
        The first day, or the first instant (2026-10-01T00:00:00Z).
    end
        The first day, or instant, after the period.
    by
        A dimension to group by; give it several times for several.
    bucket
        Cut the period by the calendar of the zone; one row for the whole period when left out.
    zone
        The time zone of days and buckets, such as Europe/Berlin.
    where
        Keep usage whose dimension has this value, as in account=acme; nothing after the sign means usage without one.
        Several values of a dimension are alternatives, several dimensions must all hold.
    """
    question = _question(start, end, by or [], zone, where or [], destination.faults())
    if bucket is not None:
        check_buckets(question, bucket, LIMITS)
    with destination.table(column_names(question), text_columns(question)) as (settings, table):
        asyncio.run(_write(settings, question, bucket, table))


async def _write(settings: Settings, question: Question, bucket: Bucket | None, table: Table) -> None:
    columns = (SpinnerColumn(), TextColumn("{task.description}"), TimeElapsedColumn())
    async with unattended(settings) as (database, limits), Snapshot(database, EVERYTHING) as snapshot:
        with Progress(*columns, console=ERR) as bar:
            task, count = bar.add_task("Adding up", total=None), 0
            async for rows in read_rows(snapshot, question, bucket, limits.export_rows_held_max):
                table.write([cells(question, row) for row in rows])
                count += len(rows)
                bar.update(task, description=f"{count:,} rows")
            bar.update(task, description=f"{count:,} rows", total=1, completed=1)


# ---------------------------------------------------------------- what is asked for, every fault at once


def _question(
    start: str, end: str, by: Sequence[Dimension], zone: str, where: Sequence[str], issues: list[InputIssue]
) -> Question:
    """What the options ask. Raises InvalidInputError with every fault, those found before too."""
    bounds = [_instant(text, option, zone, issues) for text, option in ((start, "--from"), (end, "--to"))]
    filters = _filters(where, issues)
    known = [bound for bound in bounds if bound is not None]
    # Where a bound is no instant, the rest is still looked at, over a period that is one.
    period = Period(*known) if len(known) == len(bounds) else Period(LIMITS.asked_from_min, LIMITS.asked_to_max)
    try:
        question = ask(period=period, zone_name=zone, group_by=by, filters=filters, limits=LIMITS)
    except InvalidInputError as error:
        named = [InputIssue((_OPTIONS[issue.path[1]],), issue.message) for issue in error.issues]
        raise InvalidInputError([*issues, *named]) from error
    if issues:
        raise InvalidInputError(issues)
    return question


def _instant(text: str, option: str, zone: str, issues: list[InputIssue]) -> datetime | None:
    """A day begins when the zone's calendar says so; an instant has an offset."""
    try:
        return day_start(date.fromisoformat(text), zone_of(zone))
    except KeyError:
        return None  # it is no zone, which is said once
    except (ValueError, OverflowError):
        pass
    try:
        instant = msgspec.convert(text, datetime)
        if instant.tzinfo is not None:
            return in_utc(instant)
    except (msgspec.ValidationError, OverflowError):
        pass
    message = f"{text!r:.60} is neither a day, such as 2026-10-01, nor an instant with an offset, such as 2026-10-01T00:00:00Z."
    issues.append(InputIssue((option,), message))
    return None


def _filters(where: Sequence[str], issues: list[InputIssue]) -> dict[Dimension, ValueFilter]:
    values: dict[Dimension, list[str | None]] = {}
    for text in where:
        name, sign, value = text.partition("=")
        try:
            dimension = Dimension(name)
        except ValueError:
            dimension = None
        if dimension is None or not sign:
            names = ", ".join(each.value for each in Dimension)
            issues.append(InputIssue(("--where",), f"{text!r:.60} is not dimension=value; dimensions are {names}."))
        else:
            values.setdefault(dimension, []).append(value or None)
    return {dimension: ValueFilter(tuple(of)) for dimension, of in values.items()}
