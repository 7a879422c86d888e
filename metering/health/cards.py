"""Scorecards: publishing them as versions that never change, and which ones are in force.

What a scorecard is, and what can be wrong with one, is health's to say; here are the versions. The cards of
health/defaults.py are the first versions of theirs; a card that is published by the same key takes their place.
"""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any

import msgspec

from health.catalogue import CATALOGUE
from health.defaults import default_scorecards
from health.definitions import Unreadable, checked_scorecard, definition_of, scorecard_of
from health.faults import Fault, selection_faults
from health.scorecards import Scorecard, Subject
from metering.errors import ConflictError, ForbiddenError, InputIssue, InvalidInputError
from metering.input_faults import holds_nul, name_issues
from metering.keys import Caller
from metering.limits import Limits
from metering.store.pool import Connection, Database
from metering.store.queries import sql
from metering.store.snapshot import Snapshot

# How cards are told apart, also where one is named by a score.
Version = tuple[str, int]


class ScorecardDraft(msgspec.Struct, frozen=True, kw_only=True):
    """A scorecard as it is to be published; the definition is JSON."""

    key: str
    subject: Subject
    purpose: str
    definition: Any


class Published(msgspec.Struct, frozen=True):
    """A scorecard in a version; `published_at` is None where it is one of the first ones, or would be published."""

    card: Scorecard
    published_at: datetime | None


async def publish_scorecard(
    database: Database, draft: ScorecardDraft, key: Caller, limits: Limits, *, dry_run: bool = False
) -> Published:
    """Publish a scorecard as its next version; with `dry_run` only say what it would be.

    A card that says what its newest version says is that version. Raises InvalidInputError with every fault; ConflictError
    where the key is of a card for another kind of subject or another purpose; ForbiddenError for a key that is bound to
    accounts.
    """
    if key.accounts is not None:
        raise ForbiddenError(f"The key {key.prefix} is bound to accounts; a scorecard is everyone's.")
    _check_names(draft, limits)
    async with database.transaction() as connection:
        # One at a time: cards are looked at together.
        await connection.execute(sql("attributes.take_turns"), "scorecards")
        in_force = (await find_cards(connection)).newest
        newest = next((each for each in in_force if each.card.key == draft.key), None)
        card = _checked(draft, newest, [each.card for each in in_force])
        if newest is not None and msgspec.structs.replace(card, version=newest.card.version) == newest.card:
            return newest
        if dry_run:
            return Published(card, published_at=None)
        return await _publish(connection, card, key)


def _check_names(draft: ScorecardDraft, limits: Limits) -> None:
    named = [
        *name_issues(draft.key, ("input", "key"), limits),
        *name_issues(draft.purpose, ("input", "purpose"), limits),
    ]
    if named:
        raise InvalidInputError(named)


async def _publish(connection: Connection, card: Scorecard, key: Caller) -> Published:
    definition = msgspec.json.encode(definition_of(card)).decode()
    published_at = await connection.fetchval(
        sql("health.insert_scorecard"),
        card.key,
        card.version,
        card.subject.value,
        card.purpose,
        definition,
        key.signature,
    )
    await connection.execute(sql("health.mark_scored"))
    return Published(card, published_at.astimezone(UTC))


def _checked(draft: ScorecardDraft, newest: Published | None, others: Sequence[Scorecard]) -> Scorecard:
    """The draft as a version without faults."""
    if newest is not None and (newest.card.subject, newest.card.purpose) != (draft.subject, draft.purpose):
        raise ConflictError(
            f"The scorecard {draft.key!r:.60} is for {newest.card.subject.value} and {newest.card.purpose!r:.60} since its "
            "first version; publish this one by another key."
        )
    card = checked_scorecard(
        draft.definition,
        CATALOGUE,
        others,
        key=draft.key,
        version=1 if newest is None else newest.card.version + 1,
        subject=draft.subject,
        purpose=draft.purpose,
    )
    if isinstance(card, Unreadable):
        raise InvalidInputError([_issue(fault) for fault in card.faults])
    if holds_nul(msgspec.json.encode(definition_of(card))):
        raise InvalidInputError(
            [InputIssue(("input", "definition"), "A text holds a NUL character, which no text can keep.")]
        )
    in_force = [*(other for other in others if other.key != draft.key), card]
    alone = [fault for fault in selection_faults(in_force) if fault.path == (draft.subject.value, draft.purpose)]
    if alone:
        raise InvalidInputError([InputIssue(("input", "definition", "when"), _sentence(alone[0].message))])
    return card


def _issue(fault: Fault) -> InputIssue:
    # Key and purpose stand beside the definition, and were looked at before.
    return InputIssue(("input", "definition", *fault.path), _sentence(fault.message))


def _sentence(message: str) -> str:
    return f"{message[0].upper()}{message[1:]}."


async def read_cards(snapshot: Snapshot) -> "Cards":
    """Every scorecard in every version."""
    return Cards(_known(await snapshot.fetch(sql("health.list_scorecards"))))


async def find_cards(connection: Connection) -> "Cards":
    """The same within a transaction."""
    return Cards(_known(await connection.fetch(sql("health.list_scorecards"))))


class Cards:
    """Scorecards in all of their versions, the oldest first."""

    def __init__(self, published: Sequence[Published]) -> None:
        self.published = tuple(published)
        self.all = tuple(each.card for each in published)
        self._by_version: Mapping[Version, Scorecard] = {(card.key, card.version): card for card in self.all}

    @property
    def newest(self) -> tuple[Published, ...]:
        """Each card in its newest version, by key."""
        newest = {each.card.key: each for each in self.published}
        return tuple(newest[key] for key in sorted(newest))

    def of(self, version: Version) -> Scorecard:
        """The card of a key and a version, which a score was made by."""
        return self._by_version[version]

    def purposes(self, subject: Subject) -> tuple[str, ...]:
        """For what subjects of this kind are scored."""
        return tuple(sorted({card.purpose for card in self.all if card.subject is subject}))

    def checked(self, draft: ScorecardDraft, limits: Limits) -> Scorecard:
        """The version that a draft would be. Raises InvalidInputError with every fault; ConflictError as publishing does."""
        _check_names(draft, limits)
        newest = next((each for each in self.newest if each.card.key == draft.key), None)
        return _checked(draft, newest, [each.card for each in self.newest])

    def with_draft(self, card: Scorecard) -> "Cards":
        """As they would be with one more."""
        return Cards([*self.published, Published(card, None)])


def _known(rows: Sequence[Any]) -> list[Published]:
    first = [Published(card, None) for card in default_scorecards()]
    return [*first, *map(_published, rows)]


def _published(row: Any) -> Published:
    card = _card_of(row["definition"], row["key"], row["version"], row["subject"], row["purpose"])
    return Published(card, row["published_at"].astimezone(UTC))


@lru_cache(maxsize=1_000)
def _card_of(definition: str, key: str, version: int, subject: str, purpose: str) -> Scorecard:
    """A version never changes, and every question of a score needs it: it is read once."""
    card = scorecard_of(
        msgspec.json.decode(definition), key=key, version=version, subject=Subject(subject), purpose=purpose
    )
    assert not isinstance(card, Unreadable), "what was published was read before"
    return card
