"""The place of a row among those in order of amounts: by currency, the largest first, and those alike by key."""

from collections.abc import Sequence
from decimal import Decimal
from typing import Final, Generic, Protocol, Self, TypeVar

import msgspec

from graphql_api.pages import CursorText, PageInfo, check_first, decode_cursor, encode_cursor, page_info
from metering.limits import Limits

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

    @classmethod
    def of(cls, placed: "Placed") -> Self:
        """The place of a row."""
        currency_code, negated, key = placed.order
        return cls(currency_code, negated.copy_negate(), key)


class Placed(Protocol):
    """A row that knows its place among the others."""

    @property
    def order(self) -> tuple[str, Decimal, str]:
        """As MoneyPlace.order has it."""


Row = TypeVar("Row", bound=Placed)


class MoneyPage(msgspec.Struct, Generic[Row], frozen=True):
    """A page of rows that are all at hand."""

    rows: list[Row]
    # All that are not on it, those before it too.
    rest: list[Row]
    cursors: list[str]
    info: PageInfo


def place_asked(first: int, after: str | None, limits: Limits, *fields: str) -> MoneyPlace | None:
    """Behind which place a page begins; `fields` lead from the root's field to it. Raises InvalidInputError."""
    check_first(first, limits, (*fields, "first"))
    return None if after is None else decode_cursor(after, MoneyPlace, (*fields, "after"))


def page_behind(found: Sequence[Row], first: int, after: str | None, limits: Limits, *fields: str) -> MoneyPage[Row]:
    """The `first` rows behind a place, of those that are found, which are in order. Raises as place_asked() does."""
    place = place_asked(first, after, limits, *fields)
    behind = [each for each in found if place is None or each.order > place.order]
    rows = behind[:first]
    on_page = {each.order for each in rows}
    cursors = [encode_cursor(MoneyPlace.of(each)) for each in rows]
    return MoneyPage(
        rows,
        rest=[each for each in found if each.order not in on_page],
        cursors=cursors,
        info=page_info(cursors, has_next=len(behind) > first, has_previous=place is not None),
    )
