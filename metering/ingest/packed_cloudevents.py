"""A CloudEvent in binary mode whose data is MessagePack -> a usage event, or a fault. Pure.

Its data is read as strictly as an event in MessagePack is: no binary float, and no type that JSON has not.
"""

from collections.abc import Mapping, Sequence
from typing import Final

import msgspec

from metering.ingest.bodies import SentBody
from metering.ingest.cloudevents import (
    STRUCTURED,
    CloudEvent,
    CloudEvents,
    Envelope,
    UsageData,
    attributes_of,
    decode_elements,
    fault_of,
    rejection_of,
    structured,
    worded_as_cloud_event,
)
from metering.ingest.elements import REFUSED, reason
from metering.ingest.msgpack_bodies import check_exact, check_whole, fields_of
from metering.ingest.msgpack_json import shown_as_json
from metering.ingest.receipts import Code, Rejection
from metering.limits import Limits

_DATA: Final = msgspec.msgpack.Decoder(UsageData)
# No body is no data: a map without fields.
_NO_DATA: Final = b"\x80"


def decode_packed(headers: Sequence[tuple[bytes, bytes]], body: bytes, limits: Limits) -> CloudEvents:
    """One CloudEvent: its attributes are headers, its data is the body. Raises BodyError when that is not MessagePack."""
    data = body or _NO_DATA
    check_whole(data)
    attributes = attributes_of(headers)
    event = attributes if isinstance(attributes, Rejection) else _assemble(attributes, data, limits)
    if isinstance(event, Rejection):
        return CloudEvents([event], {0: _sent(headers, body, limits)})
    return CloudEvents([event])


def _assemble(attributes: Mapping[str, str], data: bytes, limits: Limits) -> CloudEvent | Rejection:
    try:
        envelope = msgspec.convert(attributes, Envelope)
        usage = _DATA.decode(data)
        check_exact(data)
    except REFUSED:
        return _explain(attributes, data, limits)
    return CloudEvent(**msgspec.structs.asdict(envelope), data=usage)


def _explain(attributes: Mapping[str, str], data: bytes, limits: Limits) -> Rejection:
    """Say what is wrong with it: the first fault in the order of `Code`."""
    event_id = attributes.get("id")
    try:
        fields = fields_of(data, limits)
    except REFUSED as error:
        fault = (Code.MALFORMED, "data", f"`data` is not MessagePack that can be read: {reason(error)}.")
        return rejection_of(0, event_id, fault)
    if isinstance(fields, str):
        fault = (Code.MALFORMED, "data", f"`data` must be a MessagePack map of fields; {fields}.")
        return rejection_of(0, event_id, fault)
    by_subject = fields.get("account") is None and attributes.get("subject") is not None
    return worded_as_cloud_event(rejection_of(0, event_id, fault_of(attributes, fields)), by_subject=by_subject)


def _sent(headers: Sequence[tuple[bytes, bytes]], body: bytes, limits: Limits) -> SentBody:
    """It in structured mode, with its data as JSON; exact only where it is refused as that too."""
    shown = structured(headers, shown_as_json(body, limits) if body else b"")
    (again,) = decode_elements([shown.raw], limits).decoded
    return SentBody(STRUCTURED, shown.raw, is_exact=shown.is_exact and isinstance(again, Rejection))
