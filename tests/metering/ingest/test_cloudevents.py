"""CloudEvents 1.0 over HTTP, from outside: structured, batch and binary mode; what is refused is told in their words."""

import base64
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
import pytest
from hypothesis import given

from metering.events import UsageEvent
from metering.ingest.cloudevents import CloudEvents, UsageData, decode_batch, decode_binary, decode_structured
from metering.ingest.receipts import Rejection
from metering.limits import LIMITS
from tests.conftest import ADMIN_KEY, Api, Server, bearer, running
from tests.strategies import SOME, Sent, events

STRUCTURED = {"Content-Type": "application/cloudevents+json"}
BATCH = {"Content-Type": "application/cloudevents-batch+json"}
BINARY = {
    "Content-Type": "application/json",
    "ce-specversion": "1.0",
    "ce-type": "com.example.usage",
    "ce-source": "/gateway",
    "ce-time": "2026-03-01T12:00:00Z",
}
DATA: dict[str, Any] = {"account": "acme", "product": "maps", "unit": "call", "quantity": "1.5"}
FAR = (datetime.now(UTC) + timedelta(days=2)).isoformat()
ABSENT = object()


def data(**changes: Any) -> dict[str, Any]:
    """The data of a usage event, some members otherwise or (ABSENT) left out."""
    return {name: value for name, value in {**DATA, **changes}.items() if value is not ABSENT}


def event(**changes: Any) -> dict[str, Any]:
    """A CloudEvent, some members otherwise or (ABSENT) left out."""
    usual = {
        "specversion": "1.0",
        "type": "com.example.usage",
        "source": "/gateway",
        "id": "@",
        "time": "2026-03-01T12:00:00Z",
        "data": DATA,
    }
    return {name: value for name, value in {**usual, **changes}.items() if value is not ABSENT}


def in_base64(value: Any) -> str:
    """Any value as JSON in Base64."""
    return base64.b64encode(msgspec.json.encode(value)).decode()


def without(name: str) -> dict[str, str]:
    """The headers of binary mode but for one."""
    return {header: value for header, value in BINARY.items() if header != name}


# Status, how many are accepted, and the code and path of the one that is not.
Expected = tuple[int, int | None, str | None, str | None]


def taken(accepted: int = 1) -> Expected:
    """All are accepted."""
    return 200, accepted, None, None


def bad(code: str, path: str | None = None, accepted: int = 0) -> Expected:
    """One is refused."""
    return 200, accepted, code, path


def whole(status: int, code: str) -> Expected:
    """The request is refused as a whole."""
    return status, None, code, None


# Headers and body -> what is answered. In a body the id `@` stands for one of the case's own.
Case = tuple[str, dict[str, str], Any, Expected]
CHARSET = "application/cloudevents+json; charset="
AS_NUMBER = msgspec.json.encode(event()).replace(b'"1.0"', b"1.0")
AS_SUBJECT = data(account=ABSENT)
LARGE = {"a": "x" * 5_000}
UNITLESS = in_base64(data(unit=None))
LOUD = {name.upper(): value for name, value in BINARY.items()}
HALF = b'[{"id":"\\ud800"},' + msgspec.json.encode(event(id="t-7")) + b"]"
STRUCTURED_CASES: list[Case] = [
    ("the usual", STRUCTURED, event(), taken()),
    ("charset", {"Content-Type": CHARSET + "UTF-8"}, event(), taken()),
    ("another charset", {"Content-Type": CHARSET + "utf-16"}, event(), whole(415, "content_type_unsupported")),
    ("another format", {"Content-Type": "application/cloudevents+xml"}, event(), whole(415, "content_type_unsupported")),
    ("datacontenttype", STRUCTURED, event(datacontenttype="application/json"), taken()),
    ("datacontenttype in JSON", STRUCTURED, event(datacontenttype="application/vnd.acme+json; v=1"), taken()),
    ("datacontenttype not JSON", STRUCTURED, event(datacontenttype="text/xml"), bad("malformed", "datacontenttype")),
    ("datacontenttype no text", STRUCTURED, event(datacontenttype=5), bad("malformed", "datacontenttype")),
    ("dataschema", STRUCTURED, event(dataschema="https://example.com/usage.json"), taken()),
    ("extensions", STRUCTURED, event(traceparent="00-ab", sequence=5, partitionkey=None), taken()),
    ("null attributes", STRUCTURED, event(subject=None, dataschema=None, datacontenttype=None, data_base64=None), taken()),
    ("null required attribute", STRUCTURED, event(source=None), bad("missing_field", "source")),
    ("no specversion", STRUCTURED, event(specversion=ABSENT), bad("missing_field", "specversion")),
    ("old specversion", STRUCTURED, event(specversion="0.3"), bad("malformed", "specversion")),
    ("specversion as a number", STRUCTURED, AS_NUMBER, bad("wrong_type", "specversion")),
    ("no type", STRUCTURED, event(type=ABSENT), bad("missing_field", "type")),
    ("an empty type", STRUCTURED, event(type=""), bad("missing_field", "type")),
    ("no id", STRUCTURED, event(id=ABSENT), bad("missing_field", "id")),
    ("an empty id", STRUCTURED, event(id=""), bad("text_invalid", "id")),
    ("no source", STRUCTURED, event(source=ABSENT), bad("missing_field", "source")),
    ("an empty source", STRUCTURED, event(source=""), bad("text_invalid", "source")),
    ("no time", STRUCTURED, event(time=ABSENT), bad("missing_field", "time")),
    ("time is no time", STRUCTURED, event(time="yesterday"), bad("time_invalid", "time")),
    ("time as a number", STRUCTURED, event(time=1772366400), bad("wrong_type", "time")),
    ("time without offset", STRUCTURED, event(time="2026-03-01T12:00:00"), bad("time_naive", "time")),
    ("time ahead", STRUCTURED, event(time=FAR), bad("time_in_future", "time")),
    ("time too early", STRUCTURED, event(time="1969-01-01T00:00:00Z"), bad("time_too_early", "time")),
    ("account from the subject", STRUCTURED, event(subject="acme", data=AS_SUBJECT), taken()),
    ("data names the account first", STRUCTURED, event(subject="", data=data()), taken()),
    ("no account at all", STRUCTURED, event(data=AS_SUBJECT), bad("missing_field", "data.account")),
    ("an empty subject", STRUCTURED, event(subject="", data=AS_SUBJECT), bad("text_invalid", "subject")),
    ("an empty account", STRUCTURED, event(subject="acme", data=data(account="")), bad("text_invalid", "data.account")),
    ("subject no text", STRUCTURED, event(subject=5), bad("wrong_type", "subject")),
    ("no data", STRUCTURED, event(data=ABSENT), bad("missing_field", "data.account")),
    ("data no object", STRUCTURED, event(data="text"), bad("malformed", "data")),
    ("unknown member of data", STRUCTURED, event(data=data(colour="blue")), bad("unknown_field", "data.colour")),
    ("time in data", STRUCTURED, event(data=data(occurred_at="2026-03-01T12:00:00Z")), bad("unknown_field", "data.occurred_at")),
    ("no product", STRUCTURED, event(data=data(product=None)), bad("missing_field", "data.product")),
    ("unit no text", STRUCTURED, event(data=data(unit=5)), bad("wrong_type", "data.unit")),
    ("a long feature", STRUCTURED, event(data=data(feature="x" * 257)), bad("text_invalid", "data.feature")),
    ("quantity by default", STRUCTURED, event(data=data(quantity=ABSENT)), taken()),
    ("quantity no number", STRUCTURED, event(data=data(quantity="many")), bad("quantity_not_a_number", "data.quantity")),
    ("quantity NaN", STRUCTURED, event(data=data(quantity="NaN")), bad("quantity_not_a_number", "data.quantity")),
    ("quantity too large", STRUCTURED, event(data=data(quantity="1e20")), bad("quantity_out_of_range", "data.quantity")),
    ("attributes", STRUCTURED, event(data=data(attributes={"a": 1.5, "b": None})), taken()),
    ("attributes nested", STRUCTURED, event(data=data(attributes={"a": {}})), bad("attributes_invalid", "data.attributes")),
    ("attributes too large", STRUCTURED, event(data=data(attributes=LARGE)), bad("attributes_invalid", "data.attributes")),
    ("Base64", STRUCTURED, event(data=ABSENT, data_base64=in_base64(DATA)), taken()),
    ("Base64 of a bad event", STRUCTURED, event(data=ABSENT, data_base64=UNITLESS), bad("missing_field", "data.unit")),
    ("Base64 of no JSON", STRUCTURED, event(data=ABSENT, data_base64="AAAA"), bad("malformed", "data")),
    ("no Base64", STRUCTURED, event(data=ABSENT, data_base64="{}"), bad("malformed", "data_base64")),
    ("data twice", STRUCTURED, event(data_base64=in_base64(DATA)), bad("malformed", "data_base64")),
    ("an array of one", STRUCTURED, [event()], bad("malformed")),
    ("no JSON", STRUCTURED, b"<event/>", whole(400, "body_unreadable")),
]  # fmt: skip
BINARY_CASES: list[Case] = [
    ("binary", {**BINARY, "ce-id": "b-1"}, DATA, taken()),
    ("binary, no Content-Type", {**without("Content-Type"), "ce-id": "b-2"}, DATA, taken()),
    ("binary, +json", {**BINARY, "Content-Type": "application/vnd.acme+json", "ce-id": "b-3"}, DATA, taken()),
    ("binary, not JSON", {**BINARY, "Content-Type": "text/xml", "ce-id": "b"}, DATA, whole(415, "content_type_unsupported")),
    ("binary, headers in capitals", {**LOUD, "CE-ID": "b-4"}, DATA, taken()),
    ("binary, extensions", {**BINARY, "ce-id": "b-5", "ce-traceparent": "00-ab", "ce-data": "x"}, DATA, taken()),
    ("binary, subject", {**BINARY, "ce-id": "b-6", "ce-subject": "acme"}, AS_SUBJECT, taken()),
    ("binary, bad subject", {**BINARY, "ce-id": "b", "ce-subject": "%00"}, AS_SUBJECT, bad("text_invalid", "subject")),
    ("binary, broken percent-encoding", {**BINARY, "ce-id": "b", "ce-subject": "%ff"}, DATA, bad("malformed", "subject")),
    ("binary, no id", BINARY, DATA, bad("missing_field", "id")),
    ("binary, no type", {**without("ce-type"), "ce-id": "b"}, DATA, bad("missing_field", "type")),
    ("binary, no source", {**without("ce-source"), "ce-id": "b"}, DATA, bad("missing_field", "source")),
    ("binary, no time", {**without("ce-time"), "ce-id": "b"}, DATA, bad("missing_field", "time")),
    ("binary, bad time", {**BINARY, "ce-id": "b", "ce-time": "noon"}, DATA, bad("time_invalid", "time")),
    ("binary, no specversion", {**without("ce-specversion"), "ce-id": "b"}, DATA, bad("missing_field", "specversion")),
    ("binary, old specversion", {**BINARY, "ce-id": "b", "ce-specversion": "0.3"}, DATA, bad("malformed", "specversion")),
    ("binary, bad quantity", {**BINARY, "ce-id": "b"}, data(quantity=True), bad("wrong_type", "data.quantity")),
    ("binary, unknown member", {**BINARY, "ce-id": "b"}, data(id="x"), bad("unknown_field", "data.id")),
    ("binary, an array", {**BINARY, "ce-id": "b"}, [DATA], bad("malformed", "data")),
    ("binary, no body", {**BINARY, "ce-id": "b"}, b"", bad("missing_field", "data.account")),
    ("binary, no JSON", {**BINARY, "ce-id": "b"}, b"{", whole(400, "body_unreadable")),
    ("structured wins over ce-*", {**BINARY, **STRUCTURED, "ce-id": "b"}, event(id="s-1"), taken()),
]  # fmt: skip
BATCH_CASES: list[Case] = [
    ("a batch", BATCH, [event(id="t-1"), event(id="t-2"), event(id="t-3", data=data(quantity=7))], taken(3)),
    ("a batch of none", BATCH, [], taken(0)),
    ("a batch with a bad one", BATCH, [event(id="t-4"), event(time=None), event(id="t-6")], bad("missing_field", "time", 2)),
    ("a batch with half a character", BATCH, HALF, bad("malformed", None, 1)),
    ("a batch with no event", BATCH, [event(id="t-8"), 5], bad("malformed", None, 1)),
    ("a batch with a bad subject", BATCH, [event(id="t", subject="x" * 300, data=AS_SUBJECT)], bad("text_invalid", "subject")),
    ("a batch that is one event", BATCH, event(), whole(400, "body_unreadable")),
    ("a batch without an end", BATCH, b"[{}", whole(400, "body_unreadable")),
    ("too large a batch", BATCH, [5] * 10_001, whole(413, "too_many_events")),
]  # fmt: skip
CASES = [*STRUCTURED_CASES, *BINARY_CASES, *BATCH_CASES]


@pytest.fixture(scope="module")
def service(servers: dict[str, Server]) -> Iterator[Api]:
    """One service for all cases: each has ids of its own."""
    url = servers["postgres"].clone()
    with running(url) as api:
        yield api
    servers["postgres"].drop(url)


@pytest.mark.parametrize(
    ("number", "headers", "body", "expected"),
    [(number, *case[1:]) for number, case in enumerate(CASES)],
    ids=[case[0] for case in CASES],
)
def test_case(service: Api, number: int, headers: dict[str, str], body: Any, expected: Expected) -> None:
    """Each case is answered with its status; what is accepted is counted, what is refused says why and where."""
    status, accepted, code, path = expected
    content = body if isinstance(body, bytes) else msgspec.json.encode(body)
    content = content.replace(b'"id":"@"', b'"id":"case-%d"' % number)

    response = service.client.post("/v1/events", content=content, headers={**bearer(ADMIN_KEY), **headers})
    answer = response.json()

    assert status == response.status_code, answer
    if accepted is None:
        assert (code, "application/problem+json") == (answer["code"], response.headers["content-type"])
    else:
        assert (accepted, 0) == (answer["accepted"], answer["duplicates"])
        refused = [(rejection["code"], rejection.get("path")) for rejection in answer["rejected"]]
        assert ([(code, path)] if code else []) == refused


def test_the_same_event_in_every_mode_is_one_event(service: Api) -> None:
    """Structured, batch, binary and our own JSON name the same event: the first is accepted, the others are duplicates."""
    headers = {**BINARY, "ce-id": "same%20one", "ce-subject": "%22ac%C3%A9%22"}
    told = event(id="same one", subject='"acé"', data=data(account=ABSENT))
    own = {**data(account='"acé"'), "id": "same one", "source": "/gateway", "occurred_at": "2026-03-01T12:00:00Z"}
    bodies = [(STRUCTURED, told), (BATCH, [told]), (headers, data(account=ABSENT)), ({}, own)]

    answers = [
        service.client.post("/v1/events", json=body, headers={**bearer(ADMIN_KEY), **chosen}).json()
        for chosen, body in bodies
    ]

    assert [(1, 0), (0, 1), (0, 1), (0, 1)] == [(answer["accepted"], answer["duplicates"]) for answer in answers]


def test_refusals_name_what_the_sender_wrote(service: Api) -> None:
    """A refusal's message uses the names of CloudEvents, also where admission found the fault."""
    batch = [
        event(id="m-1", time=FAR),
        event(id="m-2", data=data(unit="")),
        event(id="m-3", data=data(account=ABSENT)),
        event(id="m-4", data=data(quantity=None)),
    ]

    answer = service.client.post("/v1/events", json=batch, headers={**bearer(ADMIN_KEY), **BATCH}).json()

    assert [0, 1, 2, 3] == [rejection["index"] for rejection in answer["rejected"]]
    for rejection, named in zip(
        answer["rejected"], ["time", "data.unit", "data.account", "data.quantity"], strict=True
    ):
        assert named == rejection["path"]
        assert f"`{named}`" in rejection["message"]


def test_atomic_batches(service: Api) -> None:
    """A batch with ?atomic=true and one bad event leaves nothing behind."""
    batch = [event(id="a-1"), event(id="a-2", data=data(unit=None))]

    first = service.client.post("/v1/events?atomic=true", json=batch, headers={**bearer(ADMIN_KEY), **BATCH})
    again = service.client.post("/v1/events?atomic=true", json=batch[:1], headers={**bearer(ADMIN_KEY), **BATCH})

    assert (422, 0) == (first.status_code, first.json()["accepted"])
    assert (200, 1) == (again.status_code, again.json()["accepted"])


# ---------------------------------------------------------------- pure


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        (b"plain", "plain"),
        (b"Euro%20%E2%82%AC%20%F0%9F%98%80", "Euro \u20ac \U0001f600"),
        (b"%e2%82%ac", "\u20ac"),
        (b'"quoted \\" and \\\\"', 'quoted " and \\'),
        (b'"%22"', '"'),
        (b"once%2520", "once%20"),
        (b"100%", "100%"),
        (b"%zz", "%zz"),
        ("bare é".encode(), "bare é"),
    ],
)
def test_header_values(header: bytes, expected: str) -> None:
    """A header's value loses its quotes, then one round of percent-encoding, and is UTF-8."""
    headers = [(name.encode(), value.encode()) for name, value in BINARY.items()]

    (outcome,) = decode_binary([*headers, (b"ce-id", header)], msgspec.json.encode(DATA), LIMITS).decoded

    assert isinstance(outcome, UsageEvent)
    assert expected == outcome.id


def test_a_header_twice() -> None:
    """An attribute that is sent twice has no one value, so the event is refused."""
    headers = [(name.encode(), value.encode()) for name, value in BINARY.items()]

    (outcome,) = decode_binary(
        [*headers, (b"ce-id", b"a"), (b"CE-ID", b"b")], msgspec.json.encode(DATA), LIMITS
    ).decoded

    assert isinstance(outcome, Rejection)
    assert ("malformed", "id") == (outcome.code.value, outcome.path)


def _as_cloud_event(sent: Sent) -> tuple[dict[str, Any], dict[str, Any]]:
    envelope = {"specversion": "1.0", "type": "usage", "id": sent.fields["id"], "source": sent.fields["source"]}
    envelope["time"] = sent.fields["occurred_at"]
    inner = {name: value for name, value in sent.fields.items() if name not in {"id", "source", "occurred_at"}}
    return envelope, inner


@SOME
@given(sent=events())
def test_events_of_the_contract_are_understood(sent: Sent) -> None:
    """Whatever the contract takes comes back equal as a CloudEvent: in its usual form, in Base64, in a batch."""
    envelope, inner = _as_cloud_event(sent)
    usual = msgspec.json.encode({**envelope, "data": inner})
    encoded = msgspec.json.encode({**envelope, "data_base64": in_base64(inner)})

    assert [sent.event] == decode_structured(usual, LIMITS).decoded
    assert [sent.event] == decode_structured(encoded, LIMITS).decoded
    assert [sent.event] * 2 == decode_batch(b"[" + usual + b"," + encoded + b"]", LIMITS).decoded


def test_the_data_is_an_event_without_its_envelope() -> None:
    """What the data may hold is what an event holds, but for the three fields that the envelope has."""
    assert set(UsageEvent.__struct_fields__) - {"id", "source", "occurred_at"} == set(UsageData.__struct_fields__)


def test_wording_is_done_once() -> None:
    """A rejection that is in the words of CloudEvents already stays as it is."""
    sent = decode_structured(msgspec.json.encode(event(data=data(quantity=True))), LIMITS)
    (rejection,) = sent.decoded

    assert isinstance(sent, CloudEvents)
    assert isinstance(rejection, Rejection)
    assert rejection == sent.worded(rejection)
