"""Whatever is frozen, voided and changed in whichever order: all statements together are one rating of everything.

Here without a database: figures are numbers that the test sets, and statements are kept as their texts would be.
"""

from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from fractions import Fraction
from itertools import pairwise
from typing import Final

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from metering.statements.drafts import Draft, draft_of, task_of
from metering.statements.figures import Needed, chains
from metering.statements.history import Due, FinalStatement, History, in_order
from metering.statements.records import evidence_json, lines_json
from metering.subscriptions import RatedSubscription
from rating.billing_periods import BillingInterval
from rating.lines import LineKind
from rating.meters import Figure, Meter
from rating.periods import Period
from rating.plans import PlanPrice
from rating.prices import Flat, Graduated, PerSeat, PerUnit, Tier
from rating.statements import statement_of
from rating.subscriptions import PlanChoice, SeatChange, Subscription, parts_of, phases_of
from tests.rating.tables import at, period, plan
from tests.strategies import MANY

METERS: Final = {"calls": Meter(key="calls")}
PRICES: Final = (
    PlanPrice(key="base", price=Flat(Decimal(31))),
    PlanPrice(key="seats", price=PerSeat(Decimal(7))),
    PlanPrice(key="calls", meter="calls", price=PerUnit(Decimal("0.333"))),
    PlanPrice(
        key="tiers", meter="calls", price=Graduated((Tier(Decimal(5), Decimal(1), Decimal(1)), Tier(None, Decimal(2))))
    ),
)
VERSIONS: Final = {
    "monthly": [
        plan(*PRICES, key="monthly", minimum_amount=Decimal(80)),
        plan(*PRICES[1:], key="monthly", version=2, effective_from=at("2025-04-01")),
    ],
    "weekly": [plan(*PRICES, key="weekly", interval=BillingInterval.WEEK)],
    "yearly": [plan(*PRICES, key="yearly", interval=BillingInterval.YEAR)],
}
START: Final = at("2025-01-01")
DAYS: Final = 200


class Books:
    """A subscription, its usage by day, its statements, and a clock; every change is rated anew."""

    def __init__(self) -> None:
        self.now = START + timedelta(days=100)
        self.usage: dict[int, int] = {}
        self.choices = [PlanChoice(START, "monthly")]
        self.seats = [SeatChange(START, 2)]
        self.ends_at: datetime | None = None
        self.kept: list[FinalStatement] = []
        self.discount = Decimal(0)

    def history(self) -> History:
        """What is known now."""
        bare = Subscription(
            starts_at=START,
            zone=UTC,
            phases=(),
            ends_at=self.ends_at,
            trial_ends_at=START + timedelta(days=10),
            seats=tuple(self.seats),
            discount_percent=self.discount,
        )
        phases = phases_of(bare, self.choices, VERSIONS, self.now + timedelta.resolution)
        rated = RatedSubscription("s-1", "acme", "EUR", msgspec.structs.replace(bare, phases=phases))
        return History(rated, in_order(each for each in self.kept if each.voided_at is None), self.now)

    def figure(self, part: Period) -> Figure:
        """The calls of a part; usage is at noon."""
        inside = [
            count for day, count in self.usage.items() if part.start <= START + timedelta(days=day, hours=12) < part.end
        ]
        return Figure(Decimal(sum(inside)), len(inside))

    def draft(self, history: History, due: Due) -> Draft:
        """A draft of the usage of the moment."""
        task = task_of(history, due)
        needed = [*task.needed(), *(each for carried in task.carried for each in task.needed_again(carried))]
        figures: Mapping[Needed, Figure] = {each: self.figure(each.period) for each in needed}
        return draft_of(task, figures, METERS)

    def freeze(self, due: Due) -> None:
        """Freeze a statement, as it would be kept."""
        draft = self.draft(self.history(), due)
        if draft.is_empty or draft.period.end > self.now:
            return
        self.kept.append(
            FinalStatement(
                id=len(self.kept) + 1,
                account=draft.account,
                subscription=draft.subscription,
                period=draft.period,
                is_closing=draft.is_closing,
                currency=draft.currency,
                total=draft.total,
                as_of=draft.as_of,
                lines_text=lines_json(draft.lines),
                evidence_text=evidence_json(draft.evidence),
                finalized_at=self.now,
                finalized_by="a test",
            )
        )

    def void(self, place: int) -> None:
        """Take a statement back."""
        final = self.kept[place]
        if final.voided_at is None:
            self.kept[place] = msgspec.structs.replace(
                final, voided_at=self.now, voided_by="a test", void_reason="a test"
            )

    def owed(self) -> Fraction:
        """What all statements come to: the final ones, and the drafts of everything else."""
        history = self.history()
        drafts = [self.draft(history, due) for due in history.drafts]
        lines = [each.lines for each in (*history.finals, *drafts)]
        totals = [each.total for each in (*history.finals, *drafts)]
        for statement in lines:
            keys = [each.line.key for each in statement]
            assert len(keys) == len(set(keys)), "lines have names of their own"
        assert sum(Fraction(each.amount) for each in totals) == sum(
            Fraction(each.line.amount.amount) for statement in lines for each in statement
        )
        return sum((Fraction(each.amount) for each in totals), Fraction(0))

    def rated(self) -> Fraction:
        """One rating of everything; a frozen period with the discount that it was frozen with."""
        history, total = self.history(), Fraction(0)
        for billing in history.begun:
            final, terms = history.final_of(Due(billing.served, billing)), history.terms
            if final is not None:
                assert final.evidence.terms is not None
                terms = msgspec.structs.replace(terms, discount_percent=final.evidence.terms.discount_percent)
            figures = {("calls", part.period): self.figure(part.period) for part in parts_of(terms, billing)}
            total += Fraction(statement_of(terms, billing, figures, METERS).total.amount)
        return total

    # ------------------------------------------------------------ what happens, each with two numbers

    def use(self, day: int, calls: int) -> None:
        """Usage that arrives late, or is corrected."""
        self.usage[day] = self.usage.get(day, 0) + calls

    def freeze_some(self, first: int, count: int) -> None:
        """Freeze some of the drafts, wherever they stand."""
        for due in self.history().drafts[first:][:count]:
            self.freeze(due)

    def void_one(self, number: int, _: int) -> None:
        """Void a statement, wherever it stands."""
        if self.kept:
            self.void(number % len(self.kept))

    def wait(self, days: int, hours: int) -> None:
        """Let time pass."""
        self.now += timedelta(days=days, hours=hours)

    def end(self, day: int, is_meant: int) -> None:
        """Let the subscription end, also in the past; or go on."""
        self.ends_at = START + timedelta(days=day) if is_meant else None

    def put_seats(self, day: int, seats: int) -> None:
        """From a day on, also in the past, there are so many seats."""
        since = START + timedelta(days=day)
        self.seats = [*(each for each in self.seats if each.since < since), SeatChange(since, seats)]

    def put_plan(self, day: int, number: int) -> None:
        """From a day on, also in the past, another plan applies."""
        since = START + timedelta(days=day)
        earlier = [each for each in self.choices if each.since < since]
        self.choices = [*earlier, PlanChoice(since, list(VERSIONS)[number])]

    def put_discount(self, percent: int, _: int) -> None:
        """Another discount."""
        self.discount = Decimal(percent)


CHANGES: Final = st.one_of(
    st.tuples(st.just(Books.use), st.integers(-20, DAYS), st.integers(-3, 30)),
    st.tuples(st.just(Books.freeze_some), st.integers(0, 5), st.integers(1, 9)),
    st.tuples(st.just(Books.void_one), st.integers(0, 30), st.just(0)),
    st.tuples(st.just(Books.wait), st.integers(0, 40), st.integers(0, 23)),
    st.tuples(st.just(Books.end), st.integers(1, DAYS), st.integers(0, 2)),
    st.tuples(st.just(Books.put_seats), st.integers(0, DAYS), st.integers(0, 9)),
    st.tuples(st.just(Books.put_plan), st.integers(1, DAYS), st.integers(0, 2)),
    st.tuples(st.just(Books.put_discount), st.integers(0, 100), st.just(0)),
)


@MANY
@given(st.lists(CHANGES, max_size=25))
def test_all_statements_together_are_one_rating(changes: list[tuple[Callable[..., None], int, int]]) -> None:
    """Late usage, corrections, freezing in any order, voids, other plans and seats in the past, an end that moves: at any
    time the final statements and the drafts come to what one rating of all billing periods does, to the cent.
    """
    books = Books()
    for change, *numbers in changes:
        books.now += timedelta(minutes=1)
        change(books, *numbers)

        assert books.rated() == books.owed()


@MANY
@given(st.lists(st.tuples(st.integers(0, 300), st.integers(1, 60)), max_size=30))
def test_chains(bounds: list[tuple[int, int]]) -> None:
    """Every period is in one chain, and those of a chain follow each other without overlapping."""
    periods = {
        Period(START + timedelta(days=start), START + timedelta(days=start + length)) for start, length in bounds
    }
    rows = chains(periods)

    assert sorted(periods) == sorted(each for row in rows for each in row)
    assert all(one.end <= other.start for row in rows for one, other in pairwise(row))


def frozen_books() -> Books:
    """January to March are frozen, April is running."""
    books = Books()
    books.usage = {20: 4, 40: 7, 70: 9}
    for due in books.history().drafts[:3]:
        books.freeze(due)
    return books


def adjusted(books: Books) -> list[tuple[str, str, list[tuple[str, str]]]]:
    """The drafts that adjust anything: their months, and the months that they adjust, with prices and amounts."""
    history = books.history()
    rows: dict[tuple[str, str], list[tuple[str, str]]] = {}
    for due in history.drafts:
        for each in books.draft(history, due).lines:
            if each.adjusts is not None:
                assert each.line.kind is LineKind.ADJUSTMENT
                months = (f"{due.period.start:%b}", f"{each.adjusts.start:%b}")
                rows.setdefault(months, []).append((each.line.origin.price or "plan", str(each.line.amount.amount)))
    return [(*months, lines) for months, lines in rows.items()]


def test_the_next_open_statement_carries_what_changed() -> None:
    """Each frozen period that comes to something else is named by lines of the next draft, up and down; others are not."""
    books = frozen_books()
    assert [] == adjusted(books)
    books.usage |= {41: 10, 70: 0}

    assert [
        ("Apr", "Feb", [("calls", "3.33"), ("tiers", "20.00"), ("plan", "-22.67")]),
        ("Apr", "Mar", [("calls", "-3.00"), ("tiers", "-13.00"), ("plan", "16.00")]),
    ] == adjusted(books)


def test_a_voided_statement_takes_its_adjustments_with_it() -> None:
    """What the voided statement carried is carried by its period's own draft again, and what others carried of its period
    is taken back there, for it is rated anew in its own lines.
    """
    books = frozen_books()
    books.usage |= {20: 14}
    books.now = at("2025-05-02")
    books.freeze(books.history().drafts[0])
    assert [] == adjusted(books)
    books.void(3)
    assert ["Apr"] == [carrier for carrier, *_ in adjusted(books)]
    books.freeze(books.history().drafts[0])
    books.void(0)

    (carrier, of, lines), *others = adjusted(books)
    assert (("Jan", "Jan"), []) == ((carrier, of), others)
    assert Decimal("-4.95") == sum((Decimal(amount) for _, amount in lines), Decimal(0))


def test_a_period_that_is_none_any_more_is_given_back() -> None:
    """Where the subscription turns out to have ended earlier, what was frozen after its end is given back in full, and the
    part of the period that is left is a draft.
    """
    books = frozen_books()
    books.ends_at = at("2025-03-11")
    history = books.history()
    every = [books.draft(history, due) for due in history.drafts]
    drafts = [each for each in every if not each.is_empty]

    assert [period("2025-03-01", "2025-03-11")] == [each.period for each in drafts]
    frozen = books.kept[2].total.amount
    given_back = sum(each.line.amount.amount for each in drafts[0].lines if each.adjusts is not None)
    assert -frozen == given_back
    assert books.owed() == books.rated()


def test_a_subscription_that_ended_gets_closing_statements() -> None:
    """After the end, when all periods are frozen, what changes is on closing statements that follow each other."""
    books = frozen_books()
    books.ends_at = at("2025-04-01")
    (closing,) = books.history().drafts
    assert (period("2025-04-01", "2025-04-11"), None) == (closing.period, closing.billing)
    assert books.draft(books.history(), closing).is_empty
    books.usage |= {80: 5}
    books.freeze(closing)
    books.now = at("2025-04-20")
    (following,) = books.history().drafts

    assert period("2025-04-11", "2025-04-20") == following.period
    assert books.draft(books.history(), following).is_empty
    books.usage |= {81: 5}
    assert [("Apr", "Mar")] == [(carrier, of) for carrier, of, _ in adjusted(books)]
    assert books.history().due_at(at("2025-04-05")) == Due(period("2025-04-01", "2025-04-11"), None)
    assert None is books.history().due_at(at("2025-04-20"))


def test_a_discount_holds_for_what_is_not_frozen() -> None:
    """A discount has no instant from which on it holds: what is frozen keeps its own, also when it is rated again."""
    books = frozen_books()
    books.discount = Decimal(50)
    assert [] == adjusted(books)
    books.usage |= {41: 10}

    ((_, _, lines),) = adjusted(books)
    assert "plan" in dict(lines)
    assert books.owed() == books.rated()


def test_statements_that_end_in_a_month() -> None:
    """A month's run is of the periods that end in it, at its last instant too: all of them are over when the month is."""
    books = Books()
    books.choices.append(PlanChoice(at("2025-02-10"), "weekly"))
    history = books.history()

    def ends(month: Period) -> list[datetime]:
        return [each.period.end for each in history.dues_ending_in(month)]

    assert [at("2025-02-01")] == ends(period("2025-01-01", "2025-02-01"))
    february = [at("2025-02-10"), at("2025-02-12"), at("2025-02-19"), at("2025-02-26")]
    assert february == ends(period("2025-02-01", "2025-03-01"))
    assert [] == ends(period("2024-01-01", "2025-01-01"))
    assert 2 == len(history.dues_ending_in(period("2025-01-01", "2025-02-10")))
