"""Global ids: opaque, and made of what names the object."""

from base64 import urlsafe_b64decode
from binascii import Error as BinasciiError
from typing import Annotated, Final

import msgspec
import strawberry

from graphql_api.pages import CursorInstant, CursorText, check_instant, encode_cursor
from metering.seal import Seal


@strawberry.interface
class Node:
    """What has a global id."""

    id: strawberry.ID = strawberry.field(description="Globally unique and opaque.")


def node_id(kind: str, *name: object) -> strawberry.ID:
    """The global id of the object of this kind and name."""
    return strawberry.ID(encode_cursor([kind, *name]))


def sealed_id(kind: str, number: int, seal: Seal) -> strawberry.ID:
    """The global id of the object of this kind whose row has this number."""
    return node_id(kind, seal.closed(kind, number))


class EventName(msgspec.Struct, frozen=True, array_like=True, tag="Event"):
    """What names a recorded event."""

    account: CursorText
    occurred_at: CursorInstant
    key: bytes

    def __post_init__(self) -> None:
        check_instant(self.occurred_at)


class RejectedEventName(msgspec.Struct, frozen=True, array_like=True, tag="RejectedEvent"):
    """What names a rejected event."""

    sealed: str


class MeterName(msgspec.Struct, frozen=True, array_like=True, tag="Meter"):
    """What names a meter."""

    key: str


class PlanName(msgspec.Struct, frozen=True, array_like=True, tag="Plan"):
    """What names a version of a plan."""

    key: str
    version: Annotated[int, msgspec.Meta(ge=1, le=2**31 - 1)]


class SubscriptionName(msgspec.Struct, frozen=True, array_like=True, tag="SubscriptionFacts"):
    """What names a subscription."""

    key: str


class AccountName(msgspec.Struct, frozen=True, array_like=True, tag="Account"):
    """What names an account."""

    key: str


class StatementName(msgspec.Struct, frozen=True, array_like=True, tag="Statement"):
    """What names a final statement, also where it was voided."""

    sealed: str


class DraftStatementName(msgspec.Struct, frozen=True, array_like=True, tag="DraftStatement"):
    """What names the statement of a period, a draft as long as it is not frozen."""

    subscription: CursorText
    start: CursorInstant

    def __post_init__(self) -> None:
        check_instant(self.start)


class CreditGrantName(msgspec.Struct, frozen=True, array_like=True, tag="CreditGrant"):
    """What names a grant of credit."""

    sealed: str


NodeName = (
    EventName
    | RejectedEventName
    | MeterName
    | PlanName
    | SubscriptionName
    | AccountName
    | StatementName
    | DraftStatementName
    | CreditGrantName
)

_NAME: Final[msgspec.json.Decoder[NodeName]] = msgspec.json.Decoder(NodeName)


def named(node_id: str) -> NodeName | None:
    """What a global id names; None where it is none of ours."""
    try:
        return _NAME.decode(urlsafe_b64decode(node_id + "=" * (-len(node_id) % 4)))
    except (BinasciiError, msgspec.DecodeError, UnicodeError, ValueError, OverflowError, RecursionError):
        return None
