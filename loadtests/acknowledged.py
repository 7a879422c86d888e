"""What a load has been told is recorded, in figures small enough to keep for millions of events; and whether it is there."""

import random
from collections import deque
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any, Final

import asyncpg
import msgspec
from live import event

SOURCE: Final = "soak"
SIZE: Final = 500
_ENCODER: Final = msgspec.json.Encoder()
# Of late events, how long ago the oldest happened.
_LATE_DAYS: Final = 20
_REPEATED_BODIES: Final = 50


class Body(msgspec.Struct, frozen=True):
    """A request: its new events have its name in their ids, `repeated` of its events were acknowledged before."""

    name: str
    text: bytes
    events: int
    quantity: Decimal
    repeated: int


class Bodies:
    """Makes requests: a share of each are events that came before, as they were sent then, and a share is days late."""

    def __init__(self, seed: int, repeated: float, late: float) -> None:
        self._rolls = random.Random(seed)
        self._repeated, self._late = repeated, late
        self._number = 0
        # Of the newest bodies that were acknowledged, some events each.
        self._before: deque[dict[str, Any]] = deque(maxlen=_REPEATED_BODIES * SIZE)

    def body(self) -> Body:
        """The next one."""
        self._number += 1
        name, now = f"{self._number:08d}", datetime.now(UTC)
        new: list[dict[str, Any]] = []
        again: list[dict[str, Any]] = []
        for place in range(SIZE):
            if self._before and self._rolls.random() < self._repeated:
                again.append(self._rolls.choice(self._before))
            else:
                new.append(self._new(f"{name}-{place}", now))
        quantity = sum((Decimal(each["quantity"]) for each in new), Decimal(0))
        # An event that stands twice in a body is repeated twice; the service counts each of them.
        return Body(name, _ENCODER.encode([*new, *again]), len(new), quantity, len(again))

    def acknowledged(self, body: Body) -> None:
        """From now on its events may be repeated."""
        self._before.extend(msgspec.json.decode(body.text)[:: SIZE // 10])

    def _new(self, name: str, now: datetime) -> dict[str, Any]:
        ago = timedelta(seconds=self._rolls.expovariate(1 / 2))
        if self._rolls.random() < self._late:
            ago = self._rolls.random() * timedelta(days=_LATE_DAYS)
        return event(self._rolls) | {"source": SOURCE, "id": name, "occurred_at": (now - ago).isoformat()}


class Acknowledged:
    """What was answered to be recorded: for each body how many new events, and all quantities together."""

    def __init__(self) -> None:
        self.events: dict[str, int] = {}
        self.quantity = Decimal(0)
        self.duplicates = 0

    def add(self, body: Body, receipt: dict[str, Any], *, is_again: bool) -> str | None:
        """Note a receipt; say what is wrong with it. A body that was sent before may have been recorded then."""
        counts = receipt["accepted"], receipt["duplicates"], len(receipt["rejected"])
        first = body.events, body.repeated, 0
        before = 0, body.events + body.repeated, 0
        self.events[body.name] = body.events
        self.quantity += body.quantity
        self.duplicates += body.repeated
        if counts == first or (is_again and counts == before):
            return None
        return f"body {body.name} of {body.events} new and {body.repeated} repeated events: {counts}"

    async def missing_or_doubled(self, connection: asyncpg.Connection) -> list[str]:
        """The bodies of which the database has more or fewer events than were acknowledged, and whether quantities differ."""
        rows = await connection.fetch(_STORED, SOURCE, timeout=1_800)
        stored = {row["name"]: row["events"] for row in rows}
        faults = [
            f"body {name}: {self.events.get(name, 0)} acknowledged, {stored.get(name, 0)} stored"
            for name in sorted(self.events.keys() | stored.keys())
            if self.events.get(name) != stored.get(name)
        ]
        quantity = sum((row["quantity"] for row in rows), Decimal(0))
        if quantity != self.quantity:
            faults.append(f"a quantity of {self.quantity} acknowledged, {quantity} stored")
        return faults


_STORED: Final = """
SELECT split_part(event_id, '-', 1) AS name, count(*) AS events, sum(quantity) AS quantity
FROM event WHERE source = $1 AND NOT voided GROUP BY 1
"""
