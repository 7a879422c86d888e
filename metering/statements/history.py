"""A subscription with what was frozen of it: which statement an instant belongs to, and which one carries adjustments. Pure.

Every billing period has one statement: a final one, where one was frozen for exactly this period and not voided, or a draft.
What was frozen is compared with what it would be today by the instant at which it begins, and made up for by the first
draft whose period ends after that: by the period's own, where it is a draft again, and else by the next one that is open.

frozen + adjusted + what drafts adjust = rated again, whichever periods were frozen, in whichever order, and voided since.
"""

from collections.abc import Iterable
from datetime import datetime, timedelta
from enum import Enum
from functools import cached_property

import msgspec

from metering.statements.credit_lines import CreditLine, owed_after, read_credits
from metering.statements.figures import Subscriber
from metering.statements.records import Evidence, StatementLine, read_evidence, read_lines
from metering.subscriptions import RatedSubscription
from rating import subscriptions as rating
from rating.money import Currency, Money, currency_of
from rating.periods import Period
from rating.subscriptions import BillingPeriod, billing_period_at, billing_periods


class StatementStatus(Enum):
    """Whether a statement is computed from the usage of the moment, frozen, or was frozen and taken back."""

    DRAFT = "DRAFT"
    FINAL = "FINAL"
    VOID = "VOID"


class FinalStatement(msgspec.Struct, frozen=True, kw_only=True, dict=True):
    """A statement as it was frozen, with who and when; and, where it was voided, with who, when and why."""

    id: int
    account: str
    subscription: str
    period: Period
    # It carries what came after the subscription's end, and is of no billing period.
    is_closing: bool
    currency: Currency
    total: Money
    as_of: datetime
    lines_text: str
    evidence_text: str
    credits_text: str = "[]"
    finalized_at: datetime
    finalized_by: str
    voided_at: datetime | None = None
    voided_by: str | None = None
    void_reason: str | None = None

    @property
    def status(self) -> StatementStatus:
        """FINAL, or VOID."""
        return StatementStatus.FINAL if self.voided_at is None else StatementStatus.VOID

    @cached_property
    def lines(self) -> tuple[StatementLine, ...]:
        """Its lines, in order; read when they are first asked for."""
        return read_lines(self.lines_text, self.currency)

    @cached_property
    def evidence(self) -> Evidence:
        """What it was made of."""
        return read_evidence(self.evidence_text)

    @cached_property
    def credits(self) -> tuple[CreditLine, ...]:
        """What credits paid when it was frozen; the total is before them."""
        return read_credits(self.credits_text, self.currency)

    @property
    def owed(self) -> Money:
        """The total after credits."""
        return owed_after(self.total, self.credits)


class Due(msgspec.Struct, frozen=True):
    """A statement that can be drafted: of a billing period, or (without one) a closing one."""

    period: Period
    billing: BillingPeriod | None

    def holds(self, instant: datetime) -> bool:
        """Whether the instant lies in its period."""
        return self.period.start <= instant < self.period.end


class Carried(msgspec.Struct, frozen=True):
    """What was frozen of the period that begins at an instant, and what other statements adjusted of it.

    `again` is the billing period, where it still is one that is frozen, with the terms that it is rated by today.
    """

    of: Period
    frozen: tuple[FinalStatement, ...]
    adjusting: tuple[FinalStatement, ...]
    again: tuple[rating.Subscription, BillingPeriod] | None

    @property
    def adjusted_lines(self) -> tuple[StatementLine, ...]:
        """The adjustments of it that stand on other statements."""
        return tuple(
            line
            for statement in self.adjusting
            for line in statement.lines
            if line.adjusts is not None and line.adjusts.start == self.of.start
        )

    @property
    def frozen_lines(self) -> tuple[StatementLine, ...]:
        """Its own lines."""
        return tuple(line for statement in self.frozen for line in statement.lines if line.adjusts is None)


class History(msgspec.Struct, frozen=True, dict=True):
    """A subscription, its final statements that were not voided (in order of time), and as of when these are known."""

    subscription: RatedSubscription
    finals: tuple[FinalStatement, ...]
    as_of: datetime

    @property
    def terms(self) -> rating.Subscription:
        """What rating knows of it."""
        return self.subscription.terms

    @property
    def subscriber(self) -> Subscriber:
        """Whose usage counts."""
        return Subscriber(self.subscription.account, self.subscription.key)

    @property
    def currency(self) -> Currency:
        """What it is owed in."""
        currency = currency_of(self.subscription.currency_code)
        assert currency is not None, "a subscription is in the currency of a plan, which has a minor unit"
        return currency

    @property
    def ended_at(self) -> datetime | None:
        """When it ended, where it has."""
        ends_at = self.terms.ends_at
        return ends_at if ends_at is not None and ends_at <= self.as_of else None

    @cached_property
    def begun(self) -> tuple[BillingPeriod, ...]:
        """The billing periods that have begun."""
        return tuple(billing_periods(self.terms, self.as_of + timedelta.resolution))

    def final_of(self, due: Due) -> FinalStatement | None:
        """The final statement of exactly this period."""
        closing = due.billing is None
        return next((each for each in self.finals if each.is_closing is closing and each.period == due.period), None)

    def due_at(self, instant: datetime) -> Due | None:
        """The statement that an instant belongs to; None where there is none.

        After the subscription's end closing statements follow each other, each until it was frozen, the last until now.
        """
        billing = billing_period_at(self.terms, instant)
        if billing is not None:
            return Due(billing.served, billing)
        if self.ended_at is None or instant < self.ended_at:
            return None
        frozen = (each.period for each in self.finals if each.is_closing)
        found = next((period for period in frozen if period.start <= instant < period.end), None)
        if found is not None:
            return Due(found, None)
        closing = self.closing
        return closing if closing is not None and closing.holds(instant) else None

    @property
    def closing(self) -> Due | None:
        """The closing statement that is not frozen; None before the subscription has ended."""
        if self.ended_at is None:
            return None
        start = max([self.ended_at, *(each.period.end for each in self.finals if each.is_closing)])
        return Due(Period(start, self.as_of), None) if start < self.as_of else None

    @property
    def drafts(self) -> list[Due]:
        """All that is not frozen and has begun, in order of time."""
        frozen = {each.period for each in self.finals if not each.is_closing}
        dues = [Due(each.served, each) for each in self.begun if each.served not in frozen]
        return dues if self.closing is None else [*dues, self.closing]

    def dues_ending_in(self, period: Period) -> list[Due]:
        """The statements of billing periods that end after the period's start, and at its end at the latest."""
        dues, at = [], max(period.start, self.terms.starts_at)
        while at < period.end:
            due = self.due_at(at)
            if due is None or due.billing is None:
                following = [phase.start for phase in self.terms.phases if phase.start > at]
                if not following:
                    break
                at = min(following)
                continue
            if due.period.end > period.end:
                break
            dues.append(due)
            at = due.period.end
        return dues

    def carried_by(self, due: Due) -> tuple[Carried, ...]:
        """What this statement has to make up for, if anything has changed; in order of time. Of a draft."""
        starts = {each.period.start for each in self.finals if not each.is_closing}
        starts |= {adjusted.period.start for each in self.finals for adjusted in each.evidence.adjusted}
        if not starts:
            return ()
        frozen = {each.period for each in self.finals if not each.is_closing}
        open_periods = [each.served for each in self.begun if each.served not in frozen]
        carriers = {start: next((each for each in open_periods if each.end > start), None) for start in starts}
        own = None if due.billing is None else due.period
        return tuple(self._carried(start) for start in sorted(starts) if carriers[start] == own)

    def _carried(self, start: datetime) -> Carried:
        frozen = tuple(each for each in self.finals if not each.is_closing and each.period.start == start)
        adjusting = tuple(
            each for each in self.finals if any(one.period.start == start for one in each.evidence.adjusted)
        )
        named = [one.period for each in adjusting for one in each.evidence.adjusted if one.period.start == start]
        of = frozen[-1].period if frozen else named[-1]
        billing = next((each for each in self.begun if each.served.start == start), None)
        current = None if billing is None else self.final_of(Due(billing.served, billing))
        if billing is None or current is None:
            return Carried(of, frozen, adjusting, None)
        terms = current.evidence.terms
        assert terms is not None, "a statement of a billing period has terms"
        # The discount is a fact without an instant from which on it holds: what is frozen keeps the one that it had.
        kept = msgspec.structs.replace(self.terms, discount_percent=terms.discount_percent)
        return Carried(of, frozen, adjusting, (kept, billing))


def in_order(finals: Iterable[FinalStatement]) -> tuple[FinalStatement, ...]:
    """Final statements in order of time; of those of one beginning in the order in which they were frozen."""
    return tuple(sorted(finals, key=lambda each: (each.period.start, each.id)))
