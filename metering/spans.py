"""Spans: what a request, or a run of a background loop, consists of, and how long each part of it took.

Where traces are collected (metering/traces.py) the context has a place below which spans go. Where they are not, every call here
is a look at one context variable, and nothing here knows OpenTelemetry.

A span says what was done, and how much of it: counts, codes, names of statements, fields and operations. Never what it was done
with: no key, no variable, no value of a statement, nobody's name; and of an error what kind it is, never its text.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from contextvars import ContextVar, Token
from enum import Enum
from types import TracebackType
from typing import Final

from metering.errors import MeteringError

Attributes = Mapping[str, str | int | Sequence[str]]


class Kind(Enum):
    """Who is on the other side of a span."""

    INTERNAL = "internal"
    SERVER = "server"
    CLIENT = "client"


class Place(ABC):
    """Where spans go below: another span, one of whoever called us, or nothing yet."""

    @property
    @abstractmethod
    def records(self) -> bool:
        """Whether what begins here may be told to anybody."""

    @abstractmethod
    def begin(self, name: str, attributes: Attributes, kind: Kind, links: "Sequence[Span]") -> "Span":
        """Begin a span below this."""


class Span(Place):
    """A piece of work that has begun."""

    @property
    @abstractmethod
    def trace_id(self) -> str:
        """The trace that it belongs to, as 32 hexadecimal digits."""

    @property
    @abstractmethod
    def traceparent(self) -> str:
        """What tells somebody else to go on below it (W3C Trace Context)."""

    @abstractmethod
    def tell(self, attributes: Attributes) -> None:
        """Say this of it, too."""

    @abstractmethod
    def link(self, other: "Span") -> None:
        """Say that another span, perhaps of another trace, has to do with it."""

    @abstractmethod
    def fail(self, fault: str) -> None:
        """Say that it failed, and of what kind of fault."""

    @abstractmethod
    def end(self) -> None:
        """It is done."""


class Traces(Place):
    """The place of what begins a trace."""

    @abstractmethod
    def below(self, traceparent: str | None) -> Place:
        """The place below a caller's span; of one that says none, or nothing that can be read, this one."""


_PLACE: Final[ContextVar[Place | None]] = ContextVar("place", default=None)
_NOTHING: Final = nullcontext()
_NO_ATTRIBUTES: Final[Attributes] = {}


@contextmanager
def below(place: Place) -> Iterator[None]:
    """Have spans go below this place, in the block and in the tasks that are made in it."""
    token = _PLACE.set(place)
    try:
        yield
    finally:
        _PLACE.reset(token)


def begin(
    name: str, attributes: Attributes = _NO_ATTRIBUTES, kind: Kind = Kind.INTERNAL
) -> AbstractContextManager[Span | None]:
    """A piece of work of its own, such as a request or a run: a part of what it is done for, or else a trace."""
    place = _PLACE.get()
    if place is None or not place.records:
        return _NOTHING
    return _Inside(place.begin(name, attributes, kind, ()))


def part(name: str, attributes: Attributes = _NO_ATTRIBUTES) -> AbstractContextManager[Span | None]:
    """A part of what is traced here; where nothing is, it is none."""
    span = here()
    if span is None or not span.records:
        return _NOTHING
    return _Inside(span.begin(name, attributes, Kind.INTERNAL, ()))


def together(name: str, spans: Sequence[Span], attributes: Attributes) -> AbstractContextManager[Span | None]:
    """A part that these spans have in common: it stands below the first of them, and it and the others link to each other."""
    recorded = [span for span in spans if span.records]
    if not recorded:
        return _NOTHING
    first, *others = recorded
    common = first.begin(name, attributes, Kind.INTERNAL, others)
    for other in others:
        other.link(common)
    return _Inside(common)


def here() -> Span | None:
    """The span in which this is done."""
    place = _PLACE.get()
    return place if isinstance(place, Span) else None


class _Inside:
    """The block of a span: it ends with it, and has failed where the block raised."""

    __slots__ = ("_span", "_token")

    def __init__(self, span: Span) -> None:
        self._span = span
        self._token: Token[Place | None] | None = None

    def __enter__(self) -> Span:
        self._token = _PLACE.set(self._span)
        return self._span

    def __exit__(
        self, _kind: type[BaseException] | None, error: BaseException | None, _traceback: TracebackType | None
    ) -> None:
        assert self._token is not None, "it was entered"
        _PLACE.reset(self._token)
        if error is not None:
            self._span.fail(error.code if isinstance(error, MeteringError) else type(error).__name__)
        self._span.end()
