"""What the tests of explanations share: a subscription with usage, compared in two periods as the service does it."""

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from decimal import Decimal
from fractions import Fraction
from typing import Final

import msgspec

from rating.attribution import Key
from rating.charges import Behind, charges_within
from rating.explain import Changes, Explanation, Side, metered
from rating.lines import Line
from rating.meters import Figure, Meter
from rating.money import Currency, currency_of
from rating.periods import Period
from rating.plans import Plan
from rating.stages import AsFrozen, Reference, Stage, stages_after, stages_before
from rating.statements import figures_needed, statement_of
from rating.subscriptions import BillingPeriod, Subscription, billing_periods, parts_of
from tests.rating.tables import at

Used = tuple[Key, datetime, Decimal]
NOBODY: Final[Key] = (None, None)
METERS: Final = {"meter": Meter(key="meter"), "other": Meter(key="other")}
UNTIL: Final = at("2027-01-01")


class Comparison(msgspec.Struct, frozen=True, kw_only=True):
    """A subscription over all of its time, what was used, and the two periods."""

    customer: Subscription
    used: Sequence[Used]
    before: Period
    after: Period
    reference: Reference
    # Of the reference's plan, all that were published.
    versions: Sequence[Plan] = ()
    by: Sequence[int] = (0, 1)
    top: int = 1_000
    # Lines besides those that its prices come to, on the later side.
    beside: Sequence[Line] = ()
    # What billing periods were frozen with, where it is not as the terms say.
    frozen: Mapping[Period, AsFrozen] = {}

    @property
    def currency(self) -> Currency:
        """What is owed in."""
        found = currency_of(self.reference.plan.currency_code)
        assert found is not None
        return found

    def lines(self, terms: Subscription, billing: BillingPeriod) -> tuple[Line, ...]:
        """What a billing period comes to."""
        figures = {
            (meter, period): figure_of(self.used, period) for meter, period in figures_needed(parts_of(terms, billing))
        }
        return statement_of(terms, billing, figures, METERS).lines

    def charged(self, asked: Period) -> dict[Period, tuple[Line, ...]]:
        """The lines of the statements whose periods touch one."""
        lines = {}
        for billing in billing_periods(self.customer, UNTIL):
            if billing.served.within(asked):
                kept = self.frozen.get(billing.served)
                changed = {} if kept is None else msgspec.structs.asdict(kept)
                terms = msgspec.structs.replace(self.customer, **changed)
                lines[billing.served] = self.lines(terms, billing)
        return lines

    def side(self, asked: Period, stages: Iterable[Stage], beside: Sequence[Line] = ()) -> Side:
        """One of the periods, rated at every stage."""
        staged = [
            (stage.cause, {of.served: self.lines(terms, of) for terms, of in stage.billed(asked, UNTIL)})
            for stage in stages
        ]
        charged = self.charged(asked)
        every = [line for lines in [charged, *(lines for _, lines in staged)] for of in lines.values() for line in of]
        usage = {pair: behind(self.used, pair[1], asked) for pair in metered(every)}
        return Side(asked=asked, nobody=NOBODY, charged=charged, beside=[beside], stages=staged, usage=usage)

    def explained(self) -> Explanation:
        """Why they differ."""
        changes = Changes(self.currency, self.by)
        after = stages_after(
            self.customer, self.frozen, self.reference, versions=self.versions, pinned=None, until=UNTIL
        )
        changes.add(
            self.side(self.before, stages_before(self.customer, self.frozen, self.reference)),
            self.side(self.after, after, self.beside),
        )
        return changes.explanation(self.top, ["meter"])

    def owed(self, asked: Period) -> Fraction:
        """What the statements' lines in a period come to, without any stage."""
        return sum(
            (
                Fraction(charge.amount.amount)
                for lines in self.charged(asked).values()
                for charge in charges_within(
                    lines, {pair: behind(self.used, pair[1], asked) for pair in metered(lines)}, NOBODY, asked
                )
            ),
            Fraction(0),
        )


def figure_of(used: Iterable[Used], period: Period) -> Figure:
    """What a meter of everything shows."""
    inside = [quantity for _, when, quantity in used if period.start <= when < period.end]
    return Figure(sum(inside, Decimal(0)), len(inside))


def behind(used: Sequence[Used], period: Period, asked: Period) -> list[Behind]:
    """The usage as charges take it."""
    inside = [each for each in used if period.start <= each[1] < period.end]

    def until(key: Key, instant: datetime) -> Decimal:
        return sum((quantity for whose, when, quantity in inside if whose == key and when < instant), Decimal(0))

    return [
        Behind(key, until(key, period.end), until(key, asked.start), until(key, asked.end))
        for key in dict.fromkeys(key for key, _, _ in inside)
    ]


def parts_of_causes(explanation: Explanation) -> dict[str, Fraction]:
    """What each cause comes to that has parts, also where these cancel each other out."""
    sums: dict[str, Fraction] = {}
    for part in explanation.parts:
        sums[part.cause.value] = sums.get(part.cause.value, Fraction(0)) + Fraction(part.amount.amount)
    return sums
