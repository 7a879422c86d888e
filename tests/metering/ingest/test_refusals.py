"""What is kept of a refused event: text that can be stored, bounded, and never better than what was sent."""

import math
from datetime import UTC, datetime
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.msgpack import Ext

from metering.errors import BodyError
from metering.events import UsageEvent
from metering.ingest.bodies import PlainEvents, SentBody, printable
from metering.ingest.cloudevents import decode_elements
from metering.ingest.decode import decode_element
from metering.ingest.readers import reader_of
from metering.ingest.receipts import Code, Rejection
from metering.ingest.refusals import Refusals
from metering.limits import LIMITS, Limits
from metering.store.quarantine import RejectedRow
from tests.conftest import usage_event
from tests.metering.ingest.test_fuzz import CONTENT_TYPES, SEED, bodies
from tests.strategies import MANY

AT = datetime(2026, 3, 1, 12, tzinfo=UTC)
BINARY = {"ce-specversion": "1.0", "ce-type": "t", "ce-id": "e", "ce-source": "s", "ce-time": "2026-03-01T12:00:00Z"}
DATA = {"account": "acme", "product": "maps"}

packed = msgspec.msgpack.encode
json_of = msgspec.json.encode


class OneBody:
    """A request of one event that looks like this."""

    def __init__(self, raw: bytes, media_type: str = "application/json") -> None:
        self._sent = SentBody(media_type, raw)

    def worded(self, rejection: Rejection) -> Rejection:
        """As it is."""
        return rejection

    def body(self, _index: int) -> SentBody:
        """The event."""
        return self._sent


def kept(raw: bytes, *, code: Code = Code.MALFORMED, path: str | None = None, limits: Limits = LIMITS) -> RejectedRow:
    """What is kept of an event that was refused for this reason."""
    return Refusals("mk_1", OneBody(raw)).row(Rejection(0, code, "No.", path=path), AT, limits)


def refused(content_type: str | None, body: bytes, headers: dict[str, str] | None = None) -> list[RejectedRow]:
    """What is kept of a body of which something cannot be decoded."""
    pairs = [(name.encode(), value.encode("latin-1")) for name, value in (headers or {}).items()]
    if content_type is not None:
        pairs.append((b"content-type", content_type.encode()))
    reader = reader_of(pairs, LIMITS)
    reader.feed(body)
    rejections = [outcome for outcome in reader.finish() if isinstance(outcome, Rejection)]
    refusals = Refusals("mk_1", reader)
    return [refusals.row(rejection, AT, LIMITS) for rejection in refusals.worded(rejections)]


# ---------------------------------------------------------------- text


@pytest.mark.parametrize(
    ("raw", "body", "is_exact"),
    [
        (b'{"a": 1}\r\n', '{"a": 1}', True),
        ('{"a": "\U0001f680 ü"}'.encode(), '{"a": "\U0001f680 ü"}', True),
        (b'{"a": "\\u0000 \\ud800"}', '{"a": "\\u0000 \\ud800"}', True),
        (b'{"a": "\0"}', '{"a": "\\u0000"}', False),
        (b'{"a": "\xff\xc3"}', '{"a": "\\xff\\xc3"}', False),
        (b'{"a": "\xed\xa0\x80"}', '{"a": "\\xed\\xa0\\x80"}', False),
        (b"", "", True),
    ],
)
def test_text_that_cannot_be_kept_is_escaped(raw: bytes, body: str, *, is_exact: bool) -> None:
    """NUL, halves of surrogate pairs and bytes that are no UTF-8 stand as escapes; everything else as it was sent."""
    row = kept(raw)

    assert (body, is_exact) == (row.body, row.is_exact)
    assert len(body.encode()) == row.body_bytes


@MANY
@given(raw=st.binary(max_size=200), path=st.one_of(st.none(), st.text(max_size=30)), limit=st.integers(0, 100))
def test_whatever_is_kept_can_be_stored(raw: bytes, path: str | None, limit: int) -> None:
    """No NUL, no half of a surrogate pair, never longer than may be, and exact only when it is what was sent."""
    limits = msgspec.structs.replace(LIMITS, rejected_body_bytes_max=limit, rejected_text_chars_max=20)
    path = None if path is None else path.encode(errors="ignore").decode()
    row = kept(raw, path=path, limits=limits)

    assert "\0" not in f"{row.body}{row.path}{row.message}{row.source}"
    assert len(row.body.encode()) <= limit
    assert len(row.path or "") <= 20
    assert row.is_exact == (row.body.encode() == raw.strip(b" \t\r\n"))
    assert row.kept_bytes == sum(len((text or "").encode()) for text in (row.body, row.path, row.message, row.source))


def test_a_long_body_is_cut_and_known_to_be() -> None:
    """Of a megabyte the beginning is kept, cut between two characters, with the length that it had."""
    row = kept(b'{"id":"' + "\U0001f680".encode() * 250_000 + b'"}')

    assert row.body.startswith('{"id":"\U0001f680')
    assert LIMITS.rejected_body_bytes_max - 4 < len(row.body.encode()) <= LIMITS.rejected_body_bytes_max
    assert (1_000_009, False) == (row.body_bytes, row.is_exact)


def test_every_event_that_could_be_good_fits() -> None:
    """The largest event there can be, of characters that JSON has to escape, is kept whole."""
    names = (
        "id",
        "source",
        "account",
        "subscription",
        "user",
        "device",
        "product",
        "feature",
        "classification",
        "unit",
    )
    fields = dict.fromkeys(names, "\x01" * LIMITS.name_chars_max)
    attributes = {"a": "x" * (LIMITS.attributes_bytes_max - len('{"a":""}'))}
    event = msgspec.convert(
        {**fields, "occurred_at": "2026-03-01T12:00:00.123456+14:00", "quantity": "9" * 20 + "." + "9" * 18}
        | {"attributes": attributes},
        UsageEvent,
    )
    row = Refusals("mk_1", PlainEvents([event])).row(Rejection(0, Code.IDENTITY_CONFLICT, "No."), AT, LIMITS)

    assert row.is_exact
    assert event == decode_element(0, row.body.encode(), LIMITS)


def test_long_names_in_a_rejection_are_bounded() -> None:
    """A path or a source of a hundred thousand characters does not become a row of that size."""
    (row,) = refused("application/json", json_of({"x" * 100_000: 1, "source": "s\0" * 50_000}))

    assert (LIMITS.rejected_text_chars_max,) * 2 == (len(row.path or ""), len(row.source or ""))
    assert (row.path or "").endswith("x…")
    assert (row.source or "").startswith("s\\u0000s")
    assert row.kept_bytes < 30_000


# ---------------------------------------------------------------- digests


def test_the_same_bad_event_is_the_same_row() -> None:
    """The digest is of who sent what and why it was refused: not of the message, nor of the space around the event."""
    event = usage_event(1, unit=None)
    array = refused("application/json", b"[ " + json_of(event) + b" ,\n5]")
    lines = refused("application/x-ndjson", json_of(event) + b"\r\n5\n")
    other_sender = Refusals("mk_2", OneBody(json_of(event))).row(
        Rejection(0, Code.MISSING_FIELD, "", path="unit"), AT, LIMITS
    )

    assert [row.digest for row in array] == [row.digest for row in lines]
    assert kept(b"{}", path="a").digest == kept(b"{}", path="a")._replace(message="another").digest
    digests = [*(row.digest for row in array), other_sender.digest, kept(b"{}").digest, kept(b"{}", path="a").digest]
    digests += [kept(b"{}", code=Code.WRONG_TYPE).digest, kept(b"x" * 30_000).digest, kept(b"x" * 30_000 + b"y").digest]
    assert len(digests) == len(set(digests))


# ---------------------------------------------------------------- MessagePack, as JSON


def in_base64(raw: bytes) -> str:
    """Bytes as a JSON string."""
    return json_of(raw).decode()


EVENT = {"id": "e", "occurred_at": "2026-03-01T12:00:00Z", "account": "acme", "product": "maps", "unit": "call"}
GOOD = json_of(EVENT).decode()[:-1]
CALENDAR = Ext(-1, b"\xff" * 12)


@pytest.mark.parametrize(
    ("raw", "body", "is_exact"),
    [
        (packed(5), "5", True),
        (packed({**EVENT, "unit": None}), GOOD.replace('"call"', "null") + "}", True),
        (packed({**EVENT, "quantity": 1.5}), f'{GOOD},"quantity":1.5}}', False),
        (packed({**EVENT, "user": b"abc"}), f'{GOOD},"user":"YWJj"}}', False),
        (packed({**EVENT, "user": AT}), f'{GOOD},"user":"2026-03-01T12:00:00Z"}}', False),
        (packed({**EVENT, "attributes": {"a": math.nan}}), f'{GOOD},"attributes":{{"a":"nan"}}}}', False),
        (packed({**EVENT, "quantity": -math.inf}), f'{GOOD},"quantity":"-inf"}}', False),
        (packed({**EVENT, "attributes": {1: 2}}), f'{GOOD},"attributes":{{"1":2}}}}', False),
        (packed({**EVENT, "user": Ext(5, b"abc")}), f'{GOOD},"user":{{"ext":5,"data":"YWJj"}}}}', True),
        (packed({**EVENT, "colour": [1, [2]]}), f'{GOOD},"colour":[1,[2]]}}', True),
        (packed({1: 2}), '{"1":2}', True),
        # What JSON has no form for: a name that is no scalar, an instant outside the calendar, text that is none.
        (packed({None: 2}), in_base64(packed({None: 2})), True),
        (packed({"a": CALENDAR}), in_base64(packed({"a": CALENDAR})), True),
        (b"\x81\xa1a\xa1\xff", in_base64(b"\x81\xa1a\xa1\xff"), True),
        # A name twice, of which JSON would keep the last.
        (b"\x86" + packed(EVENT)[1:] + b"\xa2id\x05", GOOD.replace('"e"', "5") + "}", True),
        (b"\x86\xa2id\x05" + packed(EVENT)[1:], GOOD + "}", False),
    ],
)  # fmt: skip
def test_messagepack_is_kept_as_json(raw: bytes, body: str, *, is_exact: bool) -> None:
    """People can read it, and it can be sent again as it is only where that is refused again."""
    (row,) = refused("application/msgpack", b"\x92" + packed(EVENT) + raw)

    assert (body, is_exact, "application/json") == (row.body, row.is_exact, row.media_type)


def test_megabytes_of_messagepack_are_not_taken_apart() -> None:
    """What is larger than any event is kept as the beginning of its Base64."""
    large = b"\x81\xa1a\xdd\x00\x20\x00\x00" + b"\xc0" * 0x200000
    (row,) = refused("application/msgpack", large)

    assert row.body == in_base64(large)[: LIMITS.rejected_body_bytes_max]
    assert not row.is_exact


# ---------------------------------------------------------------- CloudEvents, in structured mode


@pytest.mark.parametrize(
    ("headers", "data", "members", "is_exact"),
    [
        ({}, DATA, {"data": DATA}, True),
        ({"ce-subject": "%C3%BC%00", "ce-sequence": "5"}, DATA, {"subject": "ü\0", "sequence": "5", "data": DATA}, True),
        ({"ce-specversion": "0.3"}, DATA, {"specversion": "0.3", "data": DATA}, True),
        ({"ce-subject": "%ff"}, DATA, {"subject": "%ff", "data": DATA}, False),
        ({"ce-subject": "ü"}, DATA, {"subject": "ü", "data": DATA}, False),
        ({"CE-ID": "twice"}, DATA, {"id": ["e", "twice"], "data": DATA}, False),
        ({"ce-data": "x", "ce-data_base64": "y", "ce-datacontenttype": "text/xml"}, DATA, {"data": DATA}, True),
        ({"ce-subject": "acme"}, None, {"subject": "acme"}, True),
    ],
)  # fmt: skip
def test_binary_mode_is_kept_as_structured(
    headers: dict[str, str], data: Any, members: dict[str, Any], *, is_exact: bool
) -> None:
    """Headers become members, whatever they mean here, and the body becomes the data."""
    (row,) = refused("application/json", b"" if data is None else json_of(data), {**BINARY, **headers})
    usual = {name.removeprefix("ce-"): value for name, value in BINARY.items()}

    assert usual | members == msgspec.json.decode(row.body)
    assert ("application/cloudevents+json", is_exact) == (row.media_type, row.is_exact)


def test_a_cloud_event_written_anew_is_the_same() -> None:
    """A CloudEvent that was decoded is written so that it is decoded to the same event, nothing added and nothing lost."""
    event = {
        "specversion": "1.0",
        "type": "t",
        "id": "e",
        "source": "s",
        "time": "2026-03-01T12:00:00Z",
        "subject": "acme",
    }
    event = {**event, "data": {"product": "maps", "unit": "call", "quantity": "1.50", "attributes": {"a": None}}}
    reader = reader_of([(b"content-type", b"application/cloudevents+json")], LIMITS)
    reader.feed(json_of(event))
    decoded = reader.finish()

    row = Refusals("mk_1", reader).row(Rejection(0, Code.TIME_IN_FUTURE, "No.", path="time"), AT, LIMITS)

    assert event == msgspec.json.decode(row.body)
    assert decoded == decode_elements([row.body.encode()], LIMITS).decoded


# ---------------------------------------------------------------- whatever comes


def again(row: RejectedRow) -> UsageEvent | Rejection:
    """What becomes of the row's body when it is decoded as it is."""
    raw = row.body.encode()
    is_cloud_event = row.media_type == "application/cloudevents+json"
    return decode_elements([raw], LIMITS).decoded[0] if is_cloud_event else decode_element(0, raw, LIMITS)


def test_what_is_exact_is_refused_again() -> None:
    """Of thirty thousand bodies that nobody should send: what may be sent again as it is, is refused as it was."""
    exact = 0
    for place, body in bodies(SEED + 3, 30_000):
        try:
            rows = refused(CONTENT_TYPES[place], body, {**BINARY, "ce-subject": "acme"} if place == 6 else None)
        except BodyError:
            continue
        for row in rows:
            assert "\0" not in f"{row.body}{row.path}{row.message}{row.source}"
            assert len(row.body.encode()) <= LIMITS.rejected_body_bytes_max
            if row.is_exact:
                exact += 1
                outcome = again(row)
                assert isinstance(outcome, Rejection), (body, row)
                # MessagePack has types that JSON has not.
                path = None if outcome.path is None else printable(outcome.path)
                assert place == 3 or (row.code, row.path) == (outcome.code.value, path), (body, row)

    assert exact > 5_000
