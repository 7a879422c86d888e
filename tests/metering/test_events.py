"""An event's name, its content, and the days on which it claims its name."""

from datetime import UTC, date, datetime, timedelta, timezone
from decimal import Decimal
from fractions import Fraction

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from metering.events import (
    Scalar,
    UsageEvent,
    claimed_days,
    content_hash,
    identity_key,
    in_utc,
    joined_values,
    sorted_attributes,
)
from rating.exact import plain
from tests.strategies import MANY, MICROSECOND, SOME, Sent, attributes, decimals, events, instants, texts

EVENT = UsageEvent(
    id="e-1",
    occurred_at=datetime(2026, 3, 1, 12, tzinfo=UTC),
    account="acme",
    product="maps",
    unit="call",
    source="gateway",
)


def content_of(event: UsageEvent) -> bytes:
    """The hash of an event's content."""
    return content_hash(joined_values(event, plain(event.quantity), sorted_attributes(event.attributes)))


# ---------------------------------------------------------------- the name


@MANY
@given(text=texts(), cuts=st.tuples(st.integers(0, 256), st.integers(0, 256)))
def test_a_name_is_told_from_the_same_letters_cut_elsewhere(text: str, cuts: tuple[int, int]) -> None:
    """Where source ends and id begins is part of the name: a/bc is not ab/c."""
    first, second = ((text[:cut], text[cut:]) for cut in cuts)

    assert (first == second) == (identity_key(*first) == identity_key(*second))


@MANY
@given(first=st.tuples(texts(), texts()), second=st.tuples(texts(), texts()))
def test_different_names_have_different_keys(first: tuple[str, str], second: tuple[str, str]) -> None:
    """Two names share a key when they are the same name, and only then."""
    assert (first == second) == (identity_key(*first) == identity_key(*second))


def test_a_key_never_changes() -> None:
    """The key of a name is recorded; a release that computed another would take every event again."""
    assert identity_key("gateway", "e-1").hex() == "465bc7d02a42fe0b38b5370675a46143"


# ---------------------------------------------------------------- the content


@pytest.mark.parametrize("spelling", ["1.5", "1.50", "15e-1", "0.15E+1", "1.500000000000000000000"])
def test_a_quantity_is_the_same_in_any_spelling(spelling: str) -> None:
    """1.5, 1.50 and 15e-1 are one quantity, so an event sent again in another spelling is a duplicate."""
    spelled = msgspec.structs.replace(EVENT, quantity=Decimal(spelling))

    assert content_of(msgspec.structs.replace(EVENT, quantity=Decimal("1.5"))) == content_of(spelled)


@pytest.mark.parametrize("spelling", ["0", "-0", "0.000", "-0.0", "0E-18", "0E+5"])
def test_zero_is_the_same_in_any_spelling(spelling: str) -> None:
    """Zero has no sign and no size."""
    spelled = msgspec.structs.replace(EVENT, quantity=Decimal(spelling))

    assert content_of(msgspec.structs.replace(EVENT, quantity=Decimal(0))) == content_of(spelled)


@MANY
@given(first=decimals(), second=decimals())
def test_different_quantities_are_different_content(first: Decimal, second: Decimal) -> None:
    """Contents are the same exactly when the quantities are equal, to the last of 38 digits."""
    contents = [content_of(msgspec.structs.replace(EVENT, quantity=quantity)) for quantity in (first, second)]

    assert (first == second) == (contents[0] == contents[1])


@pytest.mark.parametrize(
    "change",
    [
        {"subscription": "x"},
        {"user": "x"},
        {"device": "x"},
        {"product": "x"},
        {"feature": "x"},
        {"classification": "x"},
        {"unit": "x"},
        {"quantity": Decimal("1.000000000000000001")},
        {"quantity": Decimal(-1)},
        {"attributes": {"x": None}},
    ],
    ids=str,
)
def test_what_is_content(change: dict[str, object]) -> None:
    """Whatever is counted, shown or filtered by is content: a change of it is a conflict, not a duplicate."""
    assert content_of(EVENT) != content_of(msgspec.structs.replace(EVENT, **change))


@pytest.mark.parametrize(
    "change",
    [
        {"occurred_at": datetime(2026, 3, 2, tzinfo=UTC)},
        {"id": "e-2"},
        {"source": "other"},
        {"account": "other"},
        {"attributes": {}},
    ],
    ids=str,
)
def test_what_is_not_content(change: dict[str, object]) -> None:
    """Time and name are no content (a retry may have a new time), and no attributes are the same as none."""
    assert content_of(EVENT) == content_of(msgspec.structs.replace(EVENT, **change))


@SOME
@given(sent=events(), fields=st.permutations(["subscription", "user", "device", "feature", "classification"]))
def test_a_value_in_another_field_is_other_content(sent: Sent, fields: list[str]) -> None:
    """A text counts together with the field that holds it."""
    bare = msgspec.structs.replace(sent.event, **dict.fromkeys(fields))
    first, second, *_ = fields

    one = msgspec.structs.replace(bare, **{first: sent.event.product})
    other = msgspec.structs.replace(bare, **{second: sent.event.product})

    assert content_of(one) != content_of(other)


@SOME
@given(chosen=attributes(), data=st.data())
def test_the_order_of_attributes_is_no_content(chosen: dict[str, Scalar], data: st.DataObject) -> None:
    """Attributes in another order are the same attributes, and are stored as the same text."""
    shuffled = {name: chosen[name] for name in data.draw(st.permutations(sorted(chosen)))}

    assert sorted_attributes(chosen) == sorted_attributes(shuffled)


@SOME
@given(chosen=attributes())
def test_attributes_are_stored_as_they_are(chosen: dict[str, Scalar]) -> None:
    """What is stored of attributes reads back equal; of none, nothing is stored."""
    stored = sorted_attributes(chosen)

    assert (chosen or None) == (msgspec.json.decode(stored) if stored is not None else None)


# ---------------------------------------------------------------- the days it claims


@pytest.mark.parametrize(
    ("time", "window_hours", "expected"),
    [
        ("12:00:00", 0, [15]),
        ("00:00:00", 0, [15]),
        ("23:59:59.999999", 0, [15]),
        ("12:00:00", 1, [15]),
        ("00:00:00", 1, [14, 15]),
        ("00:59:59.999999", 1, [14, 15]),
        ("01:00:00", 1, [15]),
        ("22:59:59.999999", 1, [15]),
        ("23:00:00", 1, [15, 16]),
        ("23:59:59.999999", 1, [15, 16]),
        ("00:00:00", 24, [14, 15, 16]),
        ("12:00:00", 24, [14, 15, 16]),
        ("23:59:59.999999", 24, [14, 15, 16]),
        ("12:00:00", 12, [15, 16]),
    ],
)
def test_claimed_days(time: str, window_hours: int, expected: list[int]) -> None:
    """An event claims its own day, and the neighbour when the window reaches it."""
    occurred_at = datetime.fromisoformat(f"2026-03-15T{time}+00:00")

    assert tuple(date(2026, 3, day) for day in expected) == claimed_days(occurred_at, timedelta(hours=window_hours))


@MANY
@given(occurred_at=instants(), minutes=st.integers(0, 1_440), share=st.fractions(0, 1))
def test_a_restamped_retry_meets_the_claim(occurred_at: datetime, minutes: int, share: Fraction) -> None:
    """A retry that is stamped anew within the window claims a day that the original claimed too, over midnight as well."""
    window = timedelta(minutes=minutes)
    retried_at = occurred_at + int(window // MICROSECOND * share) * MICROSECOND
    original, retry = claimed_days(occurred_at, window), claimed_days(retried_at, window)

    assert set(original) & set(retry)
    assert retried_at.date() in original
    assert occurred_at.date() in retry


@MANY
@given(occurred_at=instants(), minutes=st.integers(0, 1_440))
def test_claimed_days_are_neighbours(occurred_at: datetime, minutes: int) -> None:
    """The days are ascending neighbours, the event's own among them, and never more than three."""
    days = claimed_days(occurred_at, timedelta(minutes=minutes))

    assert [days[0] + timedelta(days=index) for index in range(len(days))] == list(days)
    assert occurred_at.date() in days
    assert len(days) <= 3


# ---------------------------------------------------------------- times


@SOME
@given(instant=instants(), minutes=st.integers(-1_439, 1_439))
def test_in_utc(instant: datetime, minutes: int) -> None:
    """An instant is the same in UTC, whatever offset it was written with."""
    found = in_utc(instant.astimezone(timezone(timedelta(minutes=minutes))))

    assert (instant, UTC) == (found, found.tzinfo)
