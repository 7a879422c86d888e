"""JSON -> events, or a fault for each event that is none. Pure.

The good path is one typed pass over the whole body in C. Only when that fails is each event decoded alone, so that one
bad event never costs the others, and only a bad one is looked at again, field by field, to say what is wrong with it.
"""

from collections.abc import Sequence
from io import BytesIO
from typing import Final

import msgspec

from metering.events import UsageEvent
from metering.ingest import faults
from metering.ingest.elements import (
    REFUSED,
    anything,
    check_count,
    elements,
    is_array,
    only_element,
    reason,
)
from metering.ingest.receipts import Code, Rejection
from metering.limits import Limits

_EVENT: Final = msgspec.json.Decoder(UsageEvent)
_EVENTS: Final = msgspec.json.Decoder(list[UsageEvent])

# An event in its place, or the reason why it is none.
Decoded = Sequence[UsageEvent | Rejection]

# Where decoders put what is no event, as it was sent, by its index.
Refused = dict[int, bytes]

NO_OFFSET: Final = faults.NO_OFFSET


def decode_json(body: bytes, limits: Limits, refused: Refused | None = None) -> Decoded:
    """One event object, or an array of them. Raises BodyError when the body as a whole is not JSON or too many events."""
    many = is_array(body)
    try:
        events = _EVENTS.decode(body) if many else [_EVENT.decode(body)]
    except REFUSED:
        parts = elements(body, limits) if many else [only_element(body, limits)]
        return [decode_element(index, part, limits, refused) for index, part in enumerate(parts)]
    check_count(len(events), limits)
    return events


def decode_ndjson(body: bytes, limits: Limits) -> Decoded:
    """One event a line; blank lines are passed over and do not count for the index."""
    lines = Lines(limits)
    lines.feed(body)
    return lines.finish()


class Lines:
    """NDJSON as it arrives: each line is decoded once its end is there, so what is kept is events, not the body."""

    def __init__(self, limits: Limits, refused: Refused | None = None) -> None:
        self._limits = limits
        self._refused = refused
        self._decoded: list[UsageEvent | Rejection] = []
        # The line of which the end has not arrived.
        self._begun = bytearray()

    def feed(self, piece: bytes) -> None:
        """Take the next bytes, wherever they were cut. Raises BodyError as soon as there are too many events."""
        end = piece.find(b"\n") + 1
        if self._begun or not end:
            self._begun += piece[:end] if end else piece
            if not end:
                return
            self._line(bytes(self._begun))
            self._begun.clear()
            piece = piece[end:]
        last = piece.rfind(b"\n") + 1
        # Line by line, so that a body of nothing but line ends is never a list of millions.
        for line in BytesIO(piece[:last]):
            self._line(line)
        self._begun += piece[last:]

    def finish(self) -> Decoded:
        """The events of all lines; the last one needs no end."""
        self._line(bytes(self._begun))
        self._begun.clear()
        return self._decoded

    def _line(self, line: bytes) -> None:
        if not line.strip():
            return
        check_count(len(self._decoded) + 1, self._limits)
        self._decoded.append(decode_element(len(self._decoded), line, self._limits, self._refused))


def decode_element(index: int, raw: bytes, limits: Limits, refused: Refused | None = None) -> UsageEvent | Rejection:
    """One event object, or the first reason why it is none."""
    try:
        return _EVENT.decode(raw)
    except REFUSED:
        if refused is not None:
            refused[index] = raw
        return _explain(index, raw, limits)


def _explain(index: int, raw: bytes, limits: Limits) -> Rejection:
    """Say what is wrong with JSON that is no event: the first fault in the order of `Code`."""
    try:
        fields = anything(raw, limits)
    except msgspec.ValidationError:
        return Rejection(index, Code.MALFORMED, "A whole number in it has thousands of digits and cannot be read.")
    except REFUSED as error:
        return Rejection(index, Code.MALFORMED, f"This is not JSON that can be read: {reason(error)}.")
    if not isinstance(fields, dict):
        return Rejection(index, Code.MALFORMED, f"An event is a JSON object; this is {faults.kind(fields)}.")
    event_id = fields.get("id")
    code, path, message = faults.unknown_field(fields) or faults.first_fault(fields)
    return Rejection(index, code, message, id=event_id if isinstance(event_id, str) else None, path=path)
