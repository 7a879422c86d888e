"""How much of the usage hangs on how few users. All are of one amount for each user, zero or more."""

from collections.abc import Sequence
from math import fsum
from typing import Final

# Fewer users have shares that say nothing.
_USERS_FOR_SHARES: Final = 3
_USERS_FOR_GINI: Final = 2


def top_share(amounts: Sequence[float], count: int) -> float | None:
    """The share of the largest ones. None below three users (it says nothing), and without any usage."""
    total = fsum(amounts)
    if len(amounts) < _USERS_FOR_SHARES or total <= 0:
        return None
    return fsum(sorted(amounts, reverse=True)[:count]) / total


def effective_users(amounts: Sequence[float]) -> float | None:
    """1 / the sum of squared shares: as how many equal users they work. None without any usage."""
    total = fsum(amounts)
    return total * total / fsum(amount * amount for amount in amounts) if total > 0 else None


def bus_factor(amounts: Sequence[float]) -> int | None:
    """The fewest users who have half of it between them. None without any usage."""
    total = fsum(amounts)
    if total <= 0:
        return None
    held = 0.0
    for count, amount in enumerate(sorted(amounts, reverse=True), 1):
        held += amount
        if 2 * held >= total:
            return count
    return len(amounts)


def gini(amounts: Sequence[float]) -> float | None:
    """The Gini coefficient, corrected for few users: 0 equal, 1 one has it all. None below two, and without usage."""
    count, total = len(amounts), fsum(amounts)
    if count < _USERS_FOR_GINI or total <= 0:
        return None
    ranked = fsum(rank * amount for rank, amount in enumerate(sorted(amounts), 1))
    return (2 * ranked / (count * total) - (count + 1) / count) * count / (count - 1)
