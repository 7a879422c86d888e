"""Reach: whose rows a caller sees. It is made once for each request, and the snapshot that everything is read from carries it.

What lies beyond it is as if it were not there: not shown, not counted, not found, and no cursor or id leads to it. See
docs/adr/0019.
"""

from collections.abc import Collection
from typing import Final

import msgspec

from metering.events import Dimension


class Reach(msgspec.Struct, frozen=True):
    """All accounts, or some of them; and of these all rows, or those of some subscriptions, or of one user."""

    # None means all.
    accounts: frozenset[str] | None
    subscriptions: frozenset[str] | None = None
    user: str | None = None

    def __post_init__(self) -> None:
        assert self.accounts is not None or not self.is_narrow, "a part of accounts is a part of named ones"

    @property
    def is_everything(self) -> bool:
        """Whether nothing is beyond it."""
        return self.accounts is None

    @property
    def is_narrow(self) -> bool:
        """Whether it is less than whole accounts."""
        return self.subscriptions is not None or self.user is not None

    def narrowed(self) -> list[tuple[Dimension, tuple[str, ...]]]:
        """The dimensions of usage that it narrows, each with the values that are within it, in order."""
        return [
            (dimension, tuple(sorted(values)))
            for dimension, values in (
                (Dimension.ACCOUNT, self.accounts),
                (Dimension.SUBSCRIPTION, self.subscriptions),
                (Dimension.USER, None if self.user is None else [self.user]),
            )
            if values is not None
        ]

    def arguments(self) -> list[object]:
        """As a statement takes it: accounts, subscriptions, and the user; NULL where it does not narrow."""
        of = dict(self.narrowed())
        return [of.get(Dimension.ACCOUNT), of.get(Dimension.SUBSCRIPTION), self.user]

    def shows(self, account: str, subscription: str | None, user: str | None) -> bool:
        """Whether a row of these is within it; None is a row of no subscription, or of no user."""
        return (
            self.shows_account(account)
            and (self.subscriptions is None or subscription in self.subscriptions)
            and self.user in {None, user}
        )

    def shows_account(self, account: str) -> bool:
        """Whether anything of the account is within it."""
        return self.accounts is None or account in self.accounts

    def of_accounts(self, asked: Collection[str] | None) -> Collection[str] | None:
        """The accounts within it, of those that are asked for; None means all, on either side."""
        return _both(self.accounts, asked)

    def of_subscriptions(self, asked: Collection[str] | None) -> Collection[str] | None:
        """The same of subscriptions."""
        return _both(self.subscriptions, asked)


def _both(one: Collection[str] | None, other: Collection[str] | None) -> Collection[str] | None:
    if one is None or other is None:
        return other if one is None else one
    return set(one) & set(other)


EVERYTHING: Final = Reach(None)
NOTHING: Final = Reach(frozenset())
