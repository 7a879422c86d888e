"""Keyset pages: a cursor holds the place of a row in its order, so pages stay stable while rows come and go."""

from base64 import urlsafe_b64decode, urlsafe_b64encode
from binascii import Error as BinasciiError
from collections.abc import Awaitable, Callable
from datetime import datetime
from typing import Annotated, Generic, Protocol, TypeVar

import msgspec
import strawberry

from metering.errors import InputIssue, InvalidInputError
from metering.events import in_utc
from metering.limits import Limits
from metering.seal import Seal

Place = TypeVar("Place")
Item = TypeVar("Item")
Row = TypeVar("Row")
# What stands in a cursor may be anybody's: a text without NUL and an instant with an offset are what the database takes.
CursorText = Annotated[str, msgspec.Meta(pattern=r"\A[^\0]*\Z")]
CursorInstant = Annotated[datetime, msgspec.Meta(tz=True)]


@strawberry.type
class PageInfo:
    """Where a page stands."""

    has_next_page: bool
    has_previous_page: bool
    start_cursor: str | None
    end_cursor: str | None


@strawberry.type
class Edge(Generic[Item]):
    """An item and its place."""

    node: Item
    cursor: str


@strawberry.type
class Connection(Generic[Item]):
    """One page of items."""

    edges: list[Edge[Item]]
    nodes: list[Item]
    page_info: PageInfo


def page_info(cursors: list[str], *, has_next: bool, has_previous: bool) -> PageInfo:
    """The info of a page with these cursors."""
    return PageInfo(
        has_next_page=has_next,
        has_previous_page=has_previous,
        start_cursor=cursors[0] if cursors else None,
        end_cursor=cursors[-1] if cursors else None,
    )


def edges_of(nodes: list[Item], cursors: list[str]) -> list[Edge[Item]]:
    """The nodes of a page, each with its cursor."""
    return [Edge(node=node, cursor=cursor) for node, cursor in zip(nodes, cursors, strict=True)]


def page_of(nodes: list[Item], cursors: list[str], *, has_next: bool, has_previous: bool) -> Connection[Item]:
    """A page of these nodes."""
    info = page_info(cursors, has_next=has_next, has_previous=has_previous)
    return Connection(edges=edges_of(nodes, cursors), nodes=nodes, page_info=info)


class Keyed(Protocol):
    """What a key names within its list."""

    key: str


KeyedItem = TypeVar("KeyedItem", bound=Keyed)


class _KeyPlace(msgspec.Struct, frozen=True, array_like=True):
    """What a cursor of a list by key holds."""

    key: CursorText


async def page_by_key(
    first: int,
    after: str | None,
    limits: Limits,
    read: Callable[[int, str | None], Awaitable[tuple[list[Row], bool]]],
    shown: Callable[[Row], KeyedItem],
) -> Connection[KeyedItem]:
    """A page of a list by key, of what `read` finds after a key. Raises InvalidInputError for one that may not be asked for."""
    check_first(first, limits, ("first",))
    place = decode_cursor(after, _KeyPlace, ("after",)) if after else None
    found, has_next = await read(first, None if place is None else place.key)
    nodes = [shown(row) for row in found]
    cursors = [encode_cursor(_KeyPlace(node.key)) for node in nodes]
    return page_of(nodes, cursors, has_next=has_next, has_previous=place is not None)


def encode_cursor(place: object) -> str:
    """A place as an opaque cursor."""
    return urlsafe_b64encode(msgspec.json.encode(place)).rstrip(b"=").decode()


def decode_cursor(cursor: str, place_type: type[Place], path: tuple[str, ...]) -> Place:
    """The place that a cursor holds. Raises InvalidInputError for one that is not of this kind of page.

    A place that a type alone does not describe is checked in its __post_init__, by a ValueError or an OverflowError.
    """
    try:
        return msgspec.json.decode(urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4)), type=place_type)
    except (BinasciiError, msgspec.DecodeError, UnicodeError, ValueError, OverflowError, RecursionError) as error:
        raise _forged(path) from error


def opened(seal: Seal, kind: str, sealed: str, path: tuple[str, ...]) -> int:
    """The number that a cursor holds sealed. Raises InvalidInputError for one that was not sealed here."""
    number = seal.opened(kind, sealed)
    if number is None:
        raise _forged(path)
    return number


def _forged(path: tuple[str, ...]) -> InvalidInputError:
    return InvalidInputError(
        [InputIssue(path, "This cursor is not one of this list; pass an `endCursor` back unchanged.")]
    )


def check_instant(instant: datetime) -> None:
    """Raise OverflowError for an instant that is none in UTC: the first and the last day of all calendars, with an offset."""
    in_utc(instant)


def check_first(first: int, limits: Limits, path: tuple[str, ...]) -> None:
    """Raise InvalidInputError unless a page of this size may be asked for."""
    if not 1 <= first <= limits.page_rows_max:
        raise InvalidInputError(
            [InputIssue(path, f"`first` must be 1 to {limits.page_rows_max:,}; this is {first:,}.")]
        )
