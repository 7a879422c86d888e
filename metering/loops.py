"""Loops: background work that is done again and again. What became of each run stands in the table `background_loop`, one row
for each loop, so that every process can say how all of them fare, whichever runs them.
"""

import os
import socket
from collections.abc import Callable
from contextlib import AbstractContextManager
from datetime import datetime, timedelta
from typing import Final

import msgspec

from metering.errors import DatabaseUnavailableError, MeteringError
from metering.limits import Limits
from metering.spans import Span, begin
from metering.store.pool import Database
from metering.store.queries import sql
from metering.telemetry import logger

# Every loop that there is; docs/operating.md says what each does, and what its lag is.
LOOPS: Final = (
    "alerts",
    "columnstore",
    "deliveries",
    "forgetting",
    "make_ahead",
    "refresh",
    "retention",
    "scoring",
)
# That a loop ran is noted so often: a row that changes twice a second would be a lot of changes.
NOTED_EVERY: Final = timedelta(seconds=5)
# What is no error that a caller can act on.
_UNFORESEEN: Final = "internal"


class Loop(msgspec.Struct, frozen=True, kw_only=True):
    """How a loop fares. Nothing is known of one that never ran."""

    name: str
    # The process that ran it last, by its machine and number, and since when it does without another one between.
    process: str | None
    led_since: datetime | None
    # When its last run began, and when one ended well last.
    started_at: datetime | None
    ran_at: datetime | None
    # How far behind its work is; see docs/operating.md.
    lag: timedelta | None
    # Runs that failed since one ended well; and of the last that failed: when, the code of the error, and its words.
    failures: int
    failed_at: datetime | None
    fault_code: str | None
    fault: str | None


async def read_loops(database: Database) -> list[Loop]:
    """How each loop fares, by name. Raises DatabaseUnavailableError."""
    async with database.connection() as connection:
        return [Loop(**row) for row in await connection.fetch(sql("loops.list_all"), LOOPS)]


def this_process() -> str:
    """How this process is named on record: its machine, and its number there."""
    return f"{socket.gethostname()}:{os.getpid()}"


def traced_run(name: str) -> AbstractContextManager[Span | None]:
    """A run of this loop, as a span."""
    return begin(f"loop {name}", {"metering.loop": name})


class LoopLog:
    """Notes how runs of loops ended: what fails at once, and what goes well every few seconds."""

    def __init__(self, database: Database, limits: Limits, clock: Callable[[], datetime]) -> None:
        self._database = database
        self._limits = limits
        self._clock = clock
        self._process = this_process()
        # When it was noted last that a loop ran; not of one that failed since then.
        self._noted_at: dict[str, datetime] = {}

    async def ran(self, name: str, started_at: datetime) -> None:
        """A run of this loop, begun then, ended well. Raises DatabaseUnavailableError."""
        now = self._clock()
        if name in self._noted_at and now < self._noted_at[name] + NOTED_EVERY:
            return
        async with self._database.connection() as connection:
            await connection.execute(sql("loops.note_run"), name, now, started_at, self._process)
        self._noted_at[name] = now

    async def failed(self, name: str, started_at: datetime, error: Exception) -> None:
        """A run of this loop, begun then, failed: it is in the log, and noted as far as there is a database to note it in."""
        if isinstance(error, DatabaseUnavailableError):
            logger().warning(f"{name}_postponed", reason=str(error))
        else:
            logger().error(f"{name}_failed", exc_info=error)
        # That it goes on is noted at once.
        self._noted_at.pop(name, None)
        code = error.code if isinstance(error, MeteringError) else _UNFORESEEN
        fault = f"{type(error).__name__}: {error}"[: self._limits.delivery_fault_chars_max].replace("\0", "")
        try:
            async with self._database.connection() as connection:
                await connection.execute(
                    sql("loops.note_failure"), name, self._clock(), started_at, self._process, code, fault
                )
        except Exception as unnoted:  # noqa: BLE001 - whoever works outlives that it cannot be noted
            logger().warning(f"{name}_failure_unnoted", reason=str(unnoted))
