"""`metering import`: events, or signals, from a file, through the service's own endpoints."""

import asyncio
import csv
import io
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Annotated, Final

import msgspec
from cyclopts import Parameter

from metering.cli.console import ERR, progress_bar, say
from metering.cli.import_signals import import_signals
from metering.cli.opening import Format, opened, plain_of, readable
from metering.errors import InputIssue, InvalidInputError
from metering.events import UsageEvent
from metering.sender import NumberedLine, Sent, send_events

_ATTRIBUTE: Final = "attributes."
_ENCODER: Final = msgspec.json.Encoder()


def import_file(
    file: Path,
    *,
    url: Annotated[str, Parameter(env_var="METERING_URL")] = "http://127.0.0.1:8000",
    key: Annotated[str, Parameter(env_var="METERING_KEY")],
    format: Format | None = None,
    signals: bool = False,
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
    signals
        The file has signals instead of events: subject, key, name, value, at, source, and account, external_id, note,
        expires_at where they are wanted. Everything that is wrong is told by its line. The key has the scope HEALTH_WRITE.
    """
    if signals:
        import_signals(file, url, key, format)
        return
    raw, chosen = opened(file, format)
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


def _lines(raw: IO[bytes], chosen: Format) -> Iterator[NumberedLine]:
    plain = plain_of(raw)
    return readable(raw.name, _csv_lines(plain) if chosen == "csv" else _ndjson_lines(plain))


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
