"""What is told: an event of the outbox, and how it is written as a CloudEvent 1.0 in JSON. Pure."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, Final
from urllib.parse import quote
from uuid import UUID

import msgspec

SOURCE: Final = "/metering"
CONTENT_TYPE: Final = "application/cloudevents+json; charset=utf-8"
# The order of numbers is that of their texts, as the extension `sequence` wants it: 2^63 has 19 digits.
_SEQUENCE_DIGITS: Final = 19
_EVERYONE: Final = "everyone"


class OutboxEvent(msgspec.Struct, frozen=True, kw_only=True):
    """Something to be told: a type such as `alert.raised`, whom it is about, and what there is to say of it.

    Events of one subject are delivered in the order in which they were committed.
    """

    type: str
    subject: str
    # What JSON can hold; decimals as strings.
    data: Mapping[str, Any]


class Published(msgspec.Struct, frozen=True, kw_only=True):
    """An event as it lies in the outbox; `data` is the text of a JSON object."""

    id: UUID
    sequence: int
    type: str
    subject: str
    data: str
    published_at: datetime

    @property
    def values(self) -> dict[str, Any]:
        """What there is to say of it."""
        return msgspec.json.decode(self.data, type=dict[str, Any])


def subject_of(dimensions: Sequence[tuple[str, str | None]]) -> str:
    """The subject of figures by dimensions: `account/acme/user/ana`; a value that is missing is empty."""
    parts = [part for name, value in dimensions for part in (name, "" if value is None else quote(value, safe=""))]
    return "/".join(parts) or _EVERYONE


def cloud_event(event: Published) -> bytes:
    """The body of a request that tells of an event; the same bytes at every attempt."""
    return msgspec.json.encode(
        {
            "specversion": "1.0",
            "id": str(event.id),
            "source": SOURCE,
            "type": event.type,
            "subject": event.subject,
            "time": event.published_at,
            "datacontenttype": "application/json",
            "sequence": f"{event.sequence:0{_SEQUENCE_DIGITS}}",
            "data": msgspec.Raw(event.data.encode()),
        }
    )
