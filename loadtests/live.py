"""Events as they come in: so many a second, of sessions as dataset.py has them, a few seconds after they happened."""

import asyncio
import random
import time
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, Self

import msgspec
from client import Client

ACCOUNTS = 2_000
_SIZE = 1_000
_SECONDS_BETWEEN = 10
_SESSION_SECONDS = 600
_CONNECTIONS = 4
# Most events come within seconds, one request in two hundred minutes later.
_LATE_SECONDS = 2.0
_VERY_LATE = 0.005
_VERY_LATE_SECONDS = 600
_ENCODER = msgspec.json.Encoder()
_ID = b"@@@@@@@@"
_AT = b"####-##-##T##:##:##.######+##:##"


def account_of(rolls: random.Random) -> int:
    """An account by its share of all events: the first has an eleventh."""
    return int(ACCOUNTS ** rolls.random()) - 1


class Live:
    """Sends until it is stopped; what the service does not take at once waits, so the rate may fall but is never exceeded."""

    def __init__(self, address: str, events_per_second: int) -> None:
        self._address = address
        self._every_seconds = _SIZE / events_per_second
        self._rolls = random.Random(time.time_ns())
        # As many bodies as go round in the time between two events of a session: each event of a body is of another one.
        self._bodies = [self._body() for _ in range(max(1, events_per_second * _SECONDS_BETWEEN // _SIZE))]
        self._number = 0
        self._tasks: list[asyncio.Task[None]] = []
        self.accepted = 0

    async def __aenter__(self) -> Self:
        clients = [await Client.connect(self._address) for _ in range(_CONNECTIONS)]
        self._started = time.monotonic()
        self._tasks = [asyncio.create_task(self._send(client)) for client in clients]
        return self

    async def __aexit__(self, *exception: object) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def check(self) -> None:
        """Raise what went wrong in sending."""
        for task in self._tasks:
            if task.done():
                task.result()

    @property
    def seconds(self) -> float:
        """For how long it has been sending."""
        return time.monotonic() - self._started

    async def _send(self, client: Client) -> None:
        while True:
            number, self._number = self._number, self._number + 1
            await asyncio.sleep(self._started + number * self._every_seconds - time.monotonic())
            place = number % len(self._bodies)
            # Sessions end: the next ones take their place, one body of them at a time.
            if self._rolls.random() < _SECONDS_BETWEEN / _SESSION_SECONDS:
                self._bodies[place] = self._body()
            status, answer = await client.post(self._stamped(self._bodies[place]))
            if status != 200:
                raise SystemExit(f"{status}: {answer.decode()}")
            self.accepted += msgspec.json.decode(answer)["accepted"]

    def _stamped(self, body: bytes) -> bytes:
        late = _VERY_LATE_SECONDS if self._rolls.random() < _VERY_LATE else self._rolls.expovariate(1 / _LATE_SECONDS)
        at = datetime.now(UTC) - timedelta(seconds=late)
        stamp = at.isoformat(timespec="microseconds").encode()
        return body.replace(_AT, stamp).replace(_ID, b"%08x" % self._rolls.getrandbits(32))

    def _body(self) -> bytes:
        return _ENCODER.encode([self._event() for _ in range(_SIZE)])

    def _event(self) -> dict[str, Any]:
        return event(self._rolls) | {
            "occurred_at": _AT.decode(),
            "id": f"{self._rolls.getrandbits(96):024x}" + _ID.decode(),
        }


def event(rolls: random.Random) -> dict[str, Any]:
    """An event of a session, but for its id and its time."""
    rank = account_of(rolls)
    person = rolls.randrange(3 + 1_500 // (rank + 1))
    product = rolls.randrange(8)
    return {
        "source": "live",
        "account": f"account-{rank:04d}",
        "subscription": f"team-{person % 4}",
        "user": f"user-{person}",
        "device": f"user-{person}-{'phone' if rolls.random() < 0.4 else 'desktop'}",
        "product": f"product-{product}",
        "feature": f"feature-{product}-{rolls.randrange(6)}",
        "classification": "trial" if rank % 20 == 19 else "billable",
        "unit": "call" if product % 2 else "gigabyte",
        "quantity": f"{rolls.randrange(1, 65_536) / 1_000:.3f}",
    }


def late_bodies(count: int, days: int, classification: str) -> Sequence[bytes]:
    """So many events of the last days, each at a time of its own, as bodies of ten thousand."""
    rolls = random.Random(time.time_ns())
    now = datetime.now(UTC)
    span = timedelta(days=days).total_seconds()

    def late() -> dict[str, Any]:
        at = now - timedelta(seconds=3_600 + rolls.random() * span)
        named = {
            "id": f"{rolls.getrandbits(128):032x}",
            "occurred_at": at.isoformat(),
            "classification": classification,
        }
        return event(rolls) | named

    return [_ENCODER.encode([late() for _ in range(10_000)]) for _ in range(count // 10_000)]
