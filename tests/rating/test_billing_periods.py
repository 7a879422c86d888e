"""Billing periods are counted from their anchor by the calendar, to the second, in their zone; and parts of them add up."""

from datetime import UTC, datetime, timedelta
from decimal import Decimal
from fractions import Fraction
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from metering.periods import zone_of
from rating.billing_periods import BillingInterval, bound, period_at
from rating.money import Currency, rounded
from rating.periods import WHOLE, Period, instant_text, share_of
from tests.rating.strategies import billing_instants, currencies, cuts, numbers
from tests.rating.tables import MARCH, at, period
from tests.strategies import MANY, zones


def bounds(anchor: str, zone: str, interval: str, count: int = 5) -> list[str]:
    """The first bounds as the zone's clocks show them."""
    where = zone_of(zone)
    start = datetime.fromisoformat(anchor).replace(tzinfo=where).astimezone(UTC)
    found = [bound(index, start, where, BillingInterval(interval)) for index in range(count)]
    return [instant.astimezone(where).replace(tzinfo=None).isoformat() for instant in found]


@pytest.mark.parametrize(
    ("anchor", "zone", "interval", "expected"),
    [
        ("2026-01-31", "UTC", "MONTH", ["01-31", "02-28", "03-31", "04-30", "05-31"]),
        ("2024-01-30", "UTC", "MONTH", ["01-30", "02-29", "03-30", "04-30", "05-30"]),
        ("2026-01-31", "UTC", "QUARTER", ["01-31", "04-30", "07-31", "10-31", "01-31"]),
        ("2024-02-29", "UTC", "YEAR", ["02-29", "02-28", "02-28", "02-28", "02-29"]),
        ("2026-12-29", "UTC", "WEEK", ["12-29", "01-05", "01-12", "01-19", "01-26"]),
    ],
)
def test_days_of_bounds(anchor: str, zone: str, interval: str, expected: list[str]) -> None:
    """A month that is too short ends a period on its last day, and the next one is the anchor's day again."""
    assert expected == [text[5:10] for text in bounds(anchor, zone, interval)]


@pytest.mark.parametrize(
    ("anchor", "zone", "expected"),
    [
        ("2026-02-15T14:37:22", "Europe/Berlin", ["2026-02-15T14:37:22", "2026-03-15T14:37:22", "2026-04-15T14:37:22"]),
        # 02:30 is skipped on 29 March 2026: as much later as was skipped.
        ("2026-02-28T02:30:00", "Europe/Berlin", ["2026-02-28T02:30:00", "2026-03-28T02:30:00", "2026-04-28T02:30:00"]),
        ("2026-01-29T02:30:00", "Europe/Berlin", ["2026-01-29T02:30:00", "2026-02-28T02:30:00", "2026-03-29T03:30:00"]),
        ("2026-01-31T23:59:59.999999", "Asia/Kathmandu", ["2026-01-31T23:59:59.999999", "2026-02-28T23:59:59.999999"]),
    ],
)
def test_anniversaries_are_to_the_second(anchor: str, zone: str, expected: list[str]) -> None:
    """A period begins when the zone's clock shows the anchor's time again, over changes of the clocks."""
    assert expected == bounds(anchor, zone, "MONTH", len(expected))


def test_bound_in_an_hour_that_comes_twice() -> None:
    """Where the anchor's hour comes twice, a bound is its first time; an anchor in the second stays what it is."""
    berlin = zone_of("Europe/Berlin")
    august = datetime(2026, 8, 25, 2, 30, tzinfo=berlin).astimezone(UTC)
    second = datetime(2026, 10, 25, 2, 30, tzinfo=berlin, fold=1).astimezone(UTC)

    assert at("2026-10-25T00:30") == bound(2, august, berlin, BillingInterval.MONTH)
    assert at("2026-10-25T01:30") == bound(0, second, berlin, BillingInterval.MONTH)


def test_period_has_the_length_that_its_clocks_give_it() -> None:
    """March in Berlin is an hour shorter than in UTC."""
    berlin = zone_of("Europe/Berlin")
    start = datetime(2026, 1, 1, tzinfo=berlin).astimezone(UTC)

    assert period("2026-02-28T23:00", "2026-03-31T22:00") == period_at(
        at("2026-03-10"), start, berlin, BillingInterval.MONTH
    )


@MANY
@given(billing_instants(), billing_instants(), zones(), st.sampled_from(BillingInterval))
def test_every_instant_lies_in_one_period(
    instant: datetime, anchor: datetime, zone: str, interval: BillingInterval
) -> None:
    """An instant lies in the period that is found for it, before the anchor as well; periods lie side by side."""
    where = zone_of(zone)
    found = period_at(instant, anchor, where, interval)
    before = period_at(found.start - timedelta.resolution, anchor, where, interval)
    after = period_at(found.end, anchor, where, interval)

    assert found.start <= instant < found.end
    assert before.end == found.start
    assert found.end == after.start
    assert found == period_at(found.start, anchor, where, interval)


@MANY
@given(billing_instants(), st.integers(-40, 40), zones(), st.sampled_from(BillingInterval))
def test_bounds_are_the_anchors_day_and_time(
    anchor: datetime, index: int, zone: str, interval: BillingInterval
) -> None:
    """A bound shows the anchor's weekday, or its day or the last of a shorter month, and its time unless that is skipped."""
    where = zone_of(zone)
    start, found = anchor.astimezone(where), bound(index, anchor, where, interval).astimezone(where)
    skipped = found.replace(tzinfo=None).time() != start.replace(tzinfo=None).time()
    if skipped:
        # Then the clocks have been changed in the hours before it.
        earlier = bound(index, anchor, where, interval) - timedelta(hours=26)
        assert found.utcoffset() != earlier.astimezone(where).utcoffset()
    elif interval is BillingInterval.WEEK:
        assert (found.date() - start.date()).days == 7 * index
    else:
        assert found.day == start.day or (found.day < start.day and (found.date() + timedelta(days=1)).day == 1)


# ---------------------------------------------------------------- shares


@MANY
@given(st.data(), numbers(), currencies())
def test_parts_of_a_period_add_up_to_the_whole(data: st.DataObject, amount: Decimal, currency: Currency) -> None:
    """However a period is cut, shares add up to 1 and amounts to the whole amount, exactly; each is rounded as if true."""
    whole = data.draw(st.sampled_from([MARCH, period("2026-02-15T14:37:22", "2027-02-15T14:37:22")]))
    shares = [share_of(part, whole) for part in data.draw(cuts(whole))]
    true = [Fraction(share.end - share.start, share.whole) for share in shares]

    assert sum(true) == 1
    assert sum(Fraction(share.of(amount)) for share in shares) == Fraction(amount)
    for share, fraction in zip(shares, true, strict=True):
        units = Fraction(amount) * fraction / Fraction(currency.quantum)
        assert (units + Fraction(1, 2)) // 1 * Fraction(currency.quantum) == Fraction(
            rounded(share.of(amount), currency).amount
        )


@MANY
@given(st.data(), numbers())
def test_shares_of_quantities_add_up_too(data: st.DataObject, quantity: Decimal) -> None:
    """Shares that are cut after 18 digits, as included quantities are, still add up to the whole."""
    shares = [share_of(part, MARCH).of(quantity, 18) for part in data.draw(cuts(MARCH))]

    assert sum(map(Fraction, shares)) == Fraction(quantity)


def test_share_by_hand() -> None:
    """Ten days of 31 in March cost 10/31, by time that passed; the whole is the whole, to the digit."""
    ten_days = share_of(period("2026-03-01", "2026-03-11"), MARCH)

    assert "3.2258064516129032258064516129032258064516" == str(ten_days.of(Decimal(10)))
    assert "15.5" == str(share_of(period("2026-03-01", "2026-03-16T12:00"), MARCH).of(Decimal(31)))
    assert share_of(MARCH, MARCH) == WHOLE
    assert "10.00" == str(WHOLE.of(Decimal("10.00")))


def test_what_periods_have_in_common() -> None:
    """Periods that only touch have nothing in common."""
    april = period("2026-04-01", "2026-05-01")

    assert MARCH.within(april) is None
    assert MARCH.within(Period(at("2026-03-20"), at("2026-04-20"))) == period("2026-03-20", "2026-04-01")


def test_periods_are_in_utc() -> None:
    """An instant in another zone is a mistake of ours, and is found at once."""
    with pytest.raises(AssertionError, match="in UTC"):
        Period(at("2026-03-01"), datetime(2026, 4, 1, tzinfo=zone_of("Europe/Berlin")))


def test_instants_are_written_as_everywhere() -> None:
    """Keys hold instants as the API writes them."""
    assert [instant_text(at(text)) for text in ("2026-03-01", "2026-03-01T14:37:22.5")] == [
        "2026-03-01T00:00:00Z",
        "2026-03-01T14:37:22.500000Z",
    ]


def test_bounds_rise() -> None:
    """Also where a zone left out a whole day, each bound is later than the one before."""
    apia = zone_of("Pacific/Apia")
    anchor = datetime(2011, 12, 9, 10, tzinfo=apia).astimezone(UTC)
    found = [bound(index, anchor, apia, BillingInterval.WEEK) for index in range(6)]

    assert all(one < other for one, other in pairwise(found))
