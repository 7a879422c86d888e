"""The contract's scalars: decimals and big integers as strings, instants in UTC, never a binary float."""

from datetime import UTC, date, datetime
from decimal import Decimal, InvalidOperation
from typing import Any, Final, NewType

import msgspec
import strawberry
from strawberry.schema.config import StrawberryConfig
from strawberry.types.scalar import ScalarDefinition

from metering.events import in_utc
from rating.exact import plain

DecimalText = NewType("DecimalText", Decimal)
Instant = NewType("Instant", datetime)
BigInt = NewType("BigInt", int)
ZoneName = NewType("ZoneName", str)
CurrencyCode = NewType("CurrencyCode", str)
JsonObject = NewType("JsonObject", object)


class Amount(Decimal):
    """An amount of money: written with all of its currency's minor digits, where other decimals have no zeros behind."""


def _write_decimal(number: Decimal | str) -> str:
    if isinstance(number, str):
        return number
    return f"{number:f}" if isinstance(number, Amount) else plain(number)


def _parse_decimal(value: object) -> Decimal:
    if not isinstance(value, str) and (isinstance(value, bool) or not isinstance(value, int)):
        raise ValueError('A decimal is written as a string, for example "1234.56".')  # noqa: TRY004 - GraphQL's word for it
    try:
        number = Decimal(value)
    except InvalidOperation:
        raise ValueError(f"{value!r:.60} is not a decimal number.") from None
    if not number.is_finite():
        raise ValueError(f"{value!r:.60} is not a finite number.")
    return number


def _parse_instant(value: object) -> datetime:
    message = f"{value!r:.60} is not an instant; write RFC 3339 with an offset, for example 2026-03-01T00:00:00Z."
    if not isinstance(value, str):
        raise ValueError(message)  # noqa: TRY004 - as above
    try:
        instant = msgspec.convert(value, datetime)
    except msgspec.ValidationError:
        raise ValueError(message) from None
    if instant.tzinfo is None:
        raise ValueError(message)
    try:
        return instant.astimezone(UTC)
    except OverflowError:
        raise ValueError(message) from None


def _parse_date(value: object) -> date:
    try:
        return msgspec.convert(value, date)
    except msgspec.ValidationError:
        raise ValueError(f"{value!r:.60} is not a day; write 2026-03-01.") from None


def _parse_big_int(value: object) -> int:
    if isinstance(value, bool) or not isinstance(value, str | int):
        raise ValueError("A BigInt is a whole number, or one written as a string.")  # noqa: TRY004 - as above
    return int(value)


def _parse_zone(value: object) -> str:
    if not isinstance(value, str):
        raise ValueError("A TimeZone is an IANA name, for example Europe/Berlin.")  # noqa: TRY004 - as above
    return value


def _parse_currency(value: object) -> str:
    if not isinstance(value, str):
        raise ValueError("A CurrencyCode is one of ISO 4217, for example EUR.")  # noqa: TRY004 - as above
    return value


def _parse_json(value: object) -> object:
    if not isinstance(value, dict):
        raise ValueError("A JSON object is needed.")  # noqa: TRY004 - as above
    return value


def _scalar(name: str, description: str, url: str, serialize: Any, parse: Any) -> ScalarDefinition:
    return strawberry.scalar(
        name=name, description=description, specified_by_url=url, serialize=serialize, parse_value=parse
    )


_HIVE: Final = "https://scalars.graphql.org"
SCALARS: Final[dict[object, ScalarDefinition]] = {
    DecimalText: _scalar(
        "Decimal",
        'An exact decimal number as a string, for example `"1234.5600"`; never a binary float.',
        f"{_HIVE}/chillicream/decimal.html",
        _write_decimal,
        _parse_decimal,
    ),
    Instant: _scalar(
        "DateTime",
        "An instant, RFC 3339 with offset, for example `2026-03-01T00:00:00Z`.",
        f"{_HIVE}/andimarek/date-time.html",
        # The encoder of the answer writes it, with `Z` and with fractions only where there are some.
        in_utc,
        _parse_instant,
    ),
    date: _scalar(
        "Date",
        "A calendar day, for example `2026-03-01`.",
        f"{_HIVE}/andimarek/local-date.html",
        date.isoformat,
        _parse_date,
    ),
    BigInt: _scalar(
        "BigInt",
        "A whole number that may pass 2^31, as a string.",
        f"{_HIVE}/apollographql/bigint-v0.1.html",
        str,
        _parse_big_int,
    ),
    ZoneName: _scalar(
        "TimeZone",
        "An IANA time zone name, for example `Europe/Berlin`.",
        "https://www.iana.org/time-zones",
        str,
        _parse_zone,
    ),
    CurrencyCode: _scalar(
        "CurrencyCode",
        "An ISO 4217 currency code, for example `EUR`.",
        "https://www.iso.org/iso-4217-currency-codes.html",
        str,
        _parse_currency,
    ),
    JsonObject: _scalar(
        "JSON", "Any JSON object.", "https://www.rfc-editor.org/rfc/rfc8259", lambda value: value, _parse_json
    ),
}
# What is written already, by PostgreSQL (Course in metering/rollups/read.py) or for thousands at once: of values of this type
# the scalar changes nothing.
WRITTEN: Final = {"Decimal": str, "BigInt": str}
CONFIG: Final = StrawberryConfig(scalar_map=SCALARS)
