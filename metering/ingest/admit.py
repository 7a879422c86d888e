"""An event -> an admitted event, or the reason why not. Pure: limits, the caller's scope and the clock are arguments."""

from collections.abc import Iterator, Mapping
from datetime import datetime, timedelta
from decimal import Decimal

import msgspec

from metering.events import (
    AdmittedEvent,
    Scalar,
    UsageEvent,
    claimed_days,
    content_hash,
    identity_key,
    in_utc,
    joined_values,
    sorted_attributes,
)
from metering.ingest.decode import NO_OFFSET, Decoded
from metering.ingest.receipts import Code, Rejection
from metering.limits import Limits
from rating.exact import plain
from rating.periods import instant_text

# Of the joined values: one more is a NUL in one of them.
_SEPARATORS = 8
_TEXTS = ("id", "source", "account", "subscription", "user", "device", "product", "feature", "classification", "unit")


class Admission(msgspec.Struct, frozen=True, kw_only=True):
    """The terms on which events are admitted: whose they may be, and how far from now they may lie."""

    limits: Limits
    now: datetime
    restamp_window: timedelta
    # The accounts that the caller's key is bound to; None means all.
    accounts: frozenset[str] | None = None
    # Stands where an event names no source.
    default_source: str | None = None
    # Events that occurred before it are not retained; None means that there is no such instant.
    retained_from: datetime | None = None


def admit(events: Decoded, terms: Admission) -> tuple[list[tuple[int, AdmittedEvent]], list[Rejection]]:
    """Split what was decoded into admitted events, each with its index in the request, and rejections."""
    admitted: list[tuple[int, AdmittedEvent]] = []
    rejected: list[Rejection] = []
    for index, event in enumerate(events):
        outcome = event if isinstance(event, Rejection) else admit_one(index, event, terms)
        if isinstance(outcome, Rejection):
            rejected.append(outcome)
        else:
            admitted.append((index, outcome))
    return admitted, rejected


def admit_one(index: int, event: UsageEvent, terms: Admission) -> AdmittedEvent | Rejection:
    """Admit one event, or say the first reason why not, in the order of `Code`."""
    source = event.source if event.source is not None else terms.default_source
    if source is None:
        message = "`source` is required: this key has no default source."
        return Rejection(index, Code.MISSING_FIELD, message, id=event.id, path="source")
    values = _values_at_a_glance(event, source, terms)
    if values is None:
        fault = next(_faults(event, terms), None)
        if fault is not None:
            code, path, message = fault
            return Rejection(index, code, message, id=event.id, path=path)
        values = joined_values(event, plain(event.quantity), sorted_attributes(event.attributes))
    occurred_at = in_utc(event.occurred_at)
    return AdmittedEvent(
        event=event,
        source=source,
        occurred_at=occurred_at,
        values=values,
        key=identity_key(source, event.id),
        content=content_hash(values),
        days=claimed_days(occurred_at, terms.restamp_window),
    )


def _values_at_a_glance(event: UsageEvent, source: str, terms: Admission) -> str | None:
    """The joined values of an event that is good beyond doubt, as nearly all are; what it doubts, `_faults` looks at."""
    limits = terms.limits
    at = event.occurred_at
    quantity = str(event.quantity)
    account = event.account
    if (
        at.tzinfo is None
        or not limits.occurred_at_min <= at <= terms.now + limits.occurred_ahead_max
        or (terms.retained_from is not None and at < terms.retained_from)
        or event.attributes is not None
        or not event.quantity.is_finite()
        or len(quantity) > limits.quantity_fraction_digits_max
        or "E" in quantity
        or (terms.accounts is not None and account not in terms.accounts)
        or "" in (event.id, source, account, event.product, event.unit)
        or "" in (event.subscription, event.user, event.device, event.feature, event.classification)
    ):
        return None
    values = joined_values(event, plain(event.quantity), None)
    name = f"{account}{source}{event.id}"
    good = len(name) + len(values) <= limits.name_chars_max and "\0" not in name and values.count("\0") == _SEPARATORS
    return values if good else None


def _faults(event: UsageEvent, terms: Admission) -> Iterator[tuple[Code, str, str]]:
    limits = terms.limits
    if event.occurred_at.tzinfo is None:
        yield Code.TIME_NAIVE, "occurred_at", NO_OFFSET
    fault = quantity_fault(event.quantity, limits)
    if fault is not None:
        yield fault
    yield from _text_faults(event, limits)
    fault = attributes_fault(event.attributes, limits)
    if fault is not None:
        yield fault
    if event.occurred_at < limits.occurred_at_min:
        yield Code.TIME_TOO_EARLY, "occurred_at", f"Events before {limits.occurred_at_min:%Y-%m-%d} are not kept."
    if terms.retained_from is not None and event.occurred_at < terms.retained_from:
        yield retention_fault(terms.retained_from)
    if event.occurred_at > terms.now + limits.occurred_ahead_max:
        ahead_minutes = limits.occurred_ahead_max // timedelta(minutes=1)
        message = (
            f"`occurred_at` may lie at most {ahead_minutes} minutes ahead of the service's clock ({terms.now:%FT%TZ})."
        )
        yield Code.TIME_IN_FUTURE, "occurred_at", message
    if terms.accounts is not None and event.account not in terms.accounts:
        yield Code.ACCOUNT_FORBIDDEN, "account", f"This key may not write for the account {event.account!r:.60}."


def retention_fault(retained_from: datetime) -> tuple[Code, str, str]:
    """What is wrong with an event that occurred before this instant, as code, path and message."""
    earliest = instant_text(retained_from)
    return Code.OUTSIDE_RETENTION, "occurred_at", f"Events are retained from {earliest} on; none before it is taken."


def quantity_fault(quantity: Decimal, limits: Limits) -> tuple[Code, str, str] | None:
    """What is wrong with a quantity, as code, path and message; None where nothing is."""
    if not quantity.is_finite():
        return Code.QUANTITY_NOT_A_NUMBER, "quantity", f"{str(quantity)!r:.60} is not a finite decimal number."
    whole_max = limits.quantity_digits_max - limits.quantity_fraction_digits_max
    # The exponent is looked at before the digits are written out: 1E+999999999 would be a gigabyte of zeros.
    fits = not quantity or -limits.quantity_fraction_digits_max <= quantity.adjusted() < whole_max
    if fits and quantity:
        fits = len(plain(quantity).partition(".")[2]) <= limits.quantity_fraction_digits_max
    if fits:
        return None
    message = (
        f"`quantity` may have {whole_max} digits before the point and {limits.quantity_fraction_digits_max} after it; "
        "it is refused rather than rounded."
    )
    return Code.QUANTITY_OUT_OF_RANGE, "quantity", message


def text_fault(name: str, text: str, limits: Limits) -> tuple[Code, str, str] | None:
    """What is wrong with a text of this name, as code, path and message; None where nothing is."""
    if not 0 < len(text) <= limits.name_chars_max:
        message = f"`{name}` must have 1 to {limits.name_chars_max} characters; this has {len(text):,}."
        return Code.TEXT_INVALID, name, message
    if "\0" in text:
        return Code.TEXT_INVALID, name, f"`{name}` holds a NUL character, which no text can keep."
    return None


def _text_faults(event: UsageEvent, limits: Limits) -> Iterator[tuple[Code, str, str]]:
    for name in _TEXTS:
        text = getattr(event, name)
        fault = None if text is None else text_fault(name, text, limits)
        if fault is not None:
            yield fault


def attributes_fault(attributes: Mapping[str, Scalar] | None, limits: Limits) -> tuple[Code, str, str] | None:
    """What is wrong with the attributes of an event, as code, path and message; None where nothing is."""
    if attributes is not None and any(_holds_nul(item) for pair in attributes.items() for item in pair):
        return Code.ATTRIBUTES_INVALID, "attributes", "`attributes` holds a NUL character, which no text can keep."
    size_bytes = len((sorted_attributes(attributes) or "").encode())
    if size_bytes <= limits.attributes_bytes_max:
        return None
    message = f"`attributes` may take {limits.attributes_bytes_max:,} bytes as JSON; these take {size_bytes:,}."
    return Code.ATTRIBUTES_INVALID, "attributes", message


def _holds_nul(item: object) -> bool:
    return isinstance(item, str) and "\0" in item
