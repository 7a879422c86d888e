"""What attributes mean to measures: who is expected, what is sold, what onboarding is. docs/health.md lists them for users.

An attribute of a subscription goes before the one of its account. A list may be written as one text, with commas.
"""

from collections.abc import Mapping, Sequence
from datetime import date
from typing import Any, Final, TypeAlias

import msgspec

from health.scorecards import Subject
from metering.store.queries import sql
from metering.store.snapshot import Snapshot
from metering.subjects import SubjectRef

# Of users.
ROLE: Final = "role"
SERVICE_ACCOUNT: Final = "service_account"
DEPROVISIONED: Final = "deprovisioned"
PROVISIONED: Final = "provisioned"
CHAMPION: Final = "champion"
# Of subscriptions and accounts.
FEATURES: Final = "features"
CORE_FEATURES: Final = "core_features"
ONBOARDING_STEPS: Final = "onboarding_steps"
ONBOARDING_DAYS: Final = "onboarding_days"
SETUP_ROLES: Final = "setup_roles"

_NAMES: Final = (
    *(ROLE, SERVICE_ACCOUNT, DEPROVISIONED, PROVISIONED, CHAMPION),
    *(FEATURES, CORE_FEATURES, ONBOARDING_STEPS, ONBOARDING_DAYS, SETUP_ROLES),
)
_ONBOARDING_DAYS: Final = 60.0
_SETUP_ROLES: Final = ("setup",)

Columns: TypeAlias = tuple[list[str], list[str]]


class Conventions(msgspec.Struct, frozen=True):
    """The attributes that measures read, by subject, as of a day."""

    of: Mapping[SubjectRef, Mapping[str, Any]]

    def flag(self, ref: SubjectRef, name: str) -> bool | None:
        """Whether something is so of a subject; None where nobody said it."""
        value = self.of.get(ref, {}).get(name)
        return None if value is None else value in (True, "true", "yes", 1)

    def listed(self, ref: SubjectRef, name: str) -> Sequence[str]:
        """A list of names of a subject, or of its account; empty where nobody said it."""
        value = self._inherited(ref, name)
        if isinstance(value, str):
            value = [each.strip() for each in value.split(",")]
        return list(dict.fromkeys(str(each) for each in value if each)) if isinstance(value, list) else ()

    def onboarding_days(self, ref: SubjectRef) -> int:
        """How long onboarding lasts at most."""
        value = self._inherited(ref, ONBOARDING_DAYS)
        is_number = isinstance(value, int | float) and not isinstance(value, bool)
        return int(value if is_number and value >= 0 else _ONBOARDING_DAYS)

    def is_for_setup(self, ref: SubjectRef) -> bool:
        """Whether a user has a role that is needed for the set-up only."""
        role = self.of.get(ref, {}).get(ROLE)
        account = SubjectRef(Subject.ACCOUNT, ref.account, ref.account)
        return role is not None and role in (self.listed(account, SETUP_ROLES) or _SETUP_ROLES)

    def users(self, name: str) -> list[SubjectRef]:
        """The users of whom something is so."""
        return [ref for ref in self.of if ref.subject is Subject.USER and self.flag(ref, name)]

    def _inherited(self, ref: SubjectRef, name: str) -> Any:
        own = self.of.get(ref, {}).get(name)
        if own is not None:
            return own
        return self.of.get(SubjectRef(Subject.ACCOUNT, ref.account, ref.account), {}).get(name)


async def read_conventions(snapshot: Snapshot, accounts: Sequence[str] | None, as_of: date) -> Conventions:
    """What was said of the subjects of these accounts (None: of all) before a UTC day."""
    rows = await snapshot.fetch(sql("measures.list_attributes"), [accounts, as_of, _NAMES])
    of: dict[SubjectRef, dict[str, Any]] = {}
    for row in rows:
        ref = SubjectRef(Subject(row["subject"]), row["account"], row["key"])
        of.setdefault(ref, {})[row["name"]] = msgspec.json.decode(row["value"])
    return Conventions(of)


def columns_of(users: Sequence[SubjectRef]) -> Columns:
    """Users as statements take them: their accounts, and their keys."""
    return [ref.account for ref in users], [ref.key for ref in users]
