"""The place of a row among those in order of amounts: by currency, the largest first, and those alike by key."""

from decimal import Decimal
from typing import Final

import msgspec

from graphql_api.pages import CursorText

# Far more than amounts have.
_DIGITS_MAX: Final = 100


class MoneyPlace(msgspec.Struct, frozen=True, array_like=True):
    """What a cursor holds; of rows in order of differences the amount has no sign."""

    currency_code: CursorText
    amount: Decimal
    key: CursorText

    def __post_init__(self) -> None:
        if not (self.amount.is_finite() and abs(self.amount.adjusted()) <= _DIGITS_MAX):
            raise ValueError("no amount is like this")

    @property
    def order(self) -> tuple[str, Decimal, str]:
        """What places are compared by."""
        return self.currency_code, self.amount.copy_negate(), self.key
