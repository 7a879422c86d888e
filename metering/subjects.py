"""Subjects by name: who is scored, and whose facts are kept."""

from collections.abc import Sequence

import msgspec

from health.scorecards import Subject


class SubjectRef(msgspec.Struct, frozen=True, cache_hash=True):
    """An account, a subscription or a user. The key of an account is the account; users are known within theirs."""

    subject: Subject
    account: str
    key: str


def names_of(refs: Sequence[SubjectRef]) -> tuple[list[str], list[str], list[str]]:
    """Subjects as statements take them: accounts, kinds, keys."""
    return [ref.account for ref in refs], [ref.subject.value for ref in refs], [ref.key for ref in refs]
