"""The description of ingest over HTTP, as OpenAPI 3.1. Pure, and made from what the code itself goes by."""

from collections.abc import Mapping
from http import HTTPStatus
from typing import Any, Final

import msgspec

from metering.events import UsageEvent
from metering.ingest.cloudevents import Envelope, UsageData
from metering.ingest.encodings import ENCODINGS
from metering.ingest.readers import READERS
from metering.ingest.receipts import Code, Receipt, Rejection
from metering.limits import Limits

# A JSON Schema, or another part of the description.
Part = dict[str, Any]

# What a request that cannot be taken as a whole is answered with: its status and codes.
PROBLEMS: Final[Mapping[int, tuple[str, ...]]] = {
    400: ("body_unreadable", "parameter_unknown", "parameter_invalid"),
    401: ("unauthenticated",),
    403: ("forbidden",),
    405: ("method_not_allowed",),
    408: ("body_too_slow",),
    413: ("body_too_large", "too_many_events"),
    415: ("content_type_unsupported", "encoding_unsupported"),
    429: ("rate_limited",),
    503: ("writer_full", "bodies_full", "database_unavailable", "key_set_unavailable"),
}
_SCALAR: Final = ["string", "number", "boolean", "null"]
_COUNT: Final = {"type": "integer", "minimum": 0}
_RETRY_AFTER: Final = {
    "schema": {"type": "integer", "minimum": 1},
    "description": "Seconds after which it may be sent again.",
}
# The fields of draft-ietf-httpapi-ratelimit-headers-11, as metering/ingest/rate_headers.py writes them.
_RATE_HEADERS: Final = {
    "RateLimit-Policy": {
        "schema": {"type": "string", "pattern": r'^"events";q=[0-9]+;qu="events";w=[0-9]+$'},
        "description": "For a key with a rate: `q` events may come in `w` seconds, all of them at once.",
    },
    "RateLimit": {
        "schema": {"type": "string", "pattern": r'^"events";r=[0-9]+;t=[0-9]+$'},
        "description": "For a key with a rate: `r` events may be sent now, and no more than that for `t` seconds.",
    },
}
_INGEST: Final = (
    "The answer comes when the events are durable. One bad event never costs the others. Any request may be sent again: "
    "an event that is recorded already counts as a duplicate."
)
_BINARY: Final = (
    "With `ce-*` headers the body is the data of one CloudEvent in binary mode, in JSON or MessagePack. "
    f"Content-Encoding {' and '.join(ENCODINGS)} are understood."
)


def openapi(limits: Limits, version: str) -> Part:
    """The description of the endpoints that are not GraphQL."""
    return {
        "openapi": "3.1.0",
        "info": {"title": "Usage ingest", "version": version},
        "paths": {
            "/v1/events": {"post": _record_events(limits)},
            "/livez": {"get": _probe("isAlive", "Whether the process answers.", {200: "It does."})},
            "/readyz": {
                "get": _probe(
                    "isReady",
                    "Whether work can be done now, by the checks it names.",
                    {200: "It can.", 503: "It cannot."},
                )
            },
        },
        "components": {
            "schemas": _schemas(limits),
            "securitySchemes": {"key": {"type": "http", "scheme": "bearer"}},
        },
    }


def _record_events(limits: Limits) -> Part:
    receipt = _content("application/json", _ref("Receipt"))
    # That a method is not allowed is never the answer to an allowed one.
    problems = {str(status): _problem(status) for status in PROBLEMS if status != HTTPStatus.METHOD_NOT_ALLOWED}
    return {
        "operationId": "recordEvents",
        "summary": "Record usage events",
        "description": _INGEST,
        "security": [{"key": []}],
        "parameters": [
            {
                "name": "atomic",
                "in": "query",
                "description": "All or nothing: one refused event refuses the whole request.",
                "schema": {"type": "boolean", "default": False},
            }
        ],
        "requestBody": {"required": True, "description": _BINARY, "content": _bodies(limits)},
        "responses": {
            "200": {"description": "What became of each event.", "content": receipt, "headers": _RATE_HEADERS},
            "422": {
                "description": "With `atomic`: an event was refused, so nothing was recorded.",
                "content": receipt,
                "headers": _RATE_HEADERS,
            },
            **problems,
        },
    }


def _bodies(limits: Limits) -> Part:
    def many(name: str) -> Part:
        return {"type": "array", "items": _ref(name), "maxItems": limits.body_events_max}

    one_or_many = {"oneOf": [_ref("UsageEvent"), many("UsageEvent")]}
    schemas = {
        "application/json": one_or_many,
        "application/x-ndjson": {"type": "string", "description": "One UsageEvent as JSON a line."},
        "application/msgpack": one_or_many,
        "application/cloudevents+json": _ref("CloudEvent"),
        "application/cloudevents-batch+json": many("CloudEvent"),
    }
    return {media_type: {"schema": schemas[media_type]} for media_type in READERS}


def _schemas(limits: Limits) -> Part:
    return {
        "UsageEvent": _struct(UsageEvent, limits) | {"additionalProperties": False},
        "UsageData": _struct(UsageData, limits) | {"additionalProperties": False},
        "CloudEvent": _cloud_event(limits),
        "Receipt": _object(Receipt, accepted=_COUNT, duplicates=_COUNT, rejected=_array(_ref("Rejection"))),
        "Rejection": _object(
            Rejection,
            index=_COUNT,
            code={"enum": [code.value for code in Code], "description": "In order of precedence."},
            message={"type": "string"},
            id={"type": "string", "description": "The event's id, as far as it could be read."},
            path={"type": "string", "description": "Where the fault is, in the names of the body's format."},
        ),
        "Problem": {
            "type": "object",
            "description": "RFC 9457.",
            "properties": {
                "type": {"type": "string"},
                "title": {"type": "string"},
                "status": {"enum": list(PROBLEMS)},
                "code": {"enum": [code for codes in PROBLEMS.values() for code in codes]},
                "detail": {"type": "string"},
            },
            "required": ["type", "title", "status", "code", "detail"],
        },
        "Probe": {
            "type": "object",
            "properties": {"status": {"enum": ["PASS", "WARN", "FAIL"]}, "checks": _array({"type": "object"})},
            "required": ["status"],
        },
    }


def _struct(struct: type[msgspec.Struct], limits: Limits) -> Part:
    """The schema of an event's struct: which fields there are and must be, by its definition."""
    fields = msgspec.structs.fields(struct)
    properties = {field.name: _field(field.name, limits, optional=not field.required) for field in fields}
    return {
        "type": "object",
        "properties": properties,
        "required": [field.name for field in fields if field.required],
    }


def _field(name: str, limits: Limits, *, optional: bool) -> Part:
    if name == "quantity":
        whole = limits.quantity_digits_max - limits.quantity_fraction_digits_max
        return {
            "description": (
                f"A decimal, taken exactly as it is written: {whole} digits before the point, "
                f"{limits.quantity_fraction_digits_max} after it. In MessagePack a whole number or a string."
            ),
            "type": ["string", "number"],
            "default": 1,
        }
    if name == "attributes":
        return {
            "description": f"Kept, never part of a sum; at most {limits.attributes_bytes_max:,} bytes as JSON.",
            "type": ["object", "null"],
            "additionalProperties": {"type": _SCALAR},
        }
    if name in {"occurred_at", "time"}:
        return {"type": "string", "format": "date-time"}
    text = {"minLength": 1, "maxLength": limits.name_chars_max}
    return {"type": ["string", "null"] if optional else "string", **text}


def _cloud_event(limits: Limits) -> Part:
    envelope = _struct(Envelope, limits)
    envelope["properties"] |= {
        "specversion": {"const": "1.0"},
        "datacontenttype": {"type": ["string", "null"], "description": "JSON, where it is said."},
    }
    in_base64 = {"type": "string", "contentEncoding": "base64", "description": "UsageData as JSON."}
    # Null is as good as absent, as the JSON format of CloudEvents has it.
    nothing = {"type": "null"}
    either = [
        {"required": ["data"], "properties": {"data": _ref("UsageData"), "data_base64": nothing}},
        {"required": ["data_base64"], "properties": {"data": nothing, "data_base64": in_base64}},
    ]
    description = "CloudEvents 1.0. Its account is `data.account`, or `subject`. Other attributes are passed over."
    return envelope | {"description": description, "oneOf": either}


def _object(struct: type[msgspec.Struct], **properties: Part) -> Part:
    fields = msgspec.structs.fields(struct)
    assert [field.name for field in fields] == list(properties), f"{struct.__name__} has other fields"
    return {
        "type": "object",
        "properties": properties,
        "required": [field.name for field in fields if field.required],
        "additionalProperties": False,
    }


def _problem(status: int) -> Part:
    answer: Part = {
        "description": f"{HTTPStatus(status).phrase}: {', '.join(PROBLEMS[status])}.",
        "content": _content("application/problem+json", _ref("Problem")),
    }
    if status in {HTTPStatus.TOO_MANY_REQUESTS, HTTPStatus.SERVICE_UNAVAILABLE}:
        answer["headers"] = {"Retry-After": _RETRY_AFTER}
    if status == HTTPStatus.TOO_MANY_REQUESTS:
        answer["headers"] |= _RATE_HEADERS
    return answer


def _probe(name: str, summary: str, answers: Mapping[int, str]) -> Part:
    content = _content("application/json", _ref("Probe"))
    responses = {str(status): {"description": text, "content": content} for status, text in answers.items()}
    return {"operationId": name, "summary": summary, "security": [], "responses": responses}


def _content(media_type: str, schema: Part) -> Part:
    return {media_type: {"schema": schema}}


def _array(items: Part) -> Part:
    return {"type": "array", "items": items}


def _ref(name: str) -> Part:
    return {"$ref": f"#/components/schemas/{name}"}
