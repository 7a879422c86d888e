"""`metering import`: events from a file, through the service's own endpoint."""

import asyncio
import csv
import gzip
import io
import sys
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Annotated, Final, Literal, cast

import msgspec
from cyclopts import Parameter

from metering.cli.console import ERR, progress_bar, say
from metering.errors import InputIssue, InvalidInputError
from metering.events import UsageEvent
from metering.sender import NumberedLine, Sent, send_events

_GZIP_MAGIC: Final = b"\x1f\x8b"
_ATTRIBUTE: Final = "attributes."
_ENCODER: Final = msgspec.json.Encoder()

Format = Literal["ndjson", "csv"]
_FORMATS: Final[dict[str, Format]] = {".ndjson": "ndjson", ".jsonl": "ndjson", ".csv": "csv"}


def import_file(
    file: Path,
    *,
    url: Annotated[str, Parameter(env_var="METERING_URL")] = "http://127.0.0.1:8000",
    key: Annotated[str, Parameter(env_var="METERING_KEY")],
    format: Format | None = None,
) -> None:
    """Send the events of a file to a running service; safe to run again, an event is counted once.

    NDJSON has an event a line; CSV has the fields' names in its first row (`attributes.region` for an attribute), and an
    empty cell is a field left out. Either may be gzipped. Exits 1 when events were rejected, and says which lines.

    Example: `METERING_KEY=mk_... metering import usage-2026-10.ndjson.gz`

    Parameters
    ----------
    file
        An .ndjson, .jsonl or .csv file, or one of them gzipped.
    url
        The service's address [METERING_URL].
    key
        A key with the scope USAGE_WRITE [METERING_KEY].
    format
        What the file holds, where its name does not say.
    """
    raw, chosen = _opened(file, format)
    with raw, progress_bar(counts=False) as bar:
        task = bar.add_task(file.name, total=file.stat().st_size, events_per_step=0)
        events = 0

        def on_batch(count: int) -> None:
            nonlocal events
            events += count
            position = raw.tell()
            bar.update(task, completed=position, events_per_step=events / max(position, 1))

        def on_wait(reason: str) -> None:
            ERR.print(f"The service does not take events now, trying again: {reason}", markup=False)

        sent = asyncio.run(send_events(_lines(raw, chosen), url, key, on_batch, on_wait))
        bar.update(task, completed=file.stat().st_size)
    _report(sent)


def _opened(file: Path, format: Format | None) -> tuple[IO[bytes], Format]:
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


def _lines(raw: IO[bytes], chosen: Format) -> Iterator[NumberedLine]:
    zipped = raw.read(2) == _GZIP_MAGIC
    raw.seek(0)
    plain = cast("IO[bytes]", gzip.GzipFile(fileobj=raw)) if zipped else raw
    lines = _csv_lines(plain) if chosen == "csv" else _ndjson_lines(plain)
    number = 0
    try:
        for number, line in lines:
            yield number, line
    except (OSError, EOFError, zlib.error, UnicodeDecodeError, csv.Error) as error:
        issue = InputIssue((raw.name,), f"cannot be read after line {number}: {error}.")
        raise InvalidInputError([issue]) from error


def _ndjson_lines(plain: IO[bytes]) -> Iterator[NumberedLine]:
    for number, line in enumerate(plain, start=1):
        if line.strip():
            yield number, line.rstrip(b"\r\n")


def _csv_lines(plain: IO[bytes]) -> Iterator[NumberedLine]:
    text = io.TextIOWrapper(plain, encoding="utf-8-sig", newline="")
    try:
        yield from _csv_rows(csv.DictReader(text, restkey="", strict=True))
    finally:
        text.detach()  # else it closes the file as it goes, and the progress bar still asks that for its position


def _csv_rows(reader: "csv.DictReader[str]") -> Iterator[NumberedLine]:
    known = UsageEvent.__struct_fields__
    unknown = [name for name in reader.fieldnames or () if name not in known and not name.startswith(_ATTRIBUTE)]
    if unknown:
        fields = ", ".join(name for name in known if name != "attributes")
        issues = [
            InputIssue((name,), f"is no field of an event; they are {fields} and attributes.<name>.")
            for name in unknown
        ]
        raise InvalidInputError(issues)
    for row in reader:
        if "" in row:
            raise InvalidInputError([InputIssue((f"line {reader.line_num}",), "has more cells than the first row.")])
        yield reader.line_num, _ENCODER.encode(_event_of(row))


def _event_of(row: dict[str, str]) -> dict[str, object]:
    given = {name: value for name, value in row.items() if value}
    attributes = {name.removeprefix(_ATTRIBUTE): given.pop(name) for name in list(given) if name.startswith(_ATTRIBUTE)}
    return {**given, **({"attributes": attributes} if attributes else {})}


def _report(sent: Sent) -> None:
    say(f"{sent.accepted:,} accepted, {sent.duplicates:,} duplicates, {sent.rejected:,} rejected.")
    for refused in sent.examples:
        ERR.print(f"line {refused.line}: {refused.code} ({refused.path or 'event'}): {refused.message}", markup=False)
    if sent.rejected > len(sent.examples):
        counts = ", ".join(f"{count:,} {code}" for code, count in sent.by_code.most_common())
        ERR.print(f"... and more. In all: {counts}.", markup=False)
    if sent.rejected:
        sys.exit(1)
