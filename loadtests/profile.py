"""The events of the load tests: skew, batches, duplicates and lateness, stated once. See README.md."""

import random
from collections.abc import Iterator
from datetime import datetime, timedelta
from typing import Any

import msgspec

ACCOUNTS = 2_000
PRODUCTS = 8
FEATURES = 6
_ENCODER = msgspec.json.Encoder()


def events(seed: int, now: datetime, spread: timedelta) -> Iterator[dict[str, Any]]:
    """Events with random ids in the time before `now`; accounts by a power law (the first has about an eighth of all)."""
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
