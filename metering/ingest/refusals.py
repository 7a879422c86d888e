"""What is refused -> what is kept of it: the reason, and the event as it was sent. Pure.

It is asked only when a receipt names something as rejected; a request of good events costs nothing here.
"""

from collections.abc import Iterable
from datetime import datetime
from hashlib import blake2b
from typing import Final, Protocol

import msgspec

from metering.ingest.bodies import Sent, SentBody, as_text, printable
from metering.ingest.elements import REFUSED
from metering.ingest.receipts import Receipt, Rejection
from metering.limits import Limits
from metering.store.quarantine import Changes, RejectedRow

_DIGEST_BYTES: Final = 16
_CHARACTER_BYTES_MAX: Final = 4
_SPACE: Final = b" \t\r\n"
_CUT: Final = "…"


class _Named(msgspec.Struct):
    """The source of an event, whatever else is wrong with it."""

    source: str | None = None


_NAMED: Final = msgspec.json.Decoder(_Named)


class _Kept(msgspec.Struct, frozen=True):
    """What is kept of an event, whatever the reason for its refusal is."""

    digest: bytes
    media_type: str
    source: str | None
    body: str
    body_bytes: int
    is_exact: bool


class Origin(Protocol):
    """Where the events of a submission come from: it knows how they looked, and what becomes of those that are refused."""

    @property
    def is_divisible(self) -> bool:
        """Whether what becomes of some of its events may be committed before the others are written."""

    def worded(self, rejections: Iterable[Rejection]) -> list[Rejection]:
        """Rejections in the words of the format that the events came in."""

    def changes(self, receipt: Receipt, received_at: datetime, limits: Limits) -> Changes:
        """What this receipt changes in the quarantine."""


class Refusals:
    """What is refused of one request, and kept: the key that sent it, the reason, and the event as it was sent."""

    is_divisible: Final = True

    def __init__(self, sent_by: str, sent: Sent) -> None:
        self._sent_by = sent_by
        self._sent = sent
        # A batch that meets another writer's names is judged again: what is kept of an event stays the same.
        self._kept: dict[int, _Kept] = {}

    def keep(self, bodies: Iterable[tuple[int, SentBody]], limits: Limits) -> None:
        """Cut these now, by their indexes, to what is kept of them: they wait for a writer, and may be megabytes."""
        self._kept.update((index, _kept(sent, limits)) for index, sent in bodies)

    def worded(self, rejections: Iterable[Rejection]) -> list[Rejection]:
        """Rejections in the words of the format that the events came in."""
        return [self._sent.worded(rejection) for rejection in rejections]

    def changes(self, receipt: Receipt, received_at: datetime, limits: Limits) -> Changes:
        """What this receipt changes in the quarantine."""
        return Changes([self.row(rejection, received_at, limits) for rejection in receipt.rejected])

    def row(self, rejection: Rejection, received_at: datetime, limits: Limits) -> RejectedRow:
        """A rejection with its event, as it is kept. Its texts are ones that PostgreSQL can keep, and bounded."""
        kept = self._kept.get(rejection.index)
        if kept is None:
            kept = self._kept[rejection.index] = _kept(self._sent.body(rejection.index), limits)
        path = None if rejection.path is None else _bounded(rejection.path, limits)
        message = _bounded(rejection.message, limits)
        texts = (kept.source or "", message, path or "", kept.body)
        return RejectedRow(
            id=None,
            received_at=received_at,
            digest=_digest(self._sent_by, rejection, kept),
            sent_by=self._sent_by,
            source=kept.source,
            code=rejection.code.value,
            message=message,
            path=path,
            media_type=kept.media_type,
            body=kept.body,
            body_bytes=kept.body_bytes,
            is_exact=kept.is_exact,
            kept_bytes=sum(len(text.encode()) for text in texts),
        )


def _kept(sent: SentBody, limits: Limits) -> _Kept:
    # What stands around it is of the request: a line's end, the indentation of an array.
    raw = sent.raw.strip(_SPACE)
    # No byte becomes less than a byte of text, so more is not looked at; a character across the cut is whole.
    begun = raw[: limits.rejected_body_bytes_max + _CHARACTER_BYTES_MAX]
    is_all = len(begun) == len(raw)
    text, is_text = as_text(begun)
    whole = text.encode()
    body = whole[: limits.rejected_body_bytes_max].decode(errors="ignore")
    return _Kept(
        digest=blake2b(raw, digest_size=_DIGEST_BYTES).digest(),
        media_type=sent.media_type,
        source=_source(raw, limits),
        body=body,
        body_bytes=len(whole) if is_all else len(raw),
        is_exact=sent.is_exact and is_text and is_all and len(body) == len(text),
    )


def _source(raw: bytes, limits: Limits) -> str | None:
    try:
        source = _NAMED.decode(raw).source
    except REFUSED:
        return None
    return None if source is None else _bounded(source, limits)


def _bounded(text: str, limits: Limits) -> str:
    text = printable(text)
    if len(text) <= limits.rejected_text_chars_max:
        return text
    return text[: limits.rejected_text_chars_max - len(_CUT)] + _CUT


def _digest(sent_by: str, rejection: Rejection, kept: _Kept) -> bytes:
    """The same for the same bad event of the same sender; the message does not count, it may tell the time."""
    names = "\0".join((sent_by, rejection.code.value, printable(rejection.path or ""), kept.media_type))
    return blake2b(names.encode() + b"\0" + kept.digest, digest_size=_DIGEST_BYTES).digest()
