"""A notification as people read it: the body of a request to an incoming webhook of Slack. Pure.

What is told comes from names that producers chose, so none of it is taken for markup: no mention, no link.
"""

from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final

import msgspec

from metering.outbox.event import Published

CONTENT_TYPE: Final = "application/json; charset=utf-8"
# Slack's own bounds are 150 for a header, 2,000 for a field, and ten fields.
_TITLE_CHARS_MAX: Final = 150
_VALUE_CHARS_MAX: Final = 300
_FIELDS_MAX: Final = 10


def slack_message(event: Published) -> bytes:
    """The body of a request that tells a channel of an event."""
    values = event.values
    title, lines = _TITLES.get(event.type, _plain_title)(event, values), list(_lines(values))
    if event.type in _WARNING_TITLES:
        title, lines = f"{_WARNING_TITLES[event.type]}: {event.subject}", list(_warning_lines(values))
    blocks: list[dict[str, Any]] = [
        {"type": "section", "text": {"type": "mrkdwn", "text": f"*{_safe(_cut(title, _TITLE_CHARS_MAX))}*"}}
    ]
    if lines:
        blocks.append({"type": "section", "fields": [{"type": "mrkdwn", "text": line} for line in lines]})
    foot = f"{event.published_at:%Y-%m-%d %H:%M:%S} UTC · {event.type} · {event.id}"
    blocks.append({"type": "context", "elements": [{"type": "mrkdwn", "text": _safe(foot)}]})
    # What is shown where there are no blocks, as in a notification of the phone.
    return msgspec.json.encode({"text": _safe(_cut(title, _TITLE_CHARS_MAX)), "blocks": blocks})


def _plain_title(event: Published, _values: Mapping[str, Any]) -> str:
    return f"{event.type}: {event.subject}"


def _raised_title(event: Published, values: Mapping[str, Any]) -> str:
    return f"{values.get('name', values.get('rule'))}: {event.subject} is at {_of(values)}"


def _resolved_title(event: Published, values: Mapping[str, Any]) -> str:
    return f"Resolved: {values.get('name', values.get('rule'))}: {event.subject}"


def _of(values: Mapping[str, Any]) -> str:
    whole = values.get("whole")
    return f"{values.get('value')}" if whole is None else f"{values.get('value')} of {whole}"


_TITLES: Final[Mapping[str, Callable[[Published, Mapping[str, Any]], str]]] = {
    "alert.raised": _raised_title,
    "alert.resolved": _resolved_title,
}


# What the types of health/alarms.py say.
_WARNING_TITLES: Final[Mapping[str, str]] = {
    "usage.drop_detected": "Usage has dropped",
    "product.common_cause_drop": "Usage of all customers has dropped",
    "user.silent": "A user is silent",
    "champion.lost": "A champion is lost",
    "account.single_threaded": "It hangs on one user",
    "seats.underused": "Few of the seats are used",
    "renewal.at_risk": "The renewal is at risk",
    "health.band_changed": "Another band",
    "health.score_dropped": "The score has dropped",
}


def _warning_lines(values: Mapping[str, Any]) -> Iterator[str]:
    """The score with what lowers it most, and what the warning was seen by."""
    told: list[tuple[str, object]] = [(name, values.get(name)) for name in ("asOf", "score", "band")]
    drivers, evidence = values.get("drivers"), values.get("evidence")
    of_drivers = [each for each in (drivers if isinstance(drivers, list) else ()) if isinstance(each, dict)]
    told += [(str(each.get("metric")), f"{each.get('contribution', 0):+.1f}") for each in of_drivers]
    told += list(evidence.items()) if isinstance(evidence, dict) else []
    shown = [(name, f"{value:.4g}" if isinstance(value, float) else value) for name, value in told]
    for name, value in [(name, value) for name, value in shown if isinstance(value, str | int)][:_FIELDS_MAX]:
        yield f"{_safe(_cut(name, _VALUE_CHARS_MAX))}: {_safe(_cut(str(value), _VALUE_CHARS_MAX))}"


def _lines(values: Mapping[str, Any]) -> Iterator[str]:
    """The plain values, by name; what is nested is for programs."""
    plain = {name: value for name, value in values.items() if isinstance(value, str | int) and value != ""}
    for name, value in list(plain.items())[:_FIELDS_MAX]:
        yield f"{_safe(name)}: {_safe(_cut(str(value), _VALUE_CHARS_MAX))}"


def _cut(text: str, chars_max: int) -> str:
    return text if len(text) <= chars_max else f"{text[: chars_max - 1]}…"


def _safe(text: str) -> str:
    """As Slack wants the three signs of its markup written; and without those that would format."""
    escaped = text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return escaped.translate(_FORMATTING)


# A zero-width space behind each keeps it from pairing with the next one.
_FORMATTING: Final = {ord(sign): f"{sign}\u200b" for sign in "*_~`"}
