"""Charges by customer: what each was charged in a period, and in one before; the parts add up to the charges of both."""

from collections.abc import Iterable
from decimal import Decimal

import msgspec

from metering.errors import InputIssue, InvalidInputError
from metering.events import Dimension
from metering.limits import Limits
from metering.periods import Period
from metering.questions import Question, ask
from metering.statements.charges import Charges, read_charges
from metering.store.snapshot import Snapshot
from rating.exact import add, subtract
from rating.money import Currency, Money


class CustomerCharges(msgspec.Struct, frozen=True):
    """What an account was charged in one currency."""

    account: str
    before: Money
    after: Money

    @property
    def difference(self) -> Money:
        """What it was charged more, or (below zero) less."""
        return Money(subtract(self.after.amount, self.before.amount), self.after.currency)

    @property
    def order(self) -> tuple[str, Decimal, str]:
        """By currency, the biggest difference first, whichever way it goes; those alike by account."""
        return self.after.currency.code, self.difference.amount.copy_abs().copy_negate(), self.account


class ChargesTotal(msgspec.Struct, frozen=True):
    """What customers were charged together in one currency."""

    before: Money
    after: Money


async def read_customer_charges(
    snapshot: Snapshot, period: Period, compared_with: Period, limits: Limits
) -> list[CustomerCharges]:
    """Every customer with an amount in either period, in order.

    Raises InvalidInputError, with paths that lead from the arguments `period` and `comparedWith`; TooLargeError.
    """
    asked = {"comparedWith": compared_with, "period": period}
    questions: dict[str, Question] = {}
    issues: list[InputIssue] = []
    for name, each in asked.items():
        try:
            questions[name] = _question(each, limits)
        except InvalidInputError as error:
            issues += _issues(error, name)
    if issues:
        raise InvalidInputError(issues)
    found = {name: await _charges(snapshot, name, question, limits) for name, question in questions.items()}
    before, after = _amounts(found["comparedWith"]), _amounts(found["period"])
    customers = []
    for account, currency in before.keys() | after.keys():
        nothing = Money(currency.zero, currency)
        place = account, currency
        customers.append(CustomerCharges(account, before.get(place, nothing), after.get(place, nothing)))
    return sorted(customers, key=lambda each: each.order)


def totals_of(customers: Iterable[CustomerCharges]) -> list[ChargesTotal]:
    """What they come to, by currency."""
    sums: dict[Currency, ChargesTotal] = {}
    for each in customers:
        currency = each.after.currency
        nothing = Money(currency.zero, currency)
        known = sums.get(currency, ChargesTotal(nothing, nothing))
        sums[currency] = ChargesTotal(_plus(known.before, each.before), _plus(known.after, each.after))
    return [sums[currency] for currency in sorted(sums, key=lambda each: each.code)]


def _question(period: Period, limits: Limits) -> Question:
    return ask(period=period, zone_name="UTC", group_by=(Dimension.ACCOUNT,), filters={}, limits=limits)


async def _charges(snapshot: Snapshot, name: str, question: Question, limits: Limits) -> Charges:
    try:
        return await read_charges(snapshot, question, limits)
    except InvalidInputError as error:
        raise InvalidInputError(_issues(error, name)) from error


def _issues(error: InvalidInputError, name: str) -> list[InputIssue]:
    """Charges are asked for by a query with one period; here there are two of them."""
    return [InputIssue((name, *issue.path[2:]), issue.message) for issue in error.issues]


def _amounts(charges: Charges) -> dict[tuple[str, Currency], Money]:
    found: dict[tuple[str, Currency], Money] = {}
    for group in charges.groups:
        (account,) = group.key
        assert account is not None, "a statement is an account's"
        found |= {(account, money.currency): money for money in group.totals}
    return found


def _plus(one: Money, other: Money) -> Money:
    return Money(add(one.amount, other.amount), one.currency)
