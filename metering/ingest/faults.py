"""What is wrong with an object that should be an event: the first fault in the order of `Code`. Pure.

It is asked only for what a typed decoder refused, so it may take its time; it knows no wire format.
"""

import re
from collections.abc import Mapping
from datetime import datetime
from decimal import Decimal, InvalidOperation
from math import isfinite
from typing import Any, Final

import msgspec

from metering.events import UsageEvent
from metering.ingest.receipts import Code

# Why an event is none: the code, the field, and the message.
Fault = tuple[Code, str | None, str]

NO_OFFSET: Final = "`occurred_at` needs an offset, such as Z or +01:00; without one it names no instant."
FIELDS: Final = frozenset(UsageEvent.__struct_fields__)


class Shape(msgspec.Struct, frozen=True):
    """Which fields a kind of event must have, and which of its fields are texts; both in the contract's order."""

    required: tuple[str, ...]
    texts: tuple[str, ...]


_TEXTS: Final = ("id", "source", "occurred_at", "account", "subscription", "user", "device", "product")
PLAIN: Final = Shape(
    required=("id", "occurred_at", "account", "product", "unit"), texts=(*_TEXTS, "feature", "classification", "unit")
)


def unknown_field(fields: Mapping[str, Any]) -> Fault | None:
    """A field that no event has."""
    unknown = next((name for name in fields if name not in FIELDS), None)
    if unknown is None:
        return None
    known = ", ".join(sorted(FIELDS))
    return Code.UNKNOWN_FIELD, unknown, f"An event has no field `{unknown:.60}`; its fields are {known}."


def first_fault(fields: Mapping[str, Any], shape: Shape = PLAIN) -> Fault:
    """The first fault of known fields that the typed decoder refused; there is one."""
    missing = next((name for name in shape.required if fields.get(name) is None), None)
    if missing is not None:
        return Code.MISSING_FIELD, missing, f"`{missing}` is required."
    return (
        _type_fault(fields, shape)
        or _time_fault(fields["occurred_at"])
        or _quantity_fault(fields.get("quantity", 1))
        or _attributes_fault(fields.get("attributes"))
        # The typed decoder looks at each value, the untyped one keeps the last.
        or (Code.MALFORMED, None, "A field is named twice, and one of its values is not what it should be.")
    )


def number(text: str) -> Decimal:
    """A number as it is written; infinite where its exponent is beyond those that a decimal can have."""
    try:
        return Decimal(text)
    except InvalidOperation:
        return Decimal("Infinity")


def kind(value: object) -> str:
    """What a value is, in a reader's words."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "a boolean"
    names: tuple[tuple[type, str], ...] = (
        (int, "a number"),
        (Decimal, "a number"),
        (float, "a binary float"),
        (str, "a string"),
        (bytes, "binary data"),
        (datetime, "a timestamp"),
        (list, "an array"),
        (dict, "an object"),
    )
    return next((name for known, name in names if isinstance(value, known)), "an extension")


def _type_fault(fields: Mapping[str, Any], shape: Shape) -> Fault | None:
    wrong = next((name for name in shape.texts if not isinstance(fields.get(name), str | None)), None)
    # MessagePack has a type of its own for instants.
    if wrong == "occurred_at" and isinstance(fields[wrong], datetime):
        others = tuple(name for name in shape.texts if name != wrong)
        return _type_fault(fields, Shape(shape.required, others))
    if wrong is not None:
        return Code.WRONG_TYPE, wrong, f"`{wrong}` must be a string; this is {kind(fields[wrong])}."
    quantity = fields.get("quantity", 1)
    if isinstance(quantity, float):
        message = "`quantity` must be a whole number or a string; this is a binary float, which is not exact."
        return Code.WRONG_TYPE, "quantity", message
    if isinstance(quantity, bool) or not isinstance(quantity, str | int | Decimal):
        return Code.WRONG_TYPE, "quantity", f"`quantity` must be a number or a string; this is {kind(quantity)}."
    return None


def _time_fault(value: str | datetime) -> Fault | None:
    try:
        instant = msgspec.convert(value, datetime)
    except msgspec.ValidationError:
        message = f"{value!r:.60} is not an RFC 3339 instant such as 2026-03-01T12:00:00Z."
        return Code.TIME_INVALID, "occurred_at", message
    return (Code.TIME_NAIVE, "occurred_at", NO_OFFSET) if instant.tzinfo is None else None


_EXPONENT_FORM: Final = re.compile(r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)[eE][+-]?[0-9]+")


def _quantity_fault(value: str | int | Decimal) -> Fault | None:
    quantity = number(value) if isinstance(value, str) else Decimal(value)
    if quantity.is_finite():
        return None
    # Every JSON number is a number; what became infinite has an exponent past all limits.
    if not isinstance(value, str) or _EXPONENT_FORM.fullmatch(value):
        message = "The exponent of `quantity` is beyond what can be kept; it is refused rather than rounded."
        return Code.QUANTITY_OUT_OF_RANGE, "quantity", message
    return Code.QUANTITY_NOT_A_NUMBER, "quantity", f"{value!r:.60} is not a finite decimal number."


def _attributes_fault(value: object) -> Fault | None:
    if not isinstance(value, dict | None):
        return Code.ATTRIBUTES_INVALID, "attributes", f"`attributes` must be an object; this is {kind(value)}."
    for name, item in (value or {}).items():
        if not isinstance(item, str | int | float | Decimal | None):
            message = f"`attributes` holds strings, numbers, true, false and null; `{name!s:.60}` is {kind(item)}."
            return Code.ATTRIBUTES_INVALID, "attributes", message
        if isinstance(item, float | Decimal) and not isfinite(item):
            message = f"`{name:.60}` of `attributes` is a number beyond the range of a binary float."
            return Code.ATTRIBUTES_INVALID, "attributes", message
    return None
