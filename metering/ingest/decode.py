"""Bytes -> events, or a fault for each event that is none. Pure.

The good path is one typed pass over the whole body in C. Only when that fails is each event decoded alone, so that one
bad event never costs the others, and only a bad one is looked at again, field by field, to say what is wrong with it.
"""

import json
import re
from collections.abc import Sequence
from datetime import datetime
from decimal import Decimal, InvalidOperation
from io import BytesIO
from itertools import islice
from math import isinf
from typing import Any, Final

import msgspec

from metering.errors import BodyError
from metering.events import UsageEvent
from metering.ingest.receipts import Code, Rejection
from metering.limits import Limits

_EVENT: Final = msgspec.json.Decoder(UsageEvent)
_EVENTS: Final = msgspec.json.Decoder(list[UsageEvent])
_REQUIRED: Final = ("id", "occurred_at", "account", "product", "unit")
_STRINGS: Final = (
    "id",
    "source",
    "occurred_at",
    "account",
    "subscription",
    "user",
    "device",
    "product",
    "feature",
    "classification",
    "unit",
)
_FIELDS: Final = frozenset(
    msgspec.structs.fields(UsageEvent)[index].name for index in range(len(UsageEvent.__struct_fields__))
)

# An event in its place, or the reason why it is none.
Decoded = Sequence[UsageEvent | Rejection]

# What a decoder raises for what it does not take.
_REFUSED: Final = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)
_SPACE: Final = " \t\n\r"


def decode_json(body: bytes, limits: Limits) -> Decoded:
    """One event object, or an array of them. Raises BodyError when the body as a whole is not JSON or too many events."""
    is_array = body.lstrip(_SPACE.encode())[:1] == b"["
    try:
        events = _EVENTS.decode(body) if is_array else [_EVENT.decode(body)]
    except _REFUSED:
        elements = _elements(body, limits) if is_array else [_only_element(body)]
        return [_decode_element(index, element) for index, element in enumerate(elements)]
    _check_count(len(events), limits)
    return events


def decode_ndjson(body: bytes, limits: Limits) -> Decoded:
    """One event a line; blank lines are passed over and do not count for the index."""
    # Line by line, so that a body of nothing but line ends is never a list of millions.
    lines = list(islice((line for line in BytesIO(body) if line.strip()), limits.body_events_max + 1))
    _check_count(len(lines), limits)
    return [_decode_element(index, line) for index, line in enumerate(lines)]


def _decode_element(index: int, raw: bytes) -> UsageEvent | Rejection:
    try:
        return _EVENT.decode(raw)
    except _REFUSED:
        return _explain(index, raw)


def _only_element(body: bytes) -> bytes:
    """The body as the one element, though it is no event. Raises BodyError when it is not JSON either."""
    try:
        _ANYTHING.decode(body)
    except msgspec.ValidationError:
        return body
    except _REFUSED as error:
        raise _unreadable(error) from error
    return body


# Finds where an element ends without judging its texts and numbers: that is for the typed decoder.
_STEP: Final = json.JSONDecoder(parse_int=len, parse_float=len, parse_constant=len, strict=False).raw_decode
_OPENING: Final = re.compile(rf"[{_SPACE}]*\[[{_SPACE}]*")
_FOLLOWING: Final = re.compile(rf"[{_SPACE}]*(?:(,)[{_SPACE}]*|\][{_SPACE}]*\Z)")


def _elements(body: bytes, limits: Limits) -> list[bytes]:
    """The elements of an array, each as it was sent. Raises BodyError when there are too many, or it is no array.

    Half a surrogate pair, or bytes that are not UTF-8, cost only the event that holds them. The walk stops at the first
    element too many: an array of millions of zeros would be a gigabyte otherwise.
    """
    text = body.decode(errors="surrogateescape")
    opening = _OPENING.match(text)
    assert opening is not None, "the caller has seen the bracket"
    start = opening.end()
    elements: list[bytes] = []
    while True:
        try:
            end = _STEP(text, start)[1]
        except (json.JSONDecodeError, RecursionError) as error:
            raise _unreadable(error) from error
        elements.append(text[start:end].encode(errors="surrogateescape"))
        _check_count(len(elements), limits)
        following = _FOLLOWING.match(text, end)
        if following is None:
            raise _unreadable(json.JSONDecodeError("Expecting a comma or the end of the array", text, end))
        if following[1] is None:
            return elements
        start = following.end()


def _check_count(count: int, limits: Limits) -> None:
    if count > limits.body_events_max:
        raise BodyError(
            413,
            "too_many_events",
            f"More than {limits.body_events_max:,} events in one request. Send them in several requests.",
        )


def _unreadable(error: Exception) -> BodyError:
    return BodyError(400, "body_unreadable", f"The body is not JSON: {_reason(error)}.")


def _reason(error: Exception) -> str:
    if isinstance(error, RecursionError):
        return "nested too deeply"
    if isinstance(error, UnicodeDecodeError):
        return f"the byte 0x{error.object[error.start]:02x} is not UTF-8"
    return str(error).removeprefix("JSON is malformed: ")


def _number(text: str) -> Decimal:
    """A number as it is written; infinite where its exponent is beyond those that a decimal can have."""
    try:
        return Decimal(text)
    except InvalidOperation:
        return Decimal("Infinity")


_ANYTHING: Final = msgspec.json.Decoder(float_hook=_number)


def _explain(index: int, raw: bytes) -> Rejection:
    """Say what is wrong with JSON that is no event: the first fault in the order of `Code`."""
    try:
        fields = _ANYTHING.decode(raw)
    except msgspec.ValidationError:
        return Rejection(index, Code.MALFORMED, "A whole number in it has thousands of digits and cannot be read.")
    except _REFUSED as error:
        return Rejection(index, Code.MALFORMED, f"This is not JSON: {_reason(error)}.")
    if not isinstance(fields, dict):
        return Rejection(index, Code.MALFORMED, f"An event is a JSON object; this is {_kind(fields)}.")
    event_id = fields.get("id")
    code, path, message = _first_fault(fields)
    return Rejection(index, code, message, id=event_id if isinstance(event_id, str) else None, path=path)


# Why an event is none: the code, the field, and the message.
Fault = tuple[Code, str | None, str]


def _first_fault(fields: dict[str, Any]) -> Fault:
    """The first fault of an object that the typed decoder refused; there is one."""
    unknown = next((name for name in fields if name not in _FIELDS), None)
    if unknown is not None:
        known = ", ".join(sorted(_FIELDS))
        return Code.UNKNOWN_FIELD, unknown, f"An event has no field `{unknown:.60}`; its fields are {known}."
    missing = next((name for name in _REQUIRED if fields.get(name) is None), None)
    if missing is not None:
        return Code.MISSING_FIELD, missing, f"`{missing}` is required."
    return (
        _type_fault(fields)
        or _time_fault(fields["occurred_at"])
        or _quantity_fault(fields.get("quantity", 1))
        or _attributes_fault(fields.get("attributes"))
        # The typed decoder looks at each value, `_ANYTHING` keeps the last one.
        or (Code.MALFORMED, None, "A field is named twice, and one of its values is not what it should be.")
    )


def _type_fault(fields: dict[str, Any]) -> Fault | None:
    wrong = next((name for name in _STRINGS if not isinstance(fields.get(name), str | None)), None)
    if wrong is not None:
        return Code.WRONG_TYPE, wrong, f"`{wrong}` must be a string; this is {_kind(fields[wrong])}."
    quantity = fields.get("quantity", 1)
    if isinstance(quantity, bool) or not isinstance(quantity, str | int | Decimal):
        return Code.WRONG_TYPE, "quantity", f"`quantity` must be a number or a string; this is {_kind(quantity)}."
    return None


NO_OFFSET: Final = "`occurred_at` needs an offset, such as Z or +01:00; without one it names no instant."


def _time_fault(value: str) -> Fault | None:
    try:
        instant = msgspec.convert(value, datetime)
    except msgspec.ValidationError:
        message = f"{value!r:.60} is not an RFC 3339 instant such as 2026-03-01T12:00:00Z."
        return Code.TIME_INVALID, "occurred_at", message
    return (Code.TIME_NAIVE, "occurred_at", NO_OFFSET) if instant.tzinfo is None else None


_EXPONENT_FORM: Final = re.compile(r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)[eE][+-]?[0-9]+")


def _quantity_fault(value: str | int | Decimal) -> Fault | None:
    quantity = _number(value) if isinstance(value, str) else Decimal(value)
    if quantity.is_finite():
        return None
    # Every JSON number is a number; what became infinite has an exponent past all limits.
    if not isinstance(value, str) or _EXPONENT_FORM.fullmatch(value):
        message = "The exponent of `quantity` is beyond what can be kept; it is refused rather than rounded."
        return Code.QUANTITY_OUT_OF_RANGE, "quantity", message
    return Code.QUANTITY_NOT_A_NUMBER, "quantity", f"{value!r:.60} is not a finite decimal number."


def _attributes_fault(value: object) -> Fault | None:
    if not isinstance(value, dict | None):
        return Code.ATTRIBUTES_INVALID, "attributes", f"`attributes` must be an object; this is {_kind(value)}."
    for name, item in (value or {}).items():
        if isinstance(item, dict | list):
            message = f"`attributes` holds strings, numbers, true, false and null; `{name:.60}` is {_kind(item)}."
            return Code.ATTRIBUTES_INVALID, "attributes", message
        if isinstance(item, Decimal) and isinf(item):
            message = f"`{name:.60}` of `attributes` is a number beyond the range of a binary float."
            return Code.ATTRIBUTES_INVALID, "attributes", message
    return None


def _kind(value: object) -> str:
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "a boolean"
    if isinstance(value, int | Decimal):
        return "a number"
    return "a string" if isinstance(value, str) else "an array" if isinstance(value, list) else "an object"
