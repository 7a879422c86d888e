"""Keyset pages: a cursor holds the place of a row in its order, so pages stay stable while rows come and go."""

from base64 import urlsafe_b64decode, urlsafe_b64encode
from binascii import Error as BinasciiError
from datetime import datetime
from typing import Annotated, TypeVar

import msgspec
import strawberry

from metering.errors import InputIssue, InvalidInputError
from metering.events import in_utc
from metering.limits import Limits

Place = TypeVar("Place")
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


def page_info(cursors: list[str], *, has_next: bool, has_previous: bool) -> PageInfo:
    """The info of a page with these cursors."""
    return PageInfo(
        has_next_page=has_next,
        has_previous_page=has_previous,
        start_cursor=cursors[0] if cursors else None,
        end_cursor=cursors[-1] if cursors else None,
    )


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
        raise InvalidInputError(
            [InputIssue(path, "This cursor is not one of this list; pass an `endCursor` back unchanged.")]
        ) from error


def check_instant(instant: datetime) -> None:
    """Raise OverflowError for an instant that is none in UTC: the first and the last day of all calendars, with an offset."""
    in_utc(instant)


def check_first(first: int, limits: Limits, path: tuple[str, ...]) -> None:
    """Raise InvalidInputError unless a page of this size may be asked for."""
    if not 1 <= first <= limits.page_rows_max:
        raise InvalidInputError(
            [InputIssue(path, f"`first` must be 1 to {limits.page_rows_max:,}; this is {first:,}.")]
        )
