"""Subjects by name: who is scored, and whose facts are kept."""

import msgspec

from health.scorecards import Subject


class SubjectRef(msgspec.Struct, frozen=True):
    """An account, a subscription or a user. The key of an account is the account; users are known within theirs."""

    subject: Subject
    account: str
    key: str
