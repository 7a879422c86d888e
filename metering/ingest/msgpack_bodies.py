"""MessagePack -> events, or a fault for each event that is none. Pure.

The good path is two typed passes in C: the second one refuses what the first would take through a binary float.
"""

from typing import Annotated, Any, Final

import msgspec

from metering.events import UsageEvent
from metering.ingest import faults
from metering.ingest.decode import Decoded, Refused
from metering.ingest.elements import REFUSED, check_count, reason, unreadable
from metering.ingest.receipts import Code, Rejection
from metering.limits import Limits

_FLOAT_MAX: Final = 1.7976931348623157e308
_Finite = Annotated[float, msgspec.Meta(ge=-_FLOAT_MAX, le=_FLOAT_MAX)]


class _Exact(msgspec.Struct):
    """What an event may hold where UsageEvent takes more: no float as a quantity, no NaN as an attribute."""

    quantity: str | int = 1
    attributes: dict[str, str | int | _Finite | bool | None] | None = None


_EVENT: Final = msgspec.msgpack.Decoder(UsageEvent)
_EVENTS: Final = msgspec.msgpack.Decoder(list[UsageEvent])
_EXACT: Final = msgspec.msgpack.Decoder(_Exact)
_ALL_EXACT: Final = msgspec.msgpack.Decoder(list[_Exact])
_ELEMENTS: Final = msgspec.msgpack.Decoder(list[msgspec.Raw])
_MAP: Final = msgspec.msgpack.Decoder(dict[str, msgspec.Raw])
_ANYTHING: Final = msgspec.msgpack.Decoder()
_LANGUAGE: Final = "MessagePack"


def decode_msgpack(body: bytes, limits: Limits, refused: Refused | None = None) -> Decoded:
    """One event map, or an array of them. Raises BodyError when the body is not MessagePack, or too many events."""
    count = _array_length(body)
    if count is None:
        return [_only_event(body, limits, refused)]
    # Before anything is made: a body of 16 MiB may be an array of 16 million nils.
    check_count(count, limits)
    try:
        events = _EVENTS.decode(body)
        _ALL_EXACT.decode(body)
    except REFUSED:
        return [_decode_element(index, raw, limits, refused) for index, raw in enumerate(_elements(body))]
    return events


def _array_length(body: bytes) -> int | None:
    """How many elements an array says it has; None where the body is no array."""
    first = body[:1]
    if b"\x90" <= first <= b"\x9f":
        return first[0] - 0x90
    if first == b"\xdc":
        return int.from_bytes(body[1:3], "big")
    return int.from_bytes(body[1:5], "big") if first == b"\xdd" else None


def _elements(body: bytes) -> list[msgspec.Raw]:
    try:
        return _ELEMENTS.decode(body)
    except REFUSED as error:
        raise unreadable(error, _LANGUAGE) from error


def _only_event(body: bytes, limits: Limits, refused: Refused | None) -> UsageEvent | Rejection:
    """The body as the one element. Raises BodyError when it is not MessagePack to its end."""
    check_whole(body)
    return _decode_element(0, body, limits, refused)


def check_whole(body: bytes) -> None:
    """Raise BodyError when the body is not one value of MessagePack, and nothing behind it."""
    try:
        msgspec.msgpack.decode(body, type=msgspec.Raw)
    except REFUSED as error:
        raise unreadable(error, _LANGUAGE) from error


def check_exact(raw: bytes | msgspec.Raw) -> None:
    """Raise one of REFUSED where a quantity or an attribute is a number that is not exact, or none."""
    _EXACT.decode(raw)


def _decode_element(
    index: int, raw: bytes | msgspec.Raw, limits: Limits, refused: Refused | None
) -> UsageEvent | Rejection:
    try:
        event = _EVENT.decode(raw)
        check_exact(raw)
    except REFUSED:
        if refused is not None:
            refused[index] = bytes(raw)
        return _explain(index, raw, limits)
    return event


def _explain(index: int, raw: bytes | msgspec.Raw, limits: Limits) -> Rejection:
    """Say what is wrong with MessagePack that is no event: the first fault in the order of `Code`."""
    try:
        fields = fields_of(raw, limits)
    except REFUSED as error:
        return Rejection(index, Code.MALFORMED, f"This is not MessagePack: {reason(error)}.")
    if isinstance(fields, str):
        return Rejection(index, Code.MALFORMED, f"An event is a MessagePack map of fields; {fields}.")
    event_id = fields.get("id")
    code, path, message = faults.unknown_field(fields) or faults.first_fault(fields)
    return Rejection(index, code, message, id=event_id if isinstance(event_id, str) else None, path=path)


def fields_of(raw: bytes | msgspec.Raw, limits: Limits) -> dict[str, Any] | str:
    """The fields of a map, or what it is instead."""
    value = _shown(raw)
    if memoryview(raw).nbytes > limits.looked_at_bytes_max:
        return "this one is larger than an event can be"
    if not isinstance(value, dict):
        return f"this is {faults.kind(value)}"
    try:
        return {name: _value(name, item) for name, item in _MAP.decode(raw).items()}
    except msgspec.ValidationError:
        return "a name in this one is not a string"


def _value(name: str, raw: msgspec.Raw) -> Any:
    value = _shown(raw)
    if name != "attributes" or not isinstance(value, dict):
        return value
    try:
        return {key: _shown(item) for key, item in _MAP.decode(raw).items()}
    except msgspec.ValidationError:
        # A name of an attribute that is no string.
        return _NO_NAMES


# As far as `faults` is concerned: an attribute's value that is no scalar.
_NO_NAMES: Final = {"": b""}


def _shown(raw: bytes | msgspec.Raw) -> Any:
    """A scalar as it is; an array or a map without what is in it, which may be more than there is memory for."""
    first = bytes(memoryview(raw)[:1])
    if b"\x90" <= first <= b"\x9f" or first in {b"\xdc", b"\xdd"}:
        return []
    if b"\x80" <= first <= b"\x8f" or first in {b"\xde", b"\xdf"}:
        return {}
    try:
        return _ANYTHING.decode(raw)
    except msgspec.ValidationError:
        return _NO_INSTANT


# A timestamp that lies outside the calendar.
_NO_INSTANT: Final = msgspec.msgpack.Ext(-1, b"")
