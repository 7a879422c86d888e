"""Cross-selling: which product goes with which, by what customers use together."""

from collections.abc import Mapping
from typing import Final

import msgspec

from health.backtest import wilson

# Below so many customers of a product, what goes with it says nothing.
USERS_MIN: Final = 30
LIFT_ABOVE: Final = 1.0
"""How many times as common a product has to be among the customers of another one, at the least that is likely."""
BLIND: Final = (
    "what was offered and refused, and that products may exclude each other; it is an association, not a cause"
)


class Offer(msgspec.Struct, frozen=True, kw_only=True):
    """A product that goes with one that is used. Of `users` of that one, `both` use it too.

    `lift` is how many times as common it is among them as among all, by the lower bound of their share (Wilson, 95 %).
    """

    used: str
    offered: str
    users: int
    both: int
    lift: float


def offers(together: Mapping[tuple[str, str], int], customers: int) -> list[Offer]:
    """What goes with what, the strongest first. `together` is how many of so many customers use both products; of a product
    with itself, how many use it.
    """
    found = []
    for (used, offered), both in together.items():
        users, of_offered = together[used, used], together[offered, offered]
        if used == offered or users < USERS_MIN:
            continue
        lift = wilson(both, users)[0] * customers / of_offered
        if lift > LIFT_ABOVE:
            found.append(Offer(used=used, offered=offered, users=users, both=both, lift=lift))
    return sorted(found, key=lambda offer: (-offer.lift, offer.used, offer.offered))
