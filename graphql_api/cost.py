"""What operations cost, and what a key may spend on them: a budget that fills by the second.

An operation costs one for each field at its root, and one for each point of its series; the points are known, and paid for,
before any is computed. Budgets are of this process alone: a question stays free of writes (docs/adr/0023).
"""

import math
import time
from collections.abc import Callable
from typing import Any, Final

from metering.errors import ThrottledError, TooLargeError

# A budget that was not touched holds a minute of it.
BURST_SECONDS: Final = 60
_BUDGETS_MAX: Final = 10_000


class Budget:
    """What one key may still spend. It may owe: what is larger than a full budget is taken from a full one."""

    def __init__(self, cost_per_second: int, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._filled_at = clock()
        self.restore_rate = cost_per_second
        self.maximum = cost_per_second * BURST_SECONDS
        self._available = float(self.maximum)

    def available(self) -> int:
        """What may be spent now; never less than nothing."""
        self._fill()
        return max(0, math.floor(self._available))

    def is_full(self) -> bool:
        """Whether nothing is missing."""
        self._fill()
        return self._available >= self.maximum

    def spend(self, cost: int) -> None:
        """Take so much out. Raises ThrottledError, and takes nothing, when that is not there."""
        self._fill()
        needed = min(cost, self.maximum)
        if self._available < needed:
            raise ThrottledError(cost, self.available(), math.ceil((needed - self._available) / self.restore_rate))
        self._available -= cost

    def _fill(self) -> None:
        now = self._clock()
        self._available = min(self.maximum, self._available + (now - self._filled_at) * self.restore_rate)
        self._filled_at = now


class Budgets:
    """The budgets of all keys that ask this process; none where no rate is set."""

    def __init__(self, cost_per_second: int | None, clock: Callable[[], float] = time.monotonic) -> None:
        self._cost_per_second = cost_per_second
        self._clock = clock
        self._budgets: dict[str, Budget] = {}

    def of(self, sender: str) -> Budget | None:
        """The budget of one key; callers without a key share that of the empty name."""
        if self._cost_per_second is None:
            return None
        if sender not in self._budgets:
            if len(self._budgets) >= _BUDGETS_MAX:
                # A full budget is as good as a new one.
                self._budgets = {name: budget for name, budget in self._budgets.items() if not budget.is_full()}
            self._budgets[sender] = Budget(self._cost_per_second, self._clock)
        return self._budgets[sender]


class Cost:
    """What one operation costs."""

    def __init__(self, budget: Budget | None = None) -> None:
        self._budget = budget
        self.requested = 0
        self.points = 0

    def begin(self, root_fields: int) -> None:
        """Pay for what is known before anything runs. Raises ThrottledError."""
        if self._budget is not None:
            self._budget.spend(root_fields)
        self.requested += root_fields

    def take(self, points: int, maximum: int) -> None:
        """Pay for points that are about to be computed: all of the operation's together are at most `maximum`.

        Raises TooLargeError or ThrottledError; then they are not paid for.
        """
        if self.points + points > maximum:
            raise TooLargeError(self.points + points, maximum)
        if self._budget is not None:
            self._budget.spend(points)
        self.points += points

    def told(self) -> dict[str, Any]:
        """As an answer's extension `cost` tells it."""
        told: dict[str, Any] = {
            "requestedQueryCost": self.requested,
            "actualQueryCost": self.requested + self.points,
        }
        budget = self._budget
        if budget is not None:
            told["throttleStatus"] = {
                "maximumAvailable": budget.maximum,
                "currentlyAvailable": budget.available(),
                "restoreRate": budget.restore_rate,
            }
        return told
