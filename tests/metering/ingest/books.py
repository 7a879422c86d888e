"""The model of exactly once: what is recorded, in plain Python, by the words of docs/ingest.md; it knows no SQL.

Where several requests are under way at once, or one ended without an answer, several ends are right: `possible` is all
of them.
"""

from collections.abc import Callable, Hashable, Mapping, Sequence
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import Any, Final, NamedTuple
from zoneinfo import ZoneInfo

import msgspec


class Content(NamedTuple):
    """What a figure is made of, and what tells a duplicate from a conflict."""

    product: str
    user: str | None
    quantity: Decimal


class Name(NamedTuple):
    """What names an event, on a day."""

    account: str
    source: str
    id: str


class Sent(NamedTuple):
    """An event of a request."""

    name: Name
    occurred_at: datetime
    content: Content
    # The same event may be written in several ways.
    spelling: int = 0
    # The code with which it is refused before anybody looks at its name.
    flaw: str | None = None

    def written(self) -> dict[str, Any]:
        """The event as JSON has it."""
        plain = format(self.content.quantity, "f")
        at = self.occurred_at
        fields = {
            **self.name._asdict(),
            "occurred_at": (at if self.spelling else at.astimezone(_ELSEWHERE)).isoformat(),
            "product": self.content.product,
            "user": self.content.user,
            "unit": "call",
            "quantity": [plain, msgspec.Raw(plain.encode()), f"{plain}{'' if '.' in plain else '.'}000"][self.spelling],
        }
        if self.flaw == "missing_field":
            del fields["unit"]
        if self.flaw == "time_naive":
            fields["occurred_at"] = at.replace(tzinfo=None).isoformat()
        return fields


_ELSEWHERE: Final = ZoneInfo("Asia/Kathmandu")


class Request(NamedTuple):
    """What one POST carries."""

    events: tuple[Sent, ...]
    atomic: bool

    def body(self) -> bytes:
        """The request's body, as JSON."""
        return msgspec.json.encode([event.written() for event in self.events])


class Answer(NamedTuple):
    """A receipt; of a refused event its index, code and id."""

    status: int
    accepted: int
    duplicates: int
    rejected: tuple[tuple[int, str, str], ...]


class Order(NamedTuple):
    """A correction: void the event, or put these values in effect."""

    name: Name
    # Where the name was used on several days.
    occurred_at: datetime | None
    # None voids.
    values: tuple[tuple[str, Any], ...] | None


# By account and product: the sum of the quantities, and the count of the events.
Totals = dict[tuple[str, str], tuple[Decimal, int]]


class Books(msgspec.Struct, frozen=True):
    """What is recorded."""

    restamp_window: timedelta
    # Who claimed a name for a day: by when it occurred, and its content as it was sent.
    claims: Mapping[tuple[Name, date], tuple[datetime, Content]] = {}
    # What is in effect of an event: its content, or None when it is void.
    events: Mapping[tuple[Name, datetime], Content | None] = {}
    corrections: int = 0

    def key(self) -> Hashable:
        """Equal for equal books."""
        return frozenset(self.claims.items()), frozenset(self.events.items()), self.corrections

    def record(self, request: Request) -> tuple["Books", Answer]:
        """The books after this request, and its receipt."""
        flawed = [(index, event.flaw, event.name.id) for index, event in enumerate(request.events) if event.flaw]
        if request.atomic and flawed:
            return self, Answer(422, 0, 0, tuple(flawed))
        claims, events = dict(self.claims), dict(self.events)
        accepted, duplicates, conflicts = 0, 0, []
        for index, event in enumerate(request.events):
            if event.flaw:
                continue
            wanted = [(event.name, day) for day in days_claimed(event.occurred_at, self.restamp_window)]
            contents = {claims[claim][1] for claim in wanted if claim in claims}
            if event.content in contents:
                duplicates += 1
            elif contents:
                conflicts.append((index, "identity_conflict", event.name.id))
            else:
                accepted += 1
                claims.update(dict.fromkeys(wanted, (event.occurred_at, event.content)))
                events[event.name, event.occurred_at] = event.content
        if request.atomic and conflicts:
            return self, Answer(422, 0, 0, tuple(conflicts))
        after = msgspec.structs.replace(self, claims=claims, events=events)
        return after, Answer(200, accepted, duplicates, tuple(sorted([*flawed, *conflicts])))

    def correct(self, order: Order) -> tuple["Books", str]:
        """The books after this correction, and what it is answered with."""
        instants = {at for name, at in self.events if name == order.name}
        if order.occurred_at is not None:
            instants &= {order.occurred_at}
        if not instants:
            return self, "NotFound"
        if len(instants) > 1:
            return self, "Conflict"
        event = (order.name, instants.pop())
        content = self.events[event]
        corrected = None if content is None or order.values is None else content._replace(**dict(order.values))
        if corrected == content:
            return self, "Conflict"
        after = msgspec.structs.replace(
            self, events={**self.events, event: corrected}, corrections=self.corrections + 1
        )
        return after, "Event"

    def totals(self) -> Totals:
        """What a usage question answers."""
        totals: Totals = {}
        for (name, _), content in self.events.items():
            if content is not None:
                quantity, count = totals.get((name.account, content.product), (Decimal(0), 0))
                totals[name.account, content.product] = (quantity + content.quantity, count + 1)
        return totals


def days_claimed(occurred_at: datetime, restamp_window: timedelta) -> list[date]:
    """The UTC days that lie, at least in part, within the window before and after this instant."""
    days = []
    for offset in range(-2, 3):
        day = occurred_at.date() + timedelta(days=offset)
        start = datetime(day.year, day.month, day.day, tzinfo=UTC)
        if start <= occurred_at + restamp_window and occurred_at - restamp_window < start + timedelta(days=1):
            days.append(day)
    return days


class Done(NamedTuple):
    """Something that was asked of the service, and has its answer."""

    apply: Callable[[Books], tuple[Books, Any]]
    answer: Any
    # At all but the last one it got no answer, and may have been done nevertheless.
    tries: int


def possible(before: Books, done: Sequence[Done]) -> list[Books]:
    """Every end to which these may have led, done in some order, one at a time, each with the answer that it got."""
    ends: dict[Hashable, Books] = {}
    looked_at = set()

    def follow(books: Books, left: tuple[tuple[int, bool], ...]) -> None:
        state = (books.key(), left)
        if state in looked_at:
            return
        looked_at.add(state)
        if not left:
            ends[books.key()] = books
        for place, (index, may_have_been_done) in enumerate(left):
            others = (*left[:place], *left[place + 1 :])
            after, answer = done[index].apply(books)
            if answer == done[index].answer:
                follow(after, others)
            if may_have_been_done:
                # A second time changes nothing: once is enough.
                follow(after, (*others, (index, False)))

    follow(before, tuple((index, each.tries > 1) for index, each in enumerate(done)))
    return list(ends.values())
