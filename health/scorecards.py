"""Scorecards as values: a weighted tree of measures, bands and caps, and for whom they hold.

A scorecard never changes once it is published; a change is a new version. Scores are 0 to 100, and 100 is healthy.
"""

from collections.abc import Iterator, Mapping
from enum import Enum
from typing import Final, Literal, TypeAlias

import msgspec

from health.expressions import Expression

Path: TypeAlias = tuple[str, ...]
Scalar: TypeAlias = str | float | bool

# The band of a score of which too little is known, and of a customer that has left.
UNKNOWN_BAND: Final = "unknown"
CHURNED_BAND: Final = "churned"


# The score of an unknown value, where a card says no other: in the middle.
PRIOR: Final = 50.0


class Subject(Enum):
    """What is scored."""

    ACCOUNT = "ACCOUNT"
    SUBSCRIPTION = "SUBSCRIPTION"
    USER = "USER"

    # Part of the key of nearly every lookup; the one of enums is a call into Python each time.
    __hash__ = object.__hash__


class Missing(Enum):
    """What an unknown value counts as: the prior (it moves nothing), as not applicable (skip), or as an observed zero."""

    PRIOR = "prior"
    SKIP = "skip"
    ZERO = "zero"


class Measure(msgspec.Struct, frozen=True, kw_only=True, rename="camel", forbid_unknown_fields=True):
    """A leaf of the tree: a metric, and how its value becomes a score.

    `curve` is a line through points (value, score), flat on both sides of it; the only kind of curve there is.
    `weight` is its share among its siblings. With `peers`, the curve reads the value's percentile among peers (0 to 100).
    A value is fresh for `fresh_days`, then counts less from day to day until nothing is left of it at `expires_days`.
    `prior` is the score that an unknown value is given: a number, or "peers", the median of whom the card scores. With
    `shrink` k, a value of n respondents counts n/(n+k). `note` says where the curve is from.
    """

    metric: str
    weight: float
    curve: tuple[tuple[float, float], ...]
    prior: float | Literal["peers"] = PRIOR
    peers: bool = False
    missing: Missing = Missing.PRIOR
    fresh_days: float | None = None
    expires_days: float | None = None
    shrink: float = 0.0
    note: str = ""

    @property
    def constant_prior(self) -> float:
        """The prior where no median of peers is known."""
        return PRIOR if isinstance(self.prior, str) else self.prior


class Group(msgspec.Struct, frozen=True, kw_only=True, rename="camel", forbid_unknown_fields=True):
    """A branch of the tree: its weight is shared among its parts, by theirs."""

    name: str
    weight: float
    parts: tuple["Group | Measure", ...]


Part: TypeAlias = Group | Measure


class Band(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A name for the scores from here up to where the next band begins."""

    start: float = msgspec.field(name="from")
    key: str


class Condition(msgspec.Struct, frozen=True, kw_only=True, rename="camel", forbid_unknown_fields=True):
    """What an attribute has to be: one of some values, or within [at_least, below)."""

    one_of: tuple[Scalar, ...] | None = msgspec.field(default=None, name="in")
    at_least: float | None = None
    below: float | None = None

    def holds(self, value: Scalar | None) -> bool:
        """Whether the attribute is that; one that is not there never is, and true is no number."""
        if self.one_of is not None and not any(
            value == one and isinstance(value, bool) == isinstance(one, bool) for one in self.one_of
        ):
            return False
        if self.at_least is None and self.below is None:
            return True
        if isinstance(value, bool) or not isinstance(value, int | float):
            return False
        return (self.at_least is None or value >= self.at_least) and (self.below is None or value < self.below)


class Cap(msgspec.Struct, frozen=True, kw_only=True, rename="camel", forbid_unknown_fields=True):
    """A bound of the score that a metric's value sets, from `at_least` to `at_most`, both inside; with its reason.

    It counts for `expires_days` after the value was observed, always if None.
    """

    metric: str
    reason: str
    at_least: float | None = None
    at_most: float | None = None
    max: float | None = None
    min: float | None = None
    expires_days: float | None = None


class Scorecard(msgspec.Struct, frozen=True, kw_only=True, rename="camel", forbid_unknown_fields=True):
    """A version of a scorecard. `when` has a condition for each attribute; a larger `priority` is asked first.

    Below `min_coverage` (above 0, up to 1) there is no score. `hysteresis` are the points above a band's beginning
    that a score has to reach to rise into it; it falls at once. `expressions` are metrics of its own.
    """

    key: str
    version: int
    subject: Subject
    bands: tuple[Band, ...]
    tree: tuple[Part, ...]
    purpose: str = "health"
    when: Mapping[str, Condition] = {}
    priority: int = 0
    min_coverage: float = 0.5
    hysteresis: float = 2.0
    caps: tuple[Cap, ...] = ()
    expressions: Mapping[str, Expression] = {}

    def applies_to(self, attributes: Mapping[str, Scalar]) -> bool:
        """Whether a subject with these attributes is scored by this card."""
        return all(condition.holds(attributes.get(name)) for name, condition in self.when.items())


class Leaf(msgspec.Struct, frozen=True):
    """A measure where it stands: the names that lead to it, and its share of the whole tree (0 to 1)."""

    path: Path
    weight: float
    measure: Measure


def leaves_of(scorecard: Scorecard) -> tuple[Leaf, ...]:
    """Every measure, in the order of the tree; the shares add up to 1."""
    return tuple(_leaves(scorecard.tree, (), 1.0))


def card_for(
    scorecards: tuple[Scorecard, ...], subject: Subject, purpose: str, attributes: Mapping[str, Scalar]
) -> Scorecard | None:
    """The card that scores a subject for a purpose: of the newest versions, the first by priority that applies.

    Of cards with one priority the first by key is taken, so that there is one answer.
    """
    newest: dict[str, Scorecard] = {}
    for card in scorecards:
        if card.subject is subject and card.purpose == purpose:
            known = newest.get(card.key)
            newest[card.key] = card if known is None or card.version > known.version else known
    ordered = sorted(newest.values(), key=lambda card: (-card.priority, card.key))
    return next((card for card in ordered if card.applies_to(attributes)), None)


def _leaves(parts: tuple[Part, ...], path: Path, share: float) -> Iterator[Leaf]:
    total = sum(part.weight for part in parts)
    for part in parts:
        weight = share * part.weight / total if total else 0.0
        if isinstance(part, Group):
            yield from _leaves(part.parts, (*path, part.name), weight)
        else:
            yield Leaf((*path, part.metric), weight, part)
