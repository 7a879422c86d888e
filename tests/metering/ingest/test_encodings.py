"""gzip and zstd are undone as they arrive: exact wherever they are cut, bounded whatever they hold."""

import gzip
import sys
import tracemalloc
import zlib
from collections.abc import Callable

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from metering.errors import BodyError
from metering.ingest.encodings import Inflation, decoding, encoding_of
from metering.limits import LIMITS, Limits
from tests.conftest import ADMIN_KEY, Api, bearer, running, usage_event
from tests.strategies import SOME

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

COMPRESS: dict[str, Callable[[bytes], bytes]] = {
    "gzip": lambda data: gzip.compress(data, 6, mtime=0),
    "zstd": lambda data: zstd.compress(data, 3),
}
both = pytest.mark.parametrize("encoding", COMPRESS)
PIECE = 64 * 1024


def inflated(encoding: str, body: bytes, cut: int = PIECE, limits: Limits = LIMITS) -> bytes:
    """The body without its encoding, given in parts of so many bytes."""
    inflation = Inflation(encoding, limits)
    pieces = [piece for start in range(0, len(body), cut) for piece in inflation.pieces(body[start : start + cut])]
    inflation.finish()
    assert all(len(piece) <= PIECE for piece in pieces)
    return b"".join(pieces)


def refused(encoding: str, body: bytes, cut: int = PIECE, limits: Limits = LIMITS) -> tuple[int, str]:
    """The status and code with which the body is refused."""
    with pytest.raises(BodyError) as caught:
        inflated(encoding, body, cut, limits)
    assert str(caught.value).endswith(".")
    return caught.value.status, caught.value.code


@both
@SOME
@given(
    data=st.one_of(
        st.binary(max_size=500),
        st.builds(lambda part, times: part * times, st.binary(max_size=9), st.integers(0, 40_000)),
    ),
    more=st.lists(st.binary(max_size=50), max_size=3),
    cut=st.sampled_from([1, 7, 1_000, PIECE, 10**9]),
)
def test_what_was_compressed_comes_back(encoding: str, data: bytes, more: list[bytes], cut: int) -> None:
    """However a body is cut, and of however many members it is made, what was sent comes out."""
    compress = COMPRESS[encoding]
    body = b"".join(compress(part) for part in [data, *more])

    assert data + b"".join(more) == inflated(encoding, body, max(cut, len(body) // 200))


@both
@pytest.mark.parametrize("size", [0, 1, PIECE - 1, PIECE, PIECE + 1, 3 * PIECE])
@pytest.mark.parametrize("byte", [b"\0", None], ids=["alike", "by chance"])
def test_sizes_around_a_piece(encoding: str, size: int, byte: bytes | None) -> None:
    """Nothing is lost or added where the output ends with a piece."""
    data = byte * size if byte else bytes(number * number % 251 for number in range(size))

    assert data == inflated(encoding, COMPRESS[encoding](data))


@both
def test_a_stream_that_is_cut_off(encoding: str) -> None:
    """Wherever a stream ends before its end, and if it has none at all, it is refused."""
    body = COMPRESS[encoding](b"some text, " * 20)

    assert {(400, "body_unreadable")} == {refused(encoding, body[:end]) for end in range(len(body))}
    assert (400, "body_unreadable") == refused(encoding, body + body[:-1])


@both
@pytest.mark.parametrize("behind", [b"\0", b"garbage that is long enough for a header", b"{}"])
def test_what_follows_must_be_a_member(encoding: str, behind: bytes) -> None:
    """What follows a member is another one, or the stream is broken."""
    assert (400, "body_unreadable") == refused(encoding, COMPRESS[encoding](b"{}") + behind)


@both
def test_a_changed_byte_is_found(encoding: str) -> None:
    """A stream with a changed byte is refused, or says what it always said; it never becomes another body unseen."""
    options = {zstd.CompressionParameter.checksum_flag: 1}
    data = b"some text that is not all alike: 0123456789"
    body = COMPRESS["gzip"](data) if encoding == "gzip" else zstd.compress(data, options=options)

    for index in range(len(body)):
        changed = body[:index] + bytes([body[index] ^ 0x40]) + body[index + 1 :]
        try:
            assert data == inflated(encoding, changed)
        except BodyError as error:
            assert (400, "body_unreadable") == (error.status, error.code)  # noqa: PT017 - either, or


@both
@pytest.mark.parametrize("cut", [1_000, 10**9])
def test_a_bomb_never_becomes_memory(encoding: str, cut: int) -> None:
    """A gigabyte in a few kilobytes, or an eighth of one, is refused at the first byte too many, in little memory."""
    body = _bomb(encoding, 1 << 30 if encoding == "zstd" else 1 << 27)
    out = 0

    def inflate() -> None:
        nonlocal out
        inflation = Inflation(encoding, LIMITS)
        for start in range(0, len(body), cut):
            for piece in inflation.pieces(body[start : start + cut]):
                out += len(piece)

    tracemalloc.start()
    try:
        with pytest.raises(BodyError, match="larger than 16,777,216 bytes") as caught:
            inflate()
        _, peak_bytes = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()

    assert 413 == caught.value.status
    assert LIMITS.body_bytes_max - PIECE < out <= LIMITS.body_bytes_max
    assert peak_bytes < 1_000_000


def _bomb(encoding: str, size: int) -> bytes:
    """Zeros, so many of them."""
    zeros = bytes(1 << 20)
    if encoding == "zstd":
        return zstd.compress(zeros) * (size // len(zeros))
    stream = zlib.compressobj(9, zlib.DEFLATED, 31)
    return b"".join(stream.compress(zeros) for _ in range(size // len(zeros))) + stream.flush()


@both
def test_exactly_the_limit(encoding: str) -> None:
    """As many bytes as a body may have are taken; one more is not."""
    limits = Limits(body_bytes_max=100_000)

    assert 100_000 == len(inflated(encoding, COMPRESS[encoding](bytes(100_000)), limits=limits))
    assert (413, "body_too_large") == refused(encoding, COMPRESS[encoding](bytes(100_001)), limits=limits)


@both
def test_a_bomb_of_empty_members(encoding: str) -> None:
    """Members that hold nothing do not add up, but they cost time: a thousand are taken, no more."""
    empty = COMPRESS[encoding](b"")

    assert b"" == inflated(encoding, empty * 1_000)
    assert (413, "body_too_large") == refused(encoding, empty * 1_001)
    assert (413, "body_too_large") == refused(encoding, empty * 4, limits=Limits(body_members_max=3))


def test_a_window_that_is_too_large() -> None:
    """A zstd stream that wants more than 8 MiB of window is refused, as RFC 9659 has it; one with less is taken."""
    data = b"ab" * (10 << 20)
    window = zstd.CompressionParameter.window_log

    assert (400, "body_unreadable") == refused("zstd", zstd.compress(data, options={window: 27}))
    # Far more than a body may have: it is its size that is refused.
    assert (413, "body_too_large") == refused("zstd", zstd.compress(data, options={window: 23}))


def test_a_dictionary_is_nobody_s() -> None:
    """A zstd stream that was made with a dictionary cannot be read without it, and is refused."""
    dictionary = zstd.train_dict([b"sample %d of many" % number for number in range(1_000)], 1_000)

    assert (400, "body_unreadable") == refused("zstd", zstd.compress(b"sample 7 of many" * 9, zstd_dict=dictionary))


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        (None, None),
        ("", None),
        ("identity", None),
        (" Identity ", None),
        ("gzip", "gzip"),
        ("GZIP", "gzip"),
        ("x-gzip", "gzip"),
        ("zstd", "zstd"),
        (", gzip,", "gzip"),
    ],
)
def test_encodings_understood(header: str | None, expected: str | None) -> None:
    """One encoding, in any case; none is none."""
    assert expected == encoding_of(header)


@pytest.mark.parametrize(
    "header", ["br", "deflate", "gzip, gzip", "gzip, zstd", "identity, gzip", "gzip;q=1", "*", "aws-chunked"]
)
def test_encodings_refused(header: str) -> None:
    """Another encoding, or several of them, is 415."""
    with pytest.raises(BodyError) as caught:
        encoding_of(header)

    assert (415, "encoding_unsupported") == (caught.value.status, caught.value.code)


def test_a_body_without_encoding_is_bounded_too() -> None:
    """What is not encoded comes in pieces as it is, and up to the limit."""

    def read(limits: Limits) -> list[bytes]:
        body = decoding(None, limits)
        pieces = [piece for _ in range(10) for piece in body.pieces(b"x" * 10)]
        body.finish()
        return pieces

    assert [b"x" * 10] * 10 == read(Limits(body_bytes_max=100))
    with pytest.raises(BodyError, match="larger than 99 bytes"):
        read(Limits(body_bytes_max=99))


# ---------------------------------------------------------------- over HTTP

EVENTS = [usage_event(number) for number in range(20)]
BODIES = {
    "application/json": msgspec.json.encode(EVENTS),
    "application/x-ndjson": b"\n".join(map(msgspec.json.encode, EVENTS)),
    "application/msgpack": msgspec.msgpack.encode(EVENTS),
}


def test_every_type_in_every_encoding(api: Api) -> None:
    """Each kind of body is taken in each encoding, also in several members: the same events, counted once."""
    answers = []
    for content_type, body in BODIES.items():
        for encoding, compress in COMPRESS.items():
            content = compress(body[:100]) + compress(body[100:])
            headers = {**bearer(ADMIN_KEY), "Content-Type": content_type, "Content-Encoding": encoding}
            answers.append(api.client.post("/v1/events", content=content, headers=headers).json())

    assert [(20, 0), *[(0, 20)] * 5] == [(answer["accepted"], answer["duplicates"]) for answer in answers]
    assert all(answer["rejected"] == [] for answer in answers)


@pytest.mark.parametrize(
    ("headers", "content", "status", "code"),
    [
        ({"Content-Encoding": "gzip"}, b"{}", 400, "body_unreadable"),
        ({"Content-Encoding": "gzip"}, b"", 400, "body_unreadable"),
        ({"Content-Encoding": "gzip"}, COMPRESS["gzip"](BODIES["application/json"])[:-1], 400, "body_unreadable"),
        ({"Content-Encoding": "zstd"}, COMPRESS["zstd"](BODIES["application/json"])[:-1], 400, "body_unreadable"),
        ({"Content-Encoding": "zstd"}, COMPRESS["gzip"](b"{}"), 400, "body_unreadable"),
        ({"Content-Encoding": "gzip"}, COMPRESS["gzip"](bytes(6_000)), 413, "body_too_large"),
        ({"Content-Encoding": "zstd"}, COMPRESS["zstd"](bytes(6_000)), 413, "body_too_large"),
        ({"Content-Encoding": "br"}, b"{}", 415, "encoding_unsupported"),
        ({"Content-Encoding": "gzip, zstd"}, b"{}", 415, "encoding_unsupported"),
    ],
)
def test_a_body_that_cannot_be_taken(
    database_url: str, headers: dict[str, str], content: bytes, status: int, code: str
) -> None:
    """A broken stream is 400, one that holds too much 413, an encoding that is not understood 415 and told which are."""
    with running(database_url, Limits(body_bytes_max=5_000)) as api:
        asked = {**bearer(ADMIN_KEY), "Content-Type": "application/json", **headers}
        response = api.client.post("/v1/events", content=content, headers=asked)

    assert (status, code) == (response.status_code, response.json()["code"])
    assert ("gzip, zstd" if status == 415 else None) == response.headers.get("accept-encoding")
