"""`metering import --signals`: signals from a file, through the service's own API."""

import asyncio
import csv
import io
import math
import sys
from collections.abc import Callable, Iterator
from datetime import datetime
from pathlib import Path
from typing import IO, Annotated, Any, Final

import msgspec

from health.scorecards import Subject
from metering.cli.console import ERR, progress_bar, say
from metering.cli.opening import Format, opened, plain_of, readable
from metering.errors import InputIssue, InvalidInputError
from metering.signal_sender import NumberedSignal, SignalFault, send_signals

_Instant = Annotated[datetime, msgspec.Meta(tz=True)]


class SignalLine(msgspec.Struct, frozen=True, kw_only=True):
    """A signal as a file has it, by the names of its columns; the account may be left out where the API says so."""

    subject: Subject
    key: str
    account: str | None = None
    name: str
    value: float
    at: _Instant
    source: str
    external_id: str | None = None
    note: str | None = None
    expires_at: _Instant | None = None


_FIELDS: Final = {field.name: field for field in msgspec.structs.fields(SignalLine)}
_NO_FIELD: Final = f"is no field of a signal; they are {', '.join(_FIELDS)}."
# As the API has them.
_IN_API: Final = {"external_id": "externalId", "expires_at": "expiresAt"}
_IN_FILE: Final = {name: column for column, name in _IN_API.items()}

OnFault = Callable[[SignalFault], None]


def import_signals(file: Path, url: str, key: str, format: Format | None) -> None:
    """Send the signals of a file to a running service. What is wrong with any is told by its line, and keeps no other back."""
    raw, chosen = opened(file, format)
    unread: set[int] = set()

    def on_fault(fault: SignalFault) -> None:
        field = "signal" if fault.field is None else _IN_FILE.get(fault.field, fault.field)
        ERR.print(f"line {fault.line}: {field}: {fault.message}", markup=False)

    def on_line_fault(fault: SignalFault) -> None:
        unread.add(fault.line)
        on_fault(fault)

    with raw, progress_bar(counts=False) as bar:
        task = bar.add_task(file.name, total=file.stat().st_size, events_per_step=0)
        signals = 0

        def on_batch(count: int) -> None:
            nonlocal signals
            signals += count
            position = raw.tell()
            bar.update(task, completed=position, events_per_step=signals / max(position, 1))

        def on_wait(reason: str) -> None:
            ERR.print(f"The service does not take signals now, trying again: {reason}", markup=False)

        lines = _signals(raw, chosen, on_line_fault)
        sent = asyncio.run(send_signals(lines, url, key, on_fault, on_batch, on_wait))
        bar.update(task, completed=file.stat().st_size)
    refused = sent.refused + len(unread)
    say(f"{sent.accepted:,} accepted, {sent.duplicates:,} duplicates, {refused:,} refused.")
    if refused:
        sys.exit(1)


def _signals(raw: IO[bytes], chosen: Format, on_fault: OnFault) -> Iterator[NumberedSignal]:
    """The signals that can be read; of the others `on_fault` hears."""
    plain = plain_of(raw)
    # In CSV everything is a text.
    strict = chosen != "csv"
    for number, row in readable(raw.name, _ndjson_rows(plain) if strict else _csv_rows(plain)):
        faults = list(_faults(number, row, strict=strict))
        for fault in faults:
            on_fault(fault)
        if not faults:
            signal = msgspec.to_builtins(msgspec.convert(row, SignalLine, strict=strict))
            yield number, {_IN_API.get(name, name): value for name, value in signal.items()}


def _ndjson_rows(plain: IO[bytes]) -> Iterator[tuple[int, Any]]:
    for number, line in enumerate(plain, start=1):
        if line.strip():
            try:
                yield number, msgspec.json.decode(line)
            except (msgspec.DecodeError, UnicodeDecodeError):
                yield number, None


def _csv_rows(plain: IO[bytes]) -> Iterator[tuple[int, Any]]:
    text = io.TextIOWrapper(plain, encoding="utf-8-sig", newline="")
    try:
        reader = csv.DictReader(text, restkey="", strict=True)
        unknown = [name for name in reader.fieldnames or () if name not in _FIELDS]
        if unknown:
            raise InvalidInputError([InputIssue((name,), _NO_FIELD) for name in unknown])
        for row in reader:
            yield reader.line_num, {name: value for name, value in row.items() if value}
    finally:
        text.detach()  # else it closes the file as it goes, and the progress bar still asks that for its position


def _faults(line: int, row: Any, *, strict: bool) -> Iterator[SignalFault]:
    """Everything that keeps a row from being a signal."""
    if not isinstance(row, dict):
        yield SignalFault(line, None, "This is no JSON object.")
        return
    for name in row:
        if name == "":
            yield SignalFault(line, None, "This has more cells than the first row.")
        elif name not in _FIELDS:
            yield SignalFault(line, name, _NO_FIELD)
    for name, field in _FIELDS.items():
        if name not in row:
            if field.required:
                yield SignalFault(line, name, "This is missing.")
            continue
        try:
            value = msgspec.convert(row[name], field.type, strict=strict)
        except msgspec.ValidationError as error:
            yield SignalFault(line, name, f"{error}.")
            continue
        if isinstance(value, float) and not math.isfinite(value):
            yield SignalFault(line, name, f"{value} is no number to calculate with.")
