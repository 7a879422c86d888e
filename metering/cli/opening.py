"""Files that are imported: what they hold, whether or not they are gzipped, and what is said where they cannot be read."""

import csv
import gzip
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Final, Literal, TypeVar, cast

from metering.errors import InputIssue, InvalidInputError

_GZIP_MAGIC: Final = b"\x1f\x8b"

Format = Literal["ndjson", "csv"]
_FORMATS: Final[dict[str, Format]] = {".ndjson": "ndjson", ".jsonl": "ndjson", ".csv": "csv"}

Line = TypeVar("Line")


def opened(file: Path, format: Format | None) -> tuple[IO[bytes], Format]:
    """The file, and what it holds. Raises InvalidInputError, with every fault."""
    chosen = format or _FORMATS.get(Path(file.name.removesuffix(".gz")).suffix)
    issues = [] if chosen else [InputIssue((str(file),), "is not .ndjson, .jsonl or .csv; say --format.")]
    try:
        raw = file.open("rb")
    except OSError as error:
        issues.append(InputIssue((str(file),), f"cannot be read: {error.strerror}."))
        raise InvalidInputError(issues) from error
    if chosen is None:
        raw.close()
        raise InvalidInputError(issues)
    return raw, chosen


def plain_of(raw: IO[bytes]) -> IO[bytes]:
    """What the file holds, unzipped."""
    zipped = raw.read(2) == _GZIP_MAGIC
    raw.seek(0)
    return cast("IO[bytes]", gzip.GzipFile(fileobj=raw)) if zipped else raw


def readable(name: str, lines: Iterator[tuple[int, Line]]) -> Iterator[tuple[int, Line]]:
    """Numbered lines, as long as they can be read. Raises InvalidInputError behind the last one that can."""
    number = 0
    try:
        for number, line in lines:
            yield number, line
    except (OSError, EOFError, zlib.error, UnicodeDecodeError, csv.Error) as error:
        raise InvalidInputError([InputIssue((name,), f"cannot be read after line {number}: {error}.")]) from error
