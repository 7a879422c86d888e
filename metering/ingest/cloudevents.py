"""CloudEvents 1.0 -> usage events, or a fault for each that is none. Pure.

The envelope gives id, source, time and, where the data names no account, the account (its subject); everything else is
the data's. The envelope may carry more than we know, as CloudEvents says; the data may not.
"""

import binascii
import re
from base64 import b64decode
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from decimal import Decimal
from typing import Annotated, Any, Final, Literal
from urllib.parse import unquote_to_bytes

import msgspec

from metering.errors import BodyError
from metering.events import Scalar, UsageEvent
from metering.ingest import faults
from metering.ingest.bodies import SentBody, written
from metering.ingest.decode import Decoded
from metering.ingest.elements import REFUSED, anything, check_count, elements, is_array, only_element, reason
from metering.ingest.faults import Fault, Shape
from metering.ingest.media_types import media_type
from metering.ingest.receipts import Code, Rejection
from metering.limits import Limits


class UsageData(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The data of a CloudEvent that tells of usage: an event without what the envelope says."""

    product: str
    unit: str
    account: str | None = None
    subscription: str | None = None
    user: str | None = None
    device: str | None = None
    feature: str | None = None
    classification: str | None = None
    quantity: Decimal = Decimal(1)
    attributes: dict[str, Scalar] | None = None


class Envelope(msgspec.Struct, frozen=True, kw_only=True):
    """The attributes of a CloudEvent that mean something here."""

    specversion: Literal["1.0"]
    type: Annotated[str, msgspec.Meta(min_length=1)]
    id: str
    source: str
    time: datetime
    subject: str | None = None


class CloudEvent(Envelope, frozen=True, kw_only=True):
    """A CloudEvent in its most usual form; what is written otherwise is taken apart member by member."""

    data: UsageData
    datacontenttype: Literal["application/json", "application/json; charset=utf-8"] | None = None
    data_base64: None = None


_EVENT: Final = msgspec.json.Decoder(CloudEvent)
_EVENTS: Final = msgspec.json.Decoder(list[CloudEvent])
_MEMBERS: Final = msgspec.json.Decoder(dict[str, msgspec.Raw])
_DATA: Final = msgspec.json.Decoder(UsageData)

STRUCTURED: Final = "application/cloudevents+json"
_ATTRIBUTES: Final = Envelope.__struct_fields__
_DATA_FIELDS: Final = UsageData.__struct_fields__
_ID, *_OTHERS = faults.PLAIN.required
_SHAPE: Final = Shape(
    required=("specversion", "type", _ID, "source", *_OTHERS),
    texts=("specversion", "type", *faults.PLAIN.texts, "subject"),
)
# Where a CloudEvent has what an event calls otherwise; its account may stand in two places.
_PATHS: Final = {name: f"data.{name}" for name in _DATA_FIELDS} | {"occurred_at": "time"}


class CloudEvents:
    """The CloudEvents of one request: as usage events, and in their own words where one of them is refused."""

    def __init__(
        self, sent: Sequence[CloudEvent | Rejection], refused: Mapping[int, SentBody] | None = None, first: int = 0
    ) -> None:
        self._sent = sent
        # Those that are none, as they were sent.
        self._refused = dict(refused or {})
        # The index of the first one in its request.
        self._first = first
        # The indexes of those whose account is their subject.
        self._by_subject: set[int] = set()
        self.decoded: Decoded = [self._usage(index, event) for index, event in enumerate(sent, first)]

    def worded(self, rejection: Rejection) -> Rejection:
        """The rejection of an event, told of the CloudEvent that it was; one that is told so already stays."""
        return worded_as_cloud_event(rejection, by_subject=rejection.index in self._by_subject)

    def body(self, index: int) -> SentBody:
        """The event at this index in structured mode, in whichever it came: as it was sent, or written anew."""
        event = self._sent[index - self._first]
        if isinstance(event, Rejection):
            return self._refused[index]
        return SentBody(STRUCTURED, written(event))

    def let_go(self, *, larger_than: int) -> Iterator[tuple[int, SentBody]]:
        """What is no event and has more bytes than this, by index: each once, then it is not held any longer."""
        for index in [index for index, body in self._refused.items() if len(body.raw) > larger_than]:
            yield index, self._refused[index]
            del self._refused[index]

    def _usage(self, index: int, event: CloudEvent | Rejection) -> UsageEvent | Rejection:
        if isinstance(event, Rejection):
            return event
        data = event.data
        account = data.account
        if account is None:
            account = event.subject
            self._by_subject.add(index)
        if account is None:
            return rejection_of(index, event.id, (Code.MISSING_FIELD, "data.account", _NO_ACCOUNT))
        return UsageEvent(
            id=event.id,
            occurred_at=event.time,
            account=account,
            product=data.product,
            unit=data.unit,
            source=event.source,
            subscription=data.subscription,
            user=data.user,
            device=data.device,
            feature=data.feature,
            classification=data.classification,
            quantity=data.quantity,
            attributes=data.attributes,
        )


def decode_structured(body: bytes, limits: Limits) -> CloudEvents:
    """One CloudEvent in structured mode. Raises BodyError when the body is not JSON."""
    try:
        return CloudEvents([_EVENT.decode(body)])
    except REFUSED:
        return decode_elements([only_element(body, limits)], limits)


def decode_batch(body: bytes, limits: Limits) -> CloudEvents:
    """An array of CloudEvents. Raises BodyError when the body is no JSON array, or has too many events."""
    try:
        events = _EVENTS.decode(body)
    except REFUSED:
        if not is_array(body):
            raise BodyError(400, "body_unreadable", "A batch of CloudEvents is a JSON array.") from None
        return decode_elements(elements(body, limits), limits)
    check_count(len(events), limits)
    return CloudEvents(events)


def decode_elements(parts: Sequence[bytes], limits: Limits, first: int = 0) -> CloudEvents:
    """CloudEvents one by one, so that a bad one does not cost the others; `first` is the index of the first of them."""
    sent = [_decode_element(index, part, limits) for index, part in enumerate(parts, first)]
    refused = {
        event.index: SentBody(STRUCTURED, part)
        for event, part in zip(sent, parts, strict=True)
        if isinstance(event, Rejection)
    }
    return CloudEvents(sent, refused, first)


def decode_binary(headers: Sequence[tuple[bytes, bytes]], body: bytes, limits: Limits) -> CloudEvents:
    """One CloudEvent in binary mode: its attributes are headers, its data is the body. Raises BodyError when that is not JSON."""
    data = only_element(body, limits) if body else b"{}"
    attributes = attributes_of(headers)
    event = attributes if isinstance(attributes, Rejection) else _assemble(0, attributes, data, limits)
    if isinstance(event, Rejection):
        return CloudEvents([event], {0: structured(headers, body)})
    return CloudEvents([event])


def attributes_of(headers: Iterable[tuple[bytes, bytes]]) -> dict[str, str] | Rejection:
    """The attributes of a CloudEvent in binary mode that mean something here, or what is wrong with its headers."""
    attributes: dict[str, str] = {}
    for header, value in headers:
        name = header.decode("latin-1").lower()
        attribute = name.removeprefix("ce-")
        if name == attribute or attribute not in _ATTRIBUTES:
            continue
        text = _header_text(value)
        if text is None or attribute in attributes:
            what = "is not percent-encoded UTF-8" if text is None else "is sent twice"
            fault = (Code.MALFORMED, attribute, f"The header `{name}` {what}.")
            return rejection_of(0, attributes.get("id"), fault)
        attributes[attribute] = text
    return attributes


def structured(headers: Iterable[tuple[bytes, bytes]], body: bytes) -> SentBody:
    """What came in binary mode, in structured mode. What a header says unclearly, or twice, is an array of what it says."""
    said: dict[str, list[str]] = {}
    is_exact = True
    for header, value in headers:
        name = header.decode("latin-1").lower()
        attribute = name.removeprefix("ce-")
        if name == attribute or attribute in _OF_DATA:
            continue
        text = _header_text(value)
        # Of an array nothing can be an event, but in a member that means nothing here.
        is_exact = is_exact and text is not None and attribute not in said
        said.setdefault(attribute, []).append(value.decode("latin-1") if text is None else text)
    members: dict[str, object] = {name: texts[0] if len(texts) == 1 else texts for name, texts in said.items()}
    if body:
        members["data"] = msgspec.Raw(body)
    return SentBody(STRUCTURED, msgspec.json.encode(members), is_exact)


# Members of the structured mode that are no headers in binary mode: the body and its Content-Type say them.
_OF_DATA: Final = frozenset({"data", "data_base64", "datacontenttype"})
_ESCAPED: Final = re.compile(rb"\\(.)", re.DOTALL)


def _header_text(value: bytes) -> str | None:
    """A header's value as the HTTP binding has it: perhaps in double quotes, percent-encoded once, in UTF-8."""
    if len(value) > 1 and value[:1] == value[-1:] == b'"':
        value = _ESCAPED.sub(rb"\1", value[1:-1])
    try:
        return unquote_to_bytes(value).decode()
    except UnicodeDecodeError:
        return None


def _decode_element(index: int, raw: bytes, limits: Limits) -> CloudEvent | Rejection:
    try:
        return _EVENT.decode(raw)
    except REFUSED:
        pass
    try:
        value = anything(raw, limits)
    except REFUSED as error:
        return rejection_of(index, None, (Code.MALFORMED, None, f"This is not JSON that can be read: {reason(error)}."))
    if not isinstance(value, dict):
        message = f"A CloudEvent is a JSON object; this is {faults.kind(value)}."
        return rejection_of(index, None, (Code.MALFORMED, None, message))
    # Null is absent, as CloudEvents has it.
    attributes = {name: value[name] for name in _ATTRIBUTES if value.get(name) is not None}
    data = _data(value, _MEMBERS.decode(raw))
    if isinstance(data, bytes):
        return _assemble(index, attributes, data, limits)
    return rejection_of(index, value.get("id"), data)


def _data(value: Mapping[str, Any], members: Mapping[str, msgspec.Raw]) -> bytes | Fault:
    """The data of a CloudEvent as JSON, wherever it stands."""
    content_type = value.get("datacontenttype") or "application/json"
    if not isinstance(content_type, str) or not media_type(content_type).is_json:
        return Code.MALFORMED, "datacontenttype", f"The data of usage is JSON, not {content_type!r:.60}."
    encoded = value.get("data_base64")
    if encoded is None:
        return b"{}" if value.get("data") is None else bytes(members["data"])
    if value.get("data") is not None:
        return Code.MALFORMED, "data_base64", "A CloudEvent has either `data` or `data_base64`."
    try:
        return b64decode(encoded, validate=True)
    except (binascii.Error, ValueError, TypeError):
        return Code.MALFORMED, "data_base64", "`data_base64` is not Base64."


def _assemble(index: int, attributes: Mapping[str, Any], data: bytes, limits: Limits) -> CloudEvent | Rejection:
    try:
        envelope = msgspec.convert(attributes, Envelope)
        usage = _DATA.decode(data)
    except REFUSED:
        return _explain(index, attributes, data, limits)
    return CloudEvent(**msgspec.structs.asdict(envelope), data=usage)


def _explain(index: int, attributes: Mapping[str, Any], data: bytes, limits: Limits) -> Rejection:
    """Say what is wrong with a CloudEvent: the first fault in the order of `Code`."""
    event_id = attributes.get("id")
    try:
        fields = anything(data, limits)
    except REFUSED as error:
        fault = (Code.MALFORMED, "data", f"`data` is not JSON that can be read: {reason(error)}.")
        return rejection_of(index, event_id, fault)
    by_subject = isinstance(fields, dict) and fields.get("account") is None and attributes.get("subject") is not None
    return worded_as_cloud_event(rejection_of(index, event_id, fault_of(attributes, fields)), by_subject=by_subject)


def fault_of(attributes: Mapping[str, Any], data: object) -> Fault:
    """The first fault of a CloudEvent that the typed decoders refused, given its attributes and its data; there is one."""
    version = attributes.get("specversion")
    if isinstance(version, str) and version != "1.0":
        return Code.MALFORMED, "specversion", f"CloudEvents 1.0 is understood, not {version!r:.60}."
    if not isinstance(data, dict):
        return Code.MALFORMED, "data", f"`data` must be an object; this is {faults.kind(data)}."
    unknown = next((name for name in data if name not in _DATA_FIELDS), None)
    if unknown is not None:
        known = ", ".join(sorted(_DATA_FIELDS))
        return Code.UNKNOWN_FIELD, f"data.{unknown}", f"`data` has no field `{unknown:.60}`; its fields are {known}."
    account = data.get("account")
    fields = {
        **attributes,
        **data,
        # CloudEvents has no empty types.
        "type": attributes.get("type") or None,
        "occurred_at": attributes.get("time"),
        "account": attributes.get("subject") if account is None else account,
    }
    return faults.first_fault(fields, _SHAPE)


_NO_ACCOUNT: Final = "`data.account` is required, or `subject` in its place."


def worded_as_cloud_event(rejection: Rejection, *, by_subject: bool) -> Rejection:
    """The rejection of an event, told of the CloudEvent that it was, whose account is its subject or is in its data."""
    plain = rejection.path
    if plain is None or plain not in _PATHS:
        return rejection
    path = "subject" if plain == "account" and by_subject else _PATHS[plain]
    message = rejection.message.replace(f"`{plain}`", f"`{path}`")
    if rejection.code is Code.MISSING_FIELD and path == "data.account":
        message = _NO_ACCOUNT
    return msgspec.structs.replace(rejection, path=path, message=message)


def rejection_of(index: int, event_id: object, fault: Fault) -> Rejection:
    """The rejection of a CloudEvent for this fault."""
    code, path, message = fault
    return Rejection(index, code, message, id=event_id if isinstance(event_id, str) else None, path=path)
