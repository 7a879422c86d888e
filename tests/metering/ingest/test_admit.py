"""An event is admitted exactly as it was sent, or refused with the first reason in the order of the codes."""

import re
from datetime import UTC, datetime, timedelta, timezone
from decimal import Decimal

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from metering.errors import BodyError
from metering.events import AdmittedEvent, Scalar, UsageEvent, content_hash, identity_key, joined_values
from metering.ingest.admit import Admission, admit, admit_one
from metering.ingest.decode import decode_json, decode_ndjson
from metering.ingest.receipts import Code, Rejection
from metering.limits import LIMITS
from rating.exact import plain
from tests.strategies import AWKWARD_TEXTS, MANY, MICROSECOND, NOW, SOME, Sent, decimals, decimals_beyond, events, texts

TERMS = Admission(limits=LIMITS, now=NOW, restamp_window=timedelta(hours=1))
EVENT = UsageEvent(
    id="e-1",
    occurred_at=datetime(2026, 3, 1, 12, tzinfo=UTC),
    account="acme",
    product="maps",
    unit="call",
    source="gateway",
)
# What occurred longer than thirty days ago is not retained.
RETAINED = msgspec.structs.replace(TERMS, retained_from=NOW - timedelta(days=30))
TEXTS = ["id", "source", "account", "subscription", "user", "device", "product", "feature", "classification", "unit"]


def changed(**changes: object) -> UsageEvent:
    """The event with some fields otherwise."""
    return msgspec.structs.replace(EVENT, **changes)


def admitted(event: UsageEvent, terms: Admission = TERMS) -> AdmittedEvent:
    """The event, which is admitted."""
    outcome = admit_one(0, event, terms)
    assert isinstance(outcome, AdmittedEvent), outcome
    return outcome


def quantity_of(event: AdmittedEvent) -> str:
    """The quantity as it is written."""
    return event.values.split("\0")[-2]


def refused(event: UsageEvent, terms: Admission = TERMS) -> Rejection:
    """The reason why the event is not admitted."""
    outcome = admit_one(7, event, terms)
    assert isinstance(outcome, Rejection), outcome
    return outcome


# ---------------------------------------------------------------- what is refused

REFUSED_TEXTS: list[tuple[dict[str, object], Code, str]] = [
    ({name: text}, Code.TEXT_INVALID, name) for name in TEXTS for text in ("", "a" * 257, "nul\0", "\0")
]
REFUSED: list[tuple[dict[str, object], Code, str]] = [
    ({"source": None}, Code.MISSING_FIELD, "source"),
    ({"occurred_at": datetime(2026, 3, 1, 12)}, Code.TIME_NAIVE, "occurred_at"),  # noqa: DTZ001 - the point of it
    ({"quantity": Decimal("NaN")}, Code.QUANTITY_NOT_A_NUMBER, "quantity"),
    ({"quantity": Decimal("-sNaN123")}, Code.QUANTITY_NOT_A_NUMBER, "quantity"),
    ({"quantity": Decimal("Infinity")}, Code.QUANTITY_NOT_A_NUMBER, "quantity"),
    ({"quantity": Decimal("-Infinity")}, Code.QUANTITY_NOT_A_NUMBER, "quantity"),
    ({"quantity": Decimal("1E+20")}, Code.QUANTITY_OUT_OF_RANGE, "quantity"),
    ({"quantity": Decimal(100000000000000000000)}, Code.QUANTITY_OUT_OF_RANGE, "quantity"),
    ({"quantity": Decimal("-1E+400")}, Code.QUANTITY_OUT_OF_RANGE, "quantity"),
    ({"quantity": Decimal("1E+999999999")}, Code.QUANTITY_OUT_OF_RANGE, "quantity"),
    ({"quantity": Decimal("1E-19")}, Code.QUANTITY_OUT_OF_RANGE, "quantity"),
    ({"quantity": Decimal("1.0000000000000000001")}, Code.QUANTITY_OUT_OF_RANGE, "quantity"),
    ({"quantity": Decimal("1E-999999999")}, Code.QUANTITY_OUT_OF_RANGE, "quantity"),
    *REFUSED_TEXTS,
    ({"attributes": {"nul\0": 1}}, Code.ATTRIBUTES_INVALID, "attributes"),
    ({"attributes": {"a": "\0"}}, Code.ATTRIBUTES_INVALID, "attributes"),
    ({"attributes": {"a": "x" * 4_089}}, Code.ATTRIBUTES_INVALID, "attributes"),
    ({"attributes": {"a": "\U0001f680" * 1_023}}, Code.ATTRIBUTES_INVALID, "attributes"),
    ({"occurred_at": datetime(1969, 12, 31, 23, 59, 59, 999_999, UTC)}, Code.TIME_TOO_EARLY, "occurred_at"),
    ({"occurred_at": datetime(1, 1, 1, tzinfo=timezone(timedelta(hours=1)))}, Code.TIME_TOO_EARLY, "occurred_at"),
    ({"occurred_at": NOW + timedelta(hours=1, microseconds=1)}, Code.TIME_IN_FUTURE, "occurred_at"),
    ({"occurred_at": datetime.max.replace(tzinfo=timezone(-timedelta(hours=1)))}, Code.TIME_IN_FUTURE, "occurred_at"),
]


@pytest.mark.parametrize(("changes", "code", "path"), REFUSED, ids=[f"{changes!s:.70}" for changes, _, _ in REFUSED])
def test_refused(changes: dict[str, object], code: Code, path: str) -> None:
    """What may not be written is refused with its code and path, the index it came with, and the event's id."""
    event = changed(**changes)

    refusal = refused(event)

    assert (7, code, path, event.id) == (refusal.index, refusal.code, refusal.path, refusal.id)
    assert len(refusal.message) < 200
    assert refusal.message.endswith(".")


@pytest.mark.parametrize(
    "changes",
    [
        *({name: text} for name in TEXTS for text in ("a", "a" * 256, "\U0001f680" * 256)),
        {"attributes": {"a": "x" * 4_088}},
        {"attributes": {"a": "\U0001f680" * 1_022}},
        {"attributes": {"": None, "int": -(2**70), "float": 1e308, "bool": True}},
        {"occurred_at": datetime(1970, 1, 1, tzinfo=UTC)},
        {"occurred_at": datetime(1970, 1, 1, 14, tzinfo=timezone(timedelta(hours=14)))},
        {"occurred_at": NOW + timedelta(hours=1)},
        {"quantity": Decimal("99999999999999999999.999999999999999999")},
        {"quantity": Decimal("-99999999999999999999.999999999999999999")},
        {"quantity": Decimal("1E-18")},
        {"quantity": Decimal("1E+19")},
        {"quantity": Decimal("0E-400")},
    ],
    ids=lambda changes: f"{changes!s:.70}",
)
def test_up_to_the_limits_all_is_admitted(changes: dict[str, object]) -> None:
    """The last value within each limit is taken; the texts count in characters, the attributes in bytes."""
    event = changed(**changes)

    assert event == admitted(event).event


def test_a_refusal_tells_the_limit() -> None:
    """A refusal says what would have been taken, so that nobody has to look it up."""
    told = [
        refused(changed(unit="a" * 300)).message,
        refused(changed(attributes={"a": "é" * 4_000})).message,
        refused(changed(quantity=Decimal("1E+20"))).message,
        refused(changed(quantity=Decimal("NaN"))).message,
        refused(changed(source=None)).message,
        refused(changed(occurred_at=NOW + timedelta(days=1))).message,
    ]

    assert told == [
        "`unit` must have 1 to 256 characters; this has 300.",
        "`attributes` may take 4,096 bytes as JSON; these take 8,008.",
        "`quantity` may have 20 digits before the point and 18 after it; it is refused rather than rounded.",
        "'NaN' is not a finite decimal number.",
        "`source` is required: this key has no default source.",
        "`occurred_at` may lie at most 60 minutes ahead of the service's clock (2026-03-15T12:00:00Z).",
    ]


FAULTS: dict[Code, bytes] = {
    Code.UNKNOWN_FIELD: b'"nonsense":1',
    Code.MISSING_FIELD: b'"unit":null',
    Code.WRONG_TYPE: b'"user":5',
    Code.TIME_INVALID: b'"occurred_at":"yesterday"',
    Code.TIME_NAIVE: b'"occurred_at":"2026-03-01T12:00:00"',
    Code.QUANTITY_NOT_A_NUMBER: b'"quantity":"NaN"',
    Code.QUANTITY_OUT_OF_RANGE: b'"quantity":1e20',
    Code.TEXT_INVALID: b'"feature":""',
    Code.ATTRIBUTES_INVALID: b'"attributes":{"nul":"\\u0000"}',
    Code.TIME_TOO_EARLY: b'"occurred_at":"1969-12-31T00:00:00Z"',
    Code.OUTSIDE_RETENTION: b'"occurred_at":"2026-02-13T11:59:59Z"',
    Code.TIME_IN_FUTURE: b'"occurred_at":"2026-03-16T12:00:00Z"',
    Code.ACCOUNT_FORBIDDEN: b'"account":"other"',
}
PAIRS = [
    (one, other)
    for one in FAULTS
    for other in FAULTS
    if FAULTS[one].partition(b":")[0] != FAULTS[other].partition(b":")[0]
]


@pytest.mark.parametrize(("one", "other"), PAIRS, ids=[f"{one.value}-{other.value}" for one, other in PAIRS])
def test_the_first_fault_in_the_order_of_codes(one: Code, other: Code) -> None:
    """Of two faults the one is told whose code comes first, whether decoding or admission finds it."""
    good = {name: value for name, value in msgspec.to_builtins(EVENT).items() if value is not None}
    named = [FAULTS[code].partition(b'":')[0][1:].decode() for code in (one, other)]
    kept = msgspec.json.encode({name: value for name, value in good.items() if name not in named})
    body = kept[:-1] + b"," + FAULTS[one] + b"," + FAULTS[other] + b"}"
    terms = msgspec.structs.replace(RETAINED, accounts=frozenset({"acme"}))

    _, (refusal,) = admit(decode_ndjson(body, LIMITS), terms)

    assert min((one, other), key=list(Code).index) == refusal.code


@MANY
@given(data=st.data(), sent=events())
def test_the_retained_range(data: st.DataObject, sent: Sent) -> None:
    """With a retention exactly what occurred before its first instant is refused; without one nothing is too old."""
    at = admitted(sent.event).occurred_at
    # Near the event's own time, so that both sides of the bound are met.
    offset = data.draw(st.sampled_from([timedelta(0), *(sign * MICROSECOND for sign in (-1, 1)), timedelta(days=9)]))
    terms = msgspec.structs.replace(TERMS, retained_from=max(at, LIMITS.occurred_at_min + timedelta(1)) + offset)
    assert terms.retained_from is not None

    outcome = admit_one(0, sent.event, terms)

    if at < terms.retained_from:
        assert isinstance(outcome, Rejection)
        assert (Code.OUTSIDE_RETENTION, "occurred_at") == (outcome.code, outcome.path)
        named = re.search(r"from (\S+) on", outcome.message)
        assert named is not None
        assert terms.retained_from == datetime.fromisoformat(named[1])
    else:
        assert admitted(sent.event) == outcome


def test_the_first_retained_instant() -> None:
    """The instant that a refusal names is taken; a microsecond before it is not, in whatever zone it is written."""
    first = NOW - timedelta(days=30)
    elsewhere = timezone(-timedelta(hours=11))

    assert first == admitted(changed(occurred_at=first.astimezone(elsewhere)), RETAINED).occurred_at
    refusal = refused(changed(occurred_at=(first - MICROSECOND).astimezone(elsewhere)), RETAINED)
    assert "Events are retained from 2026-02-13T12:00:00Z on; none before it is taken." == refusal.message


def test_every_code_has_a_case() -> None:
    """Each code is given by decoding, by admission, or by the writer: malformed and conflict have tests elsewhere."""
    elsewhere = {Code.MALFORMED, Code.IDENTITY_CONFLICT}

    assert set(Code) == {*FAULTS, *elsewhere}


# ---------------------------------------------------------------- what is admitted


@MANY
@given(sent=events())
def test_events_of_the_contract_are_admitted(sent: Sent) -> None:
    """Whatever the contract takes is admitted unchanged, its time in UTC, its name and content hashed."""
    outcome = admitted(sent.event)
    *_, quantity, attributes = outcome.values.split("\0")

    assert sent.event == outcome.event
    assert (sent.event.occurred_at, UTC) == (outcome.occurred_at, outcome.occurred_at.tzinfo)
    assert plain(sent.event.quantity) == quantity
    assert (sent.event.attributes or None) == (msgspec.json.decode(attributes) if attributes else None)
    assert identity_key(outcome.source, sent.event.id) == outcome.key
    assert joined_values(sent.event, quantity, attributes or None) == outcome.values
    assert content_hash(outcome.values) == outcome.content
    assert outcome.occurred_at.date() in outcome.days


@MANY
@given(quantity=decimals())
def test_quantities_within_38_digits_are_exact(quantity: Decimal) -> None:
    """Twenty digits before the point and eighteen after it are kept to the last one."""
    assert quantity == Decimal(quantity_of(admitted(changed(quantity=quantity))))


@MANY
@given(quantity=decimals_beyond())
def test_quantities_beyond_are_refused_not_rounded(quantity: Decimal) -> None:
    """A digit more than is kept refuses the event."""
    assert refused(changed(quantity=quantity)).code is Code.QUANTITY_OUT_OF_RANGE


@pytest.mark.parametrize(
    ("quantity", "expected"),
    [
        ("0.1", "0.1"),
        ("1.50", "1.5"),
        ("15e-1", "1.5"),
        ("1E+19", "10000000000000000000"),
        ("-0", "0"),
        ("-0.000", "0"),
        ("0E+999999999", "0"),
        ("0E-999999999", "0"),
        ("1." + "0" * 20_000, "1"),
        ("0" * 20_000 + "1", "1"),
        ("10000000000000000000." + "0" * 100_000, "10000000000000000000"),
    ],
    ids=lambda text: f"{text:.20}",
)
def test_a_quantity_has_one_spelling(quantity: str, expected: str) -> None:
    """However it was written, a quantity is kept without an exponent and without zeros that no database would store."""
    assert quantity_of(admitted(changed(quantity=Decimal(quantity)))) == expected


@SOME
@given(name=st.sampled_from(TEXTS), text=texts())
def test_texts_are_kept_as_they_are(name: str, text: str) -> None:
    """No text is trimmed, folded or normalised on its way in."""
    outcome = admitted(changed(**{name: text}))

    assert text == getattr(outcome.event, name)
    assert outcome.event.source == outcome.source


@pytest.mark.parametrize("text", AWKWARD_TEXTS, ids=ascii)
def test_awkward_attributes_are_kept(text: str) -> None:
    """Names and values of attributes survive being stored as JSON."""
    attributes: dict[str, Scalar] = {text[:100]: text}

    assert attributes == msgspec.json.decode(admitted(changed(attributes=attributes)).values.split("\0")[-1])


@pytest.mark.parametrize(
    ("sent", "default", "expected"),
    [("gateway", None, "gateway"), ("gateway", "importer", "gateway"), (None, "importer", "importer")],
)
def test_the_default_source(sent: str | None, default: str | None, expected: str) -> None:
    """A key's default source stands where an event names none, and is part of the event's name."""
    terms = msgspec.structs.replace(TERMS, default_source=default)

    outcome = admitted(changed(source=sent), terms)

    assert (expected, identity_key(expected, EVENT.id)) == (outcome.source, outcome.key)


def test_an_empty_source_is_not_absent() -> None:
    """An empty source is a fault of the event: the default would hide it."""
    assert refused(changed(source=""), msgspec.structs.replace(TERMS, default_source="importer")).path == "source"


@pytest.mark.parametrize(
    ("accounts", "expected"),
    [
        (None, None),
        (frozenset({"acme"}), None),
        (frozenset({"acme", "other"}), None),
        (frozenset({"other"}), Code.ACCOUNT_FORBIDDEN),
        (frozenset({"ACME", "acme "}), Code.ACCOUNT_FORBIDDEN),
        (frozenset(), Code.ACCOUNT_FORBIDDEN),
    ],
)
def test_the_accounts_of_a_key(accounts: frozenset[str] | None, expected: Code | None) -> None:
    """A key that is bound to accounts writes for these, to the letter; one that is bound to none of them for nobody."""
    outcome = admit_one(0, EVENT, msgspec.structs.replace(TERMS, accounts=accounts))

    assert expected == (outcome.code if isinstance(outcome, Rejection) else None)


# ---------------------------------------------------------------- a whole request

BAD = [
    Rejection(0, Code.MALFORMED, "as decoding found it."),
    changed(unit=""),
    changed(quantity=Decimal("NaN")),
    changed(source=None),
]


@SOME
@given(batch=st.lists(st.one_of(events(), st.sampled_from(BAD)), max_size=8))
def test_one_bad_event_never_costs_the_others(batch: list[Sent | UsageEvent | Rejection]) -> None:
    """In any mixture the good events are admitted in order under their index, and each bad one has one rejection."""
    decoded = [
        part.event
        if isinstance(part, Sent)
        else msgspec.structs.replace(part, index=index)
        if isinstance(part, Rejection)
        else part
        for index, part in enumerate(batch)
    ]

    good, bad = admit(decoded, TERMS)

    assert [(index, part.event) for index, part in enumerate(batch) if isinstance(part, Sent)] == [
        (index, outcome.event) for index, outcome in good
    ]
    assert [index for index, part in enumerate(batch) if not isinstance(part, Sent)] == [
        refusal.index for refusal in bad
    ]


@MANY
@given(data=st.data())
def test_whatever_is_decoded_is_admitted_or_refused(data: st.DataObject) -> None:
    """A damaged body never gets further than a rejection: decoding and admission have an answer to everything."""
    body = bytearray(b"[" + data.draw(events()).json + b"]")
    start = data.draw(st.integers(0, len(body) - 1))
    body[start : start + data.draw(st.integers(0, 6))] = data.draw(
        st.sampled_from([b"", b"0", b"-", b"e999999999", b"\0", b"\\u0000", b"\xff", b'"', b'":"', b"9" * 40])
    )

    try:
        decoded = decode_json(bytes(body), LIMITS)
    except BodyError:
        decoded = []
    good, bad = admit(decoded, TERMS)

    assert len(decoded) == len(good) + len(bad)
