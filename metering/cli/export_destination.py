"""Where an export goes, and as what: the options that all exports have."""

import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Annotated, Final, Literal

from cyclopts import Parameter

from metering.cli.console import ERR
from metering.cli.export_files import CsvTable, ParquetTable, Table, complete_file
from metering.cli.running import with_database
from metering.config import Settings, read_settings
from metering.errors import InputIssue

Format = Literal["csv", "parquet"]
_FORMATS: Final[dict[str, Format]] = {".csv": "csv", ".parquet": "parquet"}
# What a shell says of a program that wrote to a pipe which nobody reads any more.
_BROKEN_PIPE: Final = 128 + 13


@Parameter(name="*")
@dataclass(frozen=True, kw_only=True)
class Destination:
    """The options; a command's own ones stand before them.

    Parameters
    ----------
    format
        csv or parquet; as the output is named when left out, and csv on standard output.
    output
        The file; standard output when left out.
    escape_formulas
        Put an apostrophe before texts that a spreadsheet would compute; without it every text is as it was recorded.
    data_dir
        Where the embedded PostgreSQL lives [METERING_DATA_DIR, ./.metering].
    """

    format: Format | None = None
    output: Path | None = None
    escape_formulas: Annotated[bool, Parameter(negative="")] = False
    data_dir: Path | None = None

    def faults(self) -> list[InputIssue]:
        """What is wrong with how the table is to be written."""
        named, chosen = self._named(), self._chosen()
        issues = []
        if self.output is not None and self.format is None and named is None:
            issues.append(InputIssue(("--output",), f"{self.output.name} is not .csv or .parquet; say --format."))
        if named is not None and named != chosen:
            message = f"{self.output} is named as {named}; choose another name, or leave out --format."
            issues.append(InputIssue(("--format",), message))
        if chosen == "parquet" and self.output is None:
            message = "Parquet is written to a file: name one, for example usage.parquet."
            issues.append(InputIssue(("--output",), message))
        if chosen == "parquet" and self.escape_formulas:
            issues.append(InputIssue(("--escape-formulas",), "is for CSV; in Parquet a text is a text. Leave it out."))
        return issues

    @contextmanager
    def table(
        self, names: Sequence[str], texts: Sequence[str], **kinds: Sequence[str]
    ) -> Iterator[tuple[Settings, Table]]:
        """The database to read and the table of these columns, see ParquetTable; it is complete when the block ends well."""
        with with_database(read_settings(data_dir=self.data_dir)) as settings, _written(self.output) as file:
            table = (
                CsvTable(file, names, escape_formulas=self.escape_formulas)
                if self._chosen() == "csv"
                else ParquetTable(file, names, texts, **kinds)
            )
            yield settings, table
            table.close()
        if isinstance(table, CsvTable) and table.formulas and not self.escape_formulas:
            ERR.print(
                f"{table.formulas:,} texts begin with = + - @, a tab or a carriage return, and were written as they are. "
                "A spreadsheet may compute them: import these columns as text, or use --escape-formulas.",
                markup=False,
            )

    def _named(self) -> Format | None:
        return None if self.output is None else _FORMATS.get(self.output.suffix.lower())

    def _chosen(self) -> Format:
        return self.format or self._named() or "csv"


# Where a table goes that no option is given for.
STANDARD_OUTPUT: Final = Destination()


@contextmanager
def _written(output: Path | None) -> Iterator[IO[bytes]]:
    """The file, or standard output."""
    if output is not None:
        with complete_file(output) as file:
            yield file
        return
    try:
        yield sys.stdout.buffer
        sys.stdout.buffer.flush()
    except BrokenPipeError:
        # Whoever read has seen enough. What Python still holds for the pipe goes nowhere, so that it ends without a word.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(_BROKEN_PIPE)
