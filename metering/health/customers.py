"""Customers as lists: accounts by key, score, amount or renewal; the portfolio by band; the users of an account."""

from collections.abc import Sequence
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from enum import Enum
from itertools import groupby
from operator import itemgetter
from typing import Any, Final

import msgspec

from metering.errors import InputIssue, InvalidInputError
from metering.health.known import midnight_after
from metering.limits import Limits
from metering.store.queries import sql
from metering.store.snapshot import Snapshot

# Accounts that were never put are customers by usage of so many days, and users by usage of so many.
_CUSTOMERS_SEEN: Final = timedelta(days=112)
_USERS_SEEN: Final = timedelta(days=366)
_GROUPS_MAX: Final = 3


class CustomerField(Enum):
    """What customers are put in order by. Amounts are of accounts with one currency; a change is over 28 days."""

    KEY = "KEY"
    SCORE = "SCORE"
    SCORE_CHANGE = "SCORE_CHANGE"
    MONTHLY_AMOUNT = "MONTHLY_AMOUNT"
    RENEWS_AT = "RENEWS_AT"


class CustomerFilter(msgspec.Struct, frozen=True, kw_only=True):
    """Which customers; None and empty keep all."""

    bands: tuple[str, ...] | None = None
    # A JSON object that the account's contain.
    attributes: str | None = None
    text: str | None = None
    renews_before: datetime | None = None


class CustomerOrder(msgspec.Struct, frozen=True):
    """In which order."""

    field: CustomerField
    descending: bool

    @property
    def is_of_scores(self) -> bool:
        """Whether it tells scores."""
        return self.field in {CustomerField.SCORE, CustomerField.SCORE_CHANGE}


class Customer(msgspec.Struct, frozen=True):
    """A customer; `name` is None where the account was never put. `place` is the value that it is put in order by."""

    key: str
    name: str | None
    # A JSON object.
    attributes: str
    place: Decimal | None = None


class CustomerPage(msgspec.Struct, frozen=True):
    """A page, and how many customers there are in all."""

    customers: tuple[Customer, ...]
    total: int
    has_next: bool


class PortfolioCell(msgspec.Struct, frozen=True):
    """Customers that have a band and attributes in common; amounts are of a month, by currency.

    By quarter, `renews_in` is the first day of the one in which what is paid renews; None where that is not said.
    """

    key: dict[str, Any]
    band: str
    accounts: int
    amounts: dict[str, Decimal]
    renews_in: date | None = None


class AccountUser(msgspec.Struct, frozen=True):
    """A user of an account: when it was last active (the day's beginning, where events are not kept any more)."""

    key: str
    last_used_at: datetime | None
    active_days: int


class UsersAsked(msgspec.Struct, frozen=True):
    """Which users of an account are asked for: the first by key, from behind one on."""

    account: str
    first: int
    after: str | None = None


class UserPage(msgspec.Struct, frozen=True):
    """A page, and how many users there are in all."""

    users: tuple[AccountUser, ...]
    total: int
    has_next: bool


async def find_customer(snapshot: Snapshot, key: str) -> Customer | None:
    """The customer of this key, within reach: an account that was put, or has subscriptions or usage."""
    if "\0" in key or not snapshot.reach.shows_account(key):
        return None
    _, subscriptions, user = snapshot.reach.arguments()
    rows = await snapshot.fetch(sql("customers.find_customer"), [key, subscriptions, user is not None])
    return _customer(rows[0]) if rows else None


async def list_customers(
    snapshot: Snapshot, chosen: CustomerFilter, order: CustomerOrder, first: int, after: Customer | None
) -> CustomerPage:
    """The first customers in an order, from behind one on. One statement."""
    accounts, subscriptions, user = snapshot.reach.arguments()
    now = (await snapshot.horizon()).as_of
    text = chosen.text
    if text is not None and "\0" in text:
        return CustomerPage((), 0, has_next=False)
    rows = await snapshot.fetch(
        sql("customers.list_customers"),
        [
            *(accounts, subscriptions, user is not None, now - _CUSTOMERS_SEEN, now, now.astimezone(UTC).date()),
            order.is_of_scores or chosen.bands is not None,
            None if chosen.bands is None else [band for band in chosen.bands if "\0" not in band],
            *(chosen.attributes, text, chosen.renews_before, order.field.value, -1 if order.descending else 1),
            *((None, None) if after is None else (after.key, after.place)),
            first + 1,
        ],
    )
    found = [
        Customer(row["key"], row["name"], row["attributes"], row["place"]) for row in rows if row["key"] is not None
    ]
    return CustomerPage(tuple(found[:first]), rows[0]["customers"], has_next=len(found) > first)


async def read_portfolio(
    snapshot: Snapshot, group_by: Sequence[str], purpose: str, day: date, limits: Limits, *, by_quarter: bool = False
) -> list[PortfolioCell]:
    """How many customers are in each band, and what they pay a month, by attributes, as of a UTC day; also by when it renews.

    Raises InvalidInputError for more attributes, or more cells, than one answer may have.
    """
    if len(group_by) > _GROUPS_MAX or len(set(group_by)) < len(group_by):
        message = f"At most {_GROUPS_MAX} attributes, each once."
        raise InvalidInputError([InputIssue(("groupBy",), message)])
    if not limits.asked_from_min.date() <= day < limits.asked_to_max.date():
        message = f"This must be from {limits.asked_from_min:%F} on and before {limits.asked_to_max:%F}."
        raise InvalidInputError([InputIssue(("asOf",), message)])
    if any("\0" in text for text in (*group_by, purpose)):
        raise InvalidInputError([InputIssue(("groupBy",), "A NUL character, which no text can keep.")])
    accounts, _, _ = snapshot.reach.arguments()
    end = midnight_after(day)
    rows = await snapshot.fetch(
        sql("customers.read_portfolio"),
        [accounts, purpose, day, end, end - _CUSTOMERS_SEEN, list(group_by), limits.page_rows_max + 1, by_quarter],
    )
    if len(rows) > limits.page_rows_max:
        message = f"This is more than {limits.page_rows_max:,} cells; group by an attribute of fewer values."
        raise InvalidInputError([InputIssue(("groupBy",), message)])
    cells: dict[tuple[str, str, date | None], PortfolioCell] = {}
    for row in rows:
        place = row["key"], row["band"], row["renews_in"]
        if row["is_total"]:
            key = msgspec.json.decode(row["key"])
            cells[place] = PortfolioCell(key, row["band"], row["accounts"], {}, row["renews_in"])
        elif row["monthly_amount"] is not None:
            cells[place].amounts[row["currency_code"]] = row["monthly_amount"]
    return list(cells.values())


async def list_account_users(
    snapshot: Snapshot, asked: Sequence[UsersAsked], *, only: str | None = None
) -> list[UserPage]:
    """A page of users by key for each that is asked for; or one user only. One statement for all."""
    _, subscriptions, user = snapshot.reach.arguments()
    assert only is None or user in {None, only}, "one user's caller sees no other"
    pages = [UserPage((), 0, has_next=False) for _ in asked]
    shown = {
        place: each
        for place, each in enumerate(asked)
        if snapshot.reach.shows_account(each.account) and "\0" not in each.account
    }
    if not shown:
        return pages
    horizon = await snapshot.horizon()
    today = horizon.as_of.astimezone(UTC).date()
    days_end = midnight_after(horizon.complete_at.astimezone(UTC).date() - timedelta(days=1))
    rows = await snapshot.fetch(
        sql("customers.list_users"),
        [
            [each.account for each in shown.values()],
            *(today, today + timedelta(days=1), today - _USERS_SEEN, days_end, horizon.complete_at),
            *(subscriptions, only or user, [each.after for each in shown.values()]),
            *([each.first + 1 for each in shown.values()], horizon.has_pending),
        ],
    )
    by_place = {number: list(of_page) for number, of_page in groupby(rows, itemgetter("place"))}
    for number, (place, each) in enumerate(shown.items(), start=1):
        of_page = by_place[number]
        found = [AccountUser(row["key"], row["last_used_at"], row["days"]) for row in of_page if row["key"] is not None]
        pages[place] = UserPage(tuple(found[: each.first]), of_page[0]["users"], has_next=len(found) > each.first)
    return pages


def _customer(row: Any) -> Customer:
    return Customer(row["key"], row["name"], row["attributes"])
