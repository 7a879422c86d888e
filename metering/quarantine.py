"""The quarantine: what was refused, one by one, and how it is sent again.

A retry goes the way of any other event, by the terms of whoever retries, and what becomes of it is committed together with
what becomes of the row: recorded now, or recorded already, and the row is gone; refused again, and the row says why. So it
counts once, however often and by however many it is retried, and wherever a process dies.
"""

from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Final

import msgspec

from metering.errors import InputIssue, InvalidInputError, NotFoundError
from metering.events import UsageEvent
from metering.ingest.bodies import SentBody, printable
from metering.ingest.cloudevents import STRUCTURED, CloudEvents, decode_elements
from metering.ingest.decode import Decoded, decode_element
from metering.ingest.receipts import Code, Receipt, Rejection
from metering.ingest.refusals import Refusals
from metering.keys import Caller
from metering.limits import Limits
from metering.store.pool import Database
from metering.store.quarantine import Changes, RejectedRow
from metering.store.queries import sql
from metering.store.snapshot import Snapshot


class RejectedEvent(msgspec.Struct, frozen=True, kw_only=True):
    """An event that was refused, and why. Sent again and again it is one, received when it was received last."""

    id: int
    received_at: datetime
    # As far as it could be read.
    source: str | None
    code: str
    message: str
    path: str | None
    # As it was sent, as text; where it is cut, it says so.
    body: str


class Place(msgspec.Struct, frozen=True):
    """Where a rejected event stands in the order: newest first."""

    received_at: datetime
    id: int


class RetryOrder(msgspec.Struct, frozen=True):
    """Which rejected event is sent again, and with which body instead of its own."""

    # The global id, as the caller gave it, and what it stands for; None where it is none of ours.
    name: str
    id: int | None
    body: str | None


def seen_by(key: Caller) -> str | None:
    """Whose rejected events a caller sees: all, or where its key is bound to accounts those that this sender sent."""
    return None if key.reach.is_everything else key.sender


async def read_rejected(
    snapshot: Snapshot, key: Caller, *, source: str | None, code: str | None, first: int, after: Place | None
) -> tuple[list[RejectedEvent], bool]:
    """The `first` rejected events that this key sees, newest first, from behind `after` on; and whether there are more."""
    # Asked for as they are kept.
    filters = [None if text is None else printable(text) for text in (source, code)]
    place = (None, None) if after is None else (after.received_at, after.id)
    # One more than asked for tells whether there are more.
    rows = await snapshot.fetch(sql("quarantine.list_rejected"), [seen_by(key), *filters, *place, first + 1])
    return [_shown(**dict(row)) for row in rows[:first]], len(rows) > first


async def find_rejected(snapshot: Snapshot, key: Caller, rejected_id: int) -> RejectedEvent | None:
    """The rejected event of this id, if there is one and this key sees it."""
    rows = await snapshot.fetch(sql("quarantine.find_rejected"), [rejected_id, seen_by(key)])
    return _shown(**dict(rows[0])) if rows else None


def _shown(*, body: str, body_bytes: int, **fields: object) -> RejectedEvent:
    if len(body.encode()) < body_bytes:
        body += f"… ({body_bytes:,} bytes in all)"
    return msgspec.convert({**fields, "body": body}, RejectedEvent)


class _Kept(msgspec.Struct, frozen=True):
    """What is needed to send a rejected event again."""

    id: int
    sent_by: str
    media_type: str
    body: str
    body_bytes: int
    is_exact: bool

    @property
    def why_not(self) -> str | None:
        """Why it cannot be sent again as it is; None where it can."""
        if self.is_exact:
            return None
        kept_bytes = len(self.body.encode())
        if kept_bytes < self.body_bytes:
            return f"Of its {self.body_bytes:,} bytes only the first {kept_bytes:,} are kept; send another body."
        return "It held what JSON has no form for, so this is not quite what was sent; send another body."


class Retry:
    """Rejected events on their way through admission again, each with the index of its order."""

    # All that is not refused goes from the quarantine at once.
    is_divisible: Final = False

    def __init__(self, orders: Sequence[RetryOrder], rows: Sequence[_Kept], limits: Limits) -> None:
        self._rows = rows
        self._retried = [
            _Retried(index, order, row, limits) for index, (order, row) in enumerate(zip(orders, rows, strict=True))
        ]
        self.decoded: Decoded = [retried.decoded for retried in self._retried]

    def worded(self, rejections: Iterable[Rejection]) -> list[Rejection]:
        """Rejections in the words of the formats that the events are written in."""
        return [self._retried[rejection.index].worded(rejection) for rejection in rejections]

    def changes(self, receipt: Receipt, received_at: datetime, limits: Limits) -> Changes:
        """What is recorded, now or before, goes; what is refused again says why. What was not even tried stays."""
        refused = {rejection.index for rejection in receipt.rejected}
        again = [rejection for rejection in receipt.rejected if self._retried[rejection.index].is_tried]
        return Changes(
            [self._row(rejection, received_at, limits) for rejection in again],
            [row.id for index, row in enumerate(self._rows) if index not in refused],
        )

    def _row(self, rejection: Rejection, received_at: datetime, limits: Limits) -> RejectedRow:
        """The row says the new reason and holds the new body; it stays the same one, of whoever sent it first."""
        row = self._rows[rejection.index]
        refusals = Refusals(row.sent_by, self._retried[rejection.index])
        return refusals.row(rejection, received_at, limits)._replace(id=row.id)


class _Retried:
    """One event that is sent again: the kept body or another one, in the format of the kept one."""

    def __init__(self, index: int, order: RetryOrder, row: _Kept, limits: Limits) -> None:
        raw = (row.body if order.body is None else order.body).encode()
        self._body = SentBody(row.media_type, raw)
        self._as_cloud_event: CloudEvents | None = None
        why_not = row.why_not if order.body is None else None
        self.is_tried = why_not is None
        self.decoded: UsageEvent | Rejection
        if why_not is not None:
            self.decoded = Rejection(index, Code.MALFORMED, why_not)
        elif row.media_type == STRUCTURED:
            self._as_cloud_event = decode_elements([raw], limits, first=index)
            self.decoded = self._as_cloud_event.decoded[0]
        else:
            self.decoded = decode_element(index, raw, limits)

    def worded(self, rejection: Rejection) -> Rejection:
        return rejection if self._as_cloud_event is None else self._as_cloud_event.worded(rejection)

    def body(self, _index: int) -> SentBody:
        return self._body


async def read_retry(database: Database, orders: Sequence[RetryOrder], key: Caller, limits: Limits) -> Retry:
    """What is to be sent again, of rejected events that this key sees.

    Raises InvalidInputError for too many orders or one rejected event twice, NotFoundError for the first that is not there.
    """
    _check(orders, limits)
    ids = [order.id for order in orders if order.id is not None]
    async with database.connection() as connection:
        found = await connection.fetch(sql("quarantine.find_to_retry"), ids, seen_by(key))
    rows = {row["id"]: _Kept(**dict(row)) for row in found}
    for order in orders:
        if order.id not in rows:
            raise NotFoundError(
                f"There is no rejected event {order.name!r:.60}: it was sent again or forgotten meanwhile, or this key may "
                "not see it. Nothing was done."
            )
    return Retry(orders, [rows[order.id] for order in orders if order.id is not None], limits)


def _check(orders: Sequence[RetryOrder], limits: Limits) -> None:
    if len(orders) > limits.body_events_max:
        message = f"{limits.body_events_max:,} rejected events are taken at once; these are {len(orders):,}."
        raise InvalidInputError([InputIssue(("input",), message)])
    first: dict[int, int] = {}
    issues = [
        InputIssue(
            ("input", str(index), "id"), f"This is the rejected event of input {first[order.id]} again; send it once."
        )
        for index, order in enumerate(orders)
        if order.id is not None and first.setdefault(order.id, index) != index
    ]
    if issues:
        raise InvalidInputError(issues)
