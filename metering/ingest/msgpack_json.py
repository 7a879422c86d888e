"""A MessagePack event that was refused, as JSON that people can read and correct. Pure.

Binary data is Base64, a timestamp RFC 3339, an extension {"ext": its type, "data": Base64}, NaN and the infinities are
strings. What JSON has no form for at all (it cannot be read, or a name in it is no scalar) is Base64 as a whole.
"""

from math import isfinite
from typing import Any, Final

import msgspec
from msgspec.msgpack import Ext

from metering.ingest.bodies import JSON, SentBody
from metering.ingest.decode import decode_element
from metering.ingest.elements import REFUSED
from metering.ingest.receipts import Rejection
from metering.limits import Limits

_ANYTHING: Final = msgspec.msgpack.Decoder()


def msgpack_body(raw: bytes, limits: Limits) -> SentBody:
    """The event as JSON. It is exact only where it is refused as JSON too: 1.5 is a float here, and a decimal there."""
    shown = shown_as_json(raw, limits)
    return SentBody(JSON, shown, is_exact=isinstance(decode_element(0, shown, limits), Rejection))


def shown_as_json(raw: bytes, limits: Limits) -> bytes:
    """The value as JSON, or as a string of Base64."""
    if len(raw) <= limits.looked_at_bytes_max:
        try:
            return msgspec.json.encode(_finite(_ANYTHING.decode(raw)), enc_hook=_extension)
        except (*REFUSED, TypeError):
            pass
    return msgspec.json.encode(raw)


def _finite(value: Any) -> Any:
    """The value, without numbers that JSON does not have in its fields and attributes; those deeper become null."""
    if not isinstance(value, dict):
        return _number(value)
    fields = {name: _number(item) for name, item in value.items()}
    attributes = fields.get("attributes")
    if isinstance(attributes, dict):
        fields["attributes"] = {name: _number(item) for name, item in attributes.items()}
    return fields


def _number(value: Any) -> Any:
    return str(value) if isinstance(value, float) and not isfinite(value) else value


def _extension(value: Any) -> Any:
    if isinstance(value, Ext):
        return {"ext": value.code, "data": value.data}
    raise TypeError("a name that is no scalar")
