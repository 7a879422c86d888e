"""An event as it was sent, to be kept and shown when it is refused. Pure, and asked only for what is refused."""

from collections.abc import Iterator
from typing import Final, Protocol

import msgspec

from metering.events import UsageEvent
from metering.ingest.decode import Decoded, Refused
from metering.ingest.receipts import Rejection

JSON: Final = "application/json"


class SentBody(msgspec.Struct, frozen=True):
    """One event of a request as JSON, or as what should have been JSON."""

    # What it is written in, whatever it was sent in.
    media_type: str
    raw: bytes
    # Whether it says all that was sent: MessagePack and headers can say what JSON cannot.
    is_exact: bool = True


class Sent(Protocol):
    """The events of a request in the words of its format, by their index."""

    def worded(self, rejection: Rejection) -> Rejection:
        """A rejection in the words of the format."""

    def body(self, index: int) -> SentBody:
        """The event at this index, which is refused, as it was sent."""


class PlainEvents:
    """Events in our own words: as they were sent where they could not be decoded, else written anew."""

    def __init__(self, decoded: Decoded = ()) -> None:
        self.decoded = decoded
        # What could not be decoded, as it was sent.
        self.refused: Refused = {}

    def worded(self, rejection: Rejection) -> Rejection:
        """The rejection itself."""
        return rejection

    def body(self, index: int) -> SentBody:
        """The event at this index."""
        event = self.decoded[index]
        return SentBody(JSON, written(event) if isinstance(event, UsageEvent) else self.refused[index])

    def let_go(self, *, larger_than: int) -> Iterator[tuple[int, SentBody]]:
        """What could not be decoded and has more bytes than this, by index: each once, then it is not held any longer."""
        for index in [index for index, raw in self.refused.items() if len(raw) > larger_than]:
            yield index, self.body(index)
            del self.refused[index]


def written(struct: msgspec.Struct) -> bytes:
    """A struct as JSON, without the members that say nothing."""
    return msgspec.json.encode(_members(struct))


def _members(struct: msgspec.Struct) -> dict[str, object]:
    return {
        name: _members(value) if isinstance(value, msgspec.Struct) else value
        for name, value in msgspec.structs.asdict(struct).items()
        if value is not None
    }


def as_text(raw: bytes) -> tuple[str, bool]:
    r"""Bytes as text that PostgreSQL can keep, and whether nothing had to be escaped.

    A byte that is not UTF-8 becomes `\xff`, a NUL `\u0000`.
    """
    text = printable(raw.decode(errors="backslashreplace"))
    return text, text.encode() == raw


def printable(text: str) -> str:
    r"""A text that PostgreSQL can keep: NUL becomes `\u0000`."""
    return text.replace("\0", "\\u0000")
