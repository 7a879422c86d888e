"""Scalars as they are written: what an answer's bytes say, not what is handed to the encoder."""

from datetime import UTC, datetime, timedelta, timezone
from decimal import Decimal
from typing import Any, Final
from zoneinfo import ZoneInfo

from graphql import GraphQLScalarType
from hypothesis import example, given
from hypothesis import strategies as st

from graphql_api.answers import encoded
from graphql_api.schema import make_schema

SCHEMA: Final = make_schema().core
OFFSETS: Final = st.timedeltas(timedelta(hours=-23, minutes=-59), timedelta(hours=23, minutes=59)).map(timezone)
ZONES: Final = st.sampled_from([UTC, ZoneInfo("UTC"), ZoneInfo("Asia/Kolkata"), ZoneInfo("America/St_Johns")]) | OFFSETS
# A day from either end of all calendars, so that each is an instant in UTC.
INSTANTS: Final = st.datetimes(datetime(1, 1, 2), datetime(9999, 12, 30), timezones=ZONES)  # noqa: DTZ001 - zones follow


def written(scalar: str, value: object) -> Any:
    """The text of a value in an answer."""
    kind = SCHEMA.get_type(scalar)
    assert isinstance(kind, GraphQLScalarType)
    return encoded(kind.coerce_output_value(value)).decode()


@given(INSTANTS)
@example(datetime(999, 1, 2, 3, 4, 5, 60, tzinfo=UTC))
@example(datetime(2026, 3, 1, 0, 0, 0, 500_000, tzinfo=UTC))
@example(datetime(2026, 3, 1, 5, 30, tzinfo=ZoneInfo("Asia/Kolkata")))
def test_an_instant_is_written_in_utc(instant: datetime) -> None:
    """RFC 3339 with `Z` whatever its zone, four digits of the year, six of a fraction or none."""
    expected = instant.astimezone(UTC).replace(tzinfo=None).isoformat() + "Z"

    assert f'"{expected}"' == written("DateTime", instant)


@given(st.decimals(allow_nan=False, allow_infinity=False, places=None))
@example(Decimal("0E-18"))
@example(Decimal("-0.00"))
@example(Decimal("1E+30"))
@example(Decimal("12345678901234567890123456789012345678.500"))
def test_a_decimal_is_written_plainly(number: Decimal) -> None:
    """Exact, without exponent and without zeros that say nothing."""
    text = written("Decimal", number).strip('"')
    whole, point, fraction = text.removeprefix("-").partition(".")

    assert number == Decimal(text)
    assert whole.isdecimal()
    assert bool(point) == bool(fraction)
    assert not fraction or (fraction.isdecimal() and not fraction.endswith("0"))
