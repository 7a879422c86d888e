"""What an export is written into: CSV or Parquet, a file or standard output; a batch of rows at a time."""

import csv
import io
import os
import secrets
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime
from decimal import Decimal
from pathlib import Path
from typing import IO, Any, Final, Protocol

from metering.errors import InputIssue, InvalidInputError
from rating.exact import plain
from rating.periods import instant_text

# What a spreadsheet may take for the beginning of a formula, or skip before one.
FORMULA_BEGINNINGS: Final = ("=", "+", "-", "@", "\t", "\r")
_QUANTITY_DIGITS: Final = 38
_FRACTION_DIGITS: Final = 18

Row = tuple[object, ...]


class Table(Protocol):
    """Takes rows; nothing is complete before it is closed."""

    def write(self, rows: Sequence[Row]) -> None:
        """Append rows."""

    def close(self) -> None:
        """Write what belongs at the end."""


class CsvTable:
    """RFC 4180 in UTF-8: a first row of names, instants in UTC, decimals in plain notation, an empty cell for no value.

    Texts are what they are. `escape_formulas` puts an apostrophe before those that a spreadsheet would compute.
    """

    def __init__(self, file: IO[bytes], names: Sequence[str], *, escape_formulas: bool) -> None:
        self._text = io.TextIOWrapper(file, encoding="utf-8", newline="", write_through=True)
        # CRLF is the norm's, and makes the writer quote either half of it inside a text.
        self._writer = csv.writer(self._text, lineterminator="\r\n")
        self._writer.writerow(names)
        self._escape_formulas = escape_formulas
        self.formulas = 0

    def write(self, rows: Sequence[Row]) -> None:
        """See Table."""
        self._writer.writerows([self._shown(cell) for cell in row] for row in rows)

    def close(self) -> None:
        """See Table."""
        self._text.flush()
        self._text.detach()

    def _shown(self, cell: object) -> object:
        if isinstance(cell, Decimal):
            return plain(cell)
        if isinstance(cell, datetime):
            return instant_text(cell)
        if isinstance(cell, str) and cell.startswith(FORMULA_BEGINNINGS):
            self.formulas += 1
            return f"'{cell}" if self._escape_formulas else cell
        return cell


class ParquetTable:
    """Parquet: instants as timestamp[us, UTC], decimals as decimal128(38, 18), whole numbers as int64, texts as string."""

    def __init__(
        self,
        file: IO[bytes],
        names: Sequence[str],
        texts: Sequence[str],
        *,
        instants: Sequence[str] = ("from", "to"),
        decimals: Sequence[str] = ("quantity", "minimum", "maximum"),
        numbers: Sequence[str] = ("events",),
    ) -> None:
        pa, parquet = _pyarrow()
        kinds = {
            **dict.fromkeys(instants, pa.timestamp("us", tz="UTC")),
            **dict.fromkeys(texts, pa.string()),
            **dict.fromkeys(decimals, pa.decimal128(_QUANTITY_DIGITS, _FRACTION_DIGITS)),
            **dict.fromkeys(numbers, pa.int64()),
        }
        self._arrow = pa
        self._schema = pa.schema([pa.field(name, kinds[name]) for name in names])
        self._writer = parquet.ParquetWriter(file, self._schema, compression="zstd")

    def write(self, rows: Sequence[Row]) -> None:
        """See Table. Raises InvalidInputError for a sum that the format's decimals do not hold."""
        columns = [
            self._arrow.array(_held(column, field.name), type=field.type)
            for column, field in zip(zip(*rows, strict=True), self._schema, strict=True)
        ]
        self._writer.write_table(self._arrow.Table.from_arrays(columns, schema=self._schema))

    def close(self) -> None:
        """See Table."""
        self._writer.close()


def _held(column: Sequence[object], name: str) -> Sequence[object]:
    for cell in column:
        if isinstance(cell, Decimal) and cell.adjusted() >= _QUANTITY_DIGITS - _FRACTION_DIGITS:
            message = (
                f"{plain(cell)} has more digits than Parquet's decimal128({_QUANTITY_DIGITS}, {_FRACTION_DIGITS}) holds; "
                "export it with --format csv."
            )
            raise InvalidInputError([InputIssue((name,), message)])
    return column


def _pyarrow() -> tuple[Any, Any]:
    try:
        import pyarrow as pa  # type: ignore[import-untyped]
        import pyarrow.parquet  # type: ignore[import-untyped]
    except ImportError as error:
        message = "parquet needs pyarrow, which is not installed: pip install 'metering[export]', or use --format csv."
        raise InvalidInputError([InputIssue(("--format",), message)]) from error
    return pa, pyarrow.parquet


@contextmanager
def complete_file(path: Path) -> Iterator[IO[bytes]]:
    """A file that has its name only when the block ends well: until then it has another one, which goes when it does not."""
    partial = path.with_name(f".{path.name}.{secrets.token_hex(4)}.partial")
    try:
        file = partial.open("xb")
    except OSError as error:
        message = f"cannot be written: {error.strerror}. Name a file in a folder that this user may write."
        raise InvalidInputError([InputIssue((str(path),), message)]) from error
    try:
        with file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
    except BaseException:
        partial.unlink()
        raise
