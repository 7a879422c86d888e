"""The events of the load tests: skew, batches, duplicates and lateness, stated once. See README.md."""

import random
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec

ACCOUNTS = 2_000
PRODUCTS = 8
FEATURES = 6
_ENCODER = msgspec.json.Encoder()
# Stand in ids for what makes them new each time that a body is sent, or the same as when it was sent first.
_NEW = b"@@@@@@@@"
_SEEN = b"########"
# Stands for when the events of a body happened: a little before it is sent, as a service's buffer is sent after a moment.
_AT = "%%%%-%%-%%T%%:%%:%%.%%%%%%+%%:%%"
_LATE_SECONDS = 2.0


def events(seed: int, now: datetime, spread: timedelta) -> Iterator[dict[str, Any]]:
    """Events with random ids in the time before `now`; accounts by a power law (the first has about an eleventh of all)."""
    rolls = random.Random(seed)
    seconds = spread.total_seconds()
    while True:
        account = int(ACCOUNTS ** rolls.random()) - 1
        user = rolls.randrange(1 + account % 20)
        product = rolls.randrange(PRODUCTS)
        yield {
            "id": f"{rolls.getrandbits(128):032x}",
            "source": "loadtest",
            "occurred_at": (now - timedelta(seconds=rolls.random() * seconds)).isoformat(),
            "account": f"account-{account:04d}",
            "subscription": f"account-{account:04d}-team",
            "user": f"user-{user}",
            "device": f"user-{user}-{'phone' if rolls.random() < 0.4 else 'desktop'}",
            "product": f"product-{product}",
            "feature": f"feature-{product}-{rolls.randrange(FEATURES)}",
            "classification": "billable",
            "unit": "call" if product % 2 else "gigabyte",
            "quantity": f"{rolls.randrange(1, 100_000) / 1_000:.3f}",
        }


def bodies(seed: int, now: datetime, spread: timedelta, size: int, count: int) -> list[bytes]:
    """So many request bodies of so many events each, as JSON arrays."""
    stream = events(seed, now, spread)
    return [_ENCODER.encode([next(stream) for _ in range(size)]) for _ in range(count)]


class Templates:
    """Bodies that can be sent again and again as new events: making each from nothing would cost as much as taking it."""

    def __init__(self, seed: int, size: int, duplicates: float = 0) -> None:
        self._rolls = random.Random(seed)
        stream = events(seed, datetime.now(UTC), timedelta(minutes=1))
        self._first = self._token()
        self._templates = [
            _ENCODER.encode([self._marked(next(stream), duplicates) for _ in range(size)])
            for _ in range(max(1, 20_000 // size))
        ]
        self._next = 0

    def body(self) -> bytes:
        """The next body: it happened now, and its ids are new, but for the share that repeats what it was sent with first."""
        template = self._templates[self._next]
        self._next = (self._next + 1) % len(self._templates)
        at = datetime.now(UTC) - timedelta(seconds=self._rolls.expovariate(1 / _LATE_SECONDS))
        stamp = at.isoformat(timespec="microseconds").encode()
        return template.replace(_AT.encode(), stamp).replace(_NEW, self._token()).replace(_SEEN, self._first)

    def _token(self) -> bytes:
        return b"%08x" % self._rolls.getrandbits(32)

    def _marked(self, event: dict[str, Any], duplicates: float) -> dict[str, Any]:
        marker = _SEEN if self._rolls.random() < duplicates else _NEW
        return event | {"id": event["id"][8:] + marker.decode(), "occurred_at": _AT}
