"""A usage event as a producer sends it, and as it is recorded."""

from collections.abc import Mapping
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from enum import Enum
from hashlib import blake2b

import msgspec

# What an attribute may be: it is shown and searched, never added up, so a number may be a binary float.
Scalar = str | int | float | bool | None


class Dimension(Enum):
    """What usage can be filtered and grouped by; the value is the column's name."""

    ACCOUNT = "account"
    SUBSCRIPTION = "subscription"
    USER = "user"
    DEVICE = "device"
    PRODUCT = "product"
    FEATURE = "feature"
    CLASSIFICATION = "classification"
    UNIT = "unit"


class UsageEvent(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, gc=False):
    """One metered event, in the words of the contract; `source` may come from the API key instead."""

    id: str
    occurred_at: datetime
    account: str
    product: str
    unit: str
    source: str | None = None
    subscription: str | None = None
    user: str | None = None
    device: str | None = None
    feature: str | None = None
    classification: str | None = None
    quantity: Decimal = Decimal(1)
    attributes: dict[str, Scalar] | None = None


class AdmittedEvent(msgspec.Struct, frozen=True, gc=False):
    """An event that may be written: every field checked, the time in UTC, its name and content hashed."""

    event: UsageEvent
    source: str
    occurred_at: datetime
    # All that it says besides its name and time: see `joined_values`.
    values: str
    key: bytes
    content: bytes
    # The UTC days for which it claims its name: its own, and the neighbour within the re-stamp window.
    days: tuple[date, ...]


_KEY_BYTES = 16
_ATTRIBUTES = msgspec.json.Encoder(order="sorted")


def identity_key(source: str, event_id: str) -> bytes:
    """The 128-bit name of an event within its account. NUL is in no text that we take, so it separates safely."""
    return blake2b(f"{source}\0{event_id}".encode(), digest_size=_KEY_BYTES).digest()


def joined_values(event: UsageEvent, quantity: str, attributes: str | None) -> str:
    """All that an event says besides its name and time, joined by NUL, which is in no text that we take.

    The quantity comes in plain notation: 1.50 and 1.5 are one quantity, so they have one spelling. The attributes come as
    the JSON that is stored. No text is empty, so what is absent is.
    """
    return "\0".join(
        (
            event.subscription or "",
            event.user or "",
            event.device or "",
            event.product,
            event.feature or "",
            event.classification or "",
            event.unit,
            quantity,
            attributes or "",
        )
    )


def content_hash(values: str) -> bytes:
    """A 128-bit hash of an event's joined values: what tells a duplicate from a conflict."""
    return blake2b(values.encode(), digest_size=_KEY_BYTES).digest()


def claimed_days(occurred_at: datetime, restamp_window: timedelta) -> tuple[date, ...]:
    """The UTC days on which an event of this instant claims its name, ascending; the event's own day is among them.

    Within the window of a midnight the neighbouring day is claimed too, by a guarding row, so that a producer that
    stamps a new time on each retry is counted once although the retry falls on the other day.
    """
    own = occurred_at.date()
    before = (occurred_at - restamp_window).date()
    after = (occurred_at + restamp_window).date()
    if before == own == after:
        return (own,)
    return tuple(sorted({own, before, after}))


def sorted_attributes(attributes: Mapping[str, Scalar] | None) -> str | None:
    """The attributes as canonical JSON (keys sorted), so that equal attributes are equal text."""
    if not attributes:
        return None
    return _ATTRIBUTES.encode(attributes).decode()


def in_utc(instant: datetime) -> datetime:
    """The same instant, in UTC."""
    return instant if instant.tzinfo is UTC else instant.astimezone(UTC)
