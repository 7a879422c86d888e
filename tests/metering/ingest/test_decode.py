"""Bytes become events, or a reason for each one that does not; nothing else ever comes out."""

import tracemalloc
from collections.abc import Callable
from datetime import UTC, datetime, timedelta, timezone
from decimal import Decimal

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from metering.errors import BodyError
from metering.events import UsageEvent
from metering.ingest.decode import Decoded, decode_json, decode_ndjson
from metering.ingest.receipts import Code, Rejection
from metering.limits import LIMITS
from tests.strategies import FEW, MANY, SOME, Sent, decimals, events, spellings

FIELDS = {
    "id": '"e-1"',
    "occurred_at": '"2026-03-01T12:00:00Z"',
    "account": '"acme"',
    "product": '"maps"',
    "unit": '"call"',
}
EVENT = UsageEvent(
    id="e-1", occurred_at=datetime(2026, 3, 1, 12, tzinfo=UTC), account="acme", product="maps", unit="call"
)

DECODERS: dict[str, Callable[[bytes], Decoded]] = {
    "json": lambda body: decode_json(body, LIMITS),
    "ndjson": lambda body: decode_ndjson(body, LIMITS),
}
both = pytest.mark.parametrize("decode", DECODERS.values(), ids=DECODERS.keys())


def written(**changes: str | None) -> str:
    """An event as JSON, with some fields written otherwise, or (None) left out."""
    fields = {**FIELDS, **changes}
    return "{" + ",".join(f'"{name}":{value}' for name, value in fields.items() if value is not None) + "}"


def only(decoded: Decoded) -> UsageEvent | Rejection:
    """The one thing that was decoded."""
    (outcome,) = decoded
    return outcome


# ---------------------------------------------------------------- what is no event

# What stands in a field instead (or, as a text, instead of the event), the code, and the path.
REFUSED: list[tuple[str | dict[str, str | None], Code, str | None]] = [
    ("5", Code.MALFORMED, None),
    ("null", Code.MALFORMED, None),
    ("true", Code.MALFORMED, None),
    ('"text"', Code.MALFORMED, None),
    ("[]", Code.MALFORMED, None),
    ("[[1]]", Code.MALFORMED, None),
    ({"id": '5,"id":"e-1"'}, Code.MALFORMED, None),
    ({"attributes": '[],"attributes":{}'}, Code.MALFORMED, None),
    ({"quantity": "1" * 5_000, "id": "5"}, Code.MALFORMED, None),
    ({"attributes": '{"n":' + "1" * 5_000 + "}"}, Code.MALFORMED, None),
    ({"quantitty": "1"}, Code.UNKNOWN_FIELD, "quantitty"),
    ({"Id": '"e-1"'}, Code.UNKNOWN_FIELD, "Id"),
    ({"time": "1", "value": "2"}, Code.UNKNOWN_FIELD, "time"),
    ("{}", Code.MISSING_FIELD, "id"),
    ({"id": None}, Code.MISSING_FIELD, "id"),
    ({"id": "null"}, Code.MISSING_FIELD, "id"),
    ({"occurred_at": None}, Code.MISSING_FIELD, "occurred_at"),
    ({"account": None}, Code.MISSING_FIELD, "account"),
    ({"product": None}, Code.MISSING_FIELD, "product"),
    ({"unit": "null"}, Code.MISSING_FIELD, "unit"),
    ({"id": "5"}, Code.WRONG_TYPE, "id"),
    ({"source": "[]"}, Code.WRONG_TYPE, "source"),
    ({"occurred_at": "1772366400"}, Code.WRONG_TYPE, "occurred_at"),
    ({"occurred_at": "{}"}, Code.WRONG_TYPE, "occurred_at"),
    ({"account": "1.5"}, Code.WRONG_TYPE, "account"),
    ({"subscription": "true"}, Code.WRONG_TYPE, "subscription"),
    ({"user": "{}"}, Code.WRONG_TYPE, "user"),
    ({"device": "0"}, Code.WRONG_TYPE, "device"),
    ({"product": "false"}, Code.WRONG_TYPE, "product"),
    ({"feature": '["a"]'}, Code.WRONG_TYPE, "feature"),
    ({"classification": "5"}, Code.WRONG_TYPE, "classification"),
    ({"unit": "1e5"}, Code.WRONG_TYPE, "unit"),
    ({"quantity": "true"}, Code.WRONG_TYPE, "quantity"),
    ({"quantity": "false"}, Code.WRONG_TYPE, "quantity"),
    ({"quantity": "null"}, Code.WRONG_TYPE, "quantity"),
    ({"quantity": "[1]"}, Code.WRONG_TYPE, "quantity"),
    ({"quantity": "{}"}, Code.WRONG_TYPE, "quantity"),
    ({"occurred_at": '""'}, Code.TIME_INVALID, "occurred_at"),
    ({"occurred_at": '"yesterday"'}, Code.TIME_INVALID, "occurred_at"),
    ({"occurred_at": '"1772366400"'}, Code.TIME_INVALID, "occurred_at"),
    ({"occurred_at": '"2026-03-01"'}, Code.TIME_INVALID, "occurred_at"),
    ({"occurred_at": '"2026-03-01T12:00Z"'}, Code.TIME_INVALID, "occurred_at"),
    ({"occurred_at": '"2026-02-29T12:00:00Z"'}, Code.TIME_INVALID, "occurred_at"),
    ({"occurred_at": '"2026-03-01T24:00:00Z"'}, Code.TIME_INVALID, "occurred_at"),
    ({"occurred_at": '"2026-03-01T12:00:60Z"'}, Code.TIME_INVALID, "occurred_at"),
    ({"occurred_at": '"2026-03-01T12:00:00+24:00"'}, Code.TIME_INVALID, "occurred_at"),
    ({"occurred_at": '"0000-01-01T00:00:00Z"'}, Code.TIME_INVALID, "occurred_at"),
    ({"occurred_at": '"2026-03-01T12:00:00Z "'}, Code.TIME_INVALID, "occurred_at"),
    ({"occurred_at": '"2026-03-01T12:00:00"', "quantity": '"abc"'}, Code.TIME_NAIVE, "occurred_at"),
    ({"quantity": '""'}, Code.QUANTITY_NOT_A_NUMBER, "quantity"),
    ({"quantity": '"abc"'}, Code.QUANTITY_NOT_A_NUMBER, "quantity"),
    ({"quantity": '"0x10"'}, Code.QUANTITY_NOT_A_NUMBER, "quantity"),
    ({"quantity": '"1,5"'}, Code.QUANTITY_NOT_A_NUMBER, "quantity"),
    ({"quantity": '"1.2.3e5"'}, Code.QUANTITY_NOT_A_NUMBER, "quantity"),
    ({"quantity": '"NaN"', "attributes": "5"}, Code.QUANTITY_NOT_A_NUMBER, "quantity"),
    ({"quantity": '"Infinity"', "attributes": "5"}, Code.QUANTITY_NOT_A_NUMBER, "quantity"),
    ({"quantity": "1E+99999999999999999999"}, Code.QUANTITY_OUT_OF_RANGE, "quantity"),
    ({"quantity": "-1E-99999999999999999999"}, Code.QUANTITY_OUT_OF_RANGE, "quantity"),
    ({"quantity": '"1.5E+99999999999999999999"'}, Code.QUANTITY_OUT_OF_RANGE, "quantity"),
    ({"attributes": "5"}, Code.ATTRIBUTES_INVALID, "attributes"),
    ({"attributes": '"text"'}, Code.ATTRIBUTES_INVALID, "attributes"),
    ({"attributes": "[]"}, Code.ATTRIBUTES_INVALID, "attributes"),
    ({"attributes": '{"a":[1]}'}, Code.ATTRIBUTES_INVALID, "attributes"),
    ({"attributes": '{"a":1,"b":{"c":1}}'}, Code.ATTRIBUTES_INVALID, "attributes"),
    ({"attributes": '{"a":1e400}'}, Code.ATTRIBUTES_INVALID, "attributes"),
    ({"attributes": '{"a":-1E+99999999999999999999}'}, Code.ATTRIBUTES_INVALID, "attributes"),
]
REFUSED_BODIES = [(instead if isinstance(instead, str) else written(**instead)).encode() for instead, _, _ in REFUSED]
refused = pytest.mark.parametrize(
    ("body", "code", "path"),
    [(body, code, path) for body, (_, code, path) in zip(REFUSED_BODIES, REFUSED, strict=True)],
    ids=[f"{instead!s:.80}" for instead, _, _ in REFUSED],
)


@refused
def test_refused(body: bytes, code: Code, path: str | None) -> None:
    """What is no event is refused with the code and the path of its first fault, wherever it stands."""
    good = written().encode()
    alone = only(decode_ndjson(body, LIMITS))
    last = decode_json(b"[" + good + b" , " + body + b"]", LIMITS)
    line = decode_ndjson(good + b"\n" + body, LIMITS)

    assert isinstance(alone, Rejection)
    assert (0, code, path) == (alone.index, alone.code, alone.path)
    assert [EVENT, msgspec.structs.replace(alone, index=1)] == last == line


@refused
def test_refusals_are_for_people(body: bytes, code: Code, path: str | None) -> None:
    """A refusal is a sentence that shows the field or the value, in no internal words, and repeats no long input."""
    refusal = only(decode_ndjson(body, LIMITS))

    assert isinstance(refusal, Rejection)
    assert refusal.message.endswith(".")
    assert len(refusal.message) < 300
    if path is not None and code not in {Code.TIME_INVALID, Code.QUANTITY_NOT_A_NUMBER}:
        assert f"`{path}`" in refusal.message
    assert "Decimal" not in refusal.message
    assert "$" not in refusal.message


@pytest.mark.parametrize(
    ("id_json", "expected"), [('"e-13"', "e-13"), ('""', ""), ("13", None), ("null", None), ("[]", None), (None, None)]
)
def test_a_refusal_carries_the_id(id_json: str | None, expected: str | None) -> None:
    """A refusal names the event's id as far as there is one, so that a producer finds the event again."""
    refusal = only(decode_ndjson(written(id=id_json, nonsense="1").encode(), LIMITS))

    assert isinstance(refusal, Rejection)
    assert expected == refusal.id


FAULTS: dict[Code, dict[str, str | None]] = {
    Code.UNKNOWN_FIELD: {"nonsense": "1"},
    Code.MISSING_FIELD: {"unit": None},
    Code.WRONG_TYPE: {"product": "5"},
    Code.TIME_INVALID: {"occurred_at": '"yesterday"'},
    Code.QUANTITY_NOT_A_NUMBER: {"quantity": '"abc"'},
    Code.ATTRIBUTES_INVALID: {"attributes": "5"},
}


@pytest.mark.parametrize(
    ("first", "second"), [(one, other) for one in FAULTS for other in FAULTS if one is not other], ids=str
)
def test_the_first_fault_in_the_order_of_codes(first: Code, second: Code) -> None:
    """Of two faults the one is told whose code comes first, whichever field it is in."""
    refusal = only(decode_ndjson(written(**FAULTS[first], **FAULTS[second]).encode(), LIMITS))

    assert isinstance(refusal, Rejection)
    assert min((first, second), key=list(Code).index) == refusal.code


def test_within_a_code_the_first_field_of_the_contract() -> None:
    """Of several fields with the same fault, the one is told that the contract's table has first, not the sender."""
    order = ["id", "source", "occurred_at", "account", "subscription", "user", "device", "product"]
    order += ["feature", "classification", "unit", "quantity"]
    told = []
    for index in range(len(order)):
        body = written(**dict.fromkeys(reversed(order[index:]), "true"))
        outcome = only(decode_ndjson(body.encode(), LIMITS))
        told.append(outcome.path if isinstance(outcome, Rejection) else None)

    assert order == told


# ---------------------------------------------------------------- what is an event


@MANY
@given(sent=events())
def test_events_of_the_contract_are_understood(sent: Sent) -> None:
    """Whatever the contract takes comes back as it was sent: alone, in an array, as a line."""
    assert sent.event == only(decode_json(sent.json, LIMITS))
    assert sent.event == only(decode_json(b" [ " + sent.json + b"\n]\r\n", LIMITS))
    assert sent.event == only(decode_ndjson(sent.json, LIMITS))


@MANY
@given(data=st.data(), number=decimals())
def test_quantities_are_exact(data: st.DataObject, number: Decimal) -> None:
    """A quantity is taken as it is written, as a number or a string, with or without an exponent: to the last digit."""
    outcome = only(decode_json(written(quantity=data.draw(spellings(number))).encode(), LIMITS))

    assert isinstance(outcome, UsageEvent)
    assert number == outcome.quantity


@pytest.mark.parametrize(
    ("quantity", "expected"),
    [
        (None, "1"),
        ("0.1", "0.1"),
        ("1e-18", "0.000000000000000001"),
        ("0.1000000000000000055511151231257827", "0.1000000000000000055511151231257827"),
        ("99999999999999999999.999999999999999999", "99999999999999999999.999999999999999999"),
        ("-12345678901234567890123456789012345678", "-12345678901234567890123456789012345678"),
        ("9007199254740993", "9007199254740993"),
        ('"+1.5"', "1.5"),
        ('"15e-1"', "1.5"),
        ("15E-1", "1.5"),
        ("-0", "0"),
        ("0E+999999999", "0"),
    ],
)
def test_a_quantity_never_goes_through_a_float(quantity: str | None, expected: str) -> None:
    """Digits that no binary float holds arrive; without a quantity it is one."""
    outcome = only(decode_json(written(quantity=quantity).encode(), LIMITS))

    assert isinstance(outcome, UsageEvent)
    assert Decimal(expected) == outcome.quantity


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("2026-03-01T12:00:00Z", datetime(2026, 3, 1, 12, tzinfo=UTC)),
        ("2026-03-01t12:00:00z", datetime(2026, 3, 1, 12, tzinfo=UTC)),
        ("2026-03-01T12:00:00.000001Z", datetime(2026, 3, 1, 12, 0, 0, 1, tzinfo=UTC)),
        ("2026-03-01T12:00:00.5-00:00", datetime(2026, 3, 1, 12, 0, 0, 500_000, tzinfo=UTC)),
        ("2026-03-01T17:45:00+05:45", datetime(2026, 3, 1, 12, tzinfo=UTC)),
        ("2026-02-28T12:01:00-23:59", datetime(2026, 3, 1, 12, tzinfo=UTC)),
    ],
)
def test_times(text: str, expected: datetime) -> None:
    """RFC 3339 in its spellings is the instant that it names."""
    outcome = only(decode_json(written(occurred_at=f'"{text}"').encode(), LIMITS))

    assert isinstance(outcome, UsageEvent)
    assert expected == outcome.occurred_at


def test_the_offset_is_kept() -> None:
    """Decoding does not judge: a time comes with the offset that it was sent with."""
    outcome = only(decode_json(written(occurred_at='"2026-03-01T12:00:00+05:45"').encode(), LIMITS))

    assert isinstance(outcome, UsageEvent)
    assert timezone(timedelta(hours=5, minutes=45)) == outcome.occurred_at.tzinfo


@pytest.mark.parametrize(
    "name", ["subscription", "user", "device", "feature", "classification", "source", "attributes"]
)
def test_null_is_absent(name: str) -> None:
    """An optional field that is null is the same as one that is not there."""
    assert only(decode_json(written(**{name: "null"}).encode(), LIMITS)) == EVENT


def test_of_a_field_named_twice_the_last_counts() -> None:
    """Where both values could be taken, the last one is, as nearly every JSON reader does."""
    expected = msgspec.structs.replace(EVENT, account="last")

    assert expected == only(decode_json(written(account='"first","account":"last"').encode(), LIMITS))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (r"\u0000", "\0"),
        (r"\ud83d\ude00", "\U0001f600"),
        (r"\\ud800", r"\ud800"),
        (r"\\\ud83d\ude00", "\\\U0001f600"),
    ],
)
def test_escapes(text: str, expected: str) -> None:
    """Escapes are read as JSON means them; whether the text may be kept is for admission to say."""
    assert msgspec.structs.replace(EVENT, account=expected) == only(
        decode_json(written(account=f'"{text}"').encode(), LIMITS)
    )


# ---------------------------------------------------------------- one bad event never costs the others

NOT_TEXT = {
    "half a pair": written(account=r'"\ud800"').encode(),
    "the other half": written(account=r'"\udc00 and more text than an escape is long"').encode(),
    "two first halves": written(account=r'"\ud800\ud800"').encode(),
    "half a pair in a name": written(attributes=r'{"\udfff":1}').encode(),
    "no UTF-8": written().encode().replace(b"acme", b"\xff"),
    "a character cut off": written().encode().replace(b"acme", b"\xf0\x9f\x9a"),
    "half a pair in UTF-8": written().encode().replace(b"acme", b"\xed\xa0\x80"),
    "a tab": written().encode().replace(b"acme", b"a\tb"),
    "no number": written(quantity="NaN").encode(),
    "no number either": written(quantity="-Infinity").encode(),
}


@pytest.mark.parametrize("bad", NOT_TEXT.values(), ids=NOT_TEXT.keys())
def test_what_is_nearly_json_costs_only_its_event(bad: bytes) -> None:
    """What many writers of JSON let through, and readers do not, is refused for the event that holds it, no other."""
    first, second, third = decode_json(b"[" + b",".join([written().encode(), bad, written().encode()]) + b"]", LIMITS)

    assert [first, third] == [EVENT, EVENT]
    assert isinstance(second, Rejection)
    assert (second.index, second.code) == (1, Code.MALFORMED)


BAD = [*(body for body in REFUSED_BODIES if len(body) < 1_000), *NOT_TEXT.values()]


@SOME
@given(batch=st.lists(st.one_of(events(), st.sampled_from(BAD)), max_size=8))
def test_one_bad_event_never_costs_the_others(batch: list[Sent | bytes]) -> None:
    """In any mixture the good events come back equal and in order, and each bad one is named by its index."""
    parts = [part.json if isinstance(part, Sent) else part for part in batch]
    expected = [part.event if isinstance(part, Sent) else index for index, part in enumerate(batch)]

    for decoded in (
        decode_json(b"[" + b",".join(parts) + b"]", LIMITS),
        decode_ndjson(b"\n".join(parts), LIMITS),
    ):
        assert expected == [outcome.index if isinstance(outcome, Rejection) else outcome for outcome in decoded]


@pytest.mark.parametrize(
    ("broken", "told"),
    [
        (written(account=r'"\ud800"').encode(), "surrogate"),
        (written(account='"@"').encode().replace(b"@", b"\xff"), "the byte 0xff is not UTF-8"),
        (written(account='"@"').encode().replace(b"@", b"\xf0\x9f\x9a"), "the byte 0xf0 is not UTF-8"),
    ],
)
def test_text_that_is_not_unicode(broken: bytes, told: str) -> None:
    """Half a surrogate pair or bytes that are not UTF-8, as cut-off texts leave them, are told of the event alone."""
    first, second, third = decode_json(
        b"[" + b",".join([written().encode(), broken, written().encode()]) + b"]", LIMITS
    )

    assert [first, third] == [EVENT, EVENT]
    assert isinstance(second, Rejection)
    assert (second.index, second.code) == (1, Code.MALFORMED)
    assert told in second.message


def test_lines() -> None:
    """Lines end with or without a carriage return, the last one needs no end, and blank lines are not counted."""
    good, bad = written().encode(), b"{"

    decoded = decode_ndjson(b"\n\r\n" + good + b"\r\n  \n" + bad + b"\n\n" + good, LIMITS)

    assert (decoded[0], decoded[2]) == (EVENT, EVENT)
    assert isinstance(decoded[1], Rejection)
    assert (decoded[1].index, decoded[1].code) == (1, Code.MALFORMED)


@pytest.mark.parametrize("body", [b"", b"\n", b" \n\r\n\t"])
def test_no_lines_are_no_events(body: bytes) -> None:
    """A body of NDJSON without a line that is not blank has no events, which is no fault."""
    assert decode_ndjson(body, LIMITS) == []


def test_an_empty_array_is_no_events() -> None:
    """An array may be empty."""
    assert decode_json(b" [ ] ", LIMITS) == []


# ---------------------------------------------------------------- what cannot be read at all


GOOD = written().encode()
WRONG = written(id="5").encode()
DEEP = 100_000
UNREADABLE = {
    "nothing": b"",
    "blank": b"   ",
    "no end": b"[",
    "no start": b"]",
    "no end of an object": b"{",
    "another end": b"[}",
    "an end too many": b"{}]",
    "two arrays": b"[{}] []",
    "no comma": b"[5 5]",
    "a comma too many": b"[5,]",
    "a comma first": b"[,5]",
    "no word of JSON": b"nul",
    "no quotes of JSON": b"'text'",
    "UTF-16": b"\xff\xfe[\0]\0",
    "a byte order mark": b"\xef\xbb\xbf" + GOOD,
    "no blank of JSON": b"\x0b[]",
    "more behind an event": GOOD + b"x",
    "more behind what is no event": WRONG + b"x",
    "an event cut off": GOOD[:-1],
    "no event cut off": WRONG[:-1],
    "an array cut off": b"[" + GOOD,
    "an array cut off in what is no event": b"[" + GOOD + b"," + WRONG[:-1],
    "garbage in the array": b"[" + WRONG + b" garbage]",
    "lines in an array": b"[" + GOOD + b"\n" + GOOD + b"]",
    "a byte that is not UTF-8": GOOD.replace(b"acme", b"\xff"),
    "half a surrogate pair": GOOD.replace(b"acme", b"\\ud800"),
    "a number that is none": written(quantity="NaN").encode(),
    "deep": b"[" * DEEP,
    "deep and whole": b"[" * DEEP + b"]" * DEEP,
    "deep objects": b'{"a":' * DEEP + b"1" + b"}" * DEEP,
    "deep in an event": written(attributes='{"a":' + "[" * DEEP + "]" * DEEP + "}").encode(),
    "deep in an array": b"[5," + b"[" * DEEP + b"]" * DEEP + b"]",
}


@pytest.mark.parametrize("body", UNREADABLE.values(), ids=UNREADABLE.keys())
def test_unreadable(body: bytes) -> None:
    """A body that is not JSON, or is nested beyond all sense, is refused as a whole, and told why."""
    with pytest.raises(BodyError, match=r"^The body is not JSON: .+\.$") as caught:
        decode_json(body, LIMITS)

    assert (caught.value.status, caught.value.code) == (400, "body_unreadable")


@pytest.mark.parametrize("element", [written(), "{}", "5", "[]"], ids=["events", "objects", "numbers", "arrays"])
@pytest.mark.parametrize("join", [lambda parts: "[" + ",".join(parts) + "]", "\n".join], ids=["json", "ndjson"])
def test_how_many_events_a_body_may_have(element: str, join: Callable[[list[str]], str]) -> None:
    """10,000 events are taken in one body; one more is 413, whatever they are."""
    decode = decode_ndjson if join(["", ""]) == "\n" else decode_json

    assert len(decode(join([element] * 10_000).encode(), LIMITS)) == 10_000
    with pytest.raises(BodyError, match="More than 10,000 events") as caught:
        decode(join([element] * 10_001).encode(), LIMITS)
    assert (caught.value.status, caught.value.code) == (413, "too_many_events")


@pytest.mark.parametrize(
    ("body", "decode"),
    [(b"[" + b"0," * 1_000_000 + b"0]", decode_json), (b"0\n" * 1_000_000, decode_ndjson), (b"\n" * 2_000_000, None)],
    ids=["array of zeros", "lines of zeros", "line ends"],
)
def test_a_senseless_body_costs_little_memory(body: bytes, decode: Callable[..., Decoded] | None) -> None:
    """Two megabytes of nothing are refused, or passed over, without becoming millions of objects."""
    tracemalloc.start()
    try:
        if decode is None:
            assert decode_ndjson(body, LIMITS) == []
        else:
            with pytest.raises(BodyError):
                decode(body, LIMITS)
        _, peak_bytes = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()

    assert peak_bytes < 3 * len(body)


# ---------------------------------------------------------------- nothing else ever comes out


@both
@MANY
@given(body=st.binary(max_size=200))
def test_random_bytes(decode: Callable[[bytes], Decoded], body: bytes) -> None:
    """Of bytes that mean nothing nothing becomes an event, and nothing but BodyError is raised."""
    try:
        decoded = decode(body)
    except BodyError as error:
        assert error.status == 400  # noqa: PT017 - either it is raised, or what follows holds
    else:
        assert list(range(len(decoded))) == [outcome.index for outcome in decoded if isinstance(outcome, Rejection)]


@both
@SOME
@given(data=st.data())
def test_damaged_bodies(decode: Callable[[bytes], Decoded], data: st.DataObject) -> None:
    """A body that was good until some bytes were lost, added or changed is decoded, in part, or refused: never a crash."""
    batch = data.draw(st.lists(events(), min_size=1, max_size=3))
    body = bytearray(b"[" + b",\n".join(sent.json for sent in batch) + b"]")
    for _ in range(data.draw(st.integers(1, 3))):
        start = data.draw(st.integers(0, len(body)))
        end = data.draw(st.integers(start, min(start + 4, len(body))))
        body[start:end] = data.draw(
            st.one_of(st.binary(max_size=3), st.sampled_from([b'"', b"\\", b"\\ud800", b"1e999"]))
        )

    try:
        decoded = decode(bytes(body))
    except BodyError as error:
        assert error.code == "body_unreadable"  # noqa: PT017 - either it is raised, or what follows holds
    else:
        indexes = [outcome.index if isinstance(outcome, Rejection) else index for index, outcome in enumerate(decoded)]
        assert list(range(len(decoded))) == indexes


JSON_VALUES = st.recursive(
    st.one_of(
        st.none(), st.booleans(), st.integers(), st.floats(allow_nan=False, allow_infinity=False), st.text(max_size=5)
    ),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(st.text(max_size=5), inner, max_size=3)),
    max_leaves=5,
)


@SOME
@given(sent=events(), name=st.sampled_from(UsageEvent.__struct_fields__), value=JSON_VALUES)
def test_any_json_in_any_field(sent: Sent, name: str, value: object) -> None:
    """Whatever JSON stands in a field, the event is taken, or refused with a code that fits the field."""
    try:
        body = msgspec.json.encode({**sent.fields, name: value})
    except UnicodeEncodeError:
        body = sent.json  # half a surrogate pair has no bytes
    outcome = only(decode_json(b"[" + body + b"]", LIMITS))

    fitting = {
        "occurred_at": {Code.TIME_INVALID},
        "quantity": {Code.QUANTITY_NOT_A_NUMBER},
        "attributes": {Code.ATTRIBUTES_INVALID},
    }
    if isinstance(outcome, Rejection):
        assert name == outcome.path
        assert outcome.code in {Code.MISSING_FIELD, Code.WRONG_TYPE, *fitting.get(name, set())}


@FEW
@given(depth=st.integers(1, 50_000), opening=st.sampled_from([b"[", b'{"a":', b'[{"attributes":']))
def test_any_depth(depth: int, opening: bytes) -> None:
    """However deeply a body is nested, it is answered; the interpreter's stack is not ours to fill."""
    body = opening * depth
    with pytest.raises(BodyError):
        decode_json(body, LIMITS)

    assert [outcome.code for outcome in decode_ndjson(body, LIMITS) if isinstance(outcome, Rejection)] == [
        Code.MALFORMED
    ]
