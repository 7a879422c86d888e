"""MessagePack becomes events as JSON does, with the same codes and paths; what it could only say inexactly is refused."""

import math
import tracemalloc
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.msgpack import Ext

from metering.errors import BodyError
from metering.events import UsageEvent
from metering.ingest.decode import Decoded, decode_json
from metering.ingest.msgpack_bodies import decode_msgpack
from metering.ingest.receipts import Code, Rejection
from metering.limits import LIMITS
from tests.conftest import ADMIN_KEY, Api, bearer, usage_event
from tests.strategies import MANY, SOME, Sent, events

packed = msgspec.msgpack.encode
FIELDS: dict[str, Any] = {
    "id": "e-1",
    "occurred_at": "2026-03-01T12:00:00Z",
    "account": "acme",
    "product": "maps",
    "unit": "call",
}
EVENT = UsageEvent(
    id="e-1", occurred_at=datetime(2026, 3, 1, 12, tzinfo=UTC), account="acme", product="maps", unit="call"
)


def only(decoded: Decoded) -> UsageEvent | Rejection:
    """The one thing that was decoded."""
    (outcome,) = decoded
    return outcome


def changed(**changes: Any) -> bytes:
    """An event as MessagePack, with some fields otherwise."""
    return packed({**FIELDS, **changes})


REFUSED: list[tuple[bytes, Code, str | None]] = [
    (packed(5), Code.MALFORMED, None),
    (packed(None), Code.MALFORMED, None),
    (packed("text"), Code.MALFORMED, None),
    (packed(1.5), Code.MALFORMED, None),
    (packed(b"bytes"), Code.MALFORMED, None),
    (packed([FIELDS]), Code.MALFORMED, None),
    (packed({1: 2}), Code.MALFORMED, None),
    (packed({}), Code.MISSING_FIELD, "id"),
    (changed(quantitty=1), Code.UNKNOWN_FIELD, "quantitty"),
    (changed(unit=None), Code.MISSING_FIELD, "unit"),
    (changed(id=5), Code.WRONG_TYPE, "id"),
    (changed(id=b"e-1"), Code.WRONG_TYPE, "id"),
    (changed(user=["a"]), Code.WRONG_TYPE, "user"),
    (changed(user={"a": 1}), Code.WRONG_TYPE, "user"),
    (changed(user=datetime(2026, 3, 1, tzinfo=UTC)), Code.WRONG_TYPE, "user"),
    (changed(occurred_at=1772366400), Code.WRONG_TYPE, "occurred_at"),
    (changed(occurred_at=Ext(5, b"x")), Code.WRONG_TYPE, "occurred_at"),
    (changed(occurred_at=Ext(-1, b"\xff" * 12)), Code.WRONG_TYPE, "occurred_at"),
    (changed(occurred_at="yesterday"), Code.TIME_INVALID, "occurred_at"),
    (changed(quantity=1.5), Code.WRONG_TYPE, "quantity"),
    (changed(quantity=1.0), Code.WRONG_TYPE, "quantity"),
    (changed(quantity=math.nan), Code.WRONG_TYPE, "quantity"),
    # Five fields and one more: a float of four bytes.
    (b"\x86" + packed(FIELDS)[1:] + b"\xa8quantity\xca\x3f\x80\x00\x00", Code.WRONG_TYPE, "quantity"),
    (changed(quantity=True), Code.WRONG_TYPE, "quantity"),
    (changed(quantity=None), Code.WRONG_TYPE, "quantity"),
    (changed(quantity=b"1"), Code.WRONG_TYPE, "quantity"),
    (changed(quantity=[1]), Code.WRONG_TYPE, "quantity"),
    (changed(quantity=datetime(2026, 3, 1, tzinfo=UTC)), Code.WRONG_TYPE, "quantity"),
    (changed(quantity="many"), Code.QUANTITY_NOT_A_NUMBER, "quantity"),
    (changed(quantity="1E+99999999999999999999"), Code.QUANTITY_OUT_OF_RANGE, "quantity"),
    (changed(attributes=5), Code.ATTRIBUTES_INVALID, "attributes"),
    (changed(attributes=[]), Code.ATTRIBUTES_INVALID, "attributes"),
    (changed(attributes={"a": [1]}), Code.ATTRIBUTES_INVALID, "attributes"),
    (changed(attributes={"a": {"b": 1}}), Code.ATTRIBUTES_INVALID, "attributes"),
    (changed(attributes={"a": b"x"}), Code.ATTRIBUTES_INVALID, "attributes"),
    (changed(attributes={"a": math.nan}), Code.ATTRIBUTES_INVALID, "attributes"),
    (changed(attributes={"a": -math.inf}), Code.ATTRIBUTES_INVALID, "attributes"),
    (changed(attributes={"a": datetime(2026, 3, 1, tzinfo=UTC)}), Code.ATTRIBUTES_INVALID, "attributes"),
    (changed(attributes={1: 2}), Code.ATTRIBUTES_INVALID, "attributes"),
    (packed(FIELDS).replace(b"acme", b"\xff\xff\xff\xff"), Code.MALFORMED, None),
    (packed(FIELDS).replace(b"unit", b"\xff\xff\xff\xff"), Code.MALFORMED, None),
]


@pytest.mark.parametrize(
    ("body", "code", "path"), REFUSED, ids=[f"{number}-{code.value}" for number, (_, code, _) in enumerate(REFUSED)]
)
def test_refused(body: bytes, code: Code, path: str | None) -> None:
    """What is no event is refused with the code and path of its first fault, alone and between good ones."""
    _, between, last = decode_msgpack(b"\x93" + packed(FIELDS) + body + packed(FIELDS), LIMITS)

    assert isinstance(between, Rejection)
    assert (1, code, path) == (between.index, between.code, between.path)
    assert last == EVENT
    assert between.message.endswith(".")
    assert len(between.message) < 300


@MANY
@given(sent=events())
def test_events_of_the_contract_are_understood(sent: Sent) -> None:
    """Whatever the contract takes comes back as it was sent, its quantity as a string, alone and in an array."""
    fields = {**sent.fields, **({"quantity": str(sent.event.quantity)} if "quantity" in sent.fields else {})}

    assert sent.event == only(decode_msgpack(packed(fields), LIMITS))
    assert [sent.event] * 2 == decode_msgpack(packed([fields, fields]), LIMITS)


@pytest.mark.parametrize("quantity", [0, -1, 2**64 - 1, -(2**63), 9007199254740993])
def test_whole_numbers_are_exact(quantity: int) -> None:
    """Whole numbers of MessagePack are taken as they are."""
    outcome = only(decode_msgpack(changed(quantity=quantity), LIMITS))

    assert isinstance(outcome, UsageEvent)
    assert Decimal(quantity) == outcome.quantity


@pytest.mark.parametrize("seconds", [0, 1_772_366_400, 2**33, -1])
def test_its_own_timestamps_are_taken(seconds: int) -> None:
    """MessagePack's timestamp extension is an instant, in each of its three lengths."""
    instant = datetime(1970, 1, 1, tzinfo=UTC) + timedelta(seconds=seconds, microseconds=5 * (seconds % 2))

    outcome = only(decode_msgpack(changed(occurred_at=instant), LIMITS))

    assert isinstance(outcome, UsageEvent)
    assert instant == outcome.occurred_at


def test_attributes_may_hold_floats() -> None:
    """An attribute is never added up, so it may be a binary float."""
    outcome = only(decode_msgpack(changed(attributes={"a": 1.5, "b": 2**63, "c": None, "d": True}), LIMITS))

    assert isinstance(outcome, UsageEvent)
    assert {"a": 1.5, "b": 2**63, "c": None, "d": True} == outcome.attributes


UNREADABLE = {
    "nothing": b"",
    "cut off": packed([FIELDS])[:-1],
    "one cut off": packed(FIELDS)[:-1],
    "more behind": packed([FIELDS]) + b"\x00",
    "more behind one": packed(FIELDS) + b"\x00",
    "no such byte": b"\xc1",
    "no such byte in an array": b"\x92\x01\xc1",
    "too few elements": b"\x92\x01",
    "a length cut off": b"\xdd\x00",
    "deep": b"\x91" * 100_000 + b"\x01",
}


@pytest.mark.parametrize("body", UNREADABLE.values(), ids=UNREADABLE.keys())
def test_unreadable(body: bytes) -> None:
    """A body that is not MessagePack to its last byte is refused as a whole, and told why."""
    with pytest.raises(BodyError, match=r"^The body is not MessagePack: .+\.$") as caught:
        decode_msgpack(body, LIMITS)

    assert (400, "body_unreadable") == (caught.value.status, caught.value.code)


@pytest.mark.parametrize("element", [FIELDS, {}, 5], ids=["events", "maps", "numbers"])
def test_how_many_events_a_body_may_have(element: object) -> None:
    """10,000 events are taken in one body; one more is 413, whatever they are."""
    assert len(decode_msgpack(packed([element] * 10_000), LIMITS)) == 10_000
    with pytest.raises(BodyError, match="More than 10,000 events"):
        decode_msgpack(packed([element] * 10_001), LIMITS)


@pytest.mark.parametrize(
    "body",
    [
        b"\xdd\x00\xff\xff\xff" + b"\xc0" * 0xFFFFFF,
        b"\xdd\xff\xff\xff\xff",
        b"\x81\xa1a\xdd\xff\xff\xff\xff",
        b"\x81\xa1a\xdf\xff\xff\xff\xff",
        b"\x81\xa1a\xdd\x00\x0f\xff\xff" + b"\xc0" * 0xFFFFF,
        b"\x81\xa1a\xc6\xff\xff\xff\xff",
    ],
    ids=["nils", "length only", "array in it", "map in it", "nils in it", "bytes"],
)
def test_a_senseless_body_costs_little_memory(body: bytes) -> None:
    """A length that is only said, or millions of nils, are never millions of objects."""
    tracemalloc.start()
    try:
        outcome: object = decode_msgpack(body, LIMITS)
    except BodyError as error:
        outcome = error
    finally:
        _, peak_bytes = tracemalloc.get_traced_memory()
        tracemalloc.stop()

    assert isinstance(outcome, BodyError) or all(isinstance(part, Rejection) for part in outcome)  # type: ignore[attr-defined]
    assert peak_bytes < 2 * len(body) + 100_000


VALUES = st.recursive(
    st.one_of(
        st.none(), st.booleans(), st.integers(-(2**63), 2**64 - 1), st.floats(), st.text(max_size=5), st.binary()
    ),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(st.text(max_size=5), inner, max_size=3)),
    max_leaves=5,
)


@SOME
@given(name=st.sampled_from(UsageEvent.__struct_fields__), value=VALUES)
def test_any_value_in_any_field(name: str, value: object) -> None:
    """Whatever stands in a field, the event is taken, or refused at this field; where JSON can say it too, alike."""
    body = {**FIELDS, name: value}
    outcome = only(decode_msgpack(packed(body), LIMITS))

    if isinstance(outcome, Rejection):
        assert name == outcome.path
    if not _holds(value, float | bytes):
        in_json = only(decode_json(msgspec.json.encode(body), LIMITS))
        if isinstance(outcome, Rejection):
            assert isinstance(in_json, Rejection)
            assert (outcome.code, outcome.path) == (in_json.code, in_json.path)
        else:
            assert outcome == in_json


def _holds(value: object, kinds: Any) -> bool:
    parts = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return isinstance(value, kinds) or any(_holds(part, kinds) for part in parts)


def test_over_http(api: Api) -> None:
    """An array of maps is taken over HTTP; a float for a quantity is refused by name, and costs no other."""
    body = packed([usage_event(1), usage_event(2, quantity=0.1), usage_event(3, quantity=7)])
    headers = {**bearer(ADMIN_KEY), "Content-Type": "application/msgpack"}

    answer = api.client.post("/v1/events", content=body, headers=headers).json()

    assert answer["accepted"] == 2
    assert [(1, "wrong_type", "quantity")] == [
        (rejection["index"], rejection["code"], rejection["path"]) for rejection in answer["rejected"]
    ]
