"""CloudEvents in binary mode with data in MessagePack: the same events, refused as strictly, kept so that people can read."""

import math
from typing import Any, Final

import msgspec
import pytest
from msgspec.msgpack import Ext

from metering.errors import BodyError
from metering.ingest.decode import Decoded
from metering.ingest.readers import Reader, reader_of
from metering.ingest.receipts import Rejection
from metering.ingest.refusals import Refusals
from metering.limits import LIMITS, Limits
from tests.conftest import ADMIN_KEY, Api, bearer
from tests.metering.ingest.test_refusals import AT, BINARY

DATA: Final = {
    "account": "acme",
    "product": "maps",
    "unit": "call",
    "quantity": "12.50",
    "attributes": {"region": "eu"},
}

packed = msgspec.msgpack.encode


def read(content_type: str, body: bytes, headers: dict[str, str], limits: Limits = LIMITS) -> tuple[Reader, Decoded]:
    """What comes out of a body with these headers."""
    pairs = [(name.encode(), value.encode("latin-1")) for name, value in headers.items()]
    reader = reader_of([*pairs, (b"content-type", content_type.encode())], limits)
    reader.feed(body)
    return reader, reader.finish()


@pytest.mark.parametrize("data", [DATA, {"product": "maps", "unit": "call"}, {**DATA, "quantity": 7, "user": None}])
def test_the_data_may_be_json_or_messagepack(data: dict[str, Any]) -> None:
    """The event is the same, whichever of the two its data is in."""
    headers = {**BINARY, "ce-subject": "acme"}
    _, as_json = read("application/json", msgspec.json.encode(data), headers)
    _, as_messagepack = read("application/msgpack", packed(data), headers)

    assert as_json == as_messagepack
    assert not isinstance(as_json[0], Rejection)


@pytest.mark.parametrize(
    ("headers", "body", "code", "path"),
    [
        ({}, packed({**DATA, "quantity": 1.5}), "wrong_type", "data.quantity"),
        ({}, packed({**DATA, "attributes": {"a": math.nan}}), "attributes_invalid", "data.attributes"),
        ({}, packed({**DATA, "colour": "blue"}), "unknown_field", "data.colour"),
        ({}, packed({**DATA, "user": b"ana"}), "wrong_type", "data.user"),
        ({}, packed({**DATA, "user": AT}), "wrong_type", "data.user"),
        ({}, packed({**DATA, "unit": None}), "missing_field", "data.unit"),
        ({}, packed({**DATA, "account": None}), "missing_field", "data.account"),
        ({}, packed([DATA]), "malformed", "data"),
        ({}, packed({1: 2}), "malformed", "data"),
        ({}, b"", "missing_field", "data.account"),
        ({"ce-subject": "acme"}, b"", "missing_field", "data.product"),
        ({"ce-specversion": "0.3"}, packed(DATA), "malformed", "specversion"),
        ({"ce-subject": "%ff"}, packed(DATA), "malformed", "subject"),
        ({"ce-time": "yesterday"}, packed(DATA), "time_invalid", "time"),
    ],
)
def test_what_is_wrong_is_named_in_the_words_of_cloudevents(
    headers: dict[str, str], body: bytes, code: str, path: str
) -> None:
    """Each fault has its code and its path; what is kept is the event in structured mode, and never better than what was sent."""
    reader, decoded = read("application/msgpack", body, {**BINARY, **headers})
    (rejection,) = Refusals("mk_1", reader).worded([each for each in decoded if isinstance(each, Rejection)])
    row = Refusals("mk_1", reader).row(rejection, AT, LIMITS)

    assert (code, path) == (rejection.code.value, rejection.path)
    assert "application/cloudevents+json" == row.media_type
    kept = msgspec.json.decode(row.body)
    assert ("data" in kept) == bool(body)
    if row.is_exact:
        _, again = read("application/cloudevents+json", row.body.encode(), {})
        assert isinstance(again[0], Rejection)


def test_what_json_says_otherwise_is_not_exact() -> None:
    """A float is a number that JSON keeps: the event is shown with it, and cannot be sent again as it is."""
    reader, (rejection,) = read("application/msgpack", packed({**DATA, "quantity": 1.5}), BINARY)
    assert isinstance(rejection, Rejection)
    row = Refusals("mk_1", reader).row(rejection, AT, LIMITS)

    assert {**DATA, "quantity": 1.5} == msgspec.json.decode(row.body)["data"]
    assert not row.is_exact


@pytest.mark.parametrize("body", [b"\xc1", packed(DATA)[:-1], packed(DATA) + b"\x01"])
def test_what_is_no_messagepack_is_refused_as_a_whole(body: bytes) -> None:
    """A body that breaks off, or goes on behind its end, is no data of anything."""
    with pytest.raises(BodyError) as caught:
        read("application/msgpack", body, BINARY)

    assert (400, "body_unreadable") == (caught.value.status, caught.value.code)


def test_text_that_is_none_is_named() -> None:
    """Bytes where a text should be, which are no UTF-8, are a fault of the data."""
    body = b"\x81\xa7product\xa1\xff"
    _, (rejection,) = read("application/msgpack", body, BINARY)

    assert isinstance(rejection, Rejection)
    assert ("malformed", "data") == (rejection.code.value, rejection.path)


def test_over_http(api: Api) -> None:
    """It is taken as any other event; sent again with JSON it is a duplicate. Another type of data is 415."""
    headers = {**bearer(ADMIN_KEY), **BINARY}

    def post(content_type: str, body: bytes) -> Any:
        return api.client.post("/v1/events", content=body, headers={**headers, "Content-Type": content_type})

    assert {"accepted": 1, "duplicates": 0, "rejected": []} == post("application/msgpack", packed(DATA)).json()
    assert {"accepted": 0, "duplicates": 1, "rejected": []} == post(
        "application/json", msgspec.json.encode(DATA)
    ).json()
    other = post("application/xml", b"<usage/>")
    assert (415, "content_type_unsupported") == (other.status_code, other.json()["code"])
    extension = post("application/msgpack", packed({**DATA, "user": Ext(5, b"a")}))
    assert ["data.user"] == [each["path"] for each in extension.json()["rejected"]]
