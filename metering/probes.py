"""Liveness and readiness: whether the service can do its work. ("Health" is a customer's; see docs/glossary.md.)"""

import time
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from enum import Enum
from typing import Any, Final

import msgspec

from metering.errors import MeteringError, SchemaError
from metering.lead import LEAD_LOCK
from metering.store import migrate
from metering.store.pool import Database
from metering.store.queries import sql

# The refresher rolls an hour up minutes after it ended; three hours behind, something is wrong with it.
_ROLLUP_LAG_WARN: Final = timedelta(hours=3)
# Both loops run several times a second, and note that every few seconds.
_NOTIFICATION_LAG_WARN: Final = timedelta(minutes=2)
_SECOND: Final = timedelta(seconds=1)
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
# A run may fail for a passing reason; the third in a row has none.
_FAILURES_WARN: Final = 3
# Whose failures the check `notifications` tells.
_OF_NOTIFICATIONS: Final = ("alerts", "deliveries")


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
    """Look whether the database answers, is migrated to this release, how far the rollups are, whether the work in the
    background is done, and whether somebody is told.
    """
    started = time.perf_counter()
    needed = migrate.head()
    try:
        rows = await _read_state(database, needed)
        state = rows[0]
        revision = state["revision"]
        migrated = Status.PASS if revision == needed else await _migrated(database, revision)
    except MeteringError as error:
        # The driver's words may name a host or a file.
        away = Check("database", Status.FAIL, str(error), _milliseconds_since(started), outside="it does not answer")
        return Readiness((away,))
    milliseconds = _milliseconds_since(started)
    # Of a new database nothing is rolled up for a moment; that nobody does so is said of the background work.
    is_new = state["complete_at"] == _EPOCH
    is_behind = not is_new and state["now"] - state["complete_at"] > _ROLLUP_LAG_WARN
    rolled_up = Status.WARN if is_behind else Status.PASS
    complete = "nothing to roll up yet" if is_new else f"complete up to {state['complete_at']:%FT%TZ}"
    loops = {row["name"]: row for row in rows if row["name"] is not None} if revision == needed else None
    return Readiness(
        (
            Check("database", Status.PASS, f"{database.engine.value} answers", milliseconds),
            Check("migrations", migrated, f"at {revision}, this release needs {needed}", milliseconds),
            Check(
                "rollups",
                rolled_up,
                f"{complete}, {state['pending']:,} pending",
                milliseconds,
                # How much is pending grows with what any account sends late.
                outside=complete,
            ),
            *(
                []
                if loops is None
                else [_background(state, loops, milliseconds), _notifications(state, loops, milliseconds)]
            ),
        )
    )


async def _read_state(database: Database, needed: str) -> Sequence[Any]:
    """The rows of the one statement; where the schema is of another release, that of what every release has."""
    try:
        async with database.connection() as connection:
            return await connection.fetch(sql("probes.read_state"))
    except SchemaError:
        async with database.connection() as connection:
            rows = await connection.fetch(sql("probes.read_state_of_any_release"))
        if rows[0]["revision"] == needed:
            # Something is missing from our own.
            raise
        return rows


def _background(state: Any, loops: Mapping[str, Any], milliseconds: float) -> Check:
    """Whether somebody works in the background, and it goes well: a warning where not, for figures are exact all the same."""
    is_led = LEAD_LOCK in state["locks"]
    faults = [] if is_led else ["no process does it: run `metering work`, or serve with METERING_WORK=true"]
    faults += [
        f"{name} failed {row['failures']:,} times in a row: {row['fault']}"
        for name, row in loops.items()
        if name not in _OF_NOTIFICATIONS and row["failures"] >= _FAILURES_WARN
    ]
    if not faults:
        return Check("background", Status.PASS, "it is done", milliseconds)
    outside = "it is not done, or fails"
    return Check("background", Status.WARN, ", ".join(faults), milliseconds, outside=outside)


def _notifications(state: Any, loops: Mapping[str, Any], milliseconds: float) -> Check:
    """Whether rules are evaluated and what is due is sent: a warning where they are not, for usage is taken all the same."""
    now, due_at = state["now"], state["due_at"]
    faults = []
    for what, name, is_needed in (
        ("nothing was sent", "deliveries", due_at is not None and now - due_at > _NOTIFICATION_LAG_WARN),
        ("no rule was evaluated", "alerts", state["has_rules"]),
    ):
        last = loops[name]["ran_at"] if name in loops else None
        if is_needed and (last is None or now - last > _NOTIFICATION_LAG_WARN):
            faults.append(f"{what} for {(now - last) // _SECOND:,} s" if last is not None else f"{what} yet")
    failed = [name for name in _OF_NOTIFICATIONS if name in loops and loops[name]["failures"]]
    faults += [f"{name} failed: {loops[name]['fault']}" for name in failed]
    faults += [f"{state['faulty_rules']:,} rules cannot be evaluated"] if state["faulty_rules"] else []
    faults += [f"{state['given_up']:,} destinations were given up"] if state["given_up"] else []
    waits = "" if due_at is None or due_at >= now else f"; what is due waits for {(now - due_at) // _SECOND:,} s"
    if not faults:
        return Check("notifications", Status.PASS, f"rules are evaluated, notifications sent{waits}", milliseconds)
    outside = "rules are not evaluated, or notifications not sent"
    return Check("notifications", Status.WARN, f"{', '.join(faults)}{waits}", milliseconds, outside=outside)


async def _migrated(database: Database, revision: str) -> Status:
    """Whether this release can work on the schema of another one: the next one's, as long as that was only added to."""
    async with database.connection() as connection:
        noted = await connection.fetchval(sql("revisions.read_tightening"))
    return Status.WARN if migrate.works_on(revision, noted) else Status.FAIL


def _milliseconds_since(started: float) -> float:
    return round((time.perf_counter() - started) * 1_000, 3)
