"""Liveness and readiness: whether the service can do its work. ("Health" is a customer's; see docs/glossary.md.)"""

import time
from datetime import timedelta
from enum import Enum
from typing import Final

import msgspec

from metering.errors import MeteringError
from metering.store import migrate
from metering.store.pool import Database
from metering.store.queries import sql

# The refresher rolls an hour up minutes after it ended; three hours behind, something is wrong with it.
_ROLLUP_LAG_WARN: Final = timedelta(hours=3)


class Status(Enum):
    """How a check came out."""

    PASS = "PASS"  # noqa: S105 - not a password
    WARN = "WARN"
    FAIL = "FAIL"


class Check(msgspec.Struct, frozen=True, omit_defaults=True):
    """One check: what was looked at, how it came out, what was seen, and how long it took."""

    name: str
    status: Status
    detail: str
    milliseconds: float
    # What is said to anybody instead of the detail, where that tells of accounts.
    outside: str | None = None

    @property
    def for_anybody(self) -> "Check":
        """The same as whoever shows no key may see it."""
        return self if self.outside is None else msgspec.structs.replace(self, detail=self.outside, outside=None)


class Readiness(msgspec.Struct, frozen=True):
    """All checks; the status is the worst of them."""

    checks: tuple[Check, ...]

    @property
    def status(self) -> Status:
        """FAIL when anything failed, else WARN when anything warns."""
        order = [Status.PASS, Status.WARN, Status.FAIL]
        return max((check.status for check in self.checks), key=order.index)


async def read_readiness(database: Database) -> Readiness:
    """Look whether the database answers, is migrated to this release, and how far the rollups are."""
    started = time.perf_counter()
    try:
        async with database.connection() as connection:
            revision = await connection.fetchval(sql("probes.read_revision"))
            row = await connection.fetchrow(sql("rollups.count_pending"))
    except MeteringError as error:
        return Readiness((Check("database", Status.FAIL, str(error), _milliseconds_since(started)),))
    assert row is not None, "the first migration puts one row there"
    milliseconds = _milliseconds_since(started)
    lag = row["now"] - row["complete_at"]
    needed = migrate.head()
    migrated = Status.PASS if revision == needed else Status.FAIL
    rolled_up = Status.WARN if lag > _ROLLUP_LAG_WARN else Status.PASS
    complete = f"complete up to {row['complete_at']:%FT%TZ}"
    return Readiness(
        (
            Check("database", Status.PASS, f"{database.engine.value} answers", milliseconds),
            Check("migrations", migrated, f"at {revision}, this release needs {needed}", milliseconds),
            Check(
                "rollups",
                rolled_up,
                f"{complete}, {row['pending']:,} pending",
                milliseconds,
                # How much is pending grows with what any account sends late.
                outside=complete,
            ),
        )
    )


def _milliseconds_since(started: float) -> float:
    return round((time.perf_counter() - started) * 1_000, 3)
