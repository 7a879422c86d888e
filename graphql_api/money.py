"""Money: an amount with its currency, written with all of the currency's minor digits."""

import strawberry

from graphql_api.scalars import Amount, CurrencyCode, DecimalText
from rating import money


@strawberry.type
class Money:
    """An amount that is owed."""

    amount: DecimalText
    currency_code: CurrencyCode


def money_of(owed: money.Money) -> Money:
    """Money as the API shows it."""
    return Money(amount=DecimalText(Amount(owed.amount)), currency_code=CurrencyCode(owed.currency.code))
