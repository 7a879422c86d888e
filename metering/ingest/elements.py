"""A JSON array -> its elements, each as it was sent, whatever it holds. Pure."""

import json
import re
from typing import Any, Final

import msgspec

from metering.errors import BodyError
from metering.ingest.faults import number
from metering.limits import Limits

# What a decoder raises for what it does not take.
REFUSED: Final = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)

# Numbers with a point or an exponent are decimals, as they are written.
_ANYTHING: Final = msgspec.json.Decoder(float_hook=number)
_SKIPPING: Final = msgspec.json.Decoder(msgspec.Raw)

_SPACE: Final = " \t\n\r"
# Finds where an element ends without judging its texts and numbers: that is for the typed decoder.
_STEP: Final = json.JSONDecoder(parse_int=len, parse_float=len, parse_constant=len, strict=False).raw_decode
_OPENING: Final = re.compile(rf"[{_SPACE}]*\[[{_SPACE}]*")
_FOLLOWING: Final = re.compile(rf"[{_SPACE}]*(?:(,)[{_SPACE}]*|\][{_SPACE}]*\Z)")


def anything(raw: bytes, limits: Limits) -> Any:
    """Any JSON that is not an event, to see why. Raises one of REFUSED when it cannot be read, or is larger than any event."""
    if len(raw) > limits.looked_at_bytes_max:
        raise msgspec.DecodeError("it is larger than an event can be")
    return _ANYTHING.decode(raw)


def is_array(body: bytes) -> bool:
    """Whether the body, if it is JSON, is an array."""
    return body.lstrip(_SPACE.encode())[:1] == b"["


def only_element(body: bytes, limits: Limits) -> bytes:
    """The body as the one element, though it is no event. Raises BodyError when it is not JSON either."""
    try:
        (_ANYTHING if len(body) <= limits.looked_at_bytes_max else _SKIPPING).decode(body)
    except msgspec.ValidationError:
        return body
    except REFUSED as error:
        raise unreadable(error) from error
    return body


def elements(body: bytes, limits: Limits) -> list[bytes]:
    """The elements of an array, each as it was sent. Raises BodyError when there are too many, or it is no array.

    Half a surrogate pair, or bytes that are not UTF-8, cost only the event that holds them. The walk stops at the first
    element too many: an array of millions of zeros would be a gigabyte otherwise.
    """
    text = body.decode(errors="surrogateescape")
    opening = _OPENING.match(text)
    assert opening is not None, "the caller has seen the bracket"
    start = opening.end()
    found: list[bytes] = []
    while True:
        try:
            end = _STEP(text, start)[1]
        except (json.JSONDecodeError, RecursionError) as error:
            raise unreadable(error) from error
        found.append(text[start:end].encode(errors="surrogateescape"))
        check_count(len(found), limits)
        following = _FOLLOWING.match(text, end)
        if following is None:
            raise unreadable(json.JSONDecodeError("Expecting a comma or the end of the array", text, end))
        if following[1] is None:
            return found
        start = following.end()


def check_count(count: int, limits: Limits) -> None:
    """Raise BodyError when a request has more events than one may have."""
    if count > limits.body_events_max:
        raise BodyError(
            413,
            "too_many_events",
            f"More than {limits.body_events_max:,} events in one request. Send them in several requests.",
            limit="body_events_max",
        )


def unreadable(error: Exception, language: str = "JSON") -> BodyError:
    """The body as a whole cannot be read."""
    return BodyError(400, "body_unreadable", f"The body is not {language}: {reason(error)}.")


def reason(error: Exception) -> str:
    """Why a decoder refused it, in a reader's words."""
    if isinstance(error, RecursionError):
        return "nested too deeply"
    if isinstance(error, UnicodeDecodeError):
        return f"the byte 0x{error.object[error.start]:02x} is not UTF-8"
    return str(error).removeprefix("JSON is malformed: ").removeprefix("MessagePack data is malformed: ")
