"""A hundred thousand bodies that nobody should send: events, rejections and BodyError are all that ever comes out."""

import asyncio
import base64
import gc
import gzip
import os
import random
import tracemalloc
from collections import Counter
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path

import msgspec
import pytest

from metering.errors import BodyError
from metering.events import UsageEvent
from metering.ingest.cloudevents import decode_batch, decode_binary, decode_structured
from metering.ingest.decode import Decoded, Lines, decode_json, decode_ndjson
from metering.ingest.encodings import Inflation, zstd
from metering.ingest.media_types import media_type
from metering.ingest.msgpack_bodies import decode_msgpack
from metering.ingest.receipts import Rejection
from metering.limits import Limits
from tests.conftest import Server, usage_event
from tests.machines import SOAK
from tests.metering.ingest.in_process import Answer, InProcess, in_process

SEED = 20261121
BODIES = 100_000
LIMITS = Limits(body_bytes_max=200_000, body_events_max=100)

PLAIN = usage_event(1, attributes={"region": "eu", "ratio": 0.5}, user="u-1", quantity="12.5")
DATA = {name: value for name, value in PLAIN.items() if name not in {"id", "source", "occurred_at"}}
CLOUD = {"specversion": "1.0", "type": "t", "id": "e", "source": "s", "time": PLAIN["occurred_at"], "subject": "acme"}
ENCODED = {**CLOUD, "data_base64": base64.b64encode(msgspec.json.encode(DATA)).decode()}
# Good bodies, each with the decoders that understand it (their places in DECODERS).
JSON_SEEDS: list[tuple[list[int], bytes]] = [
    ([0, 1, 2], msgspec.json.encode(PLAIN)),
    ([0], msgspec.json.encode([PLAIN] * 3)),
    ([1, 2], b"\n".join([msgspec.json.encode(PLAIN)] * 3)),
    ([4], msgspec.json.encode({**CLOUD, "data": DATA})),
    ([5], msgspec.json.encode([{**CLOUD, "data": DATA}] * 2)),
    ([4], msgspec.json.encode(ENCODED)),
    ([5], msgspec.json.encode([ENCODED] * 2)),
    ([6], msgspec.json.encode(DATA)),
]
MSGPACK_SEEDS: list[tuple[list[int], bytes]] = [
    ([3], msgspec.msgpack.encode(value)) for value in (PLAIN, [PLAIN] * 3, {**PLAIN, "quantity": 7}, [PLAIN, 5])
]

# What is spliced into a good body: cut-off UTF-8, halves of surrogate pairs, NUL, huge numbers, keys that are there
# already, ends and beginnings, and the lengths that MessagePack may claim.
JSON_SPLICES = [
    b"\xf0\x9f\x9a", b"\xed\xa0\x80", b"\xc0\x80", b"\xff", b"\xef\xbb\xbf", b"\\ud800", b"\\udc00", b"\\u0000", b"\0",
    b"1e999999999", b"-1E-99999999999999999999", b"1" * 400, b"0." + b"0" * 400 + b"1", b"NaN", b"-Infinity", b"1E+400",
    b'"id":"twice",', b'"quantity":"x",', b'"data":{},', b'"data":5,', b'"time":1,', b'"account":null,', b'"":"",',
    b"[", b"]", b"{", b"}", b",", b":", b'"', b"\\", b"\n", b"\r\n", b" ", b"null", b"true", b"[]", b"{}", b"[[[[", b'{"a":',
]  # fmt: skip
MSGPACK_SPLICES = [
    b"\xc0", b"\xc1", b"\xc2", b"\xdd\xff\xff\xff\xff", b"\xdf\xff\xff\xff\xff", b"\xdb\xff\xff\xff\xff", b"\xc6\x00\x00",
    b"\xcb\x7f\xf8\x00\x00\x00\x00\x00\x00", b"\xca\x3f\x80\x00\x00", b"\xcf" + b"\xff" * 8, b"\xd3\x80" + b"\0" * 7,
    b"\xd6\xff" + b"\xff" * 4, b"\xc7\x0c\xff" + b"\xff" * 12, b"\xd4\x01\x00", b"\xa1\xff", b"\x90", b"\x80", b"\x91" * 50,
]  # fmt: skip
DEEP = [b"[" * 3_000, b'{"a":' * 3_000, b"[" * 3_000 + b"]" * 3_000, b'[{"data":' * 1_500, b"\x91" * 3_000 + b"\x01"]
DEEP += [b'{"attributes":' + b"[" * 3_000 + b"]" * 3_000 + b"}", b"\x81\xa1a" * 3_000 + b"\x01"]
PACKERS: dict[str, Callable[[bytes], bytes]] = {"gzip": gzip.compress, "zstd": zstd.compress}
BOMBS = [
    (encoding, bomb)
    for encoding, pack in PACKERS.items()
    for bomb in (
        *(pack(part * (1 << 20)) for part in (b"\0", b"[", b"0,", b"\n")),
        pack(b"[" + b"{}," * 500 + b"{}]"),
        pack(b"") * 1_100,
        pack(JSON_SEEDS[1][1])[:-9],
    )
]


# What may stand where a value stood: the body stays JSON, or nearly so.
JSON_VALUES = [
    b"null", b"true", b"5", b"1.5", b"-0", b"1e5", b"1e999999999", b"1" * 400, b"0." + b"7" * 400, b'""', b'"x"', b"[]",
    b"{}", b'[[{"a":[]}]]', b'{"a":{"b":1}}', b'"\\ud800"', b'"\\u0000"', b'"\xf0\x9f\x9a"', b'"NaN"', b"NaN", b'"1E+400"',
    b'"2026-03-01T12:00:00"', b'"2026-02-30T12:00:00Z"', b'"9999-12-31T23:59:59-23:59"', b'"' + b"y" * 300 + b'"',
    b'"twice","id":"twice"', b'1,"quantity":"x"', b'1,"colour":"blue"', b'{},"data":{"product":5}', b'"e30="',
]  # fmt: skip


def bodies(seed: int, count: int) -> Iterator[tuple[int, bytes]]:
    """Bodies by chance, each with a decoder for it; the same ones for the same seed. Mostly good ones with some damage."""
    chance = random.Random(seed)
    for number in range(count):
        if number % 1_000 == 7:
            yield chance.randrange(len(DECODERS)), chance.choice(DEEP)
        elif number % 10 == 0:
            yield chance.randrange(len(DECODERS)), chance.randbytes(chance.randrange(200))
        else:
            of_json = chance.random() < 0.8
            fitting, body = chance.choice(JSON_SEEDS if of_json else MSGPACK_SEEDS)
            yield (
                chance.choice(fitting) if chance.random() < 0.9 else chance.randrange(len(DECODERS)),
                _revalued(chance, body)
                if of_json and chance.random() < 0.6
                else _damaged(chance, body, of_json=of_json),
            )


def _revalued(chance: random.Random, body: bytes) -> bytes:
    """The body with another value in one of its fields, or two."""
    for _ in range(chance.randint(1, 2)):
        start = (body.find(b":", chance.randrange(len(body))) + 1) or (body.find(b":") + 1)
        end = min((end for end in (body.find(b",", start), body.find(b"}", start)) if end >= 0), default=len(body))
        body = body[:start] + chance.choice(JSON_VALUES) + body[end:]
    return body


def _damaged(chance: random.Random, good: bytes, *, of_json: bool) -> bytes:
    """The body with some bytes lost, added or replaced, or without its end."""
    body = bytearray(good)
    splices = JSON_SPLICES if of_json else MSGPACK_SPLICES
    for _ in range(chance.randint(1, 3)):
        at = chance.randrange(len(body) + 1)
        lost = chance.choice([0, 0, chance.randrange(8), chance.randrange(8), len(body)])
        body[at : at + lost] = b"" if lost > 8 else chance.choice(splices)
    return bytes(body)


def _lines(body: bytes) -> Decoded:
    """NDJSON in three parts, as a network may cut it."""
    lines = Lines(LIMITS)
    third = len(body) // 3
    for part in (body[:third], body[third : 2 * third], body[2 * third :]):
        lines.feed(part)
    return lines.finish()


def _binary(body: bytes) -> Decoded:
    """Binary mode, with headers made of the same bytes."""
    headers = [(b"ce-specversion", b"1.0"), (b"ce-type", b"t"), (b"ce-source", b"s"), (b"ce-id", body[:20])]
    headers += [(b"ce-time", b"2026-03-01T12:00:00Z"), (b"ce-subject", body[-9:])]
    return decode_binary(headers, body, LIMITS).decoded


DECODERS: list[Callable[[bytes], Decoded]] = [
    lambda body: decode_json(body, LIMITS),
    lambda body: decode_ndjson(body, LIMITS),
    _lines,
    lambda body: decode_msgpack(body, LIMITS),
    lambda body: decode_structured(body, LIMITS).decoded,
    lambda body: decode_batch(body, LIMITS).decoded,
    _binary,
]


def decode(decoder: Callable[[bytes], Decoded], body: bytes) -> Decoded | BodyError:
    """What comes out; every exception but BodyError gets through."""
    try:
        return decoder(body)
    except BodyError as error:
        return error


def test_nothing_else_ever_comes_out() -> None:
    """Of any body there come events and rejections in order, or a BodyError with a status of the contract."""
    seen = {UsageEvent: 0, Rejection: 0, BodyError: 0}
    for place, body in bodies(SEED, BODIES):
        outcome = decode(DECODERS[place], body)
        if isinstance(outcome, BodyError):
            assert outcome.status in {400, 413}, body
            seen[BodyError] += 1
            continue
        for index, part in enumerate(outcome):
            seen[type(part)] += 1
            if isinstance(part, Rejection):
                assert index == part.index, body
                assert 0 < len(part.message) < 500, body

    # A fuzzer that is refused at the door would show nothing.
    assert min(seen.values()) > BODIES // 10, seen


def test_it_costs_no_memory() -> None:
    """Whatever was decoded, little is in use meanwhile, and nothing of it is afterwards."""
    some = list(bodies(SEED + 1, 7_000))
    for place, body in some[:700]:
        decode(DECODERS[place], body)
    gc.collect()
    tracemalloc.start()
    try:
        for place, body in some:
            decode(DECODERS[place], body)
        gc.collect()
        after_bytes, peak_bytes = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()

    assert peak_bytes < 500_000
    assert after_bytes < 100_000


@pytest.mark.parametrize("number", range(len(BOMBS)))
def test_bombs(number: int) -> None:
    """What a bomb unpacks to is refused or rejected as far as it may go, in little memory."""
    tracemalloc.start()
    try:
        lines = Lines(LIMITS)
        with pytest.raises(BodyError) as caught:
            _explode(*BOMBS[number], lines)
        _, peak_bytes = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()

    assert caught.value.status in {400, 413}
    assert peak_bytes < 10 * LIMITS.body_bytes_max


def _explode(encoding: str, bomb: bytes, lines: Lines) -> None:
    """Read it as NDJSON and, if it comes so far, as JSON."""
    inflation = Inflation(encoding, LIMITS)
    body = bytearray()
    for piece in inflation.pieces(bomb):
        lines.feed(piece)
        body += piece
    inflation.finish()
    decode_json(bytes(body), LIMITS)


@pytest.mark.parametrize("place", [0, 1, 4, 6], ids=["json", "ndjson", "structured", "binary"])
@pytest.mark.parametrize(
    "body",
    [
        b'{"a":[' + b"1.5," * 1_000_000 + b"1]}",
        b"{" + b",".join(b'"%06d":1' % number for number in range(300_000)) + b"}",
    ],
    ids=["floats", "names"],
)
def test_what_is_far_too_large_for_an_event_is_not_taken_apart(place: int, body: bytes) -> None:
    """Megabytes that are no event are rejected without becoming objects, of which they would make many times as much."""
    tracemalloc.start()
    try:
        (outcome,) = DECODERS[place](body)
        _, peak_bytes = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()

    assert isinstance(outcome, Rejection)
    assert "larger than an event can be" in outcome.message
    assert peak_bytes < 3 * len(body)


def test_how_large_what_is_looked_at_may_be() -> None:
    """In every format what is no event is looked at up to the limit in force; a byte more, and it is refused unseen."""
    body, packed = b'{"id":"a","nonsense":1}', msgspec.msgpack.encode({"id": "a", "nonsense": 1})
    inside = b'{"specversion":"1.0","type":"t","id":"a","source":"s","data":' + body + b"}"
    decoders: list[tuple[Callable[[bytes, Limits], Decoded], bytes]] = [
        (decode_json, body),
        (decode_json, b"[" + body + b"]"),
        (decode_ndjson, body),
        (decode_msgpack, packed),
        (lambda sent, limits: decode_structured(sent, limits).decoded, inside),
        (lambda sent, limits: decode_binary([(b"ce-id", b"a")], sent, limits).decoded, body),
    ]

    for decoder, sent in decoders:
        element = len(sent.strip(b"[]"))
        (seen,) = decoder(sent, Limits(looked_at_bytes_max=element))
        (unseen,) = decoder(sent, Limits(looked_at_bytes_max=element - 1))

        assert isinstance(seen, Rejection)
        assert isinstance(unseen, Rejection)
        assert "larger than an event can be" not in seen.message
        assert "larger than an event can be" in unseen.message


# The content type of each of DECODERS.
CONTENT_TYPES = [
    "application/json; charset=utf-8",
    "application/x-ndjson",
    "application/x-ndjson",
    "application/msgpack",
    "application/cloudevents+json",
    "application/cloudevents-batch+json",
    "application/json",
]


# Through the whole service: all of them in a soak, in every run as many as take a few seconds.
REQUESTS = BODIES if SOAK > 1 else 3_000
AT_ONCE = 24
# A page or two for each worker, and what an allocator keeps; a hundredth of what the bodies have in all.
GROWTH_BYTES_MAX = 12 * 1024 * 1024


def requests(count: int) -> Iterator[tuple[bytes, dict[str, str]]]:
    """Bodies with headers, in any type, encoding and mode; some of them are not what the headers say."""
    chance = random.Random(SEED)
    for number, (place, body) in enumerate(bodies(SEED + 2, count)):
        headers = {"Content-Type": "text/plain" if number % 40 == 2 else CONTENT_TYPES[place]}
        content = body
        if number % 50 == 6:
            encoding, content = chance.choice(BOMBS)
            headers["Content-Encoding"] = encoding if chance.random() < 0.9 else chance.choice([*PACKERS])
        elif number % 5 == 1:
            packed, named = chance.choice([*PACKERS]), chance.choice([*PACKERS])
            content = PACKERS[packed](body) if number % 10 == 1 else body
            headers["Content-Encoding"] = named
        if place == 6:
            headers |= {"ce-specversion": "1.0", "ce-id": base64.b85encode(body[:30]).decode(), "ce-type": "%ff%00"}
        yield content, headers


def resident_bytes() -> int:
    """How much memory this process has now."""
    gc.collect()
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def check(answer: Answer) -> int:
    """Look that an answer has a known form, and return its status."""
    assert answer.status in {200, 400, 413, 415}, answer
    kind = "application/json" if answer.status == 200 else "application/problem+json"
    assert kind == media_type(answer.headers["content-type"]).essence
    assert answer.json
    return answer.status


def test_over_http_nothing_is_an_error_of_ours(servers: dict[str, Server]) -> None:
    """Thousands of them through the whole service, many at once: never a 5xx, always a known form, and no growth of memory."""
    statuses: Counter[int] = Counter()
    coming = requests(REQUESTS)

    async def send(service: InProcess, count: int) -> None:
        async def work() -> None:
            for content, headers in islice(coming, count // AT_ONCE):
                statuses[check(await service.post(content, headers))] += 1

        await asyncio.gather(*[work() for _ in range(AT_ONCE)])

    async def scenario(database_url: str) -> int:
        async with in_process(database_url, LIMITS) as service:
            await send(service, REQUESTS // 3)
            before = resident_bytes()
            await send(service, REQUESTS - REQUESTS // 3)
            return resident_bytes() - before

    with servers["postgres"].cloned() as database_url:
        growth_bytes = asyncio.run(scenario(database_url))

    assert growth_bytes < GROWTH_BYTES_MAX
    assert sum(statuses.values()) > REQUESTS - 2 * AT_ONCE
    # A fuzzer that is refused at the door would show nothing.
    assert min(statuses[status] for status in (200, 400, 413, 415)) > REQUESTS // 100, statuses
