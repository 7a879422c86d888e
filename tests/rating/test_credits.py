"""Credits are drawn down in one order, by double entry, and never below zero unless that is allowed."""

from datetime import timedelta
from decimal import Decimal
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rating.credits import (
    EXPIRED,
    ISSUED,
    OVERDRAFT,
    Drawing,
    Grant,
    Pot,
    PotKind,
    Transfer,
    balances,
    draw_down,
    drawing_order,
    expire,
    give_back,
    issue,
)
from tests.rating.tables import at
from tests.strategies import MANY

NOW = at("2026-03-15")


def grant(key: str, **values: object) -> Grant:
    """A grant in EUR since January, unless something else is said."""
    return Grant(**{"key": key, "effective_at": at("2026-01-01"), "currency_code": "EUR", **values})  # type: ignore[arg-type]


def pot(key: str) -> Pot:
    """A grant's pot."""
    return Pot(PotKind.GRANT, key)


def moved(drawing: Drawing) -> list[tuple[str, str]]:
    """From which grants how much was drawn."""
    return [(transfer.source.key or transfer.source.kind.value, str(transfer.amount)) for transfer in drawing.transfers]


def test_order_of_drawing() -> None:
    """By priority, then what expires first, then what is older, then by key; what never expires comes last."""
    grants = [
        grant("never", priority=1),
        grant("older", priority=1, expires_at=at("2026-06-01")),
        grant("newer", priority=1, expires_at=at("2026-06-01"), effective_at=at("2026-02-01")),
        grant("soon", priority=1, expires_at=at("2026-04-01")),
        grant("first", priority=0),
        grant("b", priority=2),
        grant("a", priority=2),
    ]

    assert ["first", "soon", "older", "newer", "never", "a", "b"] == [each.key for each in drawing_order(grants)]


def test_drawing_down() -> None:
    """An amount is covered from one grant after the other; what expired, is not in effect yet, or empty, covers nothing."""
    grants = [
        grant("bonus", expires_at=at("2026-04-01")),
        grant("paid"),
        grant("expired", expires_at=NOW),
        grant("future", effective_at=NOW + timedelta.resolution),
    ]
    held = balances([issue(each, Decimal("10.00")) for each in grants])
    drawing = draw_down(grants, held, Decimal("12.50"), at=NOW, spent_on="statement-1")

    assert [("bonus", "10.00"), ("paid", "2.50")] == moved(drawing)
    assert Decimal(0) == drawing.uncovered
    rest = draw_down(grants, balances_after(grants, drawing), Decimal(9), at=NOW, spent_on="statement-2")
    assert [("paid", "7.50")] == moved(rest)
    assert Decimal("1.50") == rest.uncovered


def balances_after(grants: list[Grant], *drawings: Drawing) -> dict[Pot, Decimal]:
    """What the pots hold after 10.00 in each grant, and these drawings."""
    issued = [issue(each, Decimal("10.00")) for each in grants]
    return balances([*issued, *(transfer for drawing in drawings for transfer in drawing.transfers)])


def test_overdraft_goes_as_far_as_it_is_allowed_to() -> None:
    """What grants do not cover overdraws by so much in all, over several drawings; the grants themselves stay at zero."""
    grants = [grant("paid")]
    first = draw_down(grants, balances_after(grants), Decimal(14), at=NOW, spent_on="one", overdraft_max=Decimal(5))
    held = balances_after(grants, first)
    second = draw_down(grants, held, Decimal(3), at=NOW, spent_on="two", overdraft_max=Decimal(5))

    assert [("paid", "10.00"), ("OVERDRAFT", "4.00")] == moved(first)
    assert Decimal(-4) == held[OVERDRAFT]
    assert [("OVERDRAFT", "1.00")] == moved(second)
    assert Decimal(2) == second.uncovered


@pytest.mark.parametrize("amount", ["0", "-3"])
def test_nothing_is_drawn_for_nothing(amount: str) -> None:
    """A statement of zero, or one that gives back, takes no credit."""
    grants = [grant("paid")]
    drawing = draw_down(grants, balances_after(grants), Decimal(amount), at=NOW, spent_on="one")

    assert Drawing((), Decimal(0)) == drawing


def test_expiry_takes_what_is_left() -> None:
    """What is left of a grant when it expires goes out of its pot, as of that instant, and once only."""
    grants = [grant("bonus", expires_at=at("2026-03-01")), grant("paid")]
    issued = [issue(each, Decimal(10)) for each in grants]
    gone = expire(grants, balances(issued), at=NOW)

    assert (Transfer(at=at("2026-03-01"), source=pot("bonus"), target=EXPIRED, amount=Decimal(10)),) == gone
    assert () == expire(grants, balances([*issued, *gone]), at=NOW)


def test_void_statement_gives_back() -> None:
    """What was spent on a statement goes back to the grants that it came from."""
    grants = [grant("bonus", expires_at=at("2026-04-01")), grant("paid")]
    issued = [issue(each, Decimal(10)) for each in grants]
    drawing = draw_down(grants, balances(issued), Decimal(15), at=NOW, spent_on="one")
    held = balances([*issued, *drawing.transfers, *give_back(drawing.transfers, at=NOW)])

    assert [Decimal(10), Decimal(10), Decimal(0)] == [
        held[at_pot] for at_pot in (pot("bonus"), pot("paid"), Pot(PotKind.SPENT, "one"))
    ]


def test_grants_of_quantities() -> None:
    """A grant may be of a meter's quantity; it is of one thing, and a transfer moves something."""
    calls = grant("calls", currency_code=None, meter="calls")
    held = balances([issue(calls, Decimal("1000.5"))])

    assert [("calls", "1000.5")] == moved(draw_down([calls], held, Decimal(2000), at=NOW, spent_on="march"))
    with pytest.raises(AssertionError, match="in a currency or of a meter"):
        grant("both", meter="calls")
    with pytest.raises(AssertionError, match="moves something"):
        issue(calls, Decimal(0))


@MANY
@given(
    st.lists(
        st.tuples(st.integers(1, 10**6), st.integers(0, 3), st.integers(-20, 20), st.none() | st.integers(-20, 40)),
        max_size=6,
    ),
    st.lists(
        st.tuples(st.integers(-5, 10**6), st.integers(-20, 40), st.sampled_from(["draw", "back", "expire"])), max_size=8
    ),
    st.integers(0, 1000),
)
def test_books_balance(
    issued: list[tuple[int, int, int, int | None]], actions: list[tuple[int, int, str]], overdraft: int
) -> None:
    """Whatever is drawn, given back or expires: all pots hold zero together, no grant is below zero, the overdraft within
    its bound, and every amount is covered but for what is said to be uncovered.
    """
    grants = [
        grant(
            f"g{number}",
            priority=priority,
            effective_at=NOW + timedelta(days=since),
            expires_at=None if until is None else NOW + timedelta(days=until),
        )
        for number, (_, priority, since, until) in enumerate(issued)
    ]
    book = [issue(each, Decimal(cents).scaleb(-2)) for each, (cents, *_) in zip(grants, issued, strict=True)]
    last: tuple[Transfer, ...] = ()
    for number, (cents, day, action) in enumerate(actions):
        amount, instant = Decimal(cents).scaleb(-2), NOW + timedelta(days=day)
        if action == "draw":
            drawing = draw_down(
                grants, balances(book), amount, at=instant, spent_on=str(number), overdraft_max=Decimal(overdraft)
            )
            last = drawing.transfers
            drawn = sum(Fraction(transfer.amount) for transfer in last)
            assert drawn + Fraction(drawing.uncovered) == max(Fraction(amount), Fraction(0))
            book += last
        elif action == "back":
            book += give_back(last, at=instant)
            last = ()
        else:
            book += expire(grants, balances(book), at=instant)
        held = balances(book)
        assert sum(map(Fraction, held.values())) == 0
        assert all(held.get(pot(each.key), Decimal(0)) >= 0 for each in grants)
        assert held.get(OVERDRAFT, Decimal(0)) >= -overdraft
        assert held.get(ISSUED, Decimal(0)) <= 0
