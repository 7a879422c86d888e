"""Which media type an answer has: what the client's Accept header would rather have, of what there is."""

from enum import Enum
from typing import Final


class MediaType(Enum):
    """What an operation can be answered as. Their order is our own preference."""

    JSON = "application/json"
    RESPONSE = "application/graphql-response+json"
    EVENT_STREAM = "text/event-stream"

    @property
    def is_response(self) -> bool:
        """Whether the status says how the operation ended: who asks for `application/json` reads the body alone."""
        return self is MediaType.RESPONSE


# How exactly a range of an Accept header names a type; the most exact one counts.
_BY_TYPE: Final = 2
_BY_KIND: Final = 1
_BY_ANYTHING: Final = 0
_NOT_AT_ALL: Final = -1
_QUALITY_MAX: Final = 1_000


def accepted(header: str | None) -> MediaType | None:
    """The media type to answer with; None when the client takes none of ours. Without a header it is `application/json`.

    A stream of events is only sent to who names it: a client that takes anything is not one that reads streams.
    """
    if header is None or not header.strip():
        return MediaType.JSON
    ranges = [_range(part) for part in header.split(",") if part.strip()]
    best, best_rank = None, (0, _NOT_AT_ALL, False)
    for media_type in MediaType:
        exactness, quality = max(
            ((_exactness(name, media_type), quality) for name, quality in ranges), default=(_NOT_AT_ALL, 0)
        )
        if exactness == _NOT_AT_ALL or (media_type is MediaType.EVENT_STREAM and exactness != _BY_TYPE):
            continue
        # Who names the type whose status tells how it ended can read that; clients name the other one beside it.
        rank = (quality, exactness, media_type.is_response and exactness == _BY_TYPE)
        if quality and rank > best_rank:
            best, best_rank = media_type, rank
    return best


def takes_streams(header: str | None) -> bool:
    """Whether the client names streams of events, be it as what it would rather not have."""
    ranges = [_range(part) for part in (header or "").split(",")]
    return any(quality and name == MediaType.EVENT_STREAM.value for name, quality in ranges)


def _range(part: str) -> tuple[str, int]:
    """One range of the header, with its quality in thousandths; one that cannot be read is as good as none."""
    name, *parameters = (piece.strip().lower() for piece in part.split(";"))
    for parameter in parameters:
        key, _, value = parameter.partition("=")
        if key.strip() == "q":
            return name, _quality(value.strip())
        if key.strip() == "charset" and value.strip().strip('"') not in {"utf-8", "utf8"}:
            return name, 0
    return name, _QUALITY_MAX


def _quality(text: str) -> int:
    whole, _, fraction = text.partition(".")
    if whole not in {"0", "1"} or not (fraction == "" or (fraction.isascii() and fraction.isdigit())):
        return 0
    return min(_QUALITY_MAX, int(whole) * _QUALITY_MAX + int(fraction[:3].ljust(3, "0")))


def _exactness(name: str, media_type: MediaType) -> int:
    kind = media_type.value.partition("/")[0]
    return {media_type.value: _BY_TYPE, f"{kind}/*": _BY_KIND, "*/*": _BY_ANYTHING}.get(name, _NOT_AT_ALL)
