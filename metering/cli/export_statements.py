"""`metering export statements` and `metering export charges`: a month's statements, and their lines, as a table."""

import asyncio

from metering.cli.console import steps_bar
from metering.cli.export_destination import STANDARD_OUTPUT, Destination
from metering.cli.export_files import Row, Table
from metering.cli.running import unattended
from metering.cli.statements import month_of
from metering.config import Settings
from metering.errors import ConflictError, InvalidInputError
from metering.reach import EVERYTHING
from metering.statements.batch import Month, count_subscriptions, read_page
from metering.statements.export import CHARGES, STATEMENTS, Columns
from metering.store.snapshot import Snapshot


def statements(*, period: str, destination: Destination = STANDARD_OUTPUT) -> None:
    """Write a month's statements as CSV or Parquet: a row for each, final ones as they were frozen, the others as drafts.

    The statements are those of `metering statements`, of one instant, whatever happens meanwhile. A file has its name only
    when it is complete, and then replaces one that was there.

    Example: `metering export statements --period 2026-10 --output october.csv`

    Parameters
    ----------
    period
        The month, such as 2026-10.
    """
    _export(STATEMENTS, period, destination)


def charges(*, period: str, destination: Destination = STANDARD_OUTPUT) -> None:
    """Write the lines of a month's statements as CSV or Parquet: a row for each line, in order; they add up to the totals.

    The statements are those of `metering statements`, of one instant, whatever happens meanwhile. A file has its name only
    when it is complete, and then replaces one that was there.

    Example: `metering export charges --period 2026-10 --output october.parquet`

    Parameters
    ----------
    period
        The month, such as 2026-10.
    """
    _export(CHARGES, period, destination)


def _export(columns: Columns, period: str, destination: Destination) -> None:
    issues = destination.faults()
    if issues:
        raise InvalidInputError(issues)
    month = month_of(period)
    kinds = {"instants": columns.instants, "decimals": columns.decimals, "numbers": columns.numbers}
    with destination.table(columns.names, columns.texts, **kinds) as (settings, table):
        asyncio.run(_write(settings, month, columns, table))


async def _write(settings: Settings, month: Month, columns: Columns, table: Table) -> None:
    async with unattended(settings) as (database, limits):
        with steps_bar() as bar:
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
