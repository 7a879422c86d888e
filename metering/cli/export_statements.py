"""`metering export statements` and `metering export charges`: a month's statements, and their lines, as a table."""

import asyncio
from pathlib import Path
from typing import Annotated

import msgspec
from cyclopts import Parameter
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from metering.cli.console import ERR
from metering.cli.export import Format, chosen_format, warn_of_formulas, written
from metering.cli.export_files import CsvTable, ParquetTable, Row, Table
from metering.cli.running import with_database
from metering.cli.statements import month_of
from metering.config import Settings, read_settings
from metering.errors import ConflictError, InvalidInputError
from metering.limits import LIMITS
from metering.reach import EVERYTHING
from metering.statements.batch import Month, count_subscriptions, read_page
from metering.statements.export import CHARGES, STATEMENTS, Columns
from metering.store.pool import Database
from metering.store.snapshot import Snapshot


def statements(
    *,
    period: str,
    format: Format | None = None,
    output: Path | None = None,
    escape_formulas: Annotated[bool, Parameter(negative="")] = False,
    data_dir: Path | None = None,
) -> None:
    """Write a month's statements as CSV or Parquet: a row for each, final ones as they were frozen, the others as drafts.

    The statements are those of `metering statements`, of one instant, whatever happens meanwhile. A file has its name only
    when it is complete, and then replaces one that was there.

    Example: `metering export statements --period 2026-10 --output october.csv`

    Parameters
    ----------
    period
        The month, such as 2026-10.
    format
        csv or parquet; as the output is named when left out, and csv on standard output.
    output
        The file; standard output when left out.
    escape_formulas
        Put an apostrophe before texts that a spreadsheet would compute; without it every text is as it was recorded.
    data_dir
        Where the embedded PostgreSQL lives [METERING_DATA_DIR, ./.metering].
    """
    _export(STATEMENTS, period, format, output, data_dir, escape_formulas=escape_formulas)


def charges(
    *,
    period: str,
    format: Format | None = None,
    output: Path | None = None,
    escape_formulas: Annotated[bool, Parameter(negative="")] = False,
    data_dir: Path | None = None,
) -> None:
    """Write the lines of a month's statements as CSV or Parquet: a row for each line, in order; they add up to the totals.

    The statements are those of `metering statements`, of one instant, whatever happens meanwhile. A file has its name only
    when it is complete, and then replaces one that was there.

    Example: `metering export charges --period 2026-10 --output october.parquet`

    Parameters
    ----------
    period
        The month, such as 2026-10.
    format
        csv or parquet; as the output is named when left out, and csv on standard output.
    output
        The file; standard output when left out.
    escape_formulas
        Put an apostrophe before texts that a spreadsheet would compute; without it every text is as it was recorded.
    data_dir
        Where the embedded PostgreSQL lives [METERING_DATA_DIR, ./.metering].
    """
    _export(CHARGES, period, format, output, data_dir, escape_formulas=escape_formulas)


def _export(
    columns: Columns,
    period: str,
    format: Format | None,
    output: Path | None,
    data_dir: Path | None,
    *,
    escape_formulas: bool,
) -> None:
    chosen, issues = chosen_format(format, output, escape_formulas=escape_formulas)
    if issues:
        raise InvalidInputError(issues)
    month = month_of(period)
    with with_database(read_settings(data_dir=data_dir)) as settings, written(output) as file:
        table: Table
        if chosen == "csv":
            table = CsvTable(file, columns.names, escape_formulas=escape_formulas)
        else:
            table = ParquetTable(
                file,
                columns.names,
                columns.texts,
                instants=columns.instants,
                decimals=columns.decimals,
                numbers=columns.numbers,
            )
        asyncio.run(_write(settings, month, columns, table))
        table.close()
    warn_of_formulas(table, escape_formulas=escape_formulas)


async def _write(settings: Settings, month: Month, columns: Columns, table: Table) -> None:
    limits = msgspec.structs.replace(LIMITS, statement_seconds_max=LIMITS.unattended_statement_seconds_max)
    database = await Database.connect(settings, limits)
    shown = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    try:
        with Progress(*shown, console=ERR) as bar:
            task = bar.add_task("Rating", total=await count_subscriptions(database))
            last, has_more = None, True
            async with Snapshot(database, EVERYTHING) as snapshot:
                while has_more:
                    page = await read_page(snapshot, month, last, limits)
                    last, has_more = page.last, page.has_more
                    rows: list[Row] = []
                    for billed in page.billed:
                        if billed.statement is None:
                            raise ConflictError(f"{billed.reason} Nothing is exported, for this would be missing.")
                        rows.extend(columns.rows(billed.statement))
                    if rows:
                        table.write(rows)
                    bar.advance(task, page.subscriptions)
    finally:
        await database.close()
