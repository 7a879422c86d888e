"""Content-Type -> the reader of a body: it is fed what arrives, and gives the events at the end."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Final, Protocol

from metering.errors import BodyError
from metering.ingest.bodies import PlainEvents, Sent, SentBody
from metering.ingest.cloudevents import CloudEvents, decode_batch, decode_binary, decode_structured
from metering.ingest.decode import Decoded, Lines, Refused, decode_json
from metering.ingest.media_types import MediaType, media_type
from metering.ingest.msgpack_bodies import decode_msgpack
from metering.ingest.msgpack_json import msgpack_body
from metering.ingest.packed_cloudevents import decode_packed
from metering.ingest.receipts import Rejection
from metering.limits import Limits

Headers = Sequence[tuple[bytes, bytes]]


class Reader(Sent, Protocol):
    """Takes a body as it arrives."""

    def feed(self, piece: bytes) -> None:
        """Take the next bytes."""

    def finish(self) -> Decoded:
        """The events, now that the body is there. Raises BodyError when it cannot be taken as a whole."""

    def let_go(self, *, larger_than: int) -> Iterator[tuple[int, SentBody]]:
        """What could not be decoded and has more bytes than this, by index: each once, then it is not held any longer."""


class _LinesReader(PlainEvents):
    """Line by line: what is kept is events, and the lines that are none."""

    def __init__(self, limits: Limits) -> None:
        super().__init__()
        self._lines = Lines(limits, self.refused)
        self.feed = self._lines.feed

    def finish(self) -> Decoded:
        self.decoded = self._lines.finish()
        return self.decoded


class _WholeReader(PlainEvents):
    """What can be understood only when all of it is there."""

    def __init__(self, decode: Callable[[bytes, Limits, Refused], Decoded], limits: Limits) -> None:
        super().__init__()
        self._decode = decode
        self._limits = limits
        self._body = bytearray()

    def feed(self, piece: bytes) -> None:
        self._body += piece

    def finish(self) -> Decoded:
        body, self._body = bytes(self._body), bytearray()
        self.decoded = self._decode(body, self._limits, self.refused)
        return self.decoded


class _MsgpackReader(_WholeReader):
    """MessagePack, of which what is refused is shown as JSON."""

    def __init__(self, limits: Limits) -> None:
        super().__init__(decode_msgpack, limits)

    def body(self, index: int) -> SentBody:
        refused = self.refused.get(index)
        return super().body(index) if refused is None else msgpack_body(refused, self._limits)


class _CloudEventsReader:
    """CloudEvents, whose rejections speak of CloudEvents."""

    def __init__(self, decode: Callable[[bytes], CloudEvents]) -> None:
        self._decode = decode
        self._body = bytearray()
        self._events = CloudEvents([])

    def feed(self, piece: bytes) -> None:
        self._body += piece

    def finish(self) -> Decoded:
        body, self._body = bytes(self._body), bytearray()
        self._events = self._decode(body)
        return self._events.decoded

    def worded(self, rejection: Rejection) -> Rejection:
        return self._events.worded(rejection)

    def body(self, index: int) -> SentBody:
        return self._events.body(index)

    def let_go(self, *, larger_than: int) -> Iterator[tuple[int, SentBody]]:
        return self._events.let_go(larger_than=larger_than)


_MSGPACK: Final = "application/msgpack"
READERS: Final[Mapping[str, Callable[[Limits], Reader]]] = {
    "application/json": lambda limits: _WholeReader(decode_json, limits),
    "application/x-ndjson": _LinesReader,
    _MSGPACK: _MsgpackReader,
    "application/cloudevents+json": lambda limits: _CloudEventsReader(lambda body: decode_structured(body, limits)),
    "application/cloudevents-batch+json": lambda limits: _CloudEventsReader(lambda body: decode_batch(body, limits)),
}


def reader_of(headers: Headers, limits: Limits) -> Reader:
    """The reader of a body with these headers. Raises BodyError when nobody understands it."""
    content_types = [value for name, value in headers if name.lower() == b"content-type"]
    sent = (content_types[-1] if content_types else b"").decode("latin-1")
    kind = media_type(sent)
    if not kind.is_utf8:
        message = f"The charset of Content-Type {sent!r:.60} is not understood; send UTF-8."
        raise BodyError(415, "content_type_unsupported", message)
    if _is_binary(kind, headers):
        if kind.essence == _MSGPACK:
            return _CloudEventsReader(lambda body: decode_packed(headers, body, limits))
        if sent and not kind.is_json:
            message = f"The data of a CloudEvent in binary mode is JSON or MessagePack here, not {sent!r:.60}."
            raise BodyError(415, "content_type_unsupported", message)
        return _CloudEventsReader(lambda body: decode_binary(headers, body, limits))
    if kind.essence not in READERS:
        message = f"Content-Type {sent!r:.60} is not understood; send one of {', '.join(READERS)}."
        raise BodyError(415, "content_type_unsupported", message)
    return READERS[kind.essence](limits)


def _is_binary(kind: MediaType, headers: Headers) -> bool:
    """Whether it is a CloudEvent in binary mode: by its headers, unless its type says that it is in another mode."""
    if kind.essence.startswith("application/cloudevents"):
        return False
    return any(name.lower().startswith(b"ce-") for name, _ in headers)
