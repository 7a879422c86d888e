"""Content-Type -> the reader of a body: it is fed what arrives, and gives the events at the end."""

from collections.abc import Callable, Mapping, Sequence
from typing import Final, Protocol

from metering.errors import BodyError
from metering.ingest.cloudevents import CloudEvents, decode_batch, decode_binary, decode_structured
from metering.ingest.decode import Decoded, Lines, decode_json
from metering.ingest.media_types import MediaType, media_type
from metering.ingest.msgpack_bodies import decode_msgpack
from metering.ingest.receipts import Rejection
from metering.limits import Limits

Headers = Sequence[tuple[bytes, bytes]]


class Reader(Protocol):
    """Takes a body as it arrives."""

    def feed(self, piece: bytes) -> None:
        """Take the next bytes."""

    def finish(self) -> Decoded:
        """The events, now that the body is there. Raises BodyError when it cannot be taken as a whole."""

    def worded(self, rejection: Rejection) -> Rejection:
        """A rejection in the words of the body's format."""


class _Plain:
    """An event in our own words."""

    def worded(self, rejection: Rejection) -> Rejection:
        return rejection


class _LinesReader(_Plain):
    """Line by line: what is kept is events."""

    def __init__(self, limits: Limits) -> None:
        lines = Lines(limits)
        self.feed = lines.feed
        self.finish = lines.finish


class _WholeReader(_Plain):
    """What can be understood only when all of it is there."""

    def __init__(self, decode: Callable[[bytes, Limits], Decoded], limits: Limits) -> None:
        self._decode = decode
        self._limits = limits
        self._body = bytearray()

    def feed(self, piece: bytes) -> None:
        self._body += piece

    def finish(self) -> Decoded:
        body, self._body = bytes(self._body), bytearray()
        return self._decode(body, self._limits)


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


READERS: Final[Mapping[str, Callable[[Limits], Reader]]] = {
    "application/json": lambda limits: _WholeReader(decode_json, limits),
    "application/x-ndjson": _LinesReader,
    "application/msgpack": lambda limits: _WholeReader(decode_msgpack, limits),
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
        if sent and not kind.is_json:
            message = f"The data of a CloudEvent in binary mode is JSON here, not {sent!r:.60}."
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
