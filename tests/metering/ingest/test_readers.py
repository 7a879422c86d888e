"""Which reader a Content-Type gets, and how a body is read while it is still arriving."""

import tracemalloc
from itertools import pairwise

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from metering.errors import BodyError
from metering.ingest.decode import Lines, decode_ndjson
from metering.ingest.media_types import media_type
from metering.ingest.readers import reader_of
from metering.limits import LIMITS, Limits
from tests.conftest import ADMIN_KEY, Api, bearer, usage_event
from tests.strategies import SOME


@pytest.mark.parametrize(
    ("header", "essence", "charset", "is_json", "is_utf8"),
    [
        ("application/json", "application/json", None, True, True),
        ("Application/JSON ; Charset=UTF-8", "application/json", "utf-8", True, True),
        ('application/json; charset="utf-8"', "application/json", "utf-8", True, True),
        ("application/json;charset=utf8;v=1", "application/json", "utf8", True, True),
        ("application/json; charset=iso-8859-1", "application/json", "iso-8859-1", True, False),
        ("application/vnd.acme+json; v=1", "application/vnd.acme+json", None, True, True),
        ("text/json", "text/json", None, True, True),
        ("text/xml; charset", "text/xml", "", False, False),
        ("", "", None, False, True),
        (";", "", None, False, True),
    ],
)
def test_media_types(*, header: str, essence: str, charset: str | None, is_json: bool, is_utf8: bool) -> None:
    """A Content-Type is read in any case, with or without parameters."""
    kind = media_type(header)

    assert (essence, charset) == (kind.essence, kind.charset)
    assert (is_json, is_utf8) == (kind.is_json, kind.is_utf8)


@pytest.mark.parametrize(
    ("content_type", "status"),
    [
        ("application/json; charset=utf-8", 200),
        ("application/json; charset=UTF-8; profile=x", 200),
        ("APPLICATION/JSON", 200),
        ("application/json; charset=utf-16", 415),
        ("application/json; charset=iso-8859-1", 415),
        ("application/x-ndjson; charset=utf-8", 200),
        ("application/x-ndjson; charset=latin1", 415),
        ("application/vnd.acme+json", 415),
        ("text/plain", 415),
        ("application/x-www-form-urlencoded", 415),
        ("application/", 415),
    ],
)
def test_content_types_over_http(api: Api, content_type: str, status: int) -> None:
    """Parameters do not matter, but for a charset other than UTF-8; what is not understood is 415 and says so."""
    body = msgspec.json.encode(usage_event(1))
    response = api.client.post("/v1/events", content=body, headers={**bearer(ADMIN_KEY), "Content-Type": content_type})

    assert status == response.status_code
    if status == 415:
        assert response.json()["code"] == "content_type_unsupported"


@pytest.mark.parametrize("headers", [[], [(b"accept", b"*/*")], [(b"content-type", b"\xff\xfe")]])
def test_no_content_type(headers: list[tuple[bytes, bytes]]) -> None:
    """A body whose type is not said, or makes no sense, is not guessed at."""
    with pytest.raises(BodyError) as caught:
        reader_of(headers, LIMITS)

    assert 415 == caught.value.status


# ---------------------------------------------------------------- NDJSON as it arrives

PARTS = [msgspec.json.encode(usage_event(1)), b"{broken", b"", b" ", b"5", b"\r", msgspec.json.encode(usage_event(2))]


@SOME
@given(
    lines=st.lists(st.sampled_from(PARTS), max_size=12),
    end=st.sampled_from([b"", b"\n"]),
    cuts=st.lists(st.integers(0, 1_500), max_size=12),
)
def test_lines_wherever_they_are_cut(lines: list[bytes], end: bytes, cuts: list[int]) -> None:
    """The same events and rejections come out, wherever the network cuts the body."""
    body = b"\n".join(lines) + end
    bounds = [0, *sorted(min(cut, len(body)) for cut in cuts), len(body)]
    reader = Lines(LIMITS)
    for start, stop in pairwise(bounds):
        reader.feed(body[start:stop])

    assert decode_ndjson(body, LIMITS) == reader.finish()


def test_lines_are_read_while_the_body_arrives() -> None:
    """A line is an event before the next one is there, and too many of them are refused without waiting for the end."""
    taken = 0

    reader = reader_of([(b"content-type", b"application/x-ndjson")], Limits(body_events_max=100))

    def read_for_ever() -> None:
        nonlocal taken
        while True:
            taken += 1
            reader.feed(msgspec.json.encode(usage_event(taken)) + b"\n")

    with pytest.raises(BodyError, match="More than 100 events"):
        read_for_ever()
    assert taken == 101


def test_the_body_is_not_kept() -> None:
    """Of lines that are long before they are events, only the events stay in memory."""
    line = b" " * 1_000_000 + msgspec.json.encode(usage_event(1)) + b"\n"
    tracemalloc.start()
    try:
        reader = Lines(LIMITS)
        for _ in range(16):
            for start in range(0, len(line), 65_536):
                reader.feed(line[start : start + 65_536])
        decoded = reader.finish()
        _, peak_bytes = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()

    assert len(decoded) == 16
    assert peak_bytes < 5_000_000


def test_a_request_that_breaks_off_leaves_nothing(api: Api) -> None:
    """Nothing is recorded before the body is whole: a stream that breaks leaves nothing of its lines."""
    import gzip

    body = b"\n".join(msgspec.json.encode(usage_event(number)) for number in range(100))
    headers = {**bearer(ADMIN_KEY), "Content-Type": "application/x-ndjson", "Content-Encoding": "gzip"}

    broken = api.client.post("/v1/events", content=gzip.compress(body)[:-4], headers=headers)
    whole = api.client.post("/v1/events", content=gzip.compress(body), headers=headers)

    assert 400 == broken.status_code
    assert {"accepted": 100, "duplicates": 0, "rejected": []} == whole.json()
