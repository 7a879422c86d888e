"""What people read in a channel, whatever is in the names."""

import re
from datetime import UTC, datetime
from uuid import UUID

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from metering.outbox.event import Published
from metering.outbox.slack import slack_message

TEXTS = st.text(st.sampled_from("<>&*_~`@!|a "), max_size=400)


def published(type_name: str, subject: str, data: object) -> Published:
    """An event as it lies in the outbox."""
    return Published(
        id=UUID(int=1),
        sequence=1,
        type=type_name,
        subject=subject,
        data=msgspec.json.encode(data).decode(),
        published_at=datetime(2027, 3, 1, 12, tzinfo=UTC),
    )


@given(
    st.sampled_from(["alert.raised", "alert.resolved", "health.band_changed"]),
    TEXTS,
    st.dictionaries(TEXTS, st.one_of(TEXTS, st.none(), st.integers(), st.lists(TEXTS, max_size=2)), max_size=15),
)
def test_no_name_becomes_markup_and_no_message_is_too_long(
    type_name: str, subject: str, data: dict[str, object]
) -> None:
    """No mention, link or emphasis comes of what producers chose; and each part is within Slack's bounds."""
    message = msgspec.json.decode(slack_message(published(type_name, subject, data)))
    parts = [block["text"]["text"] for block in message["blocks"] if "text" in block]
    fields = [field["text"] for block in message["blocks"] for field in block.get("fields", ())]

    for text in [message["text"], *parts, *fields]:
        assert not re.search(r"[<>]|&(?!amp;|lt;|gt;)", text)
        # One pair of stars, around the title, is ours.
        assert not re.search(r"[*_~`](?!\u200b)", text[1:-1] if text in parts else text)
        assert len(text) <= 2_000
    assert len(fields) <= 10


@pytest.mark.parametrize(
    ("type_name", "whole", "title"),
    [
        ("alert.raised", None, "Many calls: account/acme is at 12"),
        ("alert.raised", "10", "Many calls: account/acme is at 12 of 10"),
        ("alert.resolved", None, "Resolved: Many calls: account/acme"),
        ("trial.ready", None, "trial.ready: account/acme"),
    ],
)
def test_a_message_says_what_happened_in_one_line(type_name: str, whole: str | None, title: str) -> None:
    """The text that a phone shows: which rule, of whom, at which figure; of a type that is not known, its name."""
    data = {"rule": "many", "name": "Many calls", "value": "12", "whole": whole}

    assert title == msgspec.json.decode(slack_message(published(type_name, "account/acme", data)))["text"]
