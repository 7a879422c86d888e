"""What the properties are tried on: events of the contract, instants, zones, periods, decimals and awkward texts.

Each strategy leans towards where mistakes hide: midnights and full hours give or take a microsecond, the days on which
clocks change, the last digit that is kept, texts that break naive quoting.
"""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta, timezone
from decimal import Decimal
from functools import cache
from itertools import pairwise
from typing import Final

import msgspec
from hypothesis import settings
from hypothesis import strategies as st

from metering.events import Scalar, UsageEvent
from metering.limits import LIMITS
from metering.periods import Bucket, Period, bucket_bounds, zone_names, zone_of

# How often a property is tried. Without a deadline: a machine that is busy makes no claim false.
FEW: Final = settings(max_examples=30, deadline=None)
SOME: Final = settings(max_examples=50, deadline=None)
MANY: Final = settings(max_examples=100, deadline=None)

MICROSECOND: Final = timedelta.resolution
NOW: Final = datetime(2026, 3, 15, 12, 0, tzinfo=UTC)


# ---------------------------------------------------------------- texts

AWKWARD_TEXTS: Final = (
    " ",
    "null",
    "0",
    "a" * 256,
    "\U0001f680" * 256,
    "e\u0301",
    "\u202eright to left",
    "\ufeff",
    "\u2028",
    "\uffff",
    "\x01\x1f\x7f",
    "line\nbreak\r\n\ttab",
    'quote" and \\backslash\\',
    "'; DROP TABLE event; --",
    "{}[],:",
    "\\ud800",
    "\u00df \u017f \u0130 \u0131",
    "%s {0} $1",
)


@cache
def texts() -> st.SearchStrategy[str]:
    """Texts that an event may hold: 1 to 256 characters, any but NUL and halves of surrogate pairs."""
    characters = st.characters(exclude_categories=["Cs"], exclude_characters="\0")
    return st.one_of(
        st.text(st.sampled_from("ab-"), min_size=1, max_size=3),
        st.sampled_from(AWKWARD_TEXTS),
        st.text(characters, min_size=1, max_size=LIMITS.name_chars_max),
    )


# ---------------------------------------------------------------- decimals

_WHOLE_DIGITS: Final = LIMITS.quantity_digits_max - LIMITS.quantity_fraction_digits_max
_FRACTION_DIGITS: Final = LIMITS.quantity_fraction_digits_max


@cache
def decimals(
    *, whole_digits: int = _WHOLE_DIGITS, fraction_digits: int = _FRACTION_DIGITS
) -> st.SearchStrategy[Decimal]:
    """Decimals of at most so many digits before and after the point, of either sign; all that are kept, by default."""
    return st.builds(
        lambda sign, whole, fraction: Decimal(f"{sign}{whole}.{fraction}"),
        st.sampled_from(["", "-"]),
        st.one_of(st.integers(0, 9), st.integers(0, 10**whole_digits - 1), st.just(10**whole_digits - 1)),
        st.text(st.sampled_from("0123456789"), max_size=fraction_digits),
    )


def decimals_beyond() -> st.SearchStrategy[Decimal]:
    """Decimals that are not kept exactly: a digit too many before the point, or after it."""
    too_large = st.builds(
        lambda sign, whole, exponent: Decimal(f"{sign}{whole}e{exponent}"),
        st.sampled_from(["", "-"]),
        st.integers(10**_WHOLE_DIGITS, 10 ** (_WHOLE_DIGITS + 3)),
        st.sampled_from([0, 1, 400, 999_999_999]),
    )
    too_fine = st.builds(
        lambda whole, fraction, last: Decimal(f"{whole}.{fraction}{last}"),
        st.integers(0, 10**_WHOLE_DIGITS - 1),
        st.text(st.sampled_from("0123456789"), min_size=_FRACTION_DIGITS, max_size=_FRACTION_DIGITS + 20),
        st.integers(1, 9),
    )
    return st.one_of(too_large, too_fine, st.sampled_from([Decimal("1E-19"), Decimal("-1E-999999999")]))


@st.composite
def spellings(draw: st.DrawFn, number: Decimal) -> str:
    """A number as JSON may write it: plain or with an exponent, with zeros behind, as a number or as a string."""
    sign, digits, exponent = number.as_tuple()
    assert isinstance(exponent, int), "only finite numbers are spelled"
    zeros = draw(st.integers(0, 25))
    coefficient = "".join(map(str, digits)).lstrip("0") + "0" * zeros if number else "0"
    scale = exponent - zeros
    if -60 < scale <= 0 and draw(st.booleans()):
        padded = coefficient.rjust(1 - scale, "0")
        text = f"{padded[: len(padded) + scale]}.{padded[len(padded) + scale :]}" if scale else padded
    else:
        text = f"{coefficient}{draw(st.sampled_from('eE'))}{scale:{draw(st.sampled_from(['', '+']))}}"
    text = "-" * sign + text
    return draw(st.sampled_from([text, f'"{text}"']))


# ---------------------------------------------------------------- times

# Where the days of a change, their hours, or the days that there are, are out of the ordinary.
TRICKY_ZONES: Final = (
    "UTC",
    "Europe/Berlin",
    "America/St_Johns",
    "Australia/Lord_Howe",
    "Asia/Kathmandu",
    "Asia/Kolkata",
    "Asia/Beirut",
    "America/Nuuk",
    "America/Havana",
    "America/Santiago",
    "Antarctica/Troll",
    "Antarctica/Casey",
    "Pacific/Apia",
    "Pacific/Chatham",
    "Pacific/Kiritimati",
    "Africa/Casablanca",
    "Etc/GMT+12",
)


@cache
def zones() -> st.SearchStrategy[str]:
    """Names of time zones, the tricky ones more often."""
    return st.one_of(st.sampled_from(TRICKY_ZONES), st.sampled_from(sorted(zone_names())))


@cache
def instants(
    earliest: datetime = datetime(2012, 1, 1, tzinfo=UTC), latest: datetime = datetime(2036, 1, 1, tzinfo=UTC)
) -> st.SearchStrategy[datetime]:
    """Instants in UTC from the earliest until before the latest; often on a UTC hour or day, or a microsecond off."""
    hours = (latest - earliest) // timedelta(hours=1)
    sharp = st.builds(
        lambda hour, off: max(earliest, earliest + timedelta(hours=hour) + off * MICROSECOND),
        st.one_of(st.integers(0, hours - 1), st.integers(0, (hours - 1) // 24).map(lambda day: 24 * day)),
        st.sampled_from([0, 0, -1, 1]),
    )
    anywhere = st.integers(0, (latest - earliest) // MICROSECOND - 1).map(lambda count: earliest + count * MICROSECOND)
    return st.one_of(sharp, anywhere)


# The months in which the clocks of 2025 change, in the north and in the south.
SPRING: Final = (datetime(2025, 3, 1, tzinfo=UTC), datetime(2025, 5, 1, tzinfo=UTC))
FEW_DAYS: Final = (datetime(2025, 3, 28, tzinfo=UTC), datetime(2025, 4, 2, tzinfo=UTC))
AUTUMN: Final = (datetime(2025, 9, 1, tzinfo=UTC), datetime(2025, 11, 10, tzinfo=UTC))


@st.composite
def periods(draw: st.DrawFn, longest: timedelta = timedelta(days=70)) -> Period:
    """Periods that are not empty, down to one microsecond, often in the months in which clocks change."""
    start = draw(st.one_of(instants(), instants(*SPRING), instants(*AUTUMN)))
    length = draw(
        st.one_of(
            st.just(MICROSECOND),
            st.integers(1, longest // timedelta(hours=1)).map(lambda hours: timedelta(hours=hours)),
            st.integers(1, longest // MICROSECOND).map(lambda count: count * MICROSECOND),
        )
    )
    return Period(start, start + length)


# How long a period may be for its buckets to stay few.
LONGEST: Final = {
    Bucket.MINUTE: timedelta(hours=6),
    Bucket.HOUR: timedelta(days=6),
    Bucket.DAY: timedelta(days=90),
    Bucket.WEEK: timedelta(days=400),
    Bucket.MONTH: timedelta(days=900),
}


@st.composite
def bucketed_periods(draw: st.DrawFn) -> tuple[Period, str, Bucket]:
    """A period, a zone and a bucket to cut it by."""
    bucket = draw(st.sampled_from(Bucket))
    return draw(periods(LONGEST[bucket])), draw(zones()), bucket


@st.composite
def segments(draw: st.DrawFn) -> Sequence[Period]:
    """What a cover is asked for: one period; or neighbours that share their bounds, by a calendar or cut anyhow."""
    if draw(st.booleans()):
        bounds = sorted(draw(st.lists(instants(*FEW_DAYS), min_size=2, max_size=8, unique=True)))
        return [Period(start, end) for start, end in pairwise(bounds)]
    period = draw(periods(timedelta(days=12)))
    bounds = list(bucket_bounds(period, zone_of(draw(zones())), draw(st.sampled_from([Bucket.HOUR, Bucket.DAY]))))
    return [Period(max(start, period.start), min(end, period.end)) for start, end in pairwise(bounds)]


# ---------------------------------------------------------------- events

_OFFSETS: Final = st.sampled_from([0, 60, -210, 345, 14 * 60, -12 * 60, 23 * 60 + 59])


@cache
def attributes() -> st.SearchStrategy[dict[str, Scalar]]:
    """Attributes that are taken: scalars by name, small enough."""
    texts_short = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=20)
    floats = st.floats(allow_nan=False, allow_infinity=False)
    scalars = st.one_of(st.none(), st.booleans(), st.integers(-(2**63), 2**64), floats, texts_short)
    return st.dictionaries(texts_short, scalars, max_size=5)


class Sent(msgspec.Struct, frozen=True):
    """An event as it is sent, and the same event as it should be understood."""

    fields: dict[str, object]
    event: UsageEvent

    @property
    def json(self) -> bytes:
        """The event as JSON, its quantity spelled as it is in `fields`."""
        return msgspec.json.encode(self.fields)


@st.composite
def events(draw: st.DrawFn) -> Sent:
    """Events that the contract takes: optional fields absent, null or set, the time with any offset."""
    required = {name: draw(texts()) for name in ("id", "source", "account", "product", "unit")}
    optional = {
        name: draw(st.one_of(st.none(), texts()))
        for name in ("subscription", "user", "device", "feature", "classification")
        if draw(st.booleans())
    }
    occurred_at = draw(instants(LIMITS.occurred_at_min + timedelta(days=1), NOW)).astimezone(
        timezone(timedelta(minutes=draw(_OFFSETS)))
    )
    values: dict[str, object] = {**required, **optional, "occurred_at": occurred_at}
    written: dict[str, object] = {**required, **optional, "occurred_at": occurred_at.isoformat()}
    if draw(st.booleans()):
        values["quantity"] = draw(decimals())
        written["quantity"] = msgspec.Raw(draw(spellings(values["quantity"])).encode())  # type: ignore[arg-type]
    if draw(st.booleans()):
        values["attributes"] = written["attributes"] = draw(st.one_of(st.none(), attributes()))
    order = draw(st.permutations(sorted(written)))
    return Sent({name: written[name] for name in order}, UsageEvent(**values))  # type: ignore[arg-type]
