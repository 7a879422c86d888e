"""Keyset pages: a cursor holds the place of a row in its order, so pages stay stable while rows come and go."""

from base64 import urlsafe_b64decode, urlsafe_b64encode
from binascii import Error as BinasciiError
from typing import TypeVar

import msgspec
import strawberry

from metering.errors import InputIssue, InvalidInputError
from metering.limits import Limits

Place = TypeVar("Place")


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
    """The place that a cursor holds. Raises InvalidInputError for one that is not of this kind of page."""
    try:
        return msgspec.json.decode(urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4)), type=place_type)
    except (BinasciiError, msgspec.DecodeError, UnicodeError, ValueError) as error:
        raise InvalidInputError(
            [InputIssue(path, "This cursor is not one of this list; pass an `endCursor` back unchanged.")]
        ) from error


def check_first(first: int, limits: Limits, path: tuple[str, ...]) -> None:
    """Raise InvalidInputError unless a page of this size may be asked for."""
    if not 1 <= first <= limits.page_rows_max:
        raise InvalidInputError(
            [InputIssue(path, f"`first` must be 1 to {limits.page_rows_max:,}; this is {first:,}.")]
        )
