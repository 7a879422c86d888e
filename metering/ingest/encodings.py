"""Content-Encoding: gzip and zstd, undone as the body arrives, in pieces, so that a bomb never becomes memory."""

import sys
import zlib
from collections.abc import Callable, Iterable, Iterator
from typing import Final, Protocol

from metering.errors import BodyError
from metering.limits import Limits

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

# How much is taken in, and given out, at a time.
_PIECE_BYTES: Final = 64 * 1024
# A zstd window of 8 MiB is what RFC 9659 lets a sender of Content-Encoding use.
_WINDOW_LOG_MAX: Final = 23
_GZIP: Final = 16 + zlib.MAX_WBITS


class _Member(Protocol):
    """One gzip member or one zstd frame; a body may have several of them."""

    @property
    def eof(self) -> bool: ...
    @property
    def unused_data(self) -> bytes: ...
    def pieces(self, data: bytes) -> Iterator[bytes]: ...


class _GzipMember:
    def __init__(self) -> None:
        self._stream = zlib.decompressobj(_GZIP)

    @property
    def eof(self) -> bool:
        return self._stream.eof

    @property
    def unused_data(self) -> bytes:
        return self._stream.unused_data

    def pieces(self, data: bytes) -> Iterator[bytes]:
        piece = self._stream.decompress(data, _PIECE_BYTES)
        yield piece
        # What filled the piece may have more behind it, though all input is taken.
        while not self._stream.eof and (self._stream.unconsumed_tail or len(piece) == _PIECE_BYTES):
            piece = self._stream.decompress(self._stream.unconsumed_tail, _PIECE_BYTES)
            yield piece


class _ZstdMember:
    def __init__(self) -> None:
        self._stream = zstd.ZstdDecompressor(options={zstd.DecompressionParameter.window_log_max: _WINDOW_LOG_MAX})

    @property
    def eof(self) -> bool:
        return self._stream.eof

    @property
    def unused_data(self) -> bytes:
        return self._stream.unused_data

    def pieces(self, data: bytes) -> Iterator[bytes]:
        yield self._stream.decompress(data, _PIECE_BYTES)
        while not self._stream.eof and not self._stream.needs_input:
            yield self._stream.decompress(b"", _PIECE_BYTES)


ENCODINGS: Final[dict[str, Callable[[], _Member]]] = {"gzip": _GzipMember, "zstd": _ZstdMember}
# RFC 9110 has the second name for gzip.
_ALIASES: Final = {"x-gzip": "gzip"}


def encoding_of(header: str | None) -> str | None:
    """The one encoding of a body by its Content-Encoding; None where there is none. Raises BodyError for another."""
    named = [name for part in (header or "").split(",") if (name := part.strip().lower())]
    if named in ([], ["identity"]):
        return None
    encoding = _ALIASES.get(named[0], named[0])
    if len(named) > 1 or encoding not in ENCODINGS:
        message = f"Content-Encoding {header!r:.60} is not understood; use one of {', '.join(ENCODINGS)}, once."
        raise BodyError(415, "encoding_unsupported", message)
    return encoding


class Decoding(Protocol):
    """A body on its way to being plain."""

    def pieces(self, chunk: bytes) -> Iterable[bytes]:
        """What comes out for these bytes. Raises BodyError when they are broken, or are too many before or after."""

    def finish(self) -> None:
        """Say that nothing follows. Raises BodyError when the body is not at its end."""


def decoding(encoding: str | None, limits: Limits) -> Decoding:
    """What undoes this encoding."""
    return Plain(limits) if encoding is None else Inflation(encoding, limits)


class Plain:
    """A body that comes as it is, up to the bytes that it may have."""

    def __init__(self, limits: Limits) -> None:
        self._size = _Size(limits)

    def pieces(self, chunk: bytes) -> Iterable[bytes]:
        """See Decoding."""
        self._size.add(len(chunk))
        return (chunk,)

    def finish(self) -> None:
        """See Decoding."""


class Inflation:
    """An encoded body on its way to being plain. Never holds more than a piece, and stops at the first byte too many."""

    def __init__(self, encoding: str, limits: Limits) -> None:
        self._encoding = encoding
        self._members_max = limits.body_members_max
        self._sent = _Size(limits)
        self._size = _Size(limits)
        self._members = 0
        self._member: _Member | None = None

    def pieces(self, chunk: bytes) -> Iterator[bytes]:
        """See Decoding."""
        self._sent.add(len(chunk))
        for start in range(0, len(chunk), _PIECE_BYTES):
            data = chunk[start : start + _PIECE_BYTES]
            while data:
                member = self._member or self._begin()
                try:
                    for piece in member.pieces(data):
                        self._size.add(len(piece))
                        yield piece
                except (zlib.error, zstd.ZstdError) as error:
                    raise self._broken(str(error)) from error
                data = b""
                if member.eof:
                    data = member.unused_data
                    self._member = None

    def finish(self) -> None:
        """See Decoding."""
        if self._member is not None or not self._members:
            raise self._broken("it ends too early")

    def _begin(self) -> _Member:
        self._members += 1
        if self._members > self._members_max:
            message = f"The body is {self._encoding} in more than {self._members_max:,} parts; send it as one."
            raise BodyError(413, "body_too_large", message)
        self._member = ENCODINGS[self._encoding]()
        return self._member

    def _broken(self, reason: str) -> BodyError:
        return BodyError(400, "body_unreadable", f"The body is not {self._encoding}: {reason:.100}.")


class _Size:
    """Counts bytes up to the most that a body may have."""

    def __init__(self, limits: Limits) -> None:
        self._bytes_max = limits.body_bytes_max
        self._bytes = 0

    def add(self, count: int) -> None:
        self._bytes += count
        if self._bytes > self._bytes_max:
            message = f"The body is larger than {self._bytes_max:,} bytes; send it in several requests."
            raise BodyError(413, "body_too_large", message, limit="body_bytes_max")
