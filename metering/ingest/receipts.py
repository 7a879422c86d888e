"""What became of each event of a request: counts, and for each refused one its index, code and path."""

from enum import Enum

import msgspec


class Code(Enum):
    """Why an event was refused. The value is stable and what programs switch on.

    Precedence: an event with several faults is refused with the first of them in this order; within one code, with
    the field that comes first in the contract's table.
    """

    MALFORMED = "malformed"
    """It is no event at all: no JSON object, no MessagePack map, no CloudEvent 1.0 with data that can be read."""
    UNKNOWN_FIELD = "unknown_field"
    """A field that no event has; it is named, never ignored."""
    MISSING_FIELD = "missing_field"
    """A required field is absent or null."""
    WRONG_TYPE = "wrong_type"
    """A field has another type than it should."""
    TIME_INVALID = "time_invalid"
    """`occurred_at` is not an RFC 3339 instant."""
    TIME_NAIVE = "time_naive"
    """`occurred_at` has no offset, so it names no instant."""
    QUANTITY_NOT_A_NUMBER = "quantity_not_a_number"
    """`quantity` is not a finite decimal number."""
    QUANTITY_OUT_OF_RANGE = "quantity_out_of_range"
    """`quantity` has more digits than are kept exactly; it is refused, not rounded."""
    TEXT_INVALID = "text_invalid"
    """A text is empty, too long, or holds a NUL character."""
    ATTRIBUTES_INVALID = "attributes_invalid"
    """`attributes` is not an object of scalars, or too large."""
    TIME_TOO_EARLY = "time_too_early"
    """`occurred_at` lies before anything that is kept."""
    OUTSIDE_RETENTION = "outside_retention"
    """`occurred_at` lies further back than this service retains events."""
    TIME_IN_FUTURE = "time_in_future"
    """`occurred_at` lies further ahead than clocks differ."""
    ACCOUNT_FORBIDDEN = "account_forbidden"
    """The key may write only for other accounts."""
    IDENTITY_CONFLICT = "identity_conflict"
    """An event of this account, source and id is recorded with other content; the first stays."""


class Rejection(msgspec.Struct, frozen=True, omit_defaults=True):
    """One refused event: its index in the request, its id as far as it could be read, the reason, and where."""

    index: int
    code: Code
    message: str
    id: str | None = None
    path: str | None = None


class Receipt(msgspec.Struct, frozen=True):
    """What became of a request's events; accepted + duplicates + rejected is all of them.

    A refused atomic request has accepted and duplicates 0: nothing of it was looked at further.
    """

    accepted: int
    duplicates: int
    rejected: tuple[Rejection, ...]
