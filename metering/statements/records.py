"""What is kept of a final statement: its lines, and the evidence that they were made of. Written and read without loss.

The evidence is all that rating was given: the figures, and the terms in their parts, with plans by their versions, which
never change. So whether a frozen period would be another one today is told by comparing, without rating it.
"""

from collections.abc import Iterable, Mapping
from datetime import datetime
from decimal import Decimal
from typing import Any

import msgspec

from metering.rollups.read import Total
from rating.lines import Line, LineKind, Origin, description
from rating.meters import Figure
from rating.money import Currency, Money
from rating.periods import WHOLE, Period, PeriodShare, instant_text
from rating.statements import Figures
from rating.subscriptions import BillingPeriod, Subscription, parts_of, seat_stretches


class StatementLine(msgspec.Struct, frozen=True):
    """A line, and of an adjustment the frozen period that it makes up for."""

    line: Line
    adjusts: Period | None = None

    @property
    def description(self) -> str:
        """What the line is, in words; of an adjustment also for when."""
        words = description(self.line)
        if self.adjusts is None:
            return words
        return f"{words} of {instant_text(self.adjusts.start)} to {instant_text(self.adjusts.end)}"


# ---------------------------------------------------------------- evidence


class PlanVersion(msgspec.Struct, frozen=True):
    """Names a version of a plan."""

    plan: str
    version: int


class PartTerms(msgspec.Struct, frozen=True, rename="camel"):
    """A part of a billing period: which version of which plan applied, and how many seats there were."""

    period: Period
    plan: str
    version: int
    seats: tuple[tuple[Period, Decimal], ...]


class RatedTerms(msgspec.Struct, frozen=True, rename="camel"):
    """What a billing period was rated by, besides figures; `whole` is what shares are of."""

    whole: Period
    parts: tuple[PartTerms, ...]
    discount_percent: Decimal


class RatedFigure(msgspec.Struct, frozen=True, rename="camel"):
    """What a meter showed for a part."""

    meter: str
    period: Period
    quantity: Decimal
    events: int


class AdjustedPeriod(msgspec.Struct, frozen=True, rename="camel"):
    """A frozen period that was adjusted, and what it was rated again by; nothing where it is no billing period any more."""

    period: Period
    terms: RatedTerms | None = None
    figures: tuple[RatedFigure, ...] = ()


class Evidence(msgspec.Struct, frozen=True, rename="camel"):
    """What a statement was made of, and the usage that no price covered; without terms where it is a closing one."""

    terms: RatedTerms | None
    figures: tuple[RatedFigure, ...]
    adjusted: tuple[AdjustedPeriod, ...] = ()
    unrated: tuple[Total, ...] = ()

    @property
    def plans(self) -> tuple[PlanVersion, ...]:
        """The versions that the statement's own lines were made by, in order of effect, each once."""
        parts = () if self.terms is None else self.terms.parts
        return tuple(dict.fromkeys(PlanVersion(part.plan, part.version) for part in parts))


def terms_of(subscription: Subscription, period: BillingPeriod) -> RatedTerms:
    """All of a subscription that the rating of a billing period depends on."""
    parts = tuple(
        PartTerms(
            period=part.period,
            plan=part.plan.key,
            version=part.plan.version,
            seats=tuple((each.period, each.seats) for each in seat_stretches(subscription, part, period)),
        )
        for part in parts_of(subscription, period)
    )
    return RatedTerms(period.whole, parts, subscription.discount_percent)


def recorded_figures(figures: Figures) -> tuple[RatedFigure, ...]:
    """Figures in one order, so that equal ones are equal."""
    return tuple(
        RatedFigure(meter, period, figure.quantity, figure.events)
        for (meter, period), figure in sorted(figures.items(), key=lambda item: item[0])
    )


def figures_of(recorded: Iterable[RatedFigure]) -> Figures:
    """The figures as rating takes them."""
    return {(each.meter, each.period): Figure(each.quantity, each.events) for each in recorded}


# ---------------------------------------------------------------- as JSON


class _LineRecord(msgspec.Struct, frozen=True, kw_only=True, rename="camel", omit_defaults=True):
    kind: LineKind
    step: str
    plan: str
    plan_version: int
    price: str | None = None
    meter: str | None = None
    period: Period
    due_at: datetime
    exact_amount: Decimal
    amount: Decimal
    tier: int | None = None
    quantity: Decimal | None = None
    unit_price: Decimal | None = None
    share: tuple[int, int, int] | None = None
    adjusts: Period | None = None


def evidence_json(evidence: Evidence) -> str:
    """Evidence as it is kept; decimals are strings in plain notation."""
    return _json(evidence)


def read_evidence(text: str) -> Evidence:
    """The evidence that was kept."""
    return msgspec.json.decode(text, type=Evidence)


def lines_json(lines: Iterable[StatementLine]) -> str:
    """Lines as they are kept."""
    return _json([_record(each) for each in lines])


def read_lines(text: str, currency: Currency) -> tuple[StatementLine, ...]:
    """The lines that were kept."""
    return tuple(_line(record, currency) for record in msgspec.json.decode(text, type=list[_LineRecord]))


def _record(kept: StatementLine) -> _LineRecord:
    line, share = kept.line, kept.line.share
    return _LineRecord(
        kind=line.kind,
        step=line.step,
        plan=line.origin.plan,
        plan_version=line.origin.plan_version,
        price=line.origin.price,
        meter=line.origin.meter,
        period=line.period,
        due_at=line.due_at,
        exact_amount=line.exact_amount,
        amount=line.amount.amount,
        tier=line.tier,
        quantity=line.quantity,
        unit_price=line.unit_price,
        share=None if share == WHOLE else (share.start, share.end, share.whole),
        adjusts=kept.adjusts,
    )


def _line(record: _LineRecord, currency: Currency) -> StatementLine:
    line = Line(
        origin=Origin(plan=record.plan, plan_version=record.plan_version, price=record.price, meter=record.meter),
        kind=record.kind,
        step=record.step,
        period=record.period,
        due_at=record.due_at,
        exact_amount=record.exact_amount,
        amount=Money(record.amount, currency),
        tier=record.tier,
        quantity=record.quantity,
        unit_price=record.unit_price,
        share=WHOLE if record.share is None else PeriodShare(*record.share),
    )
    return StatementLine(line, record.adjusts)


def _json(value: object) -> str:
    return msgspec.json.encode(_spelled(msgspec.to_builtins(value, builtin_types=(Decimal,)))).decode()


def _spelled(value: Any) -> Any:
    """Builtins with each decimal as a string without an exponent; its zeros behind the point are kept."""
    if isinstance(value, Decimal):
        return f"{value:f}"
    if isinstance(value, Mapping):
        return {name: _spelled(part) for name, part in value.items()}
    if isinstance(value, list | tuple):
        return [_spelled(part) for part in value]
    return value
