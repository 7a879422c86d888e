"""Credits are drawn down in one order, pay for their own time, and are never below what is allowed."""

from datetime import datetime, timedelta
from decimal import Decimal
from fractions import Fraction
from typing import Final

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rating.credits import Draw, Drawn, Grant, draw_down, drawing_order, give_back
from rating.lines import Line, LineKind, Origin
from rating.money import Currency, Money, currency_of
from rating.payables import Payable, charged_quantities, payables_of
from rating.periods import Period
from tests.rating.tables import at
from tests.strategies import MANY

MARCH: Final = Period(at("2026-03-01"), at("2026-04-01"))
BASE: Final = Origin(plan="team", plan_version=1, price="base")
CALLS: Final = Origin(plan="team", plan_version=1, price="calls", meter="calls")
PLAN: Final = Origin(plan="team", plan_version=1)


def currency(code: str = "EUR") -> Currency:
    """A currency that there is."""
    found = currency_of(code)
    assert found is not None
    return found


def money(amount: str, code: str = "EUR") -> Money:
    """An amount."""
    return Money(Decimal(amount), currency(code))


def grant(key: str, **values: object) -> Grant:
    """A grant in EUR since January, unless something else is said."""
    return Grant(**{"key": key, "effective_at": at("2026-01-01"), "currency_code": "EUR", **values})  # type: ignore[arg-type]


def payable(amount: str, quantity: str = "0", origin: Origin = BASE, period: Period = MARCH) -> Payable:
    """What can be paid for."""
    return Payable(origin, period, money(amount), Decimal(quantity))


def line(
    origin: Origin, amount: str, kind: LineKind = LineKind.USAGE, period: Period = MARCH, quantity: str = "1"
) -> Line:
    """A line of a statement."""
    return Line(
        origin=origin,
        kind=kind,
        step=kind.value,
        period=period,
        due_at=period.end,
        exact_amount=Decimal(amount),
        amount=money(amount),
        quantity=Decimal(quantity),
    )


def drawn(draws: list[Draw]) -> list[tuple[str, str | None, str, str]]:
    """Which grant pays how much of which price, and what that is worth."""
    return [(each.grant.key, each.origin.price, f"{each.amount:f}", f"{each.worth.amount:f}") for each in draws]


def test_order_of_drawing() -> None:
    """Quantities before amounts; by priority, then what expires first, then what is older, then by key; what never expires
    comes last.
    """
    grants = [
        grant("never", priority=1),
        grant("older", priority=1, expires_at=at("2026-06-01")),
        grant("newer", priority=1, expires_at=at("2026-06-01"), effective_at=at("2026-02-01")),
        grant("soon", priority=1, expires_at=at("2026-04-01")),
        grant("first", priority=0),
        grant("b", priority=2),
        grant("a", priority=2),
        grant("calls", priority=9, currency_code=None, meter="calls"),
    ]

    assert ["calls", "first", "soon", "older", "newer", "never", "a", "b"] == [
        each.key for each in drawing_order(grants)
    ]
    with pytest.raises(AssertionError, match="in a currency or of a meter"):
        grant("both", meter="calls")


def test_drawing_down() -> None:
    """Each grant pays for the lines in order until it is empty; what is empty, in another currency, or for other meters,
    pays nothing.
    """
    grants = [
        grant("bonus", expires_at=at("2026-04-01")),
        grant("paid"),
        grant("dollars", currency_code="USD"),
        grant("bytes", meters=("bytes",)),
        grant("empty", priority=0, expires_at=at("2026-04-01")),
    ]
    held = {"bonus": Decimal(12), "paid": Decimal(5), "dollars": Decimal(9), "bytes": Decimal(9)}
    draws = draw_down([payable("10.00"), payable("8.00", "4", CALLS)], grants, held, currency())

    assert [
        ("bonus", "base", "10.00", "10.00"),
        ("bonus", "calls", "2.00", "2.00"),
        ("paid", "calls", "5.00", "5.00"),
    ] == drawn(draws)


def test_a_grant_pays_for_its_own_stretch() -> None:
    """Of a statement that is cut where grants begin and end, each pays for the stretches that lie in its time."""
    middle = at("2026-03-16")
    first, second = Period(MARCH.start, middle), Period(middle, MARCH.end)
    grants = [grant("first", expires_at=middle), grant("second", effective_at=middle)]
    held = {"first": Decimal(100), "second": Decimal(3)}
    draws = draw_down([payable("4.00", period=first), payable("6.00", period=second)], grants, held, currency())

    assert [("first", "base", "4.00", "4.00"), ("second", "base", "3.00", "3.00")] == drawn(draws)


def test_quantities_pay_their_share() -> None:
    """A grant of a third of the quantity that is charged pays a third of the amount, rounded once, and all of it where it has
    as much; an amount that paid before leaves the rest of the quantity. What is worth nothing is not drawn.
    """
    calls = grant("calls", currency_code=None, meter="calls")
    one = [payable("10.00", "3", CALLS)]

    assert [("calls", "calls", "1", "3.33")] == drawn(draw_down(one, [calls], {"calls": Decimal(1)}, currency()))
    assert [("calls", "calls", "3", "10.00")] == drawn(draw_down(one, [calls], {"calls": Decimal(7)}, currency()))
    assert [] == draw_down(one, [calls], {"calls": Decimal("0.0001")}, currency())
    assert [] == draw_down([payable("10.00", "3", BASE)], [calls], {"calls": Decimal(7)}, currency())
    late = grant("calls", currency_code=None, meter="calls", overdraft_max=Decimal(2))
    both = draw_down(one, [late, grant("paid")], {"calls": Decimal(0), "paid": Decimal(5)}, currency())
    assert [("paid", "calls", "5.00", "5.00"), ("calls", "calls", "1.5", "5.00")] == drawn(both)


def test_overdraft_comes_last_and_goes_as_far_as_it_is_allowed_to() -> None:
    """All grants are drawn down to zero before one is overdrawn, and that no further than it allows."""
    grants = [grant("open", overdraft_max=Decimal(4)), grant("paid", priority=1)]
    held = {"open": Decimal(1), "paid": Decimal(2)}
    draws = draw_down([payable("10.00")], grants, held, currency())

    assert [("open", "base", "5.00", "5.00"), ("paid", "base", "2.00", "2.00")] == drawn(draws)
    assert [] == draw_down([payable("10.00")], grants, {"open": Decimal(-4), "paid": Decimal(0)}, currency())


def test_giving_back() -> None:
    """The newest drawing first, as far as the worth goes; of a quantity in proportion."""
    standing = [
        Drawn(7, Decimal("8.00"), money("8.00"), is_quantity=False),
        Drawn(4, Decimal(12), money("9.00"), is_quantity=True),
        Drawn(2, Decimal("1.00"), money("1.00"), is_quantity=False),
    ]

    def given(worth: str) -> list[tuple[int, str, str]]:
        return [
            (each.name, f"{each.amount:f}", f"{each.worth.amount:f}") for each in give_back(standing, Decimal(worth))
        ]

    assert [] == given("0") == given("-1")
    assert [(7, "3.50", "3.50")] == given("3.50")
    assert [(7, "8.00", "8.00"), (4, "4", "3.00")] == given("11.00")
    assert [(7, "8.00", "8.00"), (4, "12", "9.00"), (2, "1.00", "1.00")] == given("99.00")


# ---------------------------------------------------------------- what can be paid for


def shown(payables: list[Payable]) -> list[tuple[str | None, int, str, str]]:
    """Of which price, from which day on, how much."""
    return [
        (each.origin.price, each.period.start.day, f"{each.amount.amount:f}", f"{each.quantity:f}") for each in payables
    ]


def test_lines_are_cut_as_their_usage_grows() -> None:
    """Usage is cut by what was used until then, a flat price by time, an adjustment stands at the beginning, and what is
    included is no quantity that is charged. Without figures, a line grows evenly.
    """
    cut = at("2026-03-16T12:00")
    lines = [
        line(BASE, "31.00", LineKind.RECURRING),
        line(CALLS, "8.00"),
        line(CALLS, "0.00", LineKind.INCLUDED, quantity="2"),
        line(CALLS, "1.00", LineKind.ADJUSTMENT),
    ]
    used = {("calls", MARCH, MARCH.end): Decimal(10), ("calls", MARCH, cut): Decimal("2.5")}
    charged = charged_quantities(lines, {("calls", MARCH): Decimal(10)})

    assert {(CALLS, MARCH): Decimal(8)} == charged
    assert [
        ("base", 1, "15.50", "0"),
        ("base", 16, "15.50", "0"),
        ("calls", 1, "2.00", "2"),
        ("calls", 16, "6.00", "6"),
        ("calls", 1, "1.00", "0"),
    ] == shown(payables_of(lines, MARCH, [cut], used, charged))
    assert [("calls", 1, "4.00", "4"), ("calls", 16, "4.00", "4")] == shown(
        payables_of([lines[1]], MARCH, [cut], {}, charged)
    )


def test_what_is_below_zero_is_taken_off() -> None:
    """A discount comes off the stretch that it is in, usage that was given back off the usage before; where all comes to
    nothing, nothing can be paid for.
    """
    cut = at("2026-03-16")
    used = {("calls", MARCH, MARCH.end): Decimal(6), ("calls", MARCH, cut): Decimal(9)}
    lines = [line(BASE, "31.00", LineKind.RECURRING), line(CALLS, "6.00"), line(PLAN, "-3.70", LineKind.DISCOUNT)]

    assert [("base", 1, "13.29", "0"), ("base", 16, "14.70", "0"), ("calls", 1, "5.31", "6")] == shown(
        payables_of(lines, MARCH, [cut], used, {(CALLS, MARCH): Decimal(6)})
    )
    assert [] == payables_of([line(CALLS, "6.00"), line(PLAN, "-6.00", LineKind.DISCOUNT)], MARCH, [], {}, {})


@st.composite
def statements(draw: st.DrawFn) -> tuple[list[Line], list[datetime], dict[tuple[str, Period, datetime], Decimal]]:
    """Lines of either sign, instants inside the month, and usage until then that may also fall."""
    cents = st.integers(-3000, 6000).map(lambda number: f"{Decimal(number).scaleb(-2):f}")
    kinds = st.sampled_from([LineKind.RECURRING, LineKind.MINIMUM, LineKind.ADJUSTMENT])
    lines = [line(BASE, draw(cents), draw(kinds)) for _ in range(draw(st.integers(0, 2)))]
    lines += [line(CALLS, draw(cents)) for _ in range(draw(st.integers(0, 2)))]
    cuts = [MARCH.start + timedelta(days=day) for day in sorted(draw(st.sets(st.integers(1, 30), max_size=3)))]
    used = {("calls", MARCH, instant): Decimal(draw(st.integers(-5, 50))) for instant in [*cuts, MARCH.end]}
    return lines, cuts, used


@MANY
@given(
    statements(),
    st.lists(
        st.tuples(st.integers(0, 4), st.integers(0, 4), st.integers(0, 3), st.integers(0, 5000), st.booleans()),
        max_size=5,
    ),
    st.integers(0, 500),
)
def test_whatever_is_drawn(
    statement: tuple[list[Line], list[datetime], dict[tuple[str, Period, datetime], Decimal]],
    given_grants: list[tuple[int, int, int, int, bool]],
    overdraft: int,
) -> None:
    """What can be paid for is never below zero and comes to the statement; no grant is below what it allows, pays for more
    than falls into its time, or leaves something that it could have paid; what is worth something is drawn once.
    """
    lines, cuts, used = statement
    bounds = [MARCH.start, *cuts, MARCH.end]
    charged = {(CALLS, MARCH): Decimal(7)} if any(each.origin == CALLS for each in lines) else {}
    payables = payables_of(lines, MARCH, cuts, used, charged)
    owed = sum((Fraction(each.amount.amount) for each in lines), Fraction(0))
    assert all(each.amount.amount > 0 for each in payables)
    assert max(owed, Fraction(0)) == sum((Fraction(each.amount.amount) for each in payables), Fraction(0))

    grants, held = [], {}
    for number, (place, length, priority, amount, of_calls) in enumerate(given_grants):
        start = min(place, len(bounds) - 2)
        end = start + 1 + length
        kind = {"currency_code": None, "meter": "calls"} if of_calls else {}
        grants.append(
            grant(
                f"g{number}",
                effective_at=bounds[start],
                expires_at=bounds[end] if end < len(bounds) else None,
                priority=priority,
                overdraft_max=Decimal(overdraft).scaleb(-2),
                **kind,
            )
        )
        held[f"g{number}"] = Decimal(amount).scaleb(-2)
    draws = draw_down(payables, grants, held, currency())
    for each in grants:
        own = [one for one in draws if one.grant.key == each.key]
        taken = sum((Fraction(one.amount) for one in own), Fraction(0))
        inside = [part for part in payables if each.pays(part, currency())]
        assert taken <= Fraction(held[each.key]) + Fraction(each.overdraft_max)
        assert sum(Fraction(one.worth.amount) for one in own) <= sum(Fraction(part.amount.amount) for part in inside)
        assert all(one.amount > 0 and one.worth.amount > 0 for one in own)
        if each.meter is None:
            paid = sum((Fraction(one.worth.amount) for one in draws), Fraction(0))
            left = sum((Fraction(part.amount.amount) for part in payables), Fraction(0)) - paid
            assert taken == Fraction(held[each.key]) + Fraction(each.overdraft_max) or left <= sum(
                Fraction(part.amount.amount) for part in payables if part not in inside
            )
    assert sum((Fraction(one.worth.amount) for one in draws), Fraction(0)) <= max(owed, Fraction(0))
